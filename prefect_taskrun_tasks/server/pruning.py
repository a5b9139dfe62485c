"""Deletes flow runs that ended long ago, beside a backend that goes on serving."""

import time
from collections import Counter
from typing import Any, Callable, List, Sequence

from sqlalchemy import ColumnElement, Connection, FromClause, Select, Table, and_, exists, func, not_, select

from . import tables
from .clock import now
from .database import Database
from .rules import children
from .rules.states import FINISHED

#: Flow runs that are deleted together
BATCH = 100

#: Rows in one transaction. Writers of a backend wait meanwhile: some 50 ms.
CHUNK = 2000

#: Seconds between two transactions, at least; SQLite's writers look again whether it is their turn, and do not queue up
PAUSE = 0.01

Report = Callable[[int, int], None]


def old(connection: Connection, before: str) -> List[str]:
    """Ids of the flow runs that ended before an instant, the oldest first."""
    runs = tables.flow_run
    return list(connection.scalars(select(runs.c.id).where(*_is_old(before)).order_by(runs.c.state_timestamp)))


def _is_old(before: str) -> "List[ColumnElement[bool]]":
    runs, parents = tables.flow_run, tables.flow_run.alias("parent")
    # a parent that goes on, or is restarted, looks for its children: they go with it, or after it
    with_parent = exists().where(
        parents.c.id == runs.c.context[(children.LINEAGE, "parent_flow_run_id")].as_string(),
        not_(and_(*_has_ended(parents, before))),
    )
    return [*_has_ended(runs, before), not_(with_parent)]


def _has_ended(runs: FromClause, before: str) -> "List[ColumnElement[bool]]":
    return [
        runs.c.state.in_(FINISHED),
        # its last state: a run that was cancelled before it began has no end_time
        runs.c.state_timestamp < before,
        # one that was cancelled long before its time would be scheduled anew
        func.coalesce(runs.c.scheduled_start_time, "") <= now(),
    ]


def _parts(flow_run_ids: "Select[Any]") -> "List[tuple[Table, ColumnElement[bool]]]":
    """Whatever flow runs consist of; what hangs on a row stands before it. The rest goes with it by itself."""
    task_run_ids = select(tables.task_run.c.id).where(tables.task_run.c.flow_run_id.in_(flow_run_ids))
    return [
        (tables.log, tables.log.c.flow_run_id.in_(flow_run_ids)),
        (tables.task_run_state, tables.task_run_state.c.task_run_id.in_(task_run_ids)),
        (tables.task_run, tables.task_run.c.flow_run_id.in_(flow_run_ids)),
        (tables.flow_run_state, tables.flow_run_state.c.flow_run_id.in_(flow_run_ids)),
        (tables.flow_run, tables.flow_run.c.id.in_(flow_run_ids)),
    ]


def _still_old(ids: Sequence[str], before: str) -> "Select[Any]":
    # asked anew by each statement: somebody may start one of them again
    return select(tables.flow_run.c.id).where(tables.flow_run.c.id.in_(ids), *_is_old(before))


def count(connection: Connection, before: str) -> "Counter[str]":
    """How many rows of each table `prune` would delete."""
    found: Counter[str] = Counter()
    ids = old(connection, before)
    for first in range(0, len(ids), BATCH):
        for table, condition in _parts(_still_old(ids[first : first + BATCH], before)):
            found[table.name] += connection.execute(select(func.count()).where(condition)).scalar_one()
    return found


def prune(database: Database, before: str, report: Report = lambda done, total: None) -> "Counter[str]":
    """Deletes the flow runs that ended before an instant, with their task runs, states and logs.

    In many short transactions, so that others can write in between. What is stopped half way is finished the next time.

    Args:
        database: where they are.
        before: an instant, in the form of `clock.instant`.
        report: called with how many flow runs are done, and how many there are.

    Returns:
        How many rows of each table were deleted.
    """
    deleted: Counter[str] = Counter()
    with database.read() as connection:
        ids = old(connection, before)
    for first in range(0, len(ids), BATCH):
        report(first, len(ids))
        for table, condition in _parts(_still_old(ids[first : first + BATCH], before)):
            some = select(table.c.id).where(condition).limit(CHUNK)
            is_more = True
            while is_more:
                begun = time.monotonic()
                with database.write() as tx:
                    gone = tx.delete(table, table.c.id.in_(some))
                deleted[table.name] += gone
                is_more = gone == CHUNK
                if gone:
                    _let_others(begun)
    report(len(ids), len(ids))
    return deleted


def _let_others(begun: float) -> None:
    """Waits for as long as has been worked."""
    time.sleep(max(PAUSE, time.monotonic() - begun))
