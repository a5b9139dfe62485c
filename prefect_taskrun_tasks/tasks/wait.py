"""Waits for a flow run."""

from datetime import timedelta
from typing import Any, Type

import prefect
from prefect import Task
from prefect.engine.signals import FAIL, PrefectStateSignal, signal_from_state
from prefect.engine.state import State

from .. import api
from ..views import FlowRunView
from ..waiting import LONGEST_WAIT, Timeout, watch_flow_run
from .defaults import defaults_from_constructor


def check_is_not_current(flow_run_id: str, task: str) -> None:
    """Refuses to wait for the flow run that the current task belongs to, which would never end.

    Raises:
        ValueError: it is the current flow run.
    """
    if flow_run_id and prefect.context.get("flow_run_id") == flow_run_id:
        raise ValueError(
            f"Given `flow_run_id` is the same as the currently running flow: {flow_run_id}. `{task}` waits for a flow "
            "run to finish, so it cannot be used on the flow run that it belongs to."
        )


def _signal(state: State) -> Type[PrefectStateSignal]:
    try:
        return signal_from_state(state)
    except ValueError:
        # prefect.engine.signals has none for Cancelled and TimedOut
        return FAIL


class WaitForFlowRun(Task):
    """Task that waits until a flow run has finished, and repeats its states and logs meanwhile.

    Drop-in for the task `prefect.tasks.prefect.wait_for_flow_run`. Everything given here is a default for calls of the
    task, where it can be overridden. Other keyword arguments are those of `prefect.Task`.

    Args:
        stream_states: log the flow run's changes of state.
        stream_logs: log the flow run's logs.
        raise_final_state: end in the state that the flow run ended in, or Failed if it was cancelled; otherwise the
            task succeeds whatever it was.
        max_duration: how long to wait at most.

    Example:
        >>> with Flow("parent") as flow:
        ...     child_run_id = create_flow_run(flow_name="child")
        ...     wait_for_flow_run(child_run_id, raise_final_state=True)
    """

    def __init__(
        self,
        stream_states: bool = True,
        stream_logs: bool = False,
        raise_final_state: bool = False,
        max_duration: timedelta = LONGEST_WAIT,
        **kwargs: Any,
    ) -> None:
        self.stream_states = stream_states
        self.stream_logs = stream_logs
        self.raise_final_state = raise_final_state
        self.max_duration = max_duration
        super().__init__(**kwargs)

    @defaults_from_constructor("stream_states", "stream_logs", "raise_final_state", "max_duration")
    def run(
        self,
        flow_run_id: str,
        stream_states: bool = True,
        stream_logs: bool = False,
        raise_final_state: bool = False,
        max_duration: timedelta = LONGEST_WAIT,
        timeout: Timeout = None,
    ) -> FlowRunView:
        """Waits. Arguments are those of the class, and:

        Args:
            flow_run_id: UUID of the flow run.
            timeout: how long to wait at most, instead of `max_duration`, in seconds or as a `timedelta`. (Given to the
                constructor, `timeout` is Prefect's own limit for any task, which stops its thread or process.)

        Returns:
            A view of the finished flow run.

        Raises:
            ValueError: `flow_run_id` is the current flow run's, there is no such flow run (any more), or the timeout
                is not positive.
            WaitTimeout: it has not finished in time (a `RuntimeError`).
            prefect.engine.signals.PrefectStateSignal: with `raise_final_state`, the final state's signal; its message
                explains a failure.
        """
        check_is_not_current(flow_run_id, "wait_for_flow_run")
        flow_run = FlowRunView.from_flow_run_id(flow_run_id)
        for log in watch_flow_run(flow_run_id, stream_states, stream_logs, max_duration, timeout=timeout):
            self.logger.log(log.level, f"Flow {flow_run.name!r}: {log.message}")
        finished = flow_run.get_latest()
        if raise_final_state:
            signal = _signal(finished.state)
            message = f"{flow_run_id} finished in state {finished.state}"
            if not finished.state.is_successful():
                message = f"{message}; {finished.explain_failure('; ')}; {api.flow_run_url(flow_run_id)}"
            raise signal(message=message, result=finished)
        return finished


wait_for_flow_run = WaitForFlowRun(name="wait_for_flow_run")
