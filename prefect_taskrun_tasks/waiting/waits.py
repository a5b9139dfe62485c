"""What one thread waits for: flow runs, until they have finished or the time is over."""

import queue
from contextlib import suppress
from time import monotonic
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple
from uuid import UUID

from prefect.exceptions import ClientError

from .. import api
from ..errors import NotFound, TaskRunError
from ..views import FlowRunView
from .cancelling import cancel_children
from .deadline import Deadline
from .wait import News, Told, Wait, is_finished
from .watcher import watcher

#: Seconds between two polls at most, while a flow run is watched; that of prefect.backend 1.4.1
SLOWEST_POLL = 10.0

#: Seconds for which a thread is blocked at most, so that it can be interrupted
SLICE = 1.0

#: Seconds for the first look at a flow run, where there is no time to wait
FIRST_LOOK = 5.0


class Waits:
    """Flow runs that the current thread waits for, within a block.

    Args:
        deadline: when to give up.
        poll_time: seconds between two looks at most, where the backend does not tell by itself.
        states: whether states on the way are of interest.
        logs: whether logs are.
        before_poll: called at least once a second; what it raises ends the wait.
    """

    def __init__(
        self,
        deadline: Deadline,
        poll_time: float = SLOWEST_POLL,
        states: bool = False,
        logs: bool = False,
        before_poll: Callable[[], None] = lambda: None,
    ) -> None:
        self._deadline = deadline
        self._options: Dict[str, Any] = {
            "slowest": poll_time,
            "states": states,
            "logs": logs,
            "until": deadline.final.end,
        }
        self._before_poll = before_poll
        self._inbox: queue.SimpleQueue[Told] = queue.SimpleQueue()
        #: whether the flow run that waits is being cancelled, and its children with it
        self.is_parent_cancelled = False
        #: flow runs that are waited for, and what was seen of them last
        self._seen: Dict[Wait, Optional[api.Row]] = {}
        self._watcher = watcher()

    def __enter__(self) -> "Waits":
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        waits = list(self._seen)
        for wait in waits:
            self.leave(wait)
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            # Prefect interrupts a flow run that is cancelled, perhaps before it was seen here
            for wait in waits:
                if wait.guarded_by:
                    with suppress(Exception):
                        cancel_children(wait.guarded_by, wait.flow_run_id)

    def add(self, flow_run_id: str) -> Wait:
        """Begins to wait for a flow run.

        Raises:
            TypeError, ValueError, prefect.exceptions.ClientError: that is no UUID of a flow run.
        """
        try:
            flow_run_id = str(UUID(flow_run_id))
        except (AttributeError, TypeError, ValueError):
            # what is wrong with it is for the lookup, or the Prefect API, to say; it must not spoil the others' query
            FlowRunView.from_flow_run_id(flow_run_id)
        wait = Wait(flow_run_id, self._inbox, **self._options)
        self._seen[wait] = None
        self._watcher.add(wait)
        return wait

    def leave(self, wait: Wait) -> None:
        """Waits for it no longer."""
        self._watcher.remove(wait)
        self._seen.pop(wait, None)

    def news(self) -> Iterator[Tuple[Wait, Optional[News]]]:
        """Blocks, and yields what is new; None at least once a second, if there is nothing.

        Raises:
            WaitTimeout: the time is over (a `RuntimeError`).
            NotFound: there is no such flow run, or no longer (a `ValueError`).
            WaitCycle: it waits for the flow run that waits for it (a `ValueError`).
        """
        while self._seen:
            self._before_poll()
            try:
                wait, told = self._inbox.get(timeout=min(SLICE, self._left()))
            except queue.Empty:
                self._check_time()
                yield next(iter(self._seen)), None
                continue
            if wait not in self._seen:
                continue
            if isinstance(told, BaseException):
                raise self._explained(wait, told)
            if told.is_parent_cancelled:
                assert wait.waiting_run_id
                self.is_parent_cancelled = True
                # if that fails, the wait that is interrupted thereafter tries again
                with suppress(TaskRunError, ClientError):
                    cancel_children(wait.waiting_run_id, wait.flow_run_id)
                continue
            if told.row is not None:
                self._seen[wait] = told.row
            yield wait, told

    def next_finished(self) -> Tuple[Wait, FlowRunView]:
        """Blocks until one of the flow runs has finished, which is then waited for no longer.

        Raises:
            As `news`.
        """
        for wait, news in self.news():
            if news and news.row and is_finished(news.row):
                self.leave(wait)
                return wait, FlowRunView._from_flow_run_data(news.row)
        raise ValueError("No flow run is waited for.")

    def _unfinished(self) -> List[Wait]:
        return [wait for wait, row in self._seen.items() if row is None or not is_finished(row)]

    def _left(self) -> float:
        """Seconds; a flow run that has finished, and of which only logs are awaited, is in time."""
        return self._deadline.left if self._unfinished() else SLICE

    def _check_time(self) -> None:
        if self._deadline.left:
            return
        for wait in self._unfinished():
            if self._deadline.was_over(wait.since):
                wait.is_looked_for.wait(max(0.0, wait.since + FIRST_LOOK - monotonic()))
            if self._inbox.empty():
                raise self._missed(wait) from self._watcher.failure

    def _missed(self, wait: Wait) -> Exception:
        row = self._seen[wait]
        if row is None:
            return self._deadline.missed(f"Flow run {wait.flow_run_id}", "could not be looked at")
        view = FlowRunView._from_flow_run_data(row)
        return self._deadline.missed(_described(row), f"was left in state {view.state} when last seen")

    def _explained(self, wait: Wait, error: BaseException) -> BaseException:
        row = self._seen[wait]
        if row is not None and isinstance(error, NotFound):
            state = FlowRunView._from_flow_run_data(row).state
            return NotFound(
                f"{_described(row)} was deleted while it was waited for. It was in state {state} when last seen."
            )
        return error


def _described(row: api.Row) -> str:
    return f"Flow run {row['id']} ({row['name']!r})"


def wait_until_finished(flow_run_id: str, deadline: Deadline, poll_time: float = SLOWEST_POLL) -> FlowRunView:
    """Blocks until a flow run has finished. A Prefect API that is away meanwhile is waited for too.

    Args:
        flow_run_id: the flow run's UUID.
        deadline: when to give up.
        poll_time: seconds between two polls at most; they start closer together.

    Returns:
        A view of the finished flow run.

    Raises:
        NotFound: there is no such flow run, or it was deleted (a `ValueError`).
        WaitTimeout: it has not finished in time (a `RuntimeError`).
    """
    with Waits(deadline, poll_time) as waits:
        waits.add(flow_run_id)
        return waits.next_finished()[1]
