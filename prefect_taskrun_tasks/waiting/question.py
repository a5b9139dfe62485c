"""What a watcher asks: all that is new of all flow runs that are waited for, in one query."""

from typing import Dict, List, Optional, Set, Tuple

from prefect.engine.state import Finished

from .. import api
from ..views.arguments import STATES
from .wait import Wait

#: Flow runs so few that each of their states is told at once, and not only the last one
FEW = 10

LOG_FIELDS = f"{api.FIELDS['log']} name flow_run_id task_run_id"

_RUN_FIELDS = f"{api.FIELDS['flow_run']} version state"

#: What is asked for, by the names under which it is answered
_SELECTIONS = {
    # first, because a backend that holds its answer does so while this is empty
    "told": f"flow_run(where: $told) {{ {_RUN_FIELDS} }}",
    "untold": f"flow_run(where: $untold) {{ {_RUN_FIELDS} }}",
    "cancelled": "flow_run(where: $cancelled) { id }",
    "logs": f"log(where: $logs, order_by: {{timestamp: asc}}, limit: {api.PAGE}) {{ {LOG_FIELDS} }}",
}

#: Names of the final states
FINISHED = sorted(name for name, state in STATES.items() if issubclass(state, Finished))


def question(waits: List[Wait], logs_since: Optional[str]) -> Tuple[str, api.Row]:
    """The query for all that is new: its text, which is the same for all waits of a kind, and its variables.

    Args:
        waits: at least one.
        logs_since: only log lines from then on, except for waits that are new.
    """
    ids = sorted({wait.flow_run_id for wait in waits})
    by_state: Dict[Optional[Tuple[int, str]], Set[str]] = {}
    for wait in waits:
        by_state.setdefault(wait.seen, set()).add(wait.flow_run_id)
    changed: api.Row = {"_or": [_unlike(seen, group) for seen, group in by_state.items()]}
    wheres: Dict[str, api.Row] = {"told": changed}
    if len(ids) > FEW:
        wheres["told"] = {"_and": [changed, {"state": {"_in": FINISHED}}]}
        wheres["untold"] = {"_and": [changed, {"state": {"_nin": FINISHED}}]}
    guards = sorted({wait.guarded_by for wait in waits if wait.guarded_by and not wait.knows_of_parent})
    if guards:
        wheres["cancelled"] = {"id": {"_in": guards}, "state": {"_in": ["Cancelling", "Cancelled"]}}
    new, known = (
        sorted({wait.flow_run_id for wait in waits if wait.logs and wait.is_new == is_new}) for is_new in (True, False)
    )
    if new or known:
        since = {"timestamp": {"_gt": logs_since}} if logs_since else {}
        wheres["logs"] = {"_or": [{"flow_run_id": {"_in": known}, **since}, {"flow_run_id": {"_in": new}}]}
    declared = ", ".join(f"${name}: {'log' if name == 'logs' else 'flow_run'}_bool_exp" for name in [*wheres, "ids"])
    selected = " ".join(f"{name}: {_SELECTIONS[name]}" for name in wheres)
    count = "flow_run_aggregate(where: $ids) { aggregate { count } }"
    return f"query({declared}) {{ {selected} {count} }}", {**wheres, "ids": {"id": {"_in": ids}}}


def _unlike(seen: Optional[Tuple[int, str]], flow_run_ids: Set[str]) -> api.Row:
    """Of some flow runs, those that are not as they were seen.

    Two states that come at once may have one version: Prefect Server reads it, and counts on, without a lock.
    """
    among: api.Row = {"id": {"_in": sorted(flow_run_ids)}}
    if seen is None:
        return among
    version, state = seen
    return {**among, "_or": [{"version": {"_neq": version}}, {"state": {"_neq": state}}]}
