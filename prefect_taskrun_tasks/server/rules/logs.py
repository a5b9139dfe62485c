"""Logs of flow runs and task runs."""

from typing import Any, Dict, List, Mapping, Optional, Tuple

from sqlalchemy import select

from .. import tables
from ..clock import now
from ..transaction import Row, Transaction

Key = Tuple[Any, ...]


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


def _known(tx: Transaction, logs: List[Dict[str, Any]]) -> "set[Key]":
    """Those of some logs that are stored."""
    timestamps, table = [row["timestamp"] for row in logs if row.get("timestamp")], tables.log
    if not timestamps:
        return set()
    found = select(table.c.flow_run_id, table.c.task_run_id, table.c.timestamp, table.c.message).where(
        table.c.flow_run_id.in_({row["flow_run_id"] for row in logs}),
        table.c.timestamp >= min(timestamps),
        table.c.timestamp <= max(timestamps),
    )
    return {_key(tx, row) for row in tx.rows(found)}


def _key(tx: Transaction, row: Mapping[str, Any]) -> Key:
    # as it is stored: some characters are not
    message = tables.Words().process_bind_param(row.get("message"), tx.connection.dialect)
    return (row["flow_run_id"], row.get("task_run_id"), row.get("timestamp"), message)


def _existing(tx: Transaction, table: Any, ids: "set[str]") -> "set[Optional[str]]":
    return {row["id"] for row in tx.rows(select(table.c.id).where(table.c.id.in_(ids)))}
