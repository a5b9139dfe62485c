"""Queries that are not tables, by their names in the API: each a function on an open connection."""

from importlib.metadata import version
from typing import Any, Callable, Dict, List

from sqlalchemy import Connection, func, select

from . import tables
from .rules import task_runs
from .transaction import Row, Transaction


def hello(connection: Connection) -> str:
    return "👋"


def api(connection: Connection) -> Row:
    return {"backend": "SERVER", "mode": "normal", "version": "embedded", "core_version": version("prefect")}


def reference_data(connection: Connection) -> Row:
    """Prefect's states: each with itself and all that are a kind of it, and the colour that it is drawn in."""
    # only here: without it, a backend does without Prefect's engine, and the memory for it
    from prefect.engine import state

    found = [each for each in vars(state).values() if isinstance(each, type) and issubclass(each, state.State)]
    hierarchy: Dict[str, List[str]] = {
        parent.__name__: [each.__name__ for each in found if issubclass(each, parent)] for parent in found
    }
    return {"state_hierarchy": hierarchy, "state_info": {each.__name__: {"color": each.color} for each in found}}


def get_task_run_info(connection: Connection, task_run_id: str) -> Row:
    return task_runs.get_task_run_info(Transaction(connection), task_run_id)


def mapped_children(connection: Connection, task_run_id: str) -> Row:
    """When the children of a mapped task run began and ended, and how many there are by state."""
    parent, child = tables.task_run.alias(), tables.task_run.alias()
    statement = (
        select(child.c.state, func.count(), func.min(child.c.start_time), func.max(child.c.end_time))
        .join(parent, (parent.c.flow_run_id == child.c.flow_run_id) & (parent.c.task_id == child.c.task_id))
        .where(parent.c.id == task_run_id, parent.c.map_index < 0, child.c.map_index >= 0)
        .group_by(child.c.state)
    )
    found = connection.execute(statement).all()
    begun = [start for _, _, start, _ in found if start is not None]
    ended = [end for _, _, _, end in found if end is not None]
    return {
        "min_start_time": min(begun, default=None),
        "max_end_time": max(ended, default=None),
        "state_counts": {state: count for state, count, _, _ in found},
    }


QUERIES: Dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (hello, api, reference_data, get_task_run_info, mapped_children)
}
