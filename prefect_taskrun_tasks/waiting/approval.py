"""Task runs that wait until a person approves them, such as those with Prefect's trigger `manual_only`."""

import shlex
from datetime import timedelta
from typing import List, Optional

import pendulum
import prefect
from prefect.engine.state import Resume

from .. import api
from ..errors import InvalidArgument
from ..views import FlowRunView, TaskRunView
from .question import FINISHED

#: Seconds for the Prefect API to store an approval
PATIENCE = 10.0


def awaiting_approval(flow_run_id: str, task_run_id: Optional[str] = None) -> List[TaskRunView]:
    """Return the task runs of a flow run that wait for approval.

    A task run with the trigger `manual_only`, or that raises `PAUSE`, is Paused without a start time, and its process
    may end. It goes on once it is approved. One that is Paused until some time goes on by itself.

    Args:
        flow_run_id: UUID of the flow run.
        task_run_id: UUID of the only task run to consider; default: all of them.

    Returns:
        Views of the task runs; none if the flow run has finished.

    Raises:
        BackendUnreachable: the Prefect API does not answer.

    Example:
        >>> for task_run in awaiting_approval("<id of a flow run>"):
        ...     approve(task_run)
    """
    where: api.Where = {
        "flow_run_id": {"_eq": flow_run_id},
        "state": {"_eq": "Paused"},
        "state_start_time": {"_is_null": True},
        "flow_run": {"state": {"_nin": FINISHED}},
    }
    if task_run_id is not None:
        where["id"] = {"_eq": task_run_id}
    return [TaskRunView._from_task_run_data(row) for page in api.pages("task_run", where) for row in page]


def approve(task_run: TaskRunView) -> None:
    """Let a task run go on that waits for approval.

    It enters the state Resume, as with the button of Prefect's UI. If the flow run has no process any more, an agent
    starts one within some seconds.

    Args:
        task_run: as `awaiting_approval` returns it.

    Raises:
        InvalidArgument: the task run does not wait for approval, or no longer (a `ValueError`).
        BackendUnreachable: the Prefect API does not answer; look whether the task run still waits.
    """
    if not awaiting_approval(task_run.flow_run_id, task_run.task_run_id):
        raise InvalidArgument(
            f"Task run {task_run.task_slug!r} of flow run {task_run.flow_run_id} does not wait for approval, or no "
            f"longer. It was in state {task_run.state_name} when it was looked up."
        )
    # once: a request that arrives late must not take the task run back that has gone on since
    with api.sent_once(PATIENCE):
        start_time = pendulum.now("utc") - timedelta(seconds=api.OVERDUE)
        api.set_task_run_state(task_run.task_run_id, Resume("Approved.", start_time=start_time))


def approval_request(flow_run: FlowRunView) -> Optional[str]:
    """Say which task runs of a flow run wait for approval, and the command that gives it; None if there are none.

    Raises:
        BackendUnreachable: the Prefect API does not answer.
    """
    waiting = awaiting_approval(flow_run.flow_run_id)
    if not waiting:
        return None
    slugs = sorted({task_run.task_slug for task_run in waiting})
    # in another shell, which may not be pointed at this backend
    address = f"PREFECT__BACKEND=server PREFECT__SERVER__ENDPOINT={shlex.quote(prefect.config.cloud.api)} "
    where = address if prefect.config.backend == "server" else ""
    commands = [f"  {where}prefect-taskrun approve {flow_run.flow_run_id} --slug {shlex.quote(slug)}" for slug in slugs]
    return "\n".join([f"Flow run {flow_run.name!r} waits for approval of {', '.join(slugs)}. Approve with:", *commands])
