"""Watching flow runs until they have finished."""

import logging
import math
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Set, Union

import pendulum
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_exponential
from tenacity.wait import wait_base

from . import api
from .errors import BackendUnreachable, InvalidArgument, NotFound, WaitTimeout, WrongType
from .views import FlowRunLog, FlowRunView

#: Seconds, or a `timedelta`, or None
Timeout = Union[float, timedelta, None]

#: How long a wait lasts at most, unless the caller says otherwise; that of prefect.backend 1.4.1
LONGEST_WAIT = timedelta(hours=12)

#: Seconds between two polls at most, while a flow run is watched; that of prefect.backend 1.4.1
SLOWEST_POLL = 10.0

#: Seconds before a warning that no agent has taken the flow run, and between two of them
AGENT_WARNING, NEXT_AGENT_WARNING = 15.0, 30.0

#: Logs reach the backend later than their time says, and not in order: a flow run uploads every 5 s
LATEST_LOG = timedelta(seconds=30)

#: Seconds between two looks at the logs
LOG_INTERVAL = 1.0

#: Seconds for which the last logs of a finished flow run are awaited: its process uploads them as it exits
LAST_LOGS = 2.0

#: How long before the last state a log may be the last one
LAST_LINE = timedelta(seconds=0.25)


def _poll_interval(slowest: float) -> wait_base:
    """Fast at first, for children that take a second, then slower, so that long ones cost little."""
    return wait_exponential(multiplier=min(0.1, slowest), exp_base=1.1, max=slowest)


class Deadline:
    """When a wait ends at the latest, on a clock that nobody sets.

    Args:
        max_duration: from now; None for without end. Zero, as Prefect takes it, leaves time for one look.
        timeout: instead of `max_duration`, in seconds or as a `timedelta`.

    Raises:
        WrongType: `timeout` is no time (a `TypeError`).
        InvalidArgument: `timeout` is not positive (a `ValueError`).
    """

    def __init__(self, max_duration: Optional[timedelta], timeout: Timeout = None) -> None:
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float, timedelta, type(None))):
            raise WrongType(f"A timeout is a number of seconds or a timedelta, not {timeout!r}.")
        given = max_duration if timeout is None else timeout
        seconds = given.total_seconds() if isinstance(given, timedelta) else given
        # written so that it also refuses nan
        if timeout is not None and seconds is not None and not seconds > 0:
            raise InvalidArgument(f"A timeout must be longer than 0 s, and not {timeout!r}.")
        self._start = monotonic()
        self._seconds = math.inf if seconds is None else seconds

    @property
    def left(self) -> float:
        """Seconds, at least 0."""
        return max(0.0, self._start + self._seconds - monotonic())

    def missed_by(self, flow_run: FlowRunView) -> WaitTimeout:
        """The error for a flow run that has not finished in time."""
        return WaitTimeout(
            f"Flow run {flow_run.flow_run_id} ({flow_run.name!r}) has not finished within "
            f"{timedelta(seconds=round(self._seconds, 3))} and was left in state {flow_run.state} when last seen; "
            f"waited for {monotonic() - self._start:.1f} s."
        )

    @contextmanager
    def awaiting(self, seen: FlowRunView) -> Iterator[None]:
        """Within the block, a Prefect API that does not answer is asked until the deadline."""
        try:
            with api.patience(self.left):
                yield
        except BackendUnreachable as error:
            raise self.missed_by(seen) from error
        except NotFound as error:
            raise NotFound(
                f"Flow run {seen.flow_run_id} ({seen.name!r}) was deleted while it was waited for. It was in state "
                f"{seen.state} when last seen."
            ) from error


def wait_until_finished(
    flow_run: FlowRunView,
    poll_time: float = SLOWEST_POLL,
    max_duration: Optional[timedelta] = LONGEST_WAIT,
    timeout: Timeout = None,
) -> FlowRunView:
    """Blocks until a flow run has finished. A Prefect API that is away meanwhile is waited for too.

    Args:
        flow_run: a view of it, which may be old.
        poll_time: seconds between two polls at most; they start closer together.
        max_duration: how long to wait at most; None for without end.
        timeout: the same as `max_duration`, and instead of it, in seconds or as a `timedelta`.

    Returns:
        A view of the finished flow run.

    Raises:
        InvalidArgument: `timeout` is not positive (a `ValueError`).
        WaitTimeout: it has not finished in time (a `RuntimeError`).
    """
    deadline = Deadline(max_duration, timeout)
    if flow_run.state.is_finished():
        return flow_run
    latest = flow_run

    def poll() -> FlowRunView:
        nonlocal latest
        with deadline.awaiting(latest):
            latest = latest.get_latest()
        return latest

    until_finished = Retrying(
        retry=retry_if_result(lambda seen: not seen.state.is_finished()),
        wait=_poll_interval(poll_time),
        stop=stop_after_delay(deadline.left),
    )
    try:
        finished: FlowRunView = until_finished(poll)
    except RetryError:
        raise deadline.missed_by(latest) from None
    return finished


def watch_flow_run(
    flow_run_id: str,
    stream_states: bool = True,
    stream_logs: bool = True,
    max_duration: timedelta = LONGEST_WAIT,
    before_poll: Callable[[], None] = lambda: None,
    timeout: Timeout = None,
) -> Iterator[FlowRunLog]:
    """What happens to a flow run, as it happens, until it has finished.

    Drop-in for `prefect.backend.flow_run.watch_flow_run`. Logs that are uploaded late are not lost, those that are
    uploaded after the last state included.

    Args:
        flow_run_id: UUID of the flow run.
        stream_states: yield its changes of state, and a warning if no agent takes it.
        stream_logs: yield its logs.
        max_duration: how long to watch at most.
        before_poll: called before the backend is asked; what it raises ends the watch.
        timeout: the same as `max_duration`, and instead of it, in seconds or as a `timedelta`.

    Yields:
        `FlowRunLog` entries; those found by one poll are sorted by time.

    Raises:
        InvalidArgument: the time to watch is not positive (a `ValueError`).
        NotFound: there is no such flow run, or it was deleted (a `ValueError`).
        WaitTimeout: it has not finished in time (a `RuntimeError`).

    Example:
        >>> for log in watch_flow_run("<id>"):
        ...     print(log.timestamp, log.message)
    """
    deadline = Deadline(max_duration, timeout)
    flow_run = FlowRunView.from_flow_run_id(flow_run_id)
    if flow_run.state.is_finished():
        if stream_states:
            message = f"Your flow run finished {flow_run.updated_at.diff_for_humans()}"
            yield FlowRunLog(pendulum.now(), logging.INFO, message)
        return

    watch = _Watch(flow_run, stream_states, stream_logs)

    def poll() -> List[FlowRunLog]:
        before_poll()
        with deadline.awaiting(watch.flow_run):
            return watch.poll()

    def poll_logs() -> List[FlowRunLog]:
        with deadline.awaiting(watch.flow_run):
            return watch.new_logs()

    while not watch.flow_run.state.is_finished():
        # slow down while nothing happens, and start anew when something did
        until_news = Retrying(
            retry=retry_if_result(lambda news: not news and not watch.flow_run.state.is_finished()),
            wait=_poll_interval(SLOWEST_POLL),
            stop=stop_after_delay(deadline.left),
        )
        try:
            yield from until_news(poll)
        except RetryError:
            raise deadline.missed_by(watch.flow_run) from None
        if not deadline.left and not watch.flow_run.state.is_finished():
            raise deadline.missed_by(watch.flow_run)
    if stream_logs and not watch.has_last_logs():
        last_logs = Retrying(
            retry=retry_if_result(lambda logs: not logs),
            wait=_poll_interval(SLOWEST_POLL),
            stop=stop_after_delay(LAST_LOGS),
            retry_error_callback=lambda attempts: [],
        )
        yield from last_logs(poll_logs)


class _Watch:
    """What has been seen of a flow run."""

    def __init__(self, flow_run: FlowRunView, stream_states: bool, stream_logs: bool) -> None:
        self.flow_run = flow_run
        self._stream_states = stream_states
        self._stream_logs = stream_logs
        self._states = 0
        self._logs: Set[FlowRunLog] = set()
        self._since: Optional[pendulum.DateTime] = None
        self._next_agent_warning = monotonic() + AGENT_WARNING
        self._next_logs = monotonic()

    def poll(self) -> List[FlowRunLog]:
        """Asks once, for what is new."""
        self.flow_run = self.flow_run.get_latest()
        news: List[FlowRunLog] = []
        if self._stream_states:
            news += self._new_states() + self._agent_warning()
        if self._stream_logs and (monotonic() >= self._next_logs or self.flow_run.state.is_finished()):
            self._next_logs = monotonic() + LOG_INTERVAL
            news += self.new_logs()
        return sorted(news)

    def _new_states(self) -> List[FlowRunLog]:
        states = self.flow_run.states[self._states :]
        self._states += len(states)
        return [
            FlowRunLog(state.timestamp, logging.INFO, f"Entered state <{type(state).__name__}>: {state.message}")
            for state in states
        ]

    def new_logs(self) -> List[FlowRunLog]:
        logs = self.flow_run.get_logs(start_time=self._since, end_time=pendulum.now("utc") + LATEST_LOG)
        new = [log for log in logs if log not in self._logs]
        if new:
            self._since = max(log.timestamp for log in logs) - LATEST_LOG
            self._logs = {log for log in self._logs.union(new) if log.timestamp > self._since}
        return new

    def has_last_logs(self) -> bool:
        """Whether the flow run's last line has been seen, which its process logs just before the last state.

        See `determine_final_state` in prefect 1.4.1's engine/flow_runner.py.
        """
        return any(log.timestamp > self.flow_run.states[-1].timestamp - LAST_LINE for log in self._logs)

    def _agent_warning(self) -> List[FlowRunLog]:
        state = self.flow_run.state
        if monotonic() < self._next_agent_warning or state.is_running() or state.is_submitted() or state.is_finished():
            return []
        waited = round(monotonic() - self._next_agent_warning + AGENT_WARNING)
        self._next_agent_warning = monotonic() + NEXT_AGENT_WARNING
        message = (
            f"It has been {waited} seconds and your flow run has not been submitted by an agent. "
            f"{check_for_compatible_agents(self.flow_run.labels)}"
        )
        return [FlowRunLog(pendulum.now(), logging.WARNING, message)]


def check_for_compatible_agents(labels: Iterable[str], since_minutes: int = 1) -> str:
    """Says whether an agent is there that would run a flow run with these labels.

    Drop-in for `prefect.backend.flow_run.check_for_compatible_agents`.

    Args:
        labels: of the flow run.
        since_minutes: an agent that has not asked for work for so long counts as unhealthy.

    Returns:
        A sentence or two for people.
    """
    wanted = set(labels)
    wanted_blurb = f"labels {sorted(wanted)!r}" if wanted else "empty labels"
    oldest = pendulum.now() - timedelta(minutes=since_minutes)
    agents = [
        {**agent, "seen": pendulum.parse(agent["last_queried"])} for agent in api.find("agent") if agent["last_queried"]
    ]
    healthy = [agent for agent in agents if agent["seen"] >= oldest]
    matching = [
        agent
        for agent in agents
        # an agent with labels does not take a flow run without labels
        if wanted <= set(agent["labels"]) and bool(wanted) == bool(agent["labels"])
    ]
    able = [agent for agent in matching if agent in healthy]

    if len(able) > 1:
        return f"Found {len(able)} healthy agents with matching labels. One of them should pick up your flow."
    if able:
        return f"{_described(able[0])} It should deploy your flow run."
    if len(matching) > 1:
        return (
            f"Found {len(matching)} agents with matching labels but they have not queried recently and look "
            f"unhealthy. Restart one of them or start a new agent with {wanted_blurb} to deploy your flow run."
        )
    if matching:
        return (
            f"{_described(matching[0])} Since it hasn't queried recently, it looks unhealthy. Restart it or start a "
            f"new agent with {wanted_blurb} to deploy your flow run."
        )
    if healthy:
        return (
            f"You have {len(healthy)} healthy agents in your tenant but do not have an agent with {wanted_blurb}. "
            "Start an agent with matching labels to deploy your flow run."
        )
    return (
        "There are no healthy agents in your tenant and it does not look like an agent with the required labels has "
        f"been run recently. Start an agent with {wanted_blurb} to run your flow."
    )


def _described(agent: Dict[str, Any]) -> str:
    name = f" ({agent['name']})" if agent["name"] else ""
    return f"Agent {agent['id']}{name} has matching labels and last queried {agent['seen'].diff_for_humans()}."
