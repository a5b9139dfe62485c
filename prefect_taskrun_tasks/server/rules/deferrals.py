"""Task runs that wait for a flow run without a process, as this package's tasks put them off."""

from typing import Any, Dict, List, Optional

from sqlalchemy import exists, select

from .. import jsonb, tables
from ..clock import ago, normal, now
from ..transaction import Row, Transaction
from .children import LINEAGE

#: Seconds for which a task run of a running flow run has to be due until an agent begins that again
#: (`_get_flow_run_metadata` in prefect 1.4.1's agent/agent.py)
AGENT_DELAY = 3.0

#: Seconds for which a wait that is woken counts as due, so that an agent takes it at once
OVERDUE = AGENT_DELAY + 1

#: Seconds after the end of a task for which its process may be about to begin the next
BETWEEN_TASKS = 2.0

#: Seconds after which a wait looks again that is woken here, in case that its flow run has ended unnoticed nevertheless
LOOK_AGAIN = 3600.0


def due(since: Optional[str] = None) -> str:
    """The start time of a wait that is woken, and was put off at an instant (default: now).

    The process that did so may be about to begin another task: no agent takes the wait before that shows.
    """
    return max(ago(OVERDUE), ago(AGENT_DELAY - BETWEEN_TASKS, since))


def awaited_by(state: Any) -> Optional[str]:
    """UUID of the flow run that a task run in a state waits for without a process, if it does."""
    context = state.get("context") if isinstance(state, dict) else None
    deferral = context.get(LINEAGE) if isinstance(context, dict) else None
    if not isinstance(deferral, dict) or not deferral.get("deferred") or state.get("type") != "Scheduled":
        return None
    awaits = deferral.get("awaits")
    return awaits if isinstance(awaits, str) else None


def asleep(state: Dict[str, Any]) -> Dict[str, Any]:
    """The state of a wait whose flow run goes on, of which it will be told: it need not look before its limit."""
    until, look = state["context"][LINEAGE].get("until"), ago(-LOOK_AGAIN)
    try:
        look = min(look, normal(until)) if until is not None else look
    except (TypeError, ValueError, OverflowError):
        # it is no time
        return state
    return {**state, "start_time": max(look, state["start_time"])}


def awaiting(tx: Transaction, flow_run_id: str) -> List[Row]:
    """The task runs that wait for a flow run without a process."""
    runs = tables.task_run
    deferral = {"deferred": True, "awaits": flow_run_id}
    deferred = jsonb.contains(runs.c.serialized_state, {"context": {LINEAGE: deferral}})
    return tx.rows(select(runs).where(runs.c.state == "Scheduled", deferred))


def bereft(tx: Transaction) -> List[Row]:
    """The task runs that wait for a flow run which is not there."""
    runs, flow_runs = tables.task_run, tables.flow_run
    awaits = runs.c.serialized_state[("context", LINEAGE, "awaits")].as_string()
    deferred = jsonb.contains(runs.c.serialized_state, {"context": {LINEAGE: {"deferred": True}}})
    is_there = exists().where(flow_runs.c.id == awaits)
    return tx.rows(
        select(runs).where(runs.c.state == "Scheduled", runs.c.state_start_time > now(), deferred, ~is_there)
    )


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
