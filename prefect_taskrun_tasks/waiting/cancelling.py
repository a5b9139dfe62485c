"""Cancelling the children of a flow run that is being cancelled, and theirs."""

from typing import List, Optional, Set

from .. import api
from ..views import FlowRunView

#: Seconds for which the Prefect API is asked again, if it does not answer
PATIENCE = 10.0

#: flow runs that were cancelled here with their parents
_cancelled: Set[str] = set()


def cancel_children(flow_run_id: str, awaited: Optional[str] = None) -> List[str]:
    """If a flow run is being cancelled, cancels its unfinished children whose parent close policy is so, and theirs.

    The embedded backend has done so already. Many waits of one parent have it done once, but for children that it
    creates thereafter: its process is stopped only when it sees that it is being cancelled.

    Args:
        flow_run_id: UUID of the parent.
        awaited: UUID of a child, for which alone it need not be done again.

    Returns:
        UUIDs of the flow runs that have been cancelled.

    Raises:
        BackendUnreachable: the Prefect API does not answer.
    """
    if awaited in _cancelled:
        return []
    with api.patience(PATIENCE):
        where = {"id": {"_eq": flow_run_id}, "state": {"_in": ["Cancelling", "Cancelled"]}}
        if not api.find("flow_run", where, fields="id"):
            return []
        found: List[str] = []
        parents = [flow_run_id]
        while parents:
            children = [child for each in FlowRunView.children_of(parents).values() for child in each]
            parents = [child.flow_run_id for child in children if _goes_along(child, found)]
            for child_run_id in parents:
                api.cancel_flow_run(child_run_id)
            found += parents
        if awaited:
            _cancelled.update(found)
        return found


def _goes_along(child: FlowRunView, found: List[str]) -> bool:
    is_to_be_cancelled = child.lineage is not None and child.lineage.parent_close_policy == "cancel"
    # a run that is its own ancestor would be found again and again
    return is_to_be_cancelled and not child.state.is_finished() and child.flow_run_id not in found
