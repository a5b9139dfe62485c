"""What happens to flow runs, and the cloud hooks that are to be told of it."""

from typing import Any, Dict, Optional

from sqlalchemy import Select, bindparam, or_, select

from .. import tables
from ..clock import now
from ..transaction import Call, Row, Transaction

Event = Dict[str, Any]

#: Type of the hooks that leave a message instead of telling somebody outside
MESSAGE = "PREFECT_MESSAGE"

#: Columns that an event shows of each table
_SHOWN = {
    "flow_run": ("id", "tenant_id", "flow_id", "name", "version", "labels"),
    "flow": ("id", "tenant_id", "name", "flow_group_id", "version_group_id"),
    "tenant": ("id", "slug"),
}


def _active() -> "Select[Any]":
    hooks, flows = tables.cloud_hook, tables.flow
    group = select(flows.c.version_group_id).where(flows.c.id == bindparam("flow_id")).scalar_subquery()
    return select(hooks).where(
        hooks.c.tenant_id == bindparam("tenant_id"),
        hooks.c.active.is_(True),
        or_(hooks.c.version_group_id.is_(None), hooks.c.version_group_id == group),
    )


#: The hooks of a flow; kept, as every change of a flow run's state asks for them
_ACTIVE = _active()


def state_changed(tx: Transaction, run: Row, state: Row) -> None:
    """Tells the hooks of a flow run that it has got a state.

    Args:
        tx: the transaction that stores the state.
        run: the flow run as it was before. A state that it had already is no news.
        state: the state's row.
    """
    if run["serialized_state"] == state["serialized_state"]:
        # a caller who got no answer says it again
        return
    active = tx.rows(_ACTIVE, {"flow_id": run["flow_id"], "tenant_id": run["tenant_id"]})
    listening = [hook for hook in active if state["state"].upper() in hook["states"]]
    if listening:
        event = state_change(tx, run, state)
        for hook in listening:
            tell(tx, hook, event)


def state_change(tx: Transaction, run: Row, state: Row) -> Event:
    """The event of a flow run's new state, of the form that Prefect Server's hooks send."""
    flow, tenant = tx.get(tables.flow, run["flow_id"]), tx.get(tables.tenant, run["tenant_id"])
    return event(flow_run=run, flow=flow, tenant=tenant, state=state)


def event(flow_run: Row, flow: Optional[Row], tenant: Optional[Row], state: Row, is_test_event: bool = False) -> Event:
    rows = {"flow_run": flow_run, "flow": flow, "tenant": tenant}
    shown = {table: {name: (row or {}).get(name) for name in _SHOWN[table]} for table, row in rows.items()}
    return {
        "id": tables.new_id(),
        "timestamp": now(),
        "type": "FlowRunStateChange",
        "is_test_event": is_test_event,
        "state": dict(state),
        **shown,
    }


def tell(tx: Transaction, hook: Row, event: Event) -> None:
    """Leaves a message now, or has somebody outside told once the transaction is stored."""
    if hook["type"] == MESSAGE:
        content = {"type": "CLOUD_HOOK", "event": event}
        tx.insert(tables.message, tenant_id=hook["tenant_id"], type="CLOUD_HOOK", content=content)
    else:
        tx.calls.append(Call(hook, event))
