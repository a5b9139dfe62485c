"""Task runs that wait for a flow run without a process, as this package's tasks put them off."""

from typing import Any, List, Optional

from sqlalchemy import select

from .. import jsonb, tables
from ..transaction import Row, Transaction
from .children import LINEAGE

#: Seconds for which a wait that is woken counts as due. An agent begins a running flow run again only for task runs
#: that have been due for three (`_get_flow_run_metadata` in prefect 1.4.1's agent/agent.py)
OVERDUE = 4.0


def awaited_by(state: Any) -> Optional[str]:
    """UUID of the flow run that a task run in a state waits for without a process, if it does."""
    context = state.get("context") if isinstance(state, dict) else None
    deferral = context.get(LINEAGE) if isinstance(context, dict) else None
    if not isinstance(deferral, dict) or not deferral.get("deferred") or state.get("type") != "Scheduled":
        return None
    awaits = deferral.get("awaits")
    return awaits if isinstance(awaits, str) else None


def awaiting(tx: Transaction, flow_run_id: str) -> List[Row]:
    """The task runs that wait for a flow run without a process."""
    runs = tables.task_run
    deferral = {"deferred": True, "awaits": flow_run_id}
    deferred = jsonb.contains(runs.c.serialized_state, {"context": {LINEAGE: deferral}})
    return tx.rows(select(runs).where(runs.c.state == "Scheduled", deferred))


def has_no_process(tx: Transaction, flow_run: Row) -> bool:
    """Whether a flow run only waits, and its process has left it or is about to.

    One that has something to do just then may not begin it, as its flow run is over.
    """
    runs = tables.task_run
    of_it = runs.c.flow_run_id == flow_run["id"]
    states = set(tx.connection.scalars(select(runs.c.state).where(of_it).distinct()))
    if flow_run["state"] != "Running" or "Scheduled" not in states or states & {"Running", "Submitted"}:
        return False
    scheduled = tx.rows(select(runs.c.serialized_state).where(of_it, runs.c.state == "Scheduled"))
    return any(awaited_by(row["serialized_state"]) for row in scheduled)
