"""When which run ran, as a page that needs nothing else."""

from datetime import datetime
from typing import Any, Dict, Iterable, List, Optional

import pendulum

from .page import LONGEST_MESSAGE, timeline_file
from .views import FlowRunView, TaskRunView


def timeline_page(flow_run: FlowRunView, task_runs: Optional[Iterable[TaskRunView]] = None) -> str:
    """A Gantt chart of a flow run's task runs, and of the flow runs that came out of it, as one HTML page.

    The page needs no network, and holds the names, states, messages and times of the runs, but no results.

    Args:
        flow_run: whose.
        task_runs: its task runs, for those who want to follow how they are looked up; default: all.

    Raises:
        BackendUnreachable: the Prefect API does not answer.

    Example:
        >>> Path("timeline.html").write_text(timeline_page(FlowRunView.find("brave-otter")), encoding="utf-8")
    """
    if task_runs is None:
        task_runs = flow_run.iter_task_runs()
    return timeline_file(
        {
            "flow_runs": [_flow_run(each) for each in (flow_run, *flow_run.iter_descendants())],
            "task_runs": [_task_run(each) for each in task_runs],
            "taken_at": _milliseconds(pendulum.now("utc")),
        }
    )


def _flow_run(flow_run: FlowRunView) -> Dict[str, Any]:
    lineage = flow_run.lineage
    return {
        "id": flow_run.flow_run_id,
        "name": flow_run.name,
        "flow": flow_run.flow_name,
        "state": type(flow_run.state).__name__,
        "message": _cut(flow_run.state.message),
        "start": _milliseconds(flow_run.start_time),
        "end": _milliseconds(flow_run.end_time),
        "parent_flow_run_id": lineage and lineage.parent_flow_run_id,
        "parent_task_run_id": lineage and lineage.parent_task_run_id,
        "parent_map_index": lineage and lineage.parent_map_index,
    }


def _task_run(task_run: TaskRunView) -> List[Any]:
    return [
        task_run.task_run_id,
        task_run.task_slug,
        task_run.map_index,
        "Deferred" if task_run.deferral else task_run.state_name,
        _cut(task_run.state_message),
        _milliseconds(task_run.start_time),
        _milliseconds(task_run.end_time),
    ]


def _cut(text: Optional[str]) -> Optional[str]:
    return text and text[:LONGEST_MESSAGE]


def _milliseconds(time: Optional[datetime]) -> Optional[int]:
    return None if time is None else round(time.timestamp() * 1000)
