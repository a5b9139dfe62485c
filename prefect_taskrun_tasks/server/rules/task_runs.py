"""Task runs: found, or made for the children of a mapped task, and renamed."""

from typing import Optional

from sqlalchemy import select

from .. import tables
from ..clock import now
from ..errors import Refused
from ..transaction import Row, Transaction
from . import states


def get_or_create_task_run_info(
    tx: Transaction, flow_run_id: str, task_id: str, map_index: Optional[int] = None
) -> Row:
    """The task run of a task and map index; how the children of a mapped task come into being."""
    runs = tables.task_run
    map_index = -1 if map_index is None else map_index
    run = tx.row(
        select(runs).where(runs.c.flow_run_id == flow_run_id, runs.c.task_id == task_id, runs.c.map_index == map_index)
    )
    return run or _create(tx, flow_run_id, task_id, map_index)


def _create(tx: Transaction, flow_run_id: str, task_id: str, map_index: int) -> Row:
    task, flow_run = tx.get(tables.task, task_id), tx.get(tables.flow_run, flow_run_id)
    if flow_run is None:
        raise Refused(f"Flow run {flow_run_id} not found.")
    if task is None or task["flow_id"] != flow_run["flow_id"]:
        raise Refused(f"Invalid task ID: flow run {flow_run_id} has no task {task_id}.")
    id = tx.insert(
        tables.task_run,
        tenant_id=flow_run["tenant_id"],
        flow_run_id=flow_run_id,
        task_id=task_id,
        map_index=map_index,
        cache_key=task["cache_key"],
    )
    created = {"id": id, "tenant_id": flow_run["tenant_id"], "version": 0, "serialized_state": {}}
    states.record(tx, states.TASK_RUN, created, {"type": "Pending", "message": "Task run created"})
    run = tx.get(tables.task_run, id)
    assert run is not None
    return run


def get_task_run_info(tx: Transaction, task_run_id: str) -> Row:
    run = tx.get(tables.task_run, task_run_id)
    if run is None:
        raise Refused(f"Invalid task run ID: {task_run_id}")
    return run


def set_task_run_name(tx: Transaction, task_run_id: str, name: str) -> Row:
    if not name:
        raise Refused("A task run's name cannot be empty.")
    return {"success": tx.update(tables.task_run, tables.task_run.c.id == task_run_id, name=name) > 0}


def update_task_run_heartbeat(tx: Transaction, task_run_id: str) -> Row:
    tx.update(tables.task_run, tables.task_run.c.id == task_run_id, heartbeat=now())
    # also for an unknown id, as for flow runs
    return {"success": True}
