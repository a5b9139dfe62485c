"""What a state does to its run, and which states are refused."""

from typing import Any, Iterator, List

import pendulum
import pytest
import stored
from prefect.engine.state import (
    Cancelled,
    ClientFailed,
    Failed,
    Looped,
    Mapped,
    Paused,
    Pending,
    Queued,
    Retrying,
    Running,
    Scheduled,
    State,
    Submitted,
    Success,
)
from prefect.serialization.state import StateSchema
from sqlalchemy import event

from prefect_taskrun_tasks.server import tables
from prefect_taskrun_tasks.server.clock import ago
from prefect_taskrun_tasks.server.errors import Outdated, Refused
from prefect_taskrun_tasks.server.rules import agents, states
from prefect_taskrun_tasks.server.transaction import Transaction

START = "2031-01-01T00:00:00.000000+00:00"


@pytest.fixture
def tx(database_url: str) -> Iterator[Transaction]:
    with stored.transaction(database_url) as tx:
        yield tx


@pytest.fixture
def run_id(tx: Transaction) -> str:
    return stored.flow_run_id(tx)


def test_a_run_shows_its_latest_state(tx: Transaction, run_id: str) -> None:
    stored.set_state(tx, run_id, "Failed", message="no luck", context={"tags": ["x"]})
    run = stored.flow_run(tx, run_id)
    latest = stored.rows(tx, tables.flow_run_state, flow_run_id=run_id)[-1]
    state = Failed("no luck", context={"tags": ["x"]}).serialize()
    assert run["serialized_state"] == latest["serialized_state"] == state
    assert (run["state"], run["state_message"], run["version"]) == ("Failed", "no luck", 2)
    assert (latest["state"], latest["message"], latest["version"]) == ("Failed", "no luck", 2)
    assert run["state_timestamp"] == latest["timestamp"]


def test_the_history_keeps_every_state_in_order(tx: Transaction, run_id: str) -> None:
    """T19."""
    for number, name in enumerate(("Submitted", "Running", "Running", "Success")):
        stored.set_state(tx, run_id, name, message=str(number))
    assert stored.history(tx, run_id) == ["Scheduled", "Submitted", "Running", "Running", "Success"]
    rows = stored.rows(tx, tables.flow_run_state, flow_run_id=run_id)
    assert [row["version"] for row in rows] == [1, 2, 3, 4, 5]
    timestamps = [row["timestamp"] for row in rows]
    assert timestamps == sorted(set(timestamps))


STATES_AS_SENT = [
    {"type": "Running", "message": "runs", "context": {"tags": []}, "cached_inputs": {}, "_result": None},
    {"type": "Scheduled", "message": "later"},
    {"type": "Retrying", "start_time": "2020-01-01T00:00:00Z", "run_count": 2},
    {"type": "Success", "_result": {"type": "LocalResult", "location": "here"}},
]


@pytest.mark.parametrize("state", STATES_AS_SENT)
def test_a_state_of_a_flow_run_that_is_sent_again_is_stored_once(tx: Transaction, run_id: str, state: Any) -> None:
    for _ in range(7):
        assert states.set_flow_run_states(tx, [{"flow_run_id": run_id, "state": dict(state)}])["states"]
    assert stored.history(tx, run_id) == ["Scheduled", state["type"]]
    # said by somebody else, or after another, it is new
    stored.set_state(tx, run_id, **{**state, "message": "other"})
    states.set_flow_run_states(tx, [{"flow_run_id": run_id, "state": dict(state)}])
    assert stored.history(tx, run_id) == ["Scheduled", *[state["type"]] * 3]


@pytest.mark.parametrize("state", STATES_AS_SENT)
def test_a_state_of_a_task_run_that_is_sent_again_is_stored_once(tx: Transaction, run_id: str, state: Any) -> None:
    stored.set_state(tx, run_id, "Running")
    task_run_id = stored.task_runs(tx, run_id)[0]["id"]
    stored.set_task_state(tx, task_run_id, "Pending", cached_inputs={"x": {"type": "LocalResult"}})
    for _ in range(7):
        states.set_task_run_states(tx, [{"task_run_id": task_run_id, "state": dict(state)}])
    assert stored.task_history(tx, task_run_id) == ["Pending", "Pending", state["type"]]


@pytest.mark.parametrize("name", ["Scheduled", "Retrying"])
def test_a_state_that_starts_now_is_not_taken_for_one_that_starts_tomorrow(
    tx: Transaction, run_id: str, name: str
) -> None:
    stored.set_state(tx, run_id, name, message="m", start_time=START)
    for _ in range(2):
        stored.set_state(tx, run_id, name, message="m")
    assert stored.history(tx, run_id) == ["Scheduled", name, name]
    assert ago(60) < stored.flow_run(tx, run_id)["state_start_time"] <= ago(0)


@pytest.mark.parametrize("start_time", [START, "2020-01-01T00:00:00Z"])
def test_a_pause_without_an_end_is_not_taken_for_one_that_ends(tx: Transaction, run_id: str, start_time: str) -> None:
    stored.set_state(tx, run_id, "Paused", message="m", start_time=start_time)
    for _ in range(2):
        stored.set_state(tx, run_id, "Paused", message="m")
    assert stored.history(tx, run_id) == ["Scheduled", "Paused", "Paused"]
    assert stored.flow_run(tx, run_id)["state_start_time"] is None


def test_that_a_flow_run_runs_is_a_sign_of_life_also_when_it_is_said_again(tx: Transaction, run_id: str) -> None:
    stored.set_state(tx, run_id, "Running")
    stored.no_heartbeat_for(tx, run_id, 1000)
    stored.set_state(tx, run_id, "Running")
    assert stored.flow_run(tx, run_id)["heartbeat"] > ago(100)


@pytest.mark.parametrize("name", ["Submitted", "Running", "Cancelling", "Success", "Failed", "Pending", "ClientFailed"])
def test_a_state_that_waits_for_nothing_takes_the_run_out_of_the_queue(tx: Transaction, run_id: str, name: str) -> None:
    """T15: else it would be deployed for ever."""
    assert stored.flow_run(tx, run_id)["state_start_time"] is not None
    stored.set_state(tx, run_id, name)
    assert stored.flow_run(tx, run_id)["state_start_time"] is None


def test_start_time_is_when_a_run_first_ran(tx: Transaction, run_id: str) -> None:
    stored.set_state(tx, run_id, "Running")
    first = stored.flow_run(tx, run_id)["start_time"]
    stored.set_state(tx, run_id, "Failed")
    stored.set_state(tx, run_id, "Running")
    assert stored.flow_run(tx, run_id)["start_time"] == first is not None


@pytest.mark.parametrize("name", ["Submitted", "Cancelling", "Pending"])
def test_only_running_starts_a_run(tx: Transaction, run_id: str, name: str) -> None:
    stored.set_state(tx, run_id, name)
    assert stored.flow_run(tx, run_id)["start_time"] is None


def test_end_time_is_when_a_run_last_finished_and_stays_over_a_restart(tx: Transaction, run_id: str) -> None:
    stored.set_state(tx, run_id, "Failed")
    first = stored.flow_run(tx, run_id)["end_time"]
    stored.set_state(tx, run_id, "Running")
    assert stored.flow_run(tx, run_id)["end_time"] == first
    stored.set_state(tx, run_id, "Success")
    assert stored.flow_run(tx, run_id)["end_time"] > first


@pytest.mark.parametrize("name", states.FINISHED)
def test_a_run_has_an_end_time_after_those_states_that_set_one_in_prefect_server(
    tx: Transaction, run_id: str, name: str
) -> None:
    """The web UI would show an end without a start of runs that never ran."""
    stored.set_state(tx, run_id, name)
    is_set = name in ("Success", "Failed", "Cached", "TimedOut", "Looped", "Cancelled")
    assert (stored.flow_run(tx, run_id)["end_time"] is not None) == is_set


@pytest.mark.parametrize("name", ["Running", "Cancelling", "Submitted"])
def test_a_flow_run_that_gets_a_process_gets_a_heartbeat(tx: Transaction, run_id: str, name: str) -> None:
    stored.set_state(tx, run_id, name)
    assert stored.flow_run(tx, run_id)["heartbeat"] is not None


@pytest.mark.parametrize("name", ["Pending", "Success", "Retrying"])
def test_other_states_are_no_heartbeat(tx: Transaction, run_id: str, name: str) -> None:
    stored.set_state(tx, run_id, name)
    assert stored.flow_run(tx, run_id)["heartbeat"] is None


@pytest.mark.parametrize(
    "state",
    [
        Pending("p", context={"tags": ["t"], "task_run_count": 2}),
        Running(),
        Success("s", result=1),
        Failed("f"),
        Cancelled("c"),
        Mapped(n_map_states=3),
        Looped(loop_count=2),
        Scheduled(start_time=pendulum.datetime(2031, 1, 1, microsecond=5)),
        Retrying(start_time=pendulum.datetime(2031, 1, 1, microsecond=5), run_count=2),
        Paused(),
        Submitted(state=Retrying(start_time=pendulum.datetime(2031, 1, 1, microsecond=5), run_count=2)),
        Queued(state=Running(), start_time=pendulum.datetime(2031, 1, 1, microsecond=5)),
        ClientFailed(state=Failed("x")),
    ],
    ids=lambda state: type(state).__name__,
)
def test_prefects_states_are_stored_whole(tx: Transaction, run_id: str, state: State) -> None:
    """T18: a state that lost something loses attempts, children or results."""
    serialized = state.serialize()
    states.set_flow_run_states(tx, [{"flow_run_id": run_id, "state": serialized}])
    run = stored.flow_run(tx, run_id)
    assert run["serialized_state"] == serialized
    assert run["state"] == type(state).__name__
    assert State.deserialize(run["serialized_state"]).serialize() == serialized


@pytest.mark.parametrize("name", ["Scheduled", "Resume", "Retrying", "Queued"])
@pytest.mark.parametrize("given", [{}, {"start_time": None}])
def test_a_scheduled_state_without_a_start_time_starts_now(tx: Transaction, run_id: str, name: str, given: Any) -> None:
    """T16: a null there makes the agent deploy nothing at all."""
    stored.set_state(tx, run_id, name, **given)
    run = stored.flow_run(tx, run_id)
    assert ago(60) < run["state_start_time"] <= ago(0)
    assert run["serialized_state"]["start_time"] == run["state_start_time"]


def test_a_paused_state_without_a_start_time_waits_until_it_is_resumed(tx: Transaction, run_id: str) -> None:
    stored.set_state(tx, run_id, "Paused")
    run = stored.flow_run(tx, run_id)
    assert run["state_start_time"] is None
    assert run["serialized_state"]["start_time"] is None


@pytest.mark.parametrize("text", ["2031-01-01T00:00:00Z", "2031-01-01T00:00:00", "2031-01-01T02:00:00.0+02:00"])
def test_the_start_time_of_a_state_is_stored_in_the_one_form(tx: Transaction, run_id: str, text: str) -> None:
    """T14."""
    stored.set_state(tx, run_id, "Scheduled", start_time=text)
    run = stored.flow_run(tx, run_id)
    assert run["state_start_time"] == run["serialized_state"]["start_time"] == START
    assert stored.rows(tx, tables.flow_run_state, flow_run_id=run_id)[-1]["start_time"] == START


@pytest.mark.parametrize("name", states.KNOWN)
@pytest.mark.parametrize("given", [{}, {"_result": None, "context": None, "cached_inputs": None}])
def test_a_state_is_stored_as_prefects_schema_writes_it(tx: Transaction, run_id: str, name: str, given: Any) -> None:
    """The web UI reads keys that a caller may leave out, and the client cannot load a result that is null."""
    start_time = {"start_time": START} if name in states.SCHEDULED else {}
    stored.set_state(tx, run_id, name, message="m", **start_time, **given)
    prefects = StateSchema().dump(StateSchema().load({"type": name, "message": "m", **start_time}))
    assert stored.flow_run(tx, run_id)["serialized_state"] == {**prefects, **start_time}


def test_a_state_within_a_state_is_stored_whole(tx: Transaction, run_id: str) -> None:
    stored.set_state(tx, run_id, "Submitted", state={"type": "Scheduled", "start_time": START})
    inner = stored.flow_run(tx, run_id)["serialized_state"]["state"]
    assert inner == {**Scheduled(start_time=pendulum.parse(START)).serialize(), "start_time": START}


def test_the_states_that_the_backend_makes_are_whole(tx: Transaction, run_id: str) -> None:
    created = [stored.flow_run(tx, run_id), *stored.task_runs(tx, run_id)]
    states.cancel_flow_run(tx, run_id)
    cancelled = [stored.flow_run(tx, run_id), *stored.task_runs(tx, run_id)]
    for run in created + cancelled:
        assert State.deserialize(run["serialized_state"]).serialize() == run["serialized_state"]
    assert [run["state"] for run in created[1:]] == ["Pending"] * 2


def test_a_state_of_an_earlier_version_that_is_sent_again_is_stored_once(tx: Transaction, run_id: str) -> None:
    """Earlier versions stored what they were sent."""
    stored.set_state(tx, run_id, "Running", message="runs")
    runs = tables.flow_run
    tx.update(runs, runs.c.id == run_id, serialized_state={"type": "Running", "message": "runs"})
    stored.set_state(tx, run_id, "Running", message="runs")
    assert stored.history(tx, run_id) == ["Scheduled", "Running"]


def test_a_message_of_any_characters_is_stored(tx: Transaction, run_id: str) -> None:
    stored.set_state(tx, run_id, "Failed", message="no file 'caf\udce9' 👋 \x00")
    # the character 0 may be kept or not
    assert stored.flow_run(tx, run_id)["state_message"].replace("\0", "?") == "no file 'caf?' 👋 ?"


@pytest.mark.parametrize(
    "state",
    [
        None,
        "Running",
        [],
        {},
        {"type": None},
        {"type": ["Running"]},
        {"type": "running"},
        {"type": "Unheard"},
        {"type": "Failed", "message": {"a": 1}},
        {"type": "Scheduled", "start_time": 1700000000.5},
        {"type": "Scheduled", "start_time": "soon"},
        {"type": "Scheduled", "start_time": "0001-01-01T00:00:00+14:00"},
        {"type": "Scheduled", "start_time": {"at": "noon"}},
    ],
)
def test_what_is_no_state_is_refused(tx: Transaction, run_id: str, state: Any) -> None:
    with pytest.raises(Refused, match="State update failed"):
        states.set_flow_run_states(tx, [{"flow_run_id": run_id, "state": state}])
    assert stored.history(tx, run_id) == ["Scheduled"]


def test_a_state_may_be_a_megabyte_and_not_more(tx: Transaction, run_id: str) -> None:
    room = states.LARGEST_STATE - len('{"type": "Failed", "message": ""}')
    stored.set_state(tx, run_id, "Failed", message="x" * room)
    with pytest.raises(Refused, match="too large"):
        stored.set_state(tx, run_id, "Failed", message="x" * (room + 1))


def test_a_state_of_an_unknown_run_is_refused_in_words_that_the_agent_knows(tx: Transaction) -> None:
    with pytest.raises(Refused, match="State update failed for flow run ID"):
        stored.set_state(tx, tables.new_id(), "Running")
    with pytest.raises(Refused, match="State update failed for task run ID"):
        stored.set_task_state(tx, tables.new_id(), "Success")


def test_any_version_and_any_order_of_states_is_accepted(tx: Transaction, run_id: str) -> None:
    """T21: the agent and the runner send versions that are out of date."""
    for name in ("Success", "Pending", "Running", "Cancelled", "Scheduled"):
        states.set_flow_run_states(tx, [{"flow_run_id": run_id, "state": {"type": name}, "version": 1}])
    assert stored.history(tx, run_id)[1:] == ["Success", "Pending", "Running", "Cancelled", "Scheduled"]


def test_a_cancelled_flow_run_cannot_run_unless_it_is_scheduled_again(tx: Transaction, run_id: str) -> None:
    for name in ("Submitted", "Cancelled"):
        stored.set_state(tx, run_id, name)
    with pytest.raises(Outdated, match="has been cancelled"):
        stored.set_state(tx, run_id, "Running")
    assert stored.flow_run(tx, run_id)["state"] == "Cancelled"
    for name in ("Scheduled", "Submitted", "Running"):
        stored.set_state(tx, run_id, name)
    assert stored.flow_run(tx, run_id)["state"] == "Running"


def test_answers_come_in_the_order_of_the_states(tx: Transaction) -> None:
    """T26."""
    flow_id = stored.flow_id(tx)
    ids = [stored.flow_run_id(tx, flow_id=flow_id) for _ in range(5)]
    wanted = [{"flow_run_id": id, "state": {"type": "Running"}} for id in reversed(ids)]
    answer = states.set_flow_run_states(tx, wanted)["states"]
    assert answer == [{"id": id, "status": "SUCCESS"} for id in reversed(ids)]


def test_a_second_submitted_is_refused_for_half_a_minute(tx: Transaction, run_id: str) -> None:
    """T22: it is all that keeps two agents from starting one run."""
    stored.set_state(tx, run_id, "Submitted")
    with pytest.raises(Refused, match=r"^State update failed: this run has already been submitted\.$"):
        stored.set_state(tx, run_id, "Submitted")
    stored.set_state(tx, run_id, "Running")
    with pytest.raises(Refused, match="already been submitted"):
        stored.set_state(tx, run_id, "Submitted")


def test_the_lock_of_submitted_expires(tx: Transaction, run_id: str) -> None:
    """T22: else a run that was lost could never be started again."""
    stored.set_state(tx, run_id, "Submitted")
    tx.update(tables.flow_run_state, timestamp=ago(states.SUBMITTED_LOCK + 1))
    stored.set_state(tx, run_id, "Submitted")
    assert stored.history(tx, run_id) == ["Scheduled", "Submitted", "Submitted"]


def test_a_run_that_is_scheduled_again_can_be_submitted_at_once(tx: Transaction, run_id: str) -> None:
    for name in ("Submitted", "Scheduled", "Submitted"):
        stored.set_state(tx, run_id, name)
    assert stored.history(tx, run_id) == ["Scheduled", "Submitted", "Scheduled", "Submitted"]


def test_submitted_of_one_run_does_not_lock_another(tx: Transaction, run_id: str) -> None:
    stored.set_state(tx, run_id, "Submitted")
    stored.set_state(tx, stored.flow_run_id(tx), "Submitted")


def test_of_two_agents_one_begins_a_running_run_again(tx: Transaction) -> None:
    """Each submits what is due in it, and then starts a process."""
    first, second = (agents.register_agent(tx, "LocalAgent", name=name)["id"] for name in ("one", "two"))
    run_id = stored.running(tx)
    one, two = (row["id"] for row in stored.task_runs(tx, run_id))
    tx.agent_id = first
    for id in (one, one, two):
        stored.set_task_state(tx, id, "Submitted", state={"type": "Scheduled"})
    assert stored.flow_run(tx, run_id)["agent_id"] == first
    tx.agent_id = second
    for id in (one, two):
        with pytest.raises(Refused, match=r"^State update failed: .* has already been submitted\."):
            stored.set_task_state(tx, id, "Submitted", state={"type": "Scheduled"})
    # of another run, or when that process is lost
    stored.set_task_state(tx, stored.task_runs(tx, stored.running(tx))[0]["id"], "Submitted")
    tx.update(tables.task_run, tables.task_run.c.flow_run_id == run_id, state_timestamp=ago(states.SUBMITTED_LOCK))
    stored.set_task_state(tx, one, "Submitted")
    assert stored.flow_run(tx, run_id)["agent_id"] == second


def test_submitted_notes_the_agent_and_another_agent_is_locked_out(tx: Transaction, run_id: str) -> None:
    first, second = (agents.register_agent(tx, "LocalAgent", name=name)["id"] for name in ("one", "two"))
    tx.agent_id = first
    stored.set_state(tx, run_id, "Submitted", state={"type": "Scheduled"})
    assert stored.flow_run(tx, run_id)["agent_id"] == first
    tx.agent_id = second
    with pytest.raises(Refused, match="already been submitted"):
        stored.set_state(tx, run_id, "Submitted", state={"type": "Scheduled"})
    assert stored.flow_run(tx, run_id)["agent_id"] == first


def test_a_submitted_that_its_agent_sends_again_succeeds_and_is_stored_once(tx: Transaction, run_id: str) -> None:
    """T25: the client resends what was not answered in time; refused, the agent would drop the run."""
    tx.agent_id = agents.register_agent(tx, "LocalAgent")["id"]
    for _ in range(2):
        answer = stored.set_state(tx, run_id, "Submitted", state={"type": "Scheduled"})
        assert answer["states"][0]["status"] == "SUCCESS"
    assert stored.history(tx, run_id) == ["Scheduled", "Submitted"]


def test_an_unknown_agent_may_submit_and_is_not_noted(tx: Transaction, run_id: str) -> None:
    tx.agent_id = tables.new_id()
    stored.set_state(tx, run_id, "Submitted")
    assert stored.flow_run(tx, run_id)["agent_id"] is None


@pytest.mark.parametrize("flow_run_state", ["Scheduled", "Submitted", "Pending", "Cancelling", "Cancelled", "Success"])
@pytest.mark.parametrize("name", ["Running", "Cancelling"])
def test_a_task_can_run_only_while_its_flow_run_is_running(
    tx: Transaction, run_id: str, flow_run_state: str, name: str
) -> None:
    """T24: this is how late tasks of a cancelled run stop."""
    stored.set_state(tx, run_id, "Running")
    task_run = stored.task_runs(tx, run_id)[0]
    stored.set_state(tx, run_id, flow_run_state)
    with pytest.raises(Refused, match=f"State update failed for task run ID {task_run['id']}.*{run_id}"):
        stored.set_task_state(tx, task_run["id"], name)


def test_a_task_that_is_not_about_to_run_may_change_whatever_its_flow_run_does(tx: Transaction, run_id: str) -> None:
    task_run = stored.task_runs(tx, run_id)[0]
    stored.set_task_state(tx, task_run["id"], "Failed")
    assert stored.task_run(tx, task_run["id"])["state"] == "Failed"


def test_a_task_that_runs_has_a_start_and_a_heartbeat(tx: Transaction, run_id: str) -> None:
    stored.set_state(tx, run_id, "Running")
    task_run_id = stored.task_runs(tx, run_id)[0]["id"]
    stored.set_task_state(tx, task_run_id, "Running")
    run = stored.task_run(tx, task_run_id)
    assert run["heartbeat"] == run["start_time"] == run["state_timestamp"]
    assert run["version"] == 2


INPUTS = {"x": {"type": "NoResultType"}}


@pytest.mark.parametrize("given", [{}, {"cached_inputs": None}, {"cached_inputs": {}}])
def test_cached_inputs_are_carried_to_a_state_that_has_none(tx: Transaction, run_id: str, given: Any) -> None:
    """The client writes ``{}`` in states that have none."""
    task_run_id = stored.task_runs(tx, run_id)[0]["id"]
    stored.set_task_state(tx, task_run_id, "Retrying", cached_inputs=INPUTS)
    stored.set_task_state(tx, task_run_id, "Pending", **given)
    assert stored.task_run(tx, task_run_id)["serialized_state"]["cached_inputs"] == INPUTS


def test_cached_inputs_of_a_new_state_replace_the_old(tx: Transaction, run_id: str) -> None:
    task_run_id = stored.task_runs(tx, run_id)[0]["id"]
    stored.set_task_state(tx, task_run_id, "Retrying", cached_inputs=INPUTS)
    stored.set_task_state(tx, task_run_id, "Pending", cached_inputs={"y": {"type": "NoResultType"}})
    assert list(stored.task_run(tx, task_run_id)["serialized_state"]["cached_inputs"]) == ["y"]


UNFINISHED = ["Pending", "Retrying", "Paused", "Submitted", "Queued", "ClientFailed", "Running"]


def test_a_cancelled_flow_run_cancels_its_unfinished_task_runs(tx: Transaction) -> None:
    """T23."""
    run_id = stored.running(tx, flow_id=stored.flow_id(tx, tasks=[*UNFINISHED, *states.FINISHED]))
    names = {task["id"]: task["slug"] for task in stored.rows(tx, tables.task)}
    for run in stored.task_runs(tx, run_id):
        stored.set_task_state(tx, run["id"], names[run["task_id"]])
    stored.set_state(tx, run_id, "Cancelled", message="enough")
    for run in stored.task_runs(tx, run_id):
        before = names[run["task_id"]]
        assert run["state"] == ("Cancelled" if before in UNFINISHED else before)
        if before in UNFINISHED:
            assert run["state_message"] == "enough"
            assert stored.task_history(tx, run["id"])[-2:] == [before, "Cancelled"]


def test_cancelling_one_flow_run_leaves_the_task_runs_of_others_alone(tx: Transaction, run_id: str) -> None:
    other = stored.flow_run_id(tx)
    stored.set_state(tx, run_id, "Cancelled")
    assert {run["state"] for run in stored.task_runs(tx, other)} == {"Pending"}


@pytest.mark.parametrize("name", ["Failed", "Success", "Cancelling"])
def test_only_cancelled_reaches_down_to_task_runs(tx: Transaction, run_id: str, name: str) -> None:
    stored.set_state(tx, run_id, name)
    assert {run["state"] for run in stored.task_runs(tx, run_id)} == {"Pending"}


@pytest.mark.parametrize("name", states.FINISHED)
def test_cancelling_a_finished_run_changes_nothing(tx: Transaction, run_id: str, name: str) -> None:
    stored.set_state(tx, run_id, name)
    assert states.cancel_flow_run(tx, run_id) == {"state": name}
    assert stored.history(tx, run_id) == ["Scheduled", name]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Running", "Cancelling"),
        ("Cancelling", "Cancelling"),
        ("Scheduled", "Cancelled"),
        ("Submitted", "Cancelled"),
        ("Pending", "Cancelled"),
        ("Queued", "Cancelled"),
    ],
)
def test_a_run_with_a_process_is_asked_to_stop_and_one_without_is_cancelled(
    tx: Transaction, run_id: str, before: str, after: str
) -> None:
    stored.set_state(tx, run_id, before)
    assert states.cancel_flow_run(tx, run_id) == {"state": after}
    assert stored.flow_run(tx, run_id)["state"] == after


def test_cancelling_an_unknown_run_is_refused(tx: Transaction) -> None:
    with pytest.raises(Refused, match="not found"):
        states.cancel_flow_run(tx, tables.new_id())


def test_cancelling_takes_as_many_statements_for_many_task_runs_as_for_few(tx: Transaction) -> None:
    def statements(tasks: int) -> int:
        flow_id = stored.flow_id(tx, f"{tasks} tasks", [f"task-{number}" for number in range(tasks)])
        run_id = stored.running(tx, flow_id=flow_id)
        sent: List[str] = []

        def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
            sent.append(statement)

        event.listen(tx.connection, "before_cursor_execute", note)
        stored.set_state(tx, run_id, "Cancelled")
        event.remove(tx.connection, "before_cursor_execute", note)
        assert {run["state"] for run in stored.task_runs(tx, run_id)} == {"Cancelled"}
        return len(sent)

    assert statements(50) == statements(2)


@pytest.mark.parametrize("name", ["Cancelled", "Success", "Failed"])
def test_a_finished_flow_run_cannot_be_submitted(tx: Transaction, run_id: str, name: str) -> None:
    stored.set_state(tx, run_id, name)
    with pytest.raises(Refused, match="already finished"):
        stored.set_state(tx, run_id, "Submitted")
    assert stored.history(tx, run_id) == ["Scheduled", name]
