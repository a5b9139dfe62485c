"""Waits for a flow run."""

from datetime import timedelta
from typing import Any, Optional, Type

from prefect import Task
from prefect.engine.signals import FAIL, LOOP, SUCCESS, PrefectStateSignal, signal_from_state
from prefect.engine.state import State

from ..views import FlowRunView
from ..waiting import LONGEST_WAIT, Deadline, Timeout, Watch
from .child import check_is_not_current, explained, finished
from .defaults import defaults_from_constructor
from .deferring import Deferring
from .ready_made import ready_made


def _signal(state: State) -> Type[PrefectStateSignal]:
    try:
        signal = signal_from_state(state)
    except ValueError:
        # prefect.engine.signals has none for Cancelled, TimedOut, Cached, Mapped and Finished
        signal = SUCCESS if state.is_successful() else FAIL
    # which would have the waiting task run again and again
    return FAIL if signal is LOOP else signal


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
        deferrable: whether a wait that lasts goes on without this process, see `docs/flows-of-flows.md`. Default: what
            Prefect's config says in ``prefect_taskrun_tasks.deferrable``, or not. A wait outside of a backend run
            never does.
        defer_after: seconds for which it holds the process first; default: ``prefect_taskrun_tasks.defer_after`` in
            Prefect's config, or 30.

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
        deferrable: Optional[bool] = None,
        defer_after: Optional[float] = None,
        **kwargs: Any,
    ) -> None:
        self.stream_states = stream_states
        self.stream_logs = stream_logs
        self.raise_final_state = raise_final_state
        self.max_duration = max_duration
        self.deferrable = deferrable
        self.defer_after = defer_after
        super().__init__(**kwargs)

    @defaults_from_constructor
    def run(
        self,
        flow_run_id: str,
        stream_states: bool = True,
        stream_logs: bool = False,
        raise_final_state: bool = False,
        max_duration: timedelta = LONGEST_WAIT,
        timeout: Timeout = None,
        deferrable: Optional[bool] = None,
        defer_after: Optional[float] = None,
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
            Deferred: the wait goes on without this process (a signal, which ends the task run as Scheduled).
            prefect.engine.signals.PrefectStateSignal: with `raise_final_state`, the final state's signal; its message
                explains a failure.
        """
        check_is_not_current(flow_run_id, "wait_for_flow_run")
        deferring = Deferring(self, flow_run_id, deferrable, defer_after, max_duration, timeout)

        def wait(flow_run_id: str) -> FlowRunView:
            watch = Watch(flow_run_id, stream_states, stream_logs, after=deferring.told)

            def repeat(deadline: Deadline) -> FlowRunView:
                for log in watch.until(deadline):
                    self.logger.log(log.level, f"Flow {watch.seen.name!r}: {log.message}")
                    deferring.told = watch.bookmark
                return watch.seen

            return deferring.wait(flow_run_id, repeat)

        flow_run = finished(flow_run_id, deferring.deadline, wait)
        if raise_final_state:
            state = flow_run.state
            told = str(state) if state.is_successful() else f"<{type(state).__name__}>; {explained(flow_run)}"
            raise _signal(state)(message=f"{flow_run.flow_run_id} finished in state {told}", result=flow_run)
        return flow_run


wait_for_flow_run = ready_made(WaitForFlowRun, "wait_for_flow_run")
