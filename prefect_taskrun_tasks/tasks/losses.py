"""Results that would be lost with the process of a flow run, of which another process is to go on with the rest."""

from collections import defaultdict
from typing import Any, Dict, List, Mapping, Optional, Set

from prefect.engine.result import Result
from prefect.engine.state import Finished

from .. import api
from ..views import FlowView
from ..views.arguments import STATES

#: States of task runs whose results are read again, and all others in which nothing more comes of them
_WITH_RESULT = ("Cached", "Looped", "Success")
_WITHOUT_RESULT = sorted(
    name for name, state in STATES.items() if issubclass(state, Finished) and name not in _WITH_RESULT
)


def without_process(flow_id: str, flow_run_id: str, task_id: str, is_mapped: bool) -> Optional[str]:
    """What would be lost if the process of a flow run ended while one of its task runs waits.

    The next process reads what tasks that have finished returned from where that is kept, and Prefect takes a result
    that is nowhere for None. Of what is needed only after the wait, nothing may be nowhere: neither what was returned,
    nor what tasks will return that the process still runs, or the next one does before the wait is over.

    Args:
        flow_id: UUID of the flow.
        flow_run_id: UUID of the flow run.
        task_id: UUID of the task whose run waits.
        is_mapped: whether it is one of several of that task.

    Returns:
        The first thing found, as a sentence and advice; None if there is nothing.

    Raises:
        BackendUnreachable: the Prefect API does not answer.
    """
    edges = _all_rows("edge", {"flow_id": {"_eq": flow_id}}, "key upstream_task_id downstream_task_id")
    later = _with_all_after(task_id, edges)
    used = {edge["upstream_task_id"] for edge in edges if edge["key"] and edge["downstream_task_id"] in later} - later
    if is_mapped and any(edge["key"] and edge["upstream_task_id"] == task_id for edge in edges):
        used.add(task_id)
    where = {
        "flow_run_id": {"_eq": flow_run_id},
        "task_id": {"_in": sorted(used)},
        "state": {"_nin": _WITHOUT_RESULT},
    }
    rows = _all_rows("task_run", where, "task { slug } map_index state serialized_state")
    return _lost([row for row in rows if not _is_kept(row)], flow_run_id)


def _all_rows(table: str, where: api.Where, fields: str) -> List[api.Row]:
    return [row for page in api.pages(table, where, fields=f"id {fields}") for row in page]


def _with_all_after(task_id: str, edges: List[api.Row]) -> Set[str]:
    """A task, and all that do not run before it has finished."""
    after: Dict[str, List[str]] = defaultdict(list)
    for edge in edges:
        after[edge["upstream_task_id"]].append(edge["downstream_task_id"])
    found, new = {task_id}, [task_id]
    while new:
        next_ones = set(after[new.pop()]) - found
        found |= next_ones
        new += next_ones
    return found


def _is_kept(task_run: api.Row) -> bool:
    """Whether a task run has finished, and its state says where its result is."""
    result: Mapping[str, Any] = task_run["serialized_state"].get("_result") or {}
    return task_run["state"] in _WITH_RESULT and result.get("location") is not None


def _lost(doubtful: List[api.Row], flow_run_id: str) -> Optional[str]:
    if not doubtful:
        return None
    try:
        flow = FlowView.of_flow_run(flow_run_id).get_flow()
    except Exception as error:
        # the user's code, or their storage
        return (
            f"whether another process could read what {_name(doubtful[0])} returns is not known, as the flow could not "
            f"be loaded: {error!r}."
        )
    kept = {slug for task, slug in flow.slugs.items() if _keeps(task.checkpoint, task.result or flow.result)}
    for row in doubtful:
        # of a task whose results are kept, one that is nowhere is None
        if row["task"]["slug"] not in kept:
            return (
                f"what {_name(row)} returns is in no place from which another process could read it. Give its flow or "
                "its task a `result`, such as LocalResult, and leave `checkpoint` on."
            )
    return None


def _name(task_run: api.Row) -> str:
    child = f"[{task_run['map_index']}]" if task_run["map_index"] >= 0 else ""
    return f"{task_run['task']['slug']}{child}"


def _keeps(checkpoint: Optional[bool], result: Optional[Result]) -> bool:
    """Whether Prefect's task runner keeps what is returned: `get_task_run_state` in 1.4.1's engine/task_runner.py."""
    return checkpoint is not False and result is not None and type(result).write is not Result.write
