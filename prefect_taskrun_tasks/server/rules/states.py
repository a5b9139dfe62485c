"""States: how they are stored, what they do to their run, and which are refused."""

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Dict, List, Optional, Sequence, Tuple

from sqlalchemy import Table, Update, bindparam, func, select

from .. import tables
from ..clock import ago, normal, now
from ..errors import Outdated, Refused
from ..transaction import Row, Transaction
from . import children, deferrals, events

State = Dict[str, Any]

#: Waiting for an agent, or for their start time. What a run in one of them does next is up to the queue.
SCHEDULED = ("Scheduled", "Paused", "Queued", "Resume", "Retrying")
FINISHED = (
    "Success",
    "Failed",
    "Cached",
    "Mapped",
    "Looped",
    "Skipped",
    "Cancelled",
    "Finished",
    "TimedOut",
    "TriggerFailed",
    "ValidationFailed",
)
KNOWN = (*SCHEDULED, *FINISHED, "Pending", "Submitted", "ClientFailed", "Running", "Cancelling")

#: States that set the end time of their run. Prefect Server's triggers leave it null for the other finished ones.
ENDING = ("Success", "Failed", "Cached", "TimedOut", "Looped", "Cancelled")

#: What every serialized state has (`StateSchema` in prefect 1.4.1's serialization/state.py). The web UI reads the keys
#: of `cached_inputs` and the type of `_result`.
_COMMON: State = {"message": None, "context": {}, "cached_inputs": {}, "__version__": version("prefect")}
_NO_RESULT: State = {"_result": {"type": "NoResultType", "__version__": version("prefect")}}
_CACHED: State = {"cached_parameters": None, "cached_result_expiration": None, "hashed_inputs": None}

#: Type of a state -> what its serialized form has besides, if it is not given
_DEFAULTS: Dict[str, State] = {
    **{name: {**_COMMON, **_NO_RESULT} for name in KNOWN},
    **{name: {**_COMMON, **_NO_RESULT, "state": None} for name in ("Submitted", "Queued", "ClientFailed")},
    "Retrying": {**_COMMON, **_NO_RESULT, "run_count": 1},
    "Looped": {**_COMMON, **_NO_RESULT, "loop_count": 1},
    "Cached": {**_COMMON, **_NO_RESULT, **_CACHED},
    # its results are those of its children
    "Mapped": {**_COMMON, "n_map_states": 0},
}

#: Seconds during which a second `Submitted` for the same flow run is refused, so that two agents cannot start it
SUBMITTED_LOCK = 30

#: States that one mutation sets. Prefect's client sets one.
MOST_STATES = 500

#: Bytes of JSON
LARGEST_STATE = 1_000_000


@dataclass(frozen=True)
class Kind:
    """One of the two kinds of run, whose states are kept alike."""

    runs: Table
    states: Table
    #: name of the column of `states` that refers to the run
    key: str


FLOW_RUN = Kind(tables.flow_run, tables.flow_run_state, "flow_run_id")
TASK_RUN = Kind(tables.task_run, tables.task_run_state, "task_run_id")


def normalised(given: Any) -> State:
    """A serialized state as it is stored: whole, and with the start time that its type needs, in the one text form.

    Raises:
        Refused: no state, an unknown type, or too large.
    """
    if not isinstance(given, dict) or given.get("type") not in KNOWN:
        kind = given.get("type") if isinstance(given, dict) else given
        raise Refused(f"State update failed: {kind!r} is not the type of a Prefect state.")
    if len(json.dumps(given)) > LARGEST_STATE:
        raise Refused("State payload is too large.")
    state = _whole(given)
    if not isinstance(state["message"], (str, type(None))):
        raise Refused(f"State update failed: the message {state['message']!r} is no text.")
    if state["type"] in SCHEDULED:
        # a Paused state without a start time waits until someone resumes it; the others start now
        if state.get("start_time"):
            try:
                state["start_time"] = normal(state["start_time"])
            except (TypeError, ValueError, OverflowError):
                raise Refused(f"State update failed: start_time {state['start_time']!r} is no time.") from None
        else:
            state["start_time"] = None if state["type"] == "Paused" else now()
    return state


def _whole(given: State) -> State:
    """A serialized state with all that Prefect's schema writes for its type; null stands for what is not given."""
    # the client cannot load a result that is null
    state = {key: value for key, value in given.items() if key != "_result" or value is not None}
    state.update({key: value for key, value in _DEFAULTS[given["type"]].items() if given.get(key) is None})
    inner = state.get("state")
    if isinstance(inner, dict) and inner.get("type") in KNOWN:
        state["state"] = _whole(inner)
    return state


def record(tx: Transaction, kind: Kind, run: Row, state: State) -> None:
    """Stores a state of a run, and its copy in the run itself."""
    record_all(tx, kind, [run], state)


def record_all(tx: Transaction, kind: Kind, runs: Sequence[Row], state: State) -> None:
    """Stores the same state of several runs, in as many statements as for one."""
    if not runs:
        return
    recorded = [_recorded(kind, run, normalised(state)) for run in runs]
    tx.insert_many(kind.states, [history for history, _ in recorded])
    tx.connection.execute(
        _change(kind.runs, tuple(recorded[0][1])),
        [
            {"run_id": run["id"], **{f"new_{name}": value for name, value in changes.items()}}
            for run, (_, changes) in zip(runs, recorded)
        ],
    )
    if state["type"] in SCHEDULED:
        tx.queued = True
    if kind is FLOW_RUN:
        for run, (history, _) in zip(runs, recorded):
            tx.news.update(id for id in (run["id"], run.get("flow_id"), run.get("tenant_id")) if id)
            events.state_changed(tx, run, history)
            if state["type"] in FINISHED:
                reason = f"Flow run {run['name']!r} ({run['id']}) has ended as {state['type']}."
                for waiting in deferrals.awaiting(tx, run["id"]):
                    _wake(tx, waiting, reason)


@lru_cache(maxsize=None)
def _change(runs: Table, columns: Tuple[str, ...]) -> Update:
    """What changes columns of a run; kept, as nothing is asked for as often."""
    return (
        runs.update()
        .where(runs.c.id == bindparam("run_id"))
        .values({name: bindparam(f"new_{name}") for name in columns})
    )


def _wake(tx: Transaction, run: Row, reason: str) -> None:
    """Makes a task run due that waits without a process."""
    state = {**run["serialized_state"], "message": reason, "start_time": deferrals.due(run["state_timestamp"])}
    record(tx, TASK_RUN, run, state)


def delete(tx: Transaction, table: Table, *where: Any) -> int:
    """Deletes rows that have flow runs, and wakes who waits for one of those; returns how many there were."""
    count = tx.delete(table, *where)
    for run in deferrals.bereft(tx) if count else ():
        _wake(tx, run, f"There is no flow run {deferrals.awaited_by(run['serialized_state'])}.")
    return count


def _recorded(kind: Kind, run: Row, state: State) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """The row of the run's history, and the values of its own columns."""
    if kind is TASK_RUN and not state.get("cached_inputs") and run["serialized_state"].get("cached_inputs"):
        # the client writes an empty object where there are none, and reads its inputs back from here
        state["cached_inputs"] = run["serialized_state"]["cached_inputs"]
    name, timestamp = state["type"], now()
    start_time = state.get("start_time") if name in SCHEDULED else None
    latest = {"version": (run["version"] or 0) + 1, "state": name, "serialized_state": state}
    history = {
        **latest,
        kind.key: run["id"],
        "tenant_id": run["tenant_id"],
        "timestamp": timestamp,
        "message": state.get("message"),
        "start_time": start_time,
    }
    begins, ends = run.get("start_time"), run.get("end_time")
    changes = {
        **latest,
        "state_timestamp": timestamp,
        "state_message": state.get("message"),
        "state_result": None,
        # also when it is null: this is what takes a run out of the queue
        "state_start_time": start_time,
        "start_time": min(begins or timestamp, timestamp) if name == "Running" else begins,
        "end_time": max(ends or timestamp, timestamp) if name in ENDING else ends,
        "heartbeat": timestamp if _is_alive(kind, name) else run.get("heartbeat"),
    }
    return history, changes


def _is_alive(kind: Kind, name: str) -> bool:
    return name == "Running" or (kind is FLOW_RUN and name in ("Cancelling", "Submitted"))


def set_flow_run_states(tx: Transaction, states: List[Dict[str, Any]]) -> Row:
    _check_count(states)
    return {"states": [_set_flow_run_state(tx, each["flow_run_id"], each["state"]) for each in states]}


def _check_count(states: List[Dict[str, Any]]) -> None:
    if len(states) > MOST_STATES:
        raise Refused(f"State update failed: one mutation sets at most {MOST_STATES} states, not {len(states):,}.")


def _set_flow_run_state(tx: Transaction, flow_run_id: str, state: State) -> Row:
    run = tx.get(tables.flow_run, flow_run_id)
    if run is None:
        raise Refused(f"State update failed for flow run ID {flow_run_id}: there is no such flow run.")
    name = normalised(state)["type"]
    # of two agents that submit it, one comes too late
    is_its_agent = tx.agent_id is not None and run["agent_id"] == tx.agent_id
    if _is_replay(tx, run, state) and (name != "Submitted" or is_its_agent):
        return _note_life(tx, FLOW_RUN, run)
    if name == "Submitted":
        if run["state"] in FINISHED:
            # an agent that took it from the queue before it was cancelled
            raise Refused("State update failed: this run has already finished.")
        if run["state"] not in SCHEDULED and _submitted_lately(tx, flow_run_id):
            raise Refused("State update failed: this run has already been submitted.")
    if name == "Running" and run["state"] == "Cancelled":
        # its process was being started when it was cancelled
        raise Outdated(f"State update failed for flow run ID {flow_run_id}: this run has been cancelled.")
    if name == "Cancelled":
        _cancel_task_runs(tx, flow_run_id, state)
    has_no_process = name == "Cancelling" and deferrals.has_no_process(tx, run)
    record(tx, FLOW_RUN, run, state)
    if name in ("Cancelling", "Cancelled"):
        _cancel_children(tx, run)
    if has_no_process:
        # nobody else would end it
        _set_flow_run_state(tx, flow_run_id, {"type": "Cancelled", "message": "Flow run is cancelled"})
    if name == "Submitted" and tx.agent_id and tx.get(tables.agent, tx.agent_id):
        tx.update(tables.flow_run, tables.flow_run.c.id == flow_run_id, agent_id=tx.agent_id)
    return {"id": run["id"], "status": "SUCCESS"}


def cancel_flow_run(tx: Transaction, flow_run_id: str) -> Row:
    """A run that has a process is asked to stop; one that has none is cancelled at once."""
    run = tx.get(tables.flow_run, flow_run_id)
    if run is None:
        raise Refused(f"Flow run {flow_run_id} not found.")
    if run["state"] in FINISHED:
        return {"state": run["state"]}
    name = "Cancelling" if run["state"] in ("Running", "Cancelling") else "Cancelled"
    _set_flow_run_state(tx, flow_run_id, {"type": name, "message": f"Flow run is {name.lower()}"})
    run = tx.get(tables.flow_run, flow_run_id)
    assert run is not None
    return {"state": run["state"]}


def _cancel_children(tx: Transaction, parent: Row) -> None:
    for child in children.cancelled_with_parent(tx, parent):
        # a run that is its own ancestor would go on for ever
        if child["state"] != "Cancelling":
            cancel_flow_run(tx, child["id"])


def _is_replay(tx: Transaction, run: Row, state: State) -> bool:
    """Whether it is the latest state of the run, said once more: the client resends a request that timed out."""
    # what was not given was made up when it was stored
    made_up = set() if state.get("cached_inputs") else {"cached_inputs"}
    if not state.get("start_time") and state["type"] != "Paused" and (run["state_start_time"] or "") <= now():
        # one that is still to come was given by somebody, and is not meant any more; Paused never gets one made up
        made_up.add("start_time")
    elif deferrals.awaited_by(state):
        start_time = normalised(state)["start_time"]
        if now() < start_time < (run["state_start_time"] or ""):
            # it was put off since; one that is due is to wake it
            made_up.add("start_time")

    def given(state: State) -> State:
        return {name: value for name, value in state.items() if name not in made_up}

    if run["state"] != state["type"]:
        return False
    return bool(given(_whole(run["serialized_state"])) == tx.as_stored(given(normalised(state))))


def _note_life(tx: Transaction, kind: Kind, run: Row) -> Row:
    """Of a state that is stored already, all that is new is that somebody has said it."""
    if _is_alive(kind, run["state"]):
        tx.update(kind.runs, kind.runs.c.id == run["id"], heartbeat=now())
    return {"id": run["id"], "status": "SUCCESS"}


def _submitted_lately(tx: Transaction, flow_run_id: str) -> bool:
    states = tables.flow_run_state
    lately = select(states.c.id).where(
        states.c.flow_run_id == flow_run_id,
        states.c.state == "Submitted",
        states.c.timestamp > ago(SUBMITTED_LOCK),
    )
    return tx.row(lately) is not None


def _cancel_task_runs(tx: Transaction, flow_run_id: str, state: State) -> None:
    runs = tables.task_run
    unfinished = select(runs).where(runs.c.flow_run_id == flow_run_id, runs.c.state.not_in(FINISHED))
    record_all(tx, TASK_RUN, tx.rows(unfinished), state)


def set_task_run_states(tx: Transaction, states: List[Dict[str, Any]]) -> Row:
    _check_count(states)
    return {"states": [_set_task_run_state(tx, each["task_run_id"], each["state"]) for each in states]}


def _set_task_run_state(tx: Transaction, task_run_id: str, state: State) -> Row:
    run = tx.get(tables.task_run, task_run_id)
    if run is None:
        raise Refused(f"State update failed for task run ID {task_run_id}: there is no such task run.")
    name = normalised(state)["type"]
    if name in ("Running", "Cancelling"):
        flow_run = tx.get(tables.flow_run, run["flow_run_id"])
        # so the tasks of a cancelled flow run stop: the task runner ends them as ClientFailed
        if flow_run is None or flow_run["state"] != "Running":
            found = flow_run["state"] if flow_run else "deleted"
            raise Refused(
                f"State update failed for task run ID {task_run_id}: its flow run {run['flow_run_id']} is not "
                f"Running but {found}."
            )
    if name == "Submitted" and _has_another_agent(tx, run["flow_run_id"]):
        raise Refused("State update failed: the flow run of this task run has already been submitted.")
    if _is_replay(tx, run, state):
        return _note_life(tx, TASK_RUN, run)
    awaited = deferrals.awaited_by(state)
    if awaited:
        awaited_run = tx.get(tables.flow_run, awaited)
        if awaited_run is None or awaited_run["state"] in FINISHED:
            # it has ended since the task run has looked
            state = {**state, "start_time": deferrals.due()}
        elif run["state"] != "Scheduled":
            # whatever comes after that wakes it, or puts it off
            state = deferrals.asleep(normalised(state))
    record(tx, TASK_RUN, run, state)
    if name == "Submitted":
        # an agent is about to start a process for the flow run, whose last one may have been silent for long
        agent = {"agent_id": tx.agent_id} if tx.agent_id and tx.get(tables.agent, tx.agent_id) else {}
        tx.update(tables.flow_run, tables.flow_run.c.id == run["flow_run_id"], heartbeat=now(), **agent)
    return {"id": run["id"], "status": "SUCCESS"}


def _has_another_agent(tx: Transaction, flow_run_id: str) -> bool:
    """Whether of two agents that begin a running flow run again, for what is due in it, this one comes too late."""
    runs = tables.task_run
    lately = select(runs.c.id).where(
        runs.c.flow_run_id == flow_run_id, runs.c.state == "Submitted", runs.c.state_timestamp > ago(SUBMITTED_LOCK)
    )
    flow_run = tx.get(tables.flow_run, flow_run_id)
    if flow_run is None or tx.agent_id is None or flow_run["agent_id"] in (None, tx.agent_id):
        return False
    return tx.row(lately) is not None


def count_of(tx: Transaction, kind: Kind, run_id: str, name: str) -> int:
    """How often a run has been in the state `name`."""
    column = kind.states.c[kind.key]
    counted = select(func.count()).where(column == run_id, kind.states.c.state == name)
    return int(tx.connection.execute(counted).scalar_one())


def set_start(tx: Transaction, flow_run_id: str, message: str, start_time: Optional[str] = None) -> None:
    """Puts a flow run into the queue, to start at `start_time` (default: now)."""
    run = tx.get(tables.flow_run, flow_run_id)
    assert run is not None
    record(tx, FLOW_RUN, run, {"type": "Scheduled", "message": message, "start_time": start_time})
