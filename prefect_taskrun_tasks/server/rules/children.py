"""Child flow runs: whose they are, and which are cancelled together with their parent."""

from typing import Any, List

from sqlalchemy import select

from .. import jsonb, tables
from ..transaction import Row, Transaction

#: Where a child's context says whose child it is: what this package's `create_flow_run` writes
LINEAGE = "prefect_taskrun_tasks"


def cancelled_with_parent(tx: Transaction, parent: Row) -> List[Row]:
    """Children of a flow run whose parent close policy is to cancel them. Some may have finished."""
    lineage = {"parent_flow_run_id": parent["id"], "parent_close_policy": "cancel"}
    context = tables.flow_run.c.context
    return tx.rows(select(tables.flow_run).where(jsonb.contains(context, {LINEAGE: lineage})))


def is_orphaned(tx: Transaction, context: Any) -> bool:
    """Whether a flow run with this context would have been cancelled with its parent, had it been there already."""
    lineage = (context or {}).get(LINEAGE)
    if not isinstance(lineage, dict) or lineage.get("parent_close_policy") != "cancel":
        return False
    parent = tx.row(
        select(tables.flow_run.c.state).where(tables.flow_run.c.id == str(lineage.get("parent_flow_run_id")))
    )
    return parent is not None and parent["state"] in ("Cancelling", "Cancelled")
