"""Flow runs: created once per idempotency key, cancelled, renamed, deleted."""

import random
from typing import Any, Dict, List, Optional

from sqlalchemy import literal, select

from .. import tables
from ..clock import now
from ..errors import Refused
from ..transaction import Row, Transaction
from . import children, serialized_flow, states

_ADJECTIVES = """
    amber brave brisk calm clever copper coral crimson daring eager emerald fearless gentle golden happy hazel honest
    humble indigo ivory jolly keen kind lively lucky mellow merry mighty nimble noble olive patient polite proud quick
    quiet rapid ruby scarlet silent silver smart steady sunny swift teal true warm wild wise witty
"""
_ANIMALS = """
    ant badger bat bear beaver bee bison boar cat cheetah cobra cougar crab crane deer dolphin dove eagle eel falcon
    ferret finch fox frog gecko goose hare hawk heron horse jackal koala lark lemur lion lizard lynx magpie mole moose
    newt otter owl panda puffin raven robin seal shark sloth swan tiger toad trout turtle viper walrus wolf wren yak
"""


def create_flow_run(
    tx: Transaction,
    flow_id: Optional[str] = None,
    version_group_id: Optional[str] = None,
    parameters: Optional[Dict[str, Any]] = None,
    context: Optional[Dict[str, Any]] = None,
    labels: Optional[List[str]] = None,
    run_config: Optional[Dict[str, Any]] = None,
    scheduled_start_time: Optional[str] = None,
    idempotency_key: Optional[str] = None,
    flow_run_name: Optional[str] = None,
    auto_scheduled: bool = False,
) -> Row:
    """Creates a flow run with its task runs and puts it into the queue; with a key used before, returns that one."""
    flow = _flow_to_run(tx, flow_id, version_group_id)
    runs = tables.flow_run
    if idempotency_key is not None:
        known = select(runs.c.id).where(runs.c.flow_id == flow["id"], runs.c.idempotency_key == idempotency_key)
        existing = tx.row(known)
        if existing:
            return {"id": existing["id"]}
    if flow["archived"]:
        raise Refused(f"Flow {flow['id']} ({flow['name']!r}) is archived, so it cannot be run.")
    for name, value in (("parameters", parameters), ("context", context), ("run_config", run_config)):
        if value is not None and not isinstance(value, dict):
            raise Refused(f"The {name} of a flow run must be an object, not {value!r}.")
    group = tx.get(tables.flow_group, flow["flow_group_id"])
    assert group is not None

    scheduled_start_time = scheduled_start_time or now()
    id = tx.insert(
        runs,
        tenant_id=flow["tenant_id"],
        flow_id=flow["id"],
        name=flow_run_name or f"{random.choice(_ADJECTIVES.split())}-{random.choice(_ANIMALS.split())}",
        parameters=_parameters(flow, group, parameters or {}),
        context=context or {},
        labels=_labels(flow, group, labels, run_config),
        run_config=group["run_config"] or flow["run_config"] if run_config is None else run_config,
        scheduled_start_time=scheduled_start_time,
        auto_scheduled=auto_scheduled,
        idempotency_key=idempotency_key,
    )
    _create_task_runs(tx, id, flow)
    states.set_start(tx, id, "Flow run scheduled.", scheduled_start_time)
    if children.is_orphaned(tx, context):
        states.cancel_flow_run(tx, id)
    return {"id": id}


def _flow_to_run(tx: Transaction, flow_id: Optional[str], version_group_id: Optional[str]) -> Row:
    flows = tables.flow
    if flow_id:
        flow = tx.get(flows, flow_id)
        if flow is None:
            raise Refused(f"Flow {flow_id} not found.")
        return flow
    if not version_group_id:
        raise Refused("A flow run needs a flow_id or a version_group_id.")
    newest = (
        select(flows)
        .where(flows.c.version_group_id == version_group_id, flows.c.archived.is_(False))
        .order_by(flows.c.version.desc())
        .limit(1)
    )
    flow = tx.row(newest)
    if flow is None:
        raise Refused(f"Version group {version_group_id!r} has no unarchived flow.")
    return flow


def _labels(flow: Row, group: Row, labels: Optional[List[str]], run_config: Optional[Dict[str, Any]]) -> List[str]:
    """The first that is set: the run's labels, its run config, the group's, the flow's. An empty list is set."""
    if labels is not None:
        # those of a schedule are as they were registered
        return sorted(serialized_flow.labels({"labels": labels}, "a flow run"))
    if run_config is not None:
        return sorted(serialized_flow.labels(run_config, "a run config"))
    if group["labels"] is not None:
        return sorted(group["labels"])
    for source in (group["run_config"], flow["run_config"], flow["environment"]):
        if source is not None:
            return sorted(serialized_flow.labels(source, f"flow {flow['name']!r}"))
    return []


def _parameters(flow: Row, group: Row, given: Dict[str, Any]) -> Dict[str, Any]:
    declared = flow["parameters"] or []
    # a falsy default is left to the runner, which has the flow itself
    defaults = {each["name"]: each["default"] for each in declared if each.get("default")}
    merged = {**defaults, **(group["default_parameters"] or {}), **given}
    missing = sorted(each["name"] for each in declared if each.get("required") and each["name"] not in merged)
    if missing:
        raise Refused(f"Required parameters were not supplied: {missing}")
    return merged


def _create_task_runs(tx: Transaction, flow_run_id: str, flow: Row) -> None:
    """One per task, so that the runner, which learns the tasks' ids from them, finds them from the start."""
    state = states.normalised({"type": "Pending", "message": "Task run created"})
    latest = {"tenant_id": flow["tenant_id"], "state": "Pending", "serialized_state": state, "version": 1}
    timestamp = now()
    tasks = select(tables.task.c.id, tables.task.c.cache_key).where(tables.task.c.flow_id == flow["id"])
    created = [
        {
            **latest,
            "id": tables.new_id(),
            "flow_run_id": flow_run_id,
            "task_id": task["id"],
            "cache_key": task["cache_key"],
            "state_timestamp": timestamp,
            "state_message": state["message"],
        }
        for task in tx.rows(tasks)
    ]
    tx.insert_many(tables.task_run, created)
    _record_first_states(tx, flow_run_id)


def _record_first_states(tx: Transaction, flow_run_id: str) -> None:
    """Stores the history of new task runs in one statement: other writers wait, and a flow may have 10,000 tasks.

    The first state of a task run has the same id as the task run, because databases generate ids in different ways.
    """
    runs, created = tables.task_run, literal(now())
    copied = {
        "id": runs.c.id,
        "task_run_id": runs.c.id,
        "tenant_id": runs.c.tenant_id,
        "timestamp": runs.c.state_timestamp,
        "state": runs.c.state,
        "message": runs.c.state_message,
        "serialized_state": runs.c.serialized_state,
        "version": runs.c.version,
        "created": created,
        "updated": created,
    }
    first = select(*copied.values()).where(runs.c.flow_run_id == flow_run_id)
    tx.connection.execute(tables.task_run_state.insert().from_select(list(copied), first, include_defaults=False))


def delete_flow_run(tx: Transaction, flow_run_id: str) -> Row:
    return {"success": states.delete(tx, tables.flow_run, tables.flow_run.c.id == flow_run_id) > 0}


def set_flow_run_name(tx: Transaction, flow_run_id: str, name: str) -> Row:
    if not name:
        raise Refused("A flow run's name cannot be empty.")
    return {"success": tx.update(tables.flow_run, tables.flow_run.c.id == flow_run_id, name=name) > 0}


def set_flow_run_labels(tx: Transaction, flow_run_id: str, labels: List[str]) -> Row:
    """Changes which agents may take a flow run, as long as none has."""
    found = tx.update(tables.flow_run, tables.flow_run.c.id == flow_run_id, labels=sorted(labels))
    # it may be for another agent now
    tx.queued = tx.queued or found > 0
    return {"success": found > 0}


def update_flow_run_heartbeat(tx: Transaction, flow_run_id: str) -> Row:
    tx.update(tables.flow_run, tables.flow_run.c.id == flow_run_id, heartbeat=now())
    # also for an unknown id: a heartbeat that fails must not disturb its run
    return {"success": True}
