"""Many task runs and log lines, written straight into a backend's database, which is faster than asking for each."""

from typing import Any, Dict, Iterable, Optional

from driven import DrivenRun, mapped
from prefect.engine.result import Result
from prefect.engine.results import PrefectResult
from prefect.engine.state import State, Success

from prefect_taskrun_tasks.server import Backend, tables
from prefect_taskrun_tasks.server.clock import now


def insert_children(
    backend: Backend, run: DrivenRun, slug: str, map_indexes: Iterable[int], states: Optional[Dict[int, State]] = None
) -> None:
    """Children of a mapped task run. Child i returned i, unless `states` says otherwise."""
    with backend._database.write() as tx:
        [task] = tx.rows(tables.task.select().where(tables.task.c.flow_id == run.flow_id, tables.task.c.slug == slug))
        tx.insert_many(
            tables.task_run,
            [_child(run, task["id"], index, (states or {}).get(index) or returned(index)) for index in map_indexes],
        )


def _child(run: DrivenRun, task_id: str, map_index: int, state: State) -> Dict[str, Any]:
    return {
        "flow_run_id": run.id,
        "task_id": task_id,
        "map_index": map_index,
        "state": type(state).__name__,
        "serialized_state": state.serialize(),
        "state_timestamp": now(),
        "start_time": now(),
        "version": 3,
    }


def returned(value: Any, result: Optional[Result] = None) -> State:
    """The state of a task run that returned a value, which is kept by `result`."""
    return Success(result=(result or PrefectResult()).write(value))


def map_over_many(
    backend: Backend,
    run: DrivenRun,
    slug: str,
    children: int,
    states: Optional[Dict[int, State]] = None,
    missing: Iterable[int] = (),
) -> str:
    """A task run was mapped over many; returns the UUID of the parent."""
    insert_children(backend, run, slug, sorted(set(range(children)) - set(missing)), states)
    return run.task_enters(slug, mapped(children))


def insert_logs(backend: Backend, run: DrivenRun, lines: Iterable[str]) -> None:
    with backend._database.write() as tx:
        tx.insert_many(
            tables.log,
            [
                {"flow_run_id": run.id, "timestamp": now(), "name": "prefect", "level": "INFO", "message": line}
                for line in lines
            ],
        )


def finish_all_task_runs(backend: Backend, run: DrivenRun) -> None:
    state = Success()
    with backend._database.write() as tx:
        where = tables.task_run.c.flow_run_id == run.id
        tx.update(tables.task_run, where, state="Success", serialized_state=state.serialize())
