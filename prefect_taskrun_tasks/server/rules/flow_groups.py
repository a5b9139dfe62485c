"""Flow groups: what all versions of a flow have in common, and what overrides the flow itself."""

from typing import Any, List, Optional

from .. import tables
from ..errors import Refused
from ..transaction import Row, Transaction
from . import serialized_flow, states


def update(tx: Transaction, flow_group_id: str, **values: Any) -> Row:
    return {"success": tx.update(tables.flow_group, tables.flow_group.c.id == flow_group_id, **values) > 0}


def set_flow_group_labels(tx: Transaction, flow_group_id: str, labels: Optional[List[str]] = None) -> Row:
    return update(tx, flow_group_id, labels=None if labels is None else sorted(set(labels)))


def set_flow_group_run_config(tx: Transaction, flow_group_id: str, run_config: Any = None) -> Row:
    if not isinstance(run_config, (dict, type(None))):
        # it would stand in the way of every flow run
        raise Refused(f"A run config must be an object, not {run_config!r}.")
    serialized_flow.labels(run_config or {}, "a run config")
    return update(tx, flow_group_id, run_config=run_config)


def set_flow_group_description(tx: Transaction, flow_group_id: str, description: Optional[str] = None) -> Row:
    return update(tx, flow_group_id, description=description)


def set_flow_group_default_parameters(tx: Transaction, flow_group_id: str, parameters: Any) -> Row:
    if not isinstance(parameters, dict):
        raise Refused(f"Default parameters must be an object, not {parameters!r}.")
    return update(tx, flow_group_id, default_parameters=parameters)


def delete_flow_group(tx: Transaction, flow_group_id: str) -> Row:
    """Deletes a group with all versions of its flow and all their runs."""
    return {"success": states.delete(tx, tables.flow_group, tables.flow_group.c.id == flow_group_id) > 0}


def enable_flow_heartbeat(tx: Transaction, flow_id: str) -> Row:
    return _set_of_flow(tx, flow_id, heartbeat_enabled=True, disable_heartbeat=False)


def disable_flow_heartbeat(tx: Transaction, flow_id: str) -> Row:
    """Runs of the flow are not taken for dead when they are silent: lazarus and the zombie killer pass them by."""
    return _set_of_flow(tx, flow_id, heartbeat_enabled=False, disable_heartbeat=True)


def enable_flow_lazarus_process(tx: Transaction, flow_id: str) -> Row:
    return _set_of_flow(tx, flow_id, lazarus_enabled=True)


def disable_flow_lazarus_process(tx: Transaction, flow_id: str) -> Row:
    return _set_of_flow(tx, flow_id, lazarus_enabled=False)


def _set_of_flow(tx: Transaction, flow_id: str, **settings: bool) -> Row:
    """Changes settings of the group of a flow, and leaves the others as they are."""
    flow = tx.get(tables.flow, flow_id)
    group = tx.get(tables.flow_group, flow["flow_group_id"]) if flow else None
    if group is None:
        raise Refused(f"Flow {flow_id} not found.")
    return update(tx, group["id"], settings={**group["settings"], **settings})
