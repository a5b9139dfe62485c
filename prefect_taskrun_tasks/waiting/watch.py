"""What happens to a flow run, as it happens."""

import logging
from contextlib import suppress
from datetime import timedelta
from time import monotonic
from typing import Callable, FrozenSet, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

import pendulum
from prefect.exceptions import ClientError

from .. import api
from ..errors import TaskRunError
from ..views import FlowRunLog, FlowRunView
from .agents import tell_of_agents
from .deadline import LONGEST_WAIT, Deadline, Timeout
from .last_lines import LastLines
from .question import LOG_FIELDS
from .waits import Waits
from .watcher import LATE

#: Seconds before a warning that no agent has taken the flow run, and between two of them
AGENT_WARNING, NEXT_AGENT_WARNING = 15.0, 30.0

#: Of the last lines that were told, how many are marked one by one, at most, and by how much of their ids
MOST_LINES, ID = 100, 8


def watch_flow_run(
    flow_run_id: str,
    stream_states: bool = True,
    stream_logs: bool = True,
    max_duration: timedelta = LONGEST_WAIT,
    before_poll: Callable[[], None] = lambda: None,
    timeout: Timeout = None,
    task_run_id: Optional[str] = None,
) -> Iterator[FlowRunLog]:
    """What happens to a flow run, as it happens, until it has finished.

    Drop-in for `prefect.backend.flow_run.watch_flow_run`. Logs that are uploaded late are not lost, also if that is
    after the final state: the watch ends when the log is complete, see `LastLines`. Until then it holds the final state
    back, so that no earlier line comes after it.

    Args:
        flow_run_id: UUID of the flow run.
        stream_states: yield its changes of state, and a warning if no agent takes it.
        stream_logs: yield its logs.
        max_duration: how long to watch at most.
        before_poll: called at least once a second; what it raises ends the watch.
        timeout: the same as `max_duration`, and instead of it, in seconds or as a `timedelta`.
        task_run_id: yield only the logs of this task run, by its UUID.

    Yields:
        `FlowRunLog` entries; those found at once are sorted by time.

    Raises:
        InvalidArgument: the time to watch is not positive (a `ValueError`).
        NotFound: there is no such flow run, or it was deleted (a `ValueError`).
        WaitTimeout: it has not finished in time (a `RuntimeError`).

    Example:
        >>> for log in watch_flow_run("<id>"):
        ...     print(log.timestamp, log.message)
    """
    deadline = Deadline(max_duration, timeout)
    yield from Watch(flow_run_id, stream_states, stream_logs, before_poll, task_run_id).until(deadline)


class Bookmark(NamedTuple):
    """How far the doings of a flow run have been told."""

    #: the time of the last state that was
    state: Optional[pendulum.DateTime] = None
    #: the time until which all log lines were
    log: Optional[pendulum.DateTime] = None
    #: what the ids of lines begin with that were told too: others of the same time may come to light
    lines: FrozenSet[str] = frozenset()


class Watch:
    """A flow run that is watched, with the arguments of `watch_flow_run`, and:

    Args:
        after: where another watch of it, in another process, has ended.
    """

    def __init__(
        self,
        flow_run_id: str,
        stream_states: bool,
        stream_logs: bool,
        before_poll: Callable[[], None] = lambda: None,
        task_run_id: Optional[str] = None,
        after: Optional[Bookmark] = None,
    ) -> None:
        self.flow_run_id = flow_run_id
        self._is_resumed = after is not None
        #: how far its doings have been told: before, and by now
        self._after = self.bookmark = after or Bookmark()
        self._task_run_id = task_run_id
        self._stream_states = stream_states
        self._stream_logs = stream_logs
        self._before_poll = before_poll
        self._seen: Optional[FlowRunView] = None
        self._states = 0
        #: hashes of the ids of log lines that have been seen
        self._lines: Set[int] = set()
        #: the last lines: their times, and what their ids begin with
        self._recent: List[Tuple[pendulum.DateTime, str]] = []
        self._last_lines = LastLines()
        self._since = monotonic()
        self._next_agent_warning = self._since + AGENT_WARNING

    @property
    def seen(self) -> FlowRunView:
        """The flow run as it was seen last, once something has been yielded."""
        assert self._seen is not None
        return self._seen

    def until(self, deadline: Deadline) -> Iterator[FlowRunLog]:
        """What happens to it until it has finished, but for what was told before; as `watch_flow_run`."""
        with Waits(
            deadline, states=self._stream_states, logs=self._stream_logs, before_poll=self._before_poll
        ) as waits:
            waits.add(self.flow_run_id)
            # what has come since the final state
            held: List[FlowRunLog] = []
            try:
                for _, news in waits.news():
                    if news and news.row:
                        is_first = self._seen is None
                        self._seen = FlowRunView._from_flow_run_data(news.row)
                        if is_first and self._seen.state.is_finished() and not self._is_resumed:
                            held += self._summary()
                            break
                        held += self._new_states()
                    if news:
                        held += self._new_logs(news.logs)
                    held += self._agent_warning()
                    if not self._is_finished():
                        yield from sorted(held)
                        held = []
                    elif not self._stream_logs:
                        break
                    elif self._last_lines.are_stored(self._began()):
                        held += self._new_logs(self._all_logs())
                        break
            except Exception:
                yield from sorted(held)
                raise
            yield from sorted(held)

    def _is_finished(self) -> bool:
        return self._seen is not None and self._seen.state.is_finished()

    def _began(self) -> Optional[pendulum.DateTime]:
        """When the flow run was last Running."""
        return max((state.timestamp for state in self.seen.states if state.is_running()), default=None)

    def _all_logs(self) -> List[api.Row]:
        """All lines of the log: some may have been uploaded later than the poll for new ones expects."""
        where = {"flow_run_id": {"_eq": self.flow_run_id}}
        return [row for page in api.pages("log", where, fields=LOG_FIELDS) for row in page]

    def _summary(self) -> List[FlowRunLog]:
        message = f"Your flow run finished {self.seen.updated_at.diff_for_humans()}"
        return [FlowRunLog(pendulum.now(), logging.INFO, message)] if self._stream_states else []

    def _new_states(self) -> List[FlowRunLog]:
        states = self.seen.states[self._states :]
        self._states += len(states)
        if states and self._is_finished():
            self._last_lines.finish()
        if not self._stream_states:
            return []
        told = self._after.state
        states = [state for state in states if told is None or state.timestamp > told]
        self.bookmark = self.bookmark._replace(state=self.seen.states[-1].timestamp)
        return [
            FlowRunLog(state.timestamp, logging.INFO, f"Entered state <{type(state).__name__}>: {state.message}")
            for state in states
        ]

    def _new_logs(self, rows: Iterable[api.Row]) -> List[FlowRunLog]:
        logs = [(FlowRunLog.from_dict(row), row) for row in rows if hash(row["id"]) not in self._lines]
        self._lines.update(hash(row["id"]) for _, row in logs)
        self._last_lines.add(row for _, row in logs)
        self._recent = sorted([*self._recent, *((log.timestamp, row["id"][:ID]) for log, row in logs)])
        if logs:
            self._turn_page()
        _, told, lines = self._after
        return [
            log
            for log, row in logs
            if self._task_run_id in (None, row["task_run_id"])
            and (told is None or log.timestamp > told)
            and row["id"][:ID] not in lines
        ]

    def _turn_page(self) -> None:
        """Marks the lines that have been told, one by one as long as others may come between them."""
        latest, _ = self._recent[-1]
        late = [line for line in self._recent if line[0] > latest - LATE][-MOST_LINES:]
        for time, _ in self._recent[: -len(late)]:
            self.bookmark = self.bookmark._replace(log=max(time, self.bookmark.log or time))
        self._recent = late
        self.bookmark = self.bookmark._replace(lines=frozenset(id for _, id in late))

    def _agent_warning(self) -> List[FlowRunLog]:
        if self._seen is None or not self._stream_states or monotonic() < self._next_agent_warning:
            return []
        state = self._seen.state
        if state.is_running() or state.is_submitted() or state.is_finished():
            return []
        waited = round(monotonic() - self._since)
        self._next_agent_warning = monotonic() + NEXT_AGENT_WARNING
        message = f"It has been {waited} seconds and your flow run has not been submitted by an agent."
        # a Prefect API that is away just now must not end the watch, or hold it up
        with suppress(TaskRunError, ClientError), api.patience(0):
            message = f"{message} {tell_of_agents(self._seen.labels)}"
        return [FlowRunLog(pendulum.now(), logging.WARNING, message)]
