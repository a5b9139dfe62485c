"""Results that would be lost with the process of a flow run, of which another process is to go on with the rest."""

from collections import defaultdict
from typing import Any, Dict, Iterable, List, Mapping, Optional, Set, Tuple

from prefect import Flow, Task
from prefect.core import Edge
from prefect.engine import get_default_executor_class
from prefect.engine.result import Result
from prefect.engine.state import Finished
from prefect.executors import Executor, LocalDaskExecutor, LocalExecutor
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
    view = FlowView.of_flow_run(flow_run_id)
    try:
        # of two edges between the same tasks the Prefect API has only one, and of none whether it flattens
        flow = view.get_flow()
    except Exception as error:
        # the user's code, or their storage, which may be away just now
        return f"what another process would need of this one is not known, as the flow could not be loaded: {error!r}."
    ahead = _reached(task_slug, (edge for edge in flow.edges if edge.mapped), flow) if is_mapped else set()
    if getattr(flow, "terminal_state_handler", None):
        return "its flow's terminal_state_handler is called whenever a process ends, and may end it."
    handed_over = _handed_over(flow, task_slug, ahead)
    misread = _misread(flow, handed_over, ahead)
    if misread:
        return misread
    where = {
        "flow_run_id": {"_eq": flow_run_id},
        "task": {"slug": {"_in": sorted({flow.slugs[edge.upstream_task] for edge in handed_over})}},
        "state": {"_nin": ["Mapped", "Skipped"]},
    }
    pages = api.pages("task_run", where, fields="id task { slug } map_index state serialized_state")
    return _lost([row for page in pages for row in page if not _is_kept(row)], flow, handed_over)


def _is_kept(task_run: api.Row) -> bool:
    """Whether the state of a task run says where its result is."""
    result: Mapping[str, Any] = task_run["serialized_state"].get("_result") or {}
    return task_run["state"] in _SUCCESSFUL and result.get("location") is not None


def _handed_over(flow: Flow, task_slug: str, ahead: Set[str]) -> List[Edge]:
    """The edges by which tasks after a wait are given what tasks return that may have finished before it is over.

    Args:
        flow: which has them.
        task_slug: of the task that waits, which is one of those after it.
        ahead: slugs of those of which other children may be further, if it is mapped: its own, and what goes on from it
            child by child.
    """
    later = _reached(task_slug, flow.edges, flow)
    only_later = later - ahead
    found = []
    for edge in flow.edges:
        up, down = _ends(edge, flow)
        # a child that is mapped over another's result goes on in the same process
        goes_on = edge.mapped and not edge.flattened and up in ahead
        if (edge.key or edge.mapped) and down in later and up not in only_later and not goes_on:
            found.append(edge)
    return found


def _misread(flow: Flow, handed_over: List[Edge], ahead: Set[str]) -> Optional[str]:
    """What Prefect would take another value for, although it is kept: where it needs it before it has read it again.

    See `prepare_upstream_states_for_mapping` and what flattens in utilities/executors.py of prefect 1.4.1. What is
    mapped over is read by the task runner, of which other processes, but not the flow runner's own, have a copy.
    """
    for edge in handed_over:
        up, down = _ends(edge, flow)
        if isinstance(edge.upstream_task, ResourceSetupTask):
            return f"in another process, {up} would set up another resource, and this one would never be cleaned up."
        if edge.flattened:
            return f"in another process, Prefect would not flatten what {up} returns for {down}."
        # how many children there are is known of what is mapped already
        is_new = edge.mapped and down not in ahead
        is_list = not any(each.mapped for each in flow.edges_to(edge.upstream_task))
        if is_new and is_list and not _shares_memory(flow.executor or get_default_executor_class()()):
            return f"in another process, Prefect would not find what {up} returns for {down}, which is mapped over it."
    return None


def _shares_memory(executor: Executor) -> bool:
    """Whether tasks run in the process of the flow run."""
    if isinstance(executor, LocalDaskExecutor):
        return executor.scheduler != "processes"
    return isinstance(executor, LocalExecutor)


def _ends(edge: Edge, flow: Flow) -> Tuple[str, str]:
    """The slugs of the tasks that an edge leads from and to."""
    return flow.slugs[edge.upstream_task], flow.slugs[edge.downstream_task]


def _reached(slug: str, edges: Iterable[Edge], flow: Flow) -> Set[str]:
    """The slug of a task, and those of all that come after it."""
    after: Dict[str, List[str]] = defaultdict(list)
    for up, down in (_ends(edge, flow) for edge in edges):
        after[up].append(down)
    found, new = {slug}, [slug]
    while new:
        next_ones = set(after[new.pop()]) - found
        found |= next_ones
        new += next_ones
    return found


def _lost(doubtful: List[api.Row], flow: Flow, handed_over: List[Edge]) -> Optional[str]:
    #: whether what a task raises is used too
    used: Dict[str, bool] = defaultdict(bool)
    for edge in handed_over:
        used[flow.slugs[edge.upstream_task]] |= edge.downstream_task.trigger not in _STRICT
    tasks = {slug: task for task, slug in flow.slugs.items() if not isinstance(task, _REPEATED)}
    for row in doubtful:
        slug, state = row["task"]["slug"], row["state"]
        if slug not in tasks:
            continue
        if used[slug] and state not in _SUCCESSFUL:
            return f"if {_name(row)} fails, what it raises is given to a task after the wait, and is kept nowhere."
        # of a task whose results are kept, one that is nowhere is None, unless a state handler or a signal has given it
        is_kept = _keeps(tasks[slug], flow) and (row["serialized_state"].get("_result") or {}).get("type") != "Result"
        if not is_kept and (state in _SUCCESSFUL or state not in _FINISHED):
            return (
                f"what {_name(row)} returns is in no place from which another process could read it. Give its flow or "
                "its task a `result`, such as LocalResult, and leave `checkpoint` on."
            )
    return None


def _keeps(task: Task, flow: Flow) -> bool:
    """Whether Prefect keeps what a task returns: `get_task_run_state` in 1.4.1's engine/task_runner.py."""
    result: Optional[Result] = task.result or flow.result
    return task.checkpoint is not False and result is not None and type(result).write is not Result.write


def _name(task_run: api.Row) -> str:
    child = f"[{task_run['map_index']}]" if task_run["map_index"] >= 0 else ""
    return f"{task_run['task']['slug']}{child}"
