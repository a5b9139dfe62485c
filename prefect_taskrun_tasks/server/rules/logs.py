"""Logs of flow runs and task runs."""

from typing import Any, Dict, List, Optional

from sqlalchemy import select

from .. import tables
from ..clock import now
from ..transaction import Row, Transaction


def write_run_logs(tx: Transaction, logs: List[Dict[str, Any]]) -> Row:
    """Stores what can be stored and says success.

    The client keeps a refused batch and sends it again with the next one, so one bad row would block all later
    logs of its process: a row whose run is gone is left out, and a level of any name is kept.
    """
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
            if row["flow_run_id"] in flow_runs and row.get("task_run_id") in task_runs
        ],
    )
    return {"success": True}


def _existing(tx: Transaction, table: Any, ids: "set[str]") -> "set[Optional[str]]":
    return {row["id"] for row in tx.rows(select(table.c.id).where(table.c.id.in_(ids)))}
