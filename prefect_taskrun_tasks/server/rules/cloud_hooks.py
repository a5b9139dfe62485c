"""Cloud hooks: who is to be told when flow runs get certain states."""

from typing import Any, Dict, FrozenSet, List, Optional

from sqlalchemy import select

from .. import tables
from ..clock import now
from ..errors import Refused
from ..transaction import Call, Row, Transaction
from . import events, states

#: Type of a hook -> what its config must say
CONFIGS: Dict[str, FrozenSet[str]] = {
    "WEBHOOK": frozenset({"url"}),
    "SLACK_WEBHOOK": frozenset({"url"}),
    "TWILIO": frozenset({"account_sid", "auth_token", "messaging_service_sid", "to"}),
    "PAGERDUTY": frozenset({"api_token", "routing_key", "severity"}),
    events.MESSAGE: frozenset(),
}

SEVERITIES = ("info", "warning", "error", "critical")


def create_cloud_hook(
    tx: Transaction,
    tenant_id: str,
    type: str,
    states: List[str],
    name: Optional[str] = None,
    version_group_id: Optional[str] = None,
    config: Any = None,
) -> Row:
    """The hook that is the same in all of this: one that is asked for twice tells everything once."""
    if tx.get(tables.tenant, tenant_id) is None:
        raise Refused(f"There is no tenant {tenant_id}.")
    values = {
        "tenant_id": tenant_id,
        "type": type,
        "name": name,
        "version_group_id": version_group_id,
        "states": _checked_states(states),
        "config": _checked_config(type, config or {}),
    }
    for known in tx.rows(select(tables.cloud_hook).where(tables.cloud_hook.c.tenant_id == tenant_id)):
        if all(known[column] == value for column, value in values.items()):
            set_cloud_hook_active(tx, known["id"])
            return {"id": known["id"]}
    return {"id": tx.insert(tables.cloud_hook, **values)}


def _checked_states(names: List[str]) -> List[str]:
    known = {name.upper() for name in states.KNOWN}
    given = sorted({name.upper() for name in names})
    if not given or not known.issuperset(given):
        raise Refused(f"Invalid states: {sorted(set(given) - known)}. A hook needs states of flow runs.")
    return given


def _checked_config(type: str, config: Any) -> Dict[str, Any]:
    if not isinstance(config, dict) or (type != events.MESSAGE and set(config) != CONFIGS[type]):
        raise Refused(f"Invalid config: a hook of type {type} needs {sorted(CONFIGS[type])}.")
    if type == "PAGERDUTY" and config["severity"] not in SEVERITIES:
        raise Refused(f"Invalid config: the severity is one of {list(SEVERITIES)}.")
    if type == "TWILIO" and not (isinstance(config["to"], list) and config["to"]):
        raise Refused("Invalid config: to is a list of telephone numbers.")
    if "url" in config and not str(config["url"]).startswith(("http://", "https://")):
        raise Refused("Invalid config: the url begins with http:// or https://.")
    return config


def set_cloud_hook_active(tx: Transaction, cloud_hook_id: str) -> Row:
    return _set_active(tx, cloud_hook_id, True)


def set_cloud_hook_inactive(tx: Transaction, cloud_hook_id: str) -> Row:
    return _set_active(tx, cloud_hook_id, False)


def _set_active(tx: Transaction, cloud_hook_id: str, active: bool) -> Row:
    return {"success": tx.update(tables.cloud_hook, tables.cloud_hook.c.id == cloud_hook_id, active=active) > 0}


def delete_cloud_hook(tx: Transaction, cloud_hook_id: str) -> Row:
    return {"success": tx.delete(tables.cloud_hook, tables.cloud_hook.c.id == cloud_hook_id) > 0}


def trial(
    tx: Transaction, cloud_hook_id: str, flow_run_id: Optional[str] = None, state_type: Optional[str] = None
) -> List[Call]:
    """The calls with which a hook is tried out, active or not: as if a flow run, or one made up, got a state.

    They are not made here. A hook that leaves messages has none: its message is there.
    """
    hook = tx.get(tables.cloud_hook, cloud_hook_id)
    if hook is None:
        raise Refused(f"Cloud hook {cloud_hook_id} not found.")
    name = next(each for each in states.KNOWN if each.upper() == (state_type or "SUCCESS"))
    message = f"Test {name.lower()} state"
    serialized = states.normalised({"type": name, "message": message})
    state = {"version": 1, "state": name, "message": message, "timestamp": now(), "serialized_state": serialized}
    if flow_run_id:
        run = tx.get(tables.flow_run, flow_run_id)
        if run is None:
            raise Refused(f"Flow run {flow_run_id} not found.")
        event = {**events.state_change(tx, run, state), "is_test_event": True}
    else:
        made_up = {"id": tables.new_id(), "tenant_id": hook["tenant_id"], "name": "test-flow-run"}
        flow = {"id": tables.new_id(), "tenant_id": hook["tenant_id"], "name": "Cloud Hook Test Flow"}
        event = events.event(made_up, flow, tx.get(tables.tenant, hook["tenant_id"]), state, is_test_event=True)
    events.tell(tx, hook, event)
    # somebody waits for the answer, so they are made at once
    calls, tx.calls = tx.calls, []
    return calls
