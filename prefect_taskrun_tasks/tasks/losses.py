"""Results that would be lost with the process of a flow run, of which another process is to go on with the rest."""

from collections import defaultdict
from typing import Any, Dict, Iterable, List, Mapping, Optional, Set, Tuple

import prefect
from prefect.engine.result import Result
from prefect.engine.state import Finished
from prefect.tasks.core.resource_manager import (
    ResourceCleanupTask,
    ResourceSetupTask,
    resource_cleanup_trigger,
)
from prefect.tasks.secrets import SecretBase
from prefect.triggers import all_successful, not_all_skipped

from .. import api
from ..views import FlowView
from ..views.arguments import STATES

#: States of task runs whose results are read again
_SUCCESSFUL = ("Cached", "Looped", "Success")
_FINISHED = {name for name, state in STATES.items() if issubclass(state, Finished)}

#: Triggers of tasks that do not run where something before them failed, and so are never given what it raised
_STRICT = (all_successful, not_all_skipped, resource_cleanup_trigger)

#: What each process runs for itself, whether it has finished before or not: engine/flow_runner.py of prefect 1.4.1
_REPEATED = (ResourceCleanupTask, ResourceSetupTask, SecretBase)


def without_process(flow_run_id: str, task_slug: str, is_mapped: bool) -> Optional[str]:
    """What would be lost if the process of a flow run ended while one of its task runs waits.

    The next process reads what tasks that have finished returned from where that is kept. Prefect takes a result that
    is nowhere for None, and so what a task raised. Of what is used only after the wait, nothing may be nowhere: neither
    what was returned, nor what is returned by tasks that this process still runs, or another one before the wait is
    over.

    Args:
        flow_run_id: UUID of the flow run.
        task_slug: slug of the task whose run waits.
        is_mapped: whether it is one of several of that task.

    Returns:
        The first thing found, as a sentence; None if there is nothing.

    Raises:
        BackendUnreachable: the Prefect API does not answer.
    """
    edges = _all_rows(
        "edge", {"flow": {"flow_runs": {"id": {"_eq": flow_run_id}}}}, "upstream_task { slug } downstream_task { slug }"
    )
    pairs = [(edge["upstream_task"]["slug"], edge["downstream_task"]["slug"]) for edge in edges]
    later = _reached(task_slug, pairs)
    before = {up for up, down in pairs if down in later and (is_mapped or up not in later)}
    where = {
        "flow_run_id": {"_eq": flow_run_id},
        "task": {"slug": {"_in": sorted(before)}},
        "state": {"_nin": ["Mapped", "Skipped"]},
    }
    rows = _all_rows("task_run", where, "task { slug } map_index state serialized_state")
    doubtful = [row for row in rows if not _is_kept(row)]
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
    return _lost(doubtful, flow, _used_later(flow, task_slug, is_mapped))


def _all_rows(table: str, where: api.Where, fields: str) -> List[api.Row]:
    return [row for page in api.pages(table, where, fields=f"id {fields}") for row in page]


def _is_kept(task_run: api.Row) -> bool:
    """Whether the state of a task run says where its result is."""
    result: Mapping[str, Any] = task_run["serialized_state"].get("_result") or {}
    return task_run["state"] in _SUCCESSFUL and result.get("location") is not None


def _used_later(flow: "prefect.Flow", task_slug: str, is_mapped: bool) -> Dict[str, bool]:
    """The slugs of tasks whose results are used after a wait, but are there before; and whether what they raise is too.

    Args:
        flow: itself: of two edges between the same tasks the Prefect API has only one.
        task_slug: of the task that waits.
        is_mapped: whether it is one of several of that task, of which others may be further.
    """
    edges = [(flow.slugs[edge.upstream_task], flow.slugs[edge.downstream_task], edge) for edge in flow.edges]
    later = _reached(task_slug, ((up, down) for up, down, _ in edges))
    ahead = _reached(task_slug, ((up, down) for up, down, edge in edges if edge.mapped)) if is_mapped else set()
    used: Dict[str, bool] = {}
    for up, down, edge in edges:
        # a child that is mapped over another's result goes on in the same process
        is_passed_on = edge.mapped and not edge.flattened and up in ahead
        if (edge.key or edge.mapped) and down in later and up not in later - ahead and not is_passed_on:
            used[up] = used.get(up, False) or edge.downstream_task.trigger not in _STRICT
    return used


def _reached(slug: str, edges: Iterable[Tuple[str, str]]) -> Set[str]:
    """A task, and all that come after it."""
    after: Dict[str, List[str]] = defaultdict(list)
    for up, down in edges:
        after[up].append(down)
    found, new = {slug}, [slug]
    while new:
        next_ones = set(after[new.pop()]) - found
        found |= next_ones
        new += next_ones
    return found


def _lost(doubtful: List[api.Row], flow: "prefect.Flow", used: Mapping[str, bool]) -> Optional[str]:
    tasks = {slug: task for task, slug in flow.slugs.items() if not isinstance(task, _REPEATED)}
    for row in doubtful:
        slug, state = row["task"]["slug"], row["state"]
        if slug not in used or slug not in tasks:
            continue
        if used[slug] and state not in _SUCCESSFUL:
            return f"if {_name(row)} fails, what it raises is given to a task after the wait, and is kept nowhere."
        # of a task whose results are kept, one that is nowhere is None
        if not _keeps(tasks[slug], flow) and (state in _SUCCESSFUL or state not in _FINISHED):
            return (
                f"what {_name(row)} returns is in no place from which another process could read it. Give its flow or "
                "its task a `result`, such as LocalResult, and leave `checkpoint` on."
            )
    return None


def _keeps(task: "prefect.Task", flow: "prefect.Flow") -> bool:
    """Whether Prefect keeps what a task returns: `get_task_run_state` in 1.4.1's engine/task_runner.py."""
    result: Optional[Result] = task.result or flow.result
    return task.checkpoint is not False and result is not None and type(result).write is not Result.write


def _name(task_run: api.Row) -> str:
    child = f"[{task_run['map_index']}]" if task_run["map_index"] >= 0 else ""
    return f"{task_run['task']['slug']}{child}"
