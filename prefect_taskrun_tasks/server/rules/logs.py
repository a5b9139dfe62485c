"""Logs of flow runs and task runs."""

from collections import defaultdict
from typing import Any, DefaultDict, Dict, List, Mapping, Optional, Set, Tuple

from sqlalchemy import bindparam, select

from .. import tables
from ..clock import now
from ..transaction import Row, Transaction

Key = Tuple[Any, ...]

#: Values in one statement; early versions of SQLite take 999
CHUNK = 900


_STORED = select(tables.log).where(
    tables.log.c.flow_run_id == bindparam("flow_run_id"),
    tables.log.c.timestamp.in_(bindparam("timestamps", expanding=True)),
)


def write_run_logs(tx: Transaction, logs: List[Dict[str, Any]]) -> Row:
    """Stores what can be stored and says success.

    The client keeps a refused batch and sends it again with the next one, so one bad row would block all later
    logs of its process: a row whose run is gone is left out, and a level of any name is kept. It also sends again what
    it has had no answer to: what is there already, to the microsecond, is not stored again.
    """
    known = _known(tx, logs)
    flow_runs = _existing(tx, tables.flow_run, {row["flow_run_id"] for row in logs})
    task_runs = _existing(tx, tables.task_run, {row["task_run_id"] for row in logs if row.get("task_run_id")})
    # a log of the flow run itself
    task_runs.add(None)
    tx.insert_many(
        tables.log,
        [
            {
                "flow_run_id": row["flow_run_id"],
                "task_run_id": row.get("task_run_id"),
                "timestamp": row.get("timestamp") or now(),
                "name": row.get("name"),
                "level": row.get("level") or "INFO",
                "message": row.get("message"),
                "info": row.get("info"),
            }
            for row in logs
            if row["flow_run_id"] in flow_runs and row.get("task_run_id") in task_runs and _key(tx, row) not in known
        ],
    )
    return {"success": True}


def _known(tx: Transaction, logs: List[Dict[str, Any]]) -> Set[Key]:
    """Those of some logs that are stored."""
    of_runs: DefaultDict[str, Set[str]] = defaultdict(set)
    for row in logs:
        if row.get("timestamp"):
            of_runs[row["flow_run_id"]].add(row["timestamp"])
    known: Set[Key] = set()
    for flow_run_id, given in of_runs.items():
        # not all from the first to the last, which may be all that the run has
        timestamps = sorted(given)
        for first in range(0, len(timestamps), CHUNK):
            some = {"flow_run_id": flow_run_id, "timestamps": timestamps[first : first + CHUNK]}
            known.update(_key(tx, row) for row in tx.rows(_STORED, some))
    return known


def _key(tx: Transaction, row: Mapping[str, Any]) -> Key:
    # as it is stored: some characters are not
    words, dialect = tables.Words(), tx.connection.dialect
    said = [row.get("name"), row.get("level") or "INFO", row.get("message")]
    kept = (words.process_bind_param(each, dialect) for each in said)
    return (row["flow_run_id"], row.get("task_run_id"), row.get("timestamp"), *kept)


def _existing(tx: Transaction, table: Any, ids: "set[str]") -> "set[Optional[str]]":
    return {row["id"] for row in tx.rows(select(table.c.id).where(table.c.id.in_(ids)))}
