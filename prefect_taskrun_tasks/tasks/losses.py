"""Results that would be lost with the process of a flow run, of which another process is to go on with the rest."""

from collections import defaultdict
from typing import Any, Dict, List, Mapping, Optional, Set

from prefect.engine.result import Result

from .. import api
from ..views import FlowView

_ADVICE = "Give its flow or its task a `result`, such as LocalResult, and leave `checkpoint` on."


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
    edges = [
        edge
        for page in api.pages(
            "edge", {"flow_id": {"_eq": flow_id}}, fields="id key upstream_task_id downstream_task_id"
        )
        for edge in page
    ]
    later = _with_all_after(task_id, edges)
    used = {edge["upstream_task_id"] for edge in edges if edge["key"] and edge["downstream_task_id"] in later} - later
    if is_mapped and any(edge["key"] and edge["upstream_task_id"] == task_id for edge in edges):
        used.add(task_id)
    return _returned_nowhere(used, flow_run_id) or _will_return_nowhere(used, flow_run_id)


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


def _returned_nowhere(task_ids: Set[str], flow_run_id: str) -> Optional[str]:
    finished = {"state": {"_in": ["Success", "Cached", "Looped"]}}
    for row in _task_runs(task_ids, flow_run_id, finished, "task { slug } map_index serialized_state"):
        result: Mapping[str, Any] = row["serialized_state"].get("_result") or {}
        if result.get("location") is None:
            child = f"[{row['map_index']}]" if row["map_index"] >= 0 else ""
            return (
                f"what {row['task']['slug']}{child} returned is in no place from which another process could read it. "
                + _ADVICE
            )
    return None


def _will_return_nowhere(task_ids: Set[str], flow_run_id: str) -> Optional[str]:
    unfinished = _task_runs(task_ids, flow_run_id, {"end_time": {"_is_null": True}}, "task { slug }")
    slugs = {row["task"]["slug"] for row in unfinished}
    if not slugs:
        return None
    try:
        flow = FlowView.of_flow_run(flow_run_id).get_flow()
    except Exception as error:
        # the user's code, or their storage
        return (
            f"whether another process could read what {min(slugs)} will return is not known, as the flow was not to be "
            f"loaded: {error!r}."
        )
    kept = {slug for task, slug in flow.slugs.items() if _keeps(task.checkpoint, task.result or flow.result)}
    for slug in sorted(slugs - kept):
        return f"what {slug} will return will be in no place from which another process could read it. {_ADVICE}"
    return None


def _keeps(checkpoint: Optional[bool], result: Optional[Result]) -> bool:
    """Whether Prefect's task runner keeps what is returned: `get_task_run_state` in 1.4.1's engine/task_runner.py."""
    return checkpoint is not False and result is not None and type(result).write is not Result.write


def _task_runs(task_ids: Set[str], flow_run_id: str, where: api.Where, fields: str) -> List[api.Row]:
    of_them = {"flow_run_id": {"_eq": flow_run_id}, "task_id": {"_in": sorted(task_ids)}, **where}
    return [row for page in api.pages("task_run", of_them, fields=f"id {fields}") for row in page]
