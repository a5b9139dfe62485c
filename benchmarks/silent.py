"""Data: what happens on a backend that wakes nobody by itself, as Prefect Server. It is written straight into tables.

So none of the embedded backend's own rules, which wake and cancel too, have a part in it.
"""

from typing import Any, Iterable, List, Mapping, Optional, Sequence

from sqlalchemy import Table, select

from prefect_taskrun_tasks.server import Backend, tables
from prefect_taskrun_tasks.server.clock import ago, now
from prefect_taskrun_tasks.server.transaction import Transaction
from prefect_taskrun_tasks.views.deferral import Deferral


def enter(backend: Backend, flow_run_ids: Iterable[str], state: str) -> None:
    """Flow runs are in a state."""
    with backend._database.write() as tx:
        for flow_run_id in flow_run_ids:
            _set(tx, tables.flow_run, flow_run_id, {"type": state, "message": f"Entered {state}."})


def defer(
    backend: Backend,
    flow_run_ids: Sequence[str],
    awaited: Sequence[str],
    seconds: float = 60,
    limit: Optional[float] = None,
) -> List[str]:
    """One task run of each flow run waits, without a process, for another flow run; returns the ids of the task runs.

    Args:
        backend: of this process.
        flow_run_ids: those that wait. They are Running from then on, and their processes have gone.
        awaited: those that they wait for, in turn.
        seconds: until the task runs are due.
        limit: seconds until the time of the waits is over; None for without end.
    """
    enter(backend, flow_run_ids, "Running")
    task_run_ids = []
    with backend._database.write() as tx:
        for flow_run_id, each in zip(flow_run_ids, awaited):
            found = select(tables.task_run.c.id).where(tables.task_run.c.flow_run_id == flow_run_id)
            task_run_ids.append(str(tx.rows(found.order_by(tables.task_run.c.id))[0]["id"]))
            _set(tx, tables.task_run, task_run_ids[-1], deferred(each, seconds, limit))
    return task_run_ids


def deferred(awaits: Any, seconds: float = 60, limit: Optional[float] = None) -> Mapping[str, Any]:
    """The state of a task run that waits for a flow run, and is due after so many seconds."""
    until = None if limit is None else ago(-limit)
    return {
        "type": "Scheduled",
        "message": f"Waits for flow run {awaits}.",
        "start_time": ago(-seconds),
        "context": {"tags": [], **Deferral(awaits, now(), until=until).as_context()},
        "cached_inputs": {},
        "_result": {"type": "NoResultType", "__version__": "1.4.1"},
        "__version__": "1.4.1",
    }


def task_run_enters(backend: Backend, task_run_id: str, state: Mapping[str, Any]) -> None:
    """A task run is in a state."""
    with backend._database.write() as tx:
        _set(tx, tables.task_run, task_run_id, state)


def beats(backend: Backend, flow_run_id: str, seconds: float) -> None:
    """The last heartbeat of a flow run was so many seconds ago."""
    with backend._database.write() as tx:
        tx.update(tables.flow_run, tables.flow_run.c.id == flow_run_id, heartbeat=ago(seconds))


def _set(tx: Transaction, table: Table, run_id: str, state: Mapping[str, Any]) -> None:
    run = tx.get(table, run_id)
    assert run is not None
    latest = {"version": run["version"] + 1, "state": state["type"], "serialized_state": state}
    timestamp, start_time = now(), state.get("start_time")
    tx.update(
        table, table.c.id == run_id, **latest, state_timestamp=timestamp, state_start_time=start_time, heartbeat=now()
    )
    history = tables.flow_run_state if table is tables.flow_run else tables.task_run_state
    tx.insert(history, **{f"{table.name}_id": run_id}, **latest, timestamp=timestamp, start_time=start_time)
