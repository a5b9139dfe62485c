"""A run as scripts want it."""

from typing import Any, Dict

from ..views import TaskRunView
from ..views.span import Span


def record(task_run: TaskRunView, span: Span) -> Dict[str, Any]:
    """For JSON. Times as ISO 8601, and the runtime in seconds."""
    runtime = span.duration
    return {
        "id": task_run.task_run_id,
        "slug": task_run.task_slug,
        "map_index": task_run.map_index,
        "name": task_run.name,
        "flow_run_id": task_run.flow_run_id,
        "state": task_run.state_name,
        "message": task_run.state_message,
        "waits_for": task_run.deferral and task_run.deferral.awaits,
        "start_time": span.start and span.start.isoformat(),
        "end_time": span.end and span.end.isoformat(),
        # one that took no time at all is not one that has not started
        "runtime": None if runtime is None else runtime.total_seconds(),
        "result_type": task_run.result_type,
        "result_location": task_run.result_location,
    }
