"""Gets the result of a task of another flow run."""

from datetime import timedelta
from typing import Any, Optional

from prefect import Task
from prefect.engine.result import Result
from prefect.engine.serializers import Serializer

from ..errors import ResultUnavailable
from ..views import FlowRunView
from ..waiting import LONGEST_WAIT, Timeout, wait_until_finished
from .child import check_is_not_current, explained, finished
from .defaults import defaults_from_constructor
from .deferring import Deferring
from .ready_made import ready_made


class GetTaskRunResult(Task):
    """Task that waits until a flow run has finished, and then returns what one of its tasks returned.

    Drop-in for the task `prefect.tasks.prefect.get_task_run_result`. Everything given here is a default for calls of
    the task, where it can be overridden. Other keyword arguments are those of `prefect.Task`.

    Args:
        map_index: which child of a mapped task; -1 gives the list of all of them.
        poll_time: seconds between two looks at the flow run at most; they start closer together.
        max_duration: how long to wait at most; None for without end, as Prefect's own task does.
        serializer: decodes the result, instead of what the child flow says. Usually not needed.
        deferrable: whether a wait that lasts goes on without this process, see `docs/flows-of-flows.md`. Default: what
            Prefect's config says in ``prefect_taskrun_tasks.deferrable``, or not. A wait outside of a backend run
            never does.
        defer_after: seconds for which it holds the process first; default: ``prefect_taskrun_tasks.defer_after`` in
            Prefect's config, or 30.

    Example:
        >>> with Flow("parent") as flow:
        ...     child_run_id = create_flow_run(flow_name="child")
        ...     child_data = get_task_run_result(child_run_id, "create_some_data-1")
    """

    def __init__(
        self,
        map_index: int = -1,
        poll_time: float = 5,
        max_duration: Optional[timedelta] = LONGEST_WAIT,
        serializer: Optional[Serializer] = None,
        deferrable: Optional[bool] = None,
        defer_after: Optional[float] = None,
        **kwargs: Any,
    ) -> None:
        self.map_index = map_index
        self.poll_time = poll_time
        self.max_duration = max_duration
        self.serializer = serializer
        self.deferrable = deferrable
        self.defer_after = defer_after
        super().__init__(**kwargs)

    @defaults_from_constructor
    def run(
        self,
        flow_run_id: str,
        task_slug: str,
        map_index: int = -1,
        poll_time: float = 5,
        max_duration: Optional[timedelta] = LONGEST_WAIT,
        result: Optional[Result] = None,
        serializer: Optional[Serializer] = None,
        timeout: Timeout = None,
        deferrable: Optional[bool] = None,
        defer_after: Optional[float] = None,
    ) -> Any:
        """Waits, then loads the result. Arguments are those of the class, and:

        Args:
            flow_run_id: UUID of the flow run.
            task_slug: the task's name within its flow, usually ``<task name>-1``.
            result: reads the result, instead of the `Result` that the child flow names. Usually not needed. (Given to
                the constructor, `result` is where Prefect keeps what this task itself returns.)
            timeout: how long to wait at most, instead of `max_duration`, in seconds or as a `timedelta`. (Given to the
                constructor, `timeout` is Prefect's own limit for any task, which stops its thread or process.)

        Returns:
            The value; for a mapped task a list with the values of all children, in map order.

        Raises:
            ValueError: `task_slug` is empty, `flow_run_id` is the current flow run's, there is no such flow run or
                task run, or the time to wait is not positive.
            WaitTimeout: the flow run has not finished in time (a `RuntimeError`).
            Deferred: the wait goes on without this process (a signal, which ends the task run as Scheduled).
            ResultUnavailable: there is no result, or it cannot be found (a `TypeError` or `ValueError`). If the flow
                run failed, the message explains that.
        """
        if not task_slug:
            # `task.slug` of a task in a flow is None, so this is easily passed by mistake
            raise ValueError("Required argument `task_slug` is empty")
        check_is_not_current(flow_run_id, "get_task_run_result")
        self.logger.debug(f"Waiting for flow run {flow_run_id} to finish before its result is loaded...")
        deferring = Deferring(self, flow_run_id, deferrable, defer_after, max_duration, timeout)

        def wait(flow_run_id: str) -> FlowRunView:
            return deferring.wait(flow_run_id, lambda deadline: wait_until_finished(flow_run_id, deadline, poll_time))

        flow_run = finished(flow_run_id, deferring.deadline, wait)
        task_run = flow_run.get_task_run(task_slug=task_slug, map_index=map_index)
        try:
            return task_run.get_result(result=result, serializer=serializer)
        except ResultUnavailable as error:
            if flow_run.state.is_successful():
                raise
            raise type(error)(f"{error}; {explained(flow_run)}") from error.__cause__


get_task_run_result = ready_made(GetTaskRunResult, "get_task_run_result")
