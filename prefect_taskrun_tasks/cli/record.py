"""A run as scripts want it."""

from datetime import timedelta
from typing import Any, Dict, Optional, Union

import pendulum

from ..views import FlowRunView, TaskRunView


def lasting(run: Union[FlowRunView, TaskRunView]) -> Optional[timedelta]:
    """How long it has run, up to now if it still does; None if it has not started."""
    if run.start_time is None:
        return None
    lasted: timedelta = (run.end_time or pendulum.now("utc")) - run.start_time
    return lasted


def record(task_run: TaskRunView) -> Dict[str, Any]:
    """For JSON. Times as ISO 8601, and the runtime in seconds."""
    runtime = lasting(task_run)
    return {
        "id": task_run.task_run_id,
        "slug": task_run.task_slug,
        "map_index": task_run.map_index,
        "name": task_run.name,
        "flow_run_id": task_run.flow_run_id,
        "state": task_run.state_name,
        "message": task_run.state_message,
        "waits_for": task_run.deferral and task_run.deferral.awaits,
        "start_time": task_run.start_time and task_run.start_time.isoformat(),
        "end_time": task_run.end_time and task_run.end_time.isoformat(),
        # one that took no time at all is not one that has not started
        "runtime": None if runtime is None else runtime.total_seconds(),
        "result_type": task_run.result_type,
        "result_location": task_run.result_location,
    }
