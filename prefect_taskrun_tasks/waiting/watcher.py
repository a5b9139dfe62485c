"""One loop for all waits of a process: it asks for all their flow runs at once, and tells each wait what is new."""

import os
import threading
from datetime import timedelta
from time import monotonic, sleep
from typing import Any, Dict, List, Optional, Set, Tuple

import pendulum
import prefect
from prefect.utilities.logging import get_logger
from tenacity import RetryCallState, Retrying, retry_if_exception_type, retry_if_result
from tenacity.wait import wait_base

from .. import api
from ..errors import BackendUnreachable, BadAnswer, NotFound
from ..views.history import instant
from . import cycles
from .pace import wait_share_of_quiet
from .question import LOG_FIELDS, question
from .wait import LASTING, Wait

#: Seconds between two looks at least, unless somebody wants less; well under what people notice. Where there are more
#: than `CROWD` waits they follow each other less closely in proportion, or else each change would cost a request
FASTEST, CROWD = 0.08, 100

#: Of the time watched so far, the share that is spent between two polls: changes of many flow runs, one after the
#: other, would have them follow each other as closely as they may
SHARE = 0.03

#: Seconds between two polls for as long as a child usually takes; those of prefect.backend 1.4.1
STEADY = 2.0

#: Seconds between two looks at most, if they are apart only because there are so many
BUSIEST = 1.0

#: Seconds between two looks at states and logs on the way, where the backend tells of the last state by itself
ON_THE_WAY = 1.0

#: How long after its time a log line may come to light; a flow run uploads every 5 s. A watch reads the later ones when
#: the flow run has finished
LATE = timedelta(seconds=15)

_logger = get_logger(__name__)


class Watcher:
    """Asks one Prefect API for all flow runs that this process waits for, from a thread that lives while it does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: Set[Wait] = set()
        self._thread: Optional[threading.Thread] = None
        self._woken = threading.Event()
        self._hold: Optional[api.Hold] = None
        self._hold_for = 0.0
        self._is_pushed = False
        self._last_look = 0.0
        self._logs_since: Optional[str] = None
        #: why the Prefect API was not reached the last time; None if it was
        self.failure: Optional[Exception] = None
        self._failures = 0

    def add(self, wait: Wait) -> None:
        with self._lock:
            self._waits.add(wait)
            if self._thread is None or not self._thread.is_alive():
                # what it says in the log belongs to the flow run, but not to the task run that happens to wait first
                context = {key: value for key, value in prefect.context.to_dict().items() if key != "task_run_id"}
                self._thread = threading.Thread(target=self._run, args=(context,), name="watcher", daemon=True)
                self._thread.start()
            self._wake()

    def remove(self, wait: Wait) -> None:
        with self._lock:
            self._waits.discard(wait)
            if not self._waits:
                self._wake()

    def _wake(self) -> None:
        self._woken.set()
        if self._hold is not None:
            self._hold.release()

    def _run(self, context: Dict[str, Any]) -> None:
        with prefect.context(context):
            self._since = monotonic()
            while not self._is_over():
                self._until_news()

    def _is_over(self) -> bool:
        with self._lock:
            if not self._waits:
                self._thread = None
            return not self._waits

    def _until_news(self) -> None:
        """Looks again and again, less and less often, until there is something new or nobody waits any more."""
        until_news = Retrying(
            retry=retry_if_result(lambda news: not news) | retry_if_exception_type((BackendUnreachable, BadAnswer)),
            wait=self._pause_after,
            stop=lambda attempt: not self._waits,
            sleep=self._pause,
            retry_error_callback=lambda attempt: None,
        )
        # as long as after the first look
        self._hold_for = self._pace()(RetryCallState(until_news, None, (), {}))
        until_news(self._look)

    def _pause_after(self, attempt: RetryCallState) -> float:
        """Seconds until the next look."""
        if self.failure is None:
            return self._pace()(attempt)
        # not for long: the flow runs go on meanwhile. Unless the Prefect API asks for it
        pause: float = max(min(FASTEST * 2**self._failures, STEADY), getattr(self.failure, "retry_after", 0.0))
        return pause

    def _pace(self) -> wait_base:
        """Seconds between two looks: growing while nothing happens, and never more than anybody asked for."""
        waits = self._snapshot()
        slowest = min((wait.slowest for wait in waits), default=0.0)
        if any(wait.is_ending for wait in waits):
            first = FASTEST
        elif self._is_pushed:
            first = ON_THE_WAY if any(wait.states or wait.logs for wait in waits) else slowest
        else:
            first = max(_spacing(waits), min(SHARE * (monotonic() - self._since), BUSIEST))
        return wait_share_of_quiet(first, slowest if self._is_pushed else STEADY, slowest)

    def _pause(self, seconds: float) -> None:
        """Between two looks. A backend that can spends it within the next look, which ends as soon as there is news."""
        if self._is_pushed:
            self._hold_for = seconds
        else:
            self._woken.wait(seconds)

    def _snapshot(self) -> List[Wait]:
        with self._lock:
            return list(self._waits)

    def _look(self) -> bool:
        """Asks once for what is new; whether there was something."""
        sleep(max(0.0, self._last_look + _spacing(self._snapshot()) - monotonic()))
        with self._lock:
            self._woken.clear()
            waits = list(self._waits)
            can_wait = self._is_pushed and not any(wait.is_new or wait.is_ending for wait in waits)
            if not waits:
                return True
            hold = self._hold = api.Hold(self._hold_for if can_wait else 0.0)
        try:
            is_news = self._ask(waits, hold)
            self.failure, self._failures = None, 0
            self._declare(waits)
            return is_news
        except api.Released:
            return True
        except (BackendUnreachable, BadAnswer) as error:
            self.failure, self._failures, self._is_pushed = error, min(self._failures + 1, 10), False
            if not api.has_answered():
                # it may be the wrong address
                self._end([wait for wait in waits if monotonic() >= wait.since + wait.patience], error)
            raise
        except Exception as error:
            # a definite answer, which is not asked for again
            self._end(waits, error)
            return True
        finally:
            self._last_look = monotonic()
            with self._lock:
                self._hold = None
            for wait in waits:
                wait.is_looked_for.set()

    def _end(self, waits: List[Wait], error: BaseException) -> None:
        with self._lock:
            self._waits.difference_update(waits)
        for wait in waits:
            wait.end(error)

    def _declare(self, waits: List[Wait]) -> None:
        """Ends waits that would never end, once they have lasted a while; most are over by then."""
        lasting = [wait for wait in waits if wait.edge and monotonic() > wait.declares_at]
        if not lasting:
            return
        try:
            # nothing that goes wrong here may hold up the waits, which end at their limits if they are in a cycle
            with api.patience(0):
                errors = cycles.declare({wait.edge for wait in lasting if wait.edge})
        except Exception:
            _logger.debug("Flow runs that wait for each other cannot be looked for", exc_info=True)
            for wait in lasting:
                wait.declares_at = monotonic() + LASTING
            return
        for wait in lasting:
            edge, wait.edge = wait.edge, None
            if edge in errors:
                self._end([wait], errors[edge])

    def _ask(self, waits: List[Wait], hold: api.Hold) -> bool:
        document, variables = question(waits, self._logs_since)
        ids = variables["ids"]["id"]["_in"]
        purpose = f"watching flow run {ids[0]!r}" if len(ids) == 1 else f"watching {len(ids)} flow runs"
        answer = api.ask(document, variables, purpose, hold)
        found = {name: api.rows_of(answer, name, purpose) for name in variables if name != "ids"}
        count = api.count_of(answer, "flow_run", purpose)
        self._is_pushed = hold.is_applied
        rows = {row["id"]: row for row in found["told"] + found.get("untold", [])}
        logs = found.get("logs", [])
        if len(logs) == api.PAGE:
            # there may be more
            logs = _all_logs(variables["logs"])
        by_run: Dict[str, List[api.Row]] = {}
        for log in logs:
            by_run.setdefault(log["flow_run_id"], []).append(log)
        news = [self._tell(wait, rows, by_run) for wait in waits]
        if logs:
            self._logs_since = max(self._logs_since or "", _before_late_ones(logs))
        cancelled = {row["id"] for row in found.get("cancelled", [])}
        for wait in waits:
            wait.see_parent(cancelled)
        if count < len(ids):
            self._end_missing(waits, ids)
        return any(news)

    def _tell(self, wait: Wait, rows: Dict[str, api.Row], logs: Dict[str, List[api.Row]]) -> bool:
        try:
            return wait.see(rows.get(wait.flow_run_id), logs.get(wait.flow_run_id, []))
        except Exception as error:
            # such as a state of a kind that is not known here
            self._end([wait], error)
            return True

    def _end_missing(self, waits: List[Wait], ids: List[str]) -> None:
        there = {row["id"] for row in api.find("flow_run", {"id": {"_in": ids}}, fields="id")}
        for wait in waits:
            if wait.flow_run_id not in there:
                self._end([wait], NotFound(f"No flow run {wait.flow_run_id!r} was found."))


def _spacing(waits: List[Wait]) -> float:
    """Seconds between two looks at least."""
    return min([FASTEST * max(1.0, len(waits) / CROWD), BUSIEST, *(wait.slowest for wait in waits)])


def _all_logs(where: api.Where) -> List[api.Row]:
    return [log for page in api.pages("log", where, fields=LOG_FIELDS) for log in page]


def _before_late_ones(logs: List[api.Row]) -> str:
    """The time of which log lines may still come to light, as a text that sorts as times do."""
    # a clock that goes ahead must not hide what the others have to tell
    latest = min(max(instant(log["timestamp"]) for log in logs), pendulum.now("utc"))
    since: str = (latest - LATE).in_timezone("utc").isoformat(timespec="microseconds")
    return since


_watchers: Dict[Tuple[Any, ...], Watcher] = {}
_watchers_lock = threading.Lock()


def watcher() -> Watcher:
    """This process's watcher for the Prefect API that is configured."""
    config = prefect.context.config.cloud
    key = (config.api, config.get("api_key"), config.get("tenant_id"))
    with _watchers_lock:
        return _watchers.setdefault(key, Watcher())


def _forget() -> None:
    global _watchers_lock
    _watchers_lock = threading.Lock()
    _watchers.clear()


# threads do not come along into a process that was forked
os.register_at_fork(after_in_child=_forget)
