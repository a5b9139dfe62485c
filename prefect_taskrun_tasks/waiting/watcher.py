"""One loop for all waits of a process: it asks for all their flow runs at once, and tells each wait what is new."""

import os
import threading
from datetime import timedelta
from queue import SimpleQueue
from time import monotonic, sleep
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple, Union

import pendulum
import prefect
from prefect.engine.state import Finished
from prefect.utilities.logging import get_logger
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    wait_exponential,
    wait_random,
)
from tenacity.wait import wait_base

from .. import api
from ..errors import BackendUnreachable, BadAnswer, NotFound
from ..results import state_class
from ..views import Lineage
from ..views.arguments import STATES
from . import cycles

#: Seconds between two looks at least, unless somebody wants less; well under what people notice
FASTEST = 0.08

#: Of the time watched so far, the share that is spent between two looks, up to `BUSIEST` seconds: changes of many flow
#: runs, one after the other, would have them follow each other as closely as they may
SHARE, BUSIEST = 0.03, 1.0

#: By how much the time between two looks grows while nothing happens
GROWTH = 1.1

#: Seconds between two looks at states and logs on the way, where the backend tells of the last state by itself
ON_THE_WAY = 1.0

#: Flow runs so few that each of their states is told at once, and not only the last one
FEW = 10

#: Seconds that a wait has lasted before it is looked whether it will ever end
LASTING = 5.0

#: Seconds that a log may come to light after others that were stored later
LOG_OVERLAP = timedelta(seconds=2)

_logger = get_logger(__name__)

_FINISHED = sorted(name for name, state in STATES.items() if issubclass(state, Finished))
_LOG_FIELDS = f"{api.FIELDS['log']} flow_run_id created"


class News(NamedTuple):
    """What is new of a flow run."""

    #: the flow run as it is now, if it was not known or has entered another state
    row: Optional[api.Row]
    #: log lines that were not known
    logs: List[api.Row]
    #: the flow run that waits is being cancelled, and wants to have this one cancelled too
    is_parent_cancelled: bool = False


#: What a wait is told: news, or the error that ends it
Told = Tuple["Wait", Union[News, BaseException]]


class Wait:
    """A flow run that somebody waits for.

    Args:
        flow_run_id: the flow run's UUID.
        inbox: where what is new of it goes.
        slowest: seconds between two looks at most.
        states: whether its states on the way are of interest.
        logs: whether its logs are.
    """

    def __init__(
        self, flow_run_id: str, inbox: "SimpleQueue[Told]", slowest: float, states: bool = False, logs: bool = False
    ) -> None:
        self.flow_run_id = flow_run_id
        self.slowest = slowest
        self.states = states
        self.logs = logs
        self.since = monotonic()
        #: seconds for which the Prefect API may be away before it has answered once: it may be the wrong address
        self.patience = api.patience_now()
        #: UUID of the flow run that waits, if it is a backend's
        self.waiting_run_id: Optional[str] = prefect.context.get("flow_run_id")
        #: who waits for what, until that has been declared
        self.edge = (
            cycles.Edge(self.waiting_run_id, prefect.context.get("task_run_id"), flow_run_id)
            if self.waiting_run_id
            else None
        )
        #: the waiting flow run, if the awaited one is its child and is to be cancelled together with it
        self.guarded_by: Optional[str] = None
        #: whether that one is being cancelled, and the wait has been told so
        self.is_parent_cancelled = False
        #: set once the awaited flow run has been looked for, whether the Prefect API has answered or not
        self.is_looked_for = threading.Event()
        #: whether it has finished, and only its last logs are awaited
        self.is_ending = False
        self._inbox = inbox
        self._version: Optional[int] = None
        self._logs: Dict[str, str] = {}

    @property
    def is_new(self) -> bool:
        return self._version is None

    @property
    def version(self) -> Optional[int]:
        """Of the flow run's state that was told last."""
        return self._version

    def see(self, row: Optional[api.Row], logs: List[api.Row]) -> bool:
        """Tells what is new in what was found; whether there was something."""
        if row is not None and row["version"] == self._version:
            row = None
        new = [log for log in logs if log["id"] not in self._logs]
        self._logs.update((log["id"], log["created"]) for log in new)
        if row is not None:
            self._version = row["version"]
            self.is_ending = is_finished(row)
            lineage = Lineage.of(row["context"])
            if (
                lineage
                and lineage.parent_close_policy == "cancel"
                and lineage.parent_flow_run_id == self.waiting_run_id
            ):
                self.guarded_by = self.waiting_run_id
        if row is not None or new:
            self._inbox.put((self, News(row, new)))
        return row is not None or bool(new)

    def forget_logs(self, before: str) -> None:
        """Those that will not be found again need not be known."""
        self._logs = {id: created for id, created in self._logs.items() if created > before}

    def see_parent(self, cancelled: Set[str]) -> None:
        """Tells, once, that the flow run that waits is among those that are being cancelled."""
        if self.guarded_by in cancelled and not self.is_parent_cancelled:
            # it stays guarded: whoever was told may be interrupted while it cancels, and has to do so again
            self.is_parent_cancelled = True
            self._inbox.put((self, News(None, [], True)))

    def end(self, error: BaseException) -> None:
        self._inbox.put((self, error))


def is_finished(row: api.Row) -> bool:
    """Whether a flow run, as the Prefect API describes it, is in a final state."""
    state = row["serialized_state"]
    return bool(state) and issubclass(state_class(state["type"]), Finished)


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
        pace = self._pace()
        until_news = Retrying(
            retry=retry_if_result(lambda news: not news) | retry_if_exception_type((BackendUnreachable, BadAnswer)),
            wait=pace,
            stop=lambda attempt: not self._waits,
            sleep=self._pause,
            retry_error_callback=lambda attempt: None,
        )
        # as long as after the first look
        self._hold_for = pace(RetryCallState(until_news, None, (), {}))
        until_news(self._look)

    def _pace(self) -> wait_base:
        """Seconds between two looks: growing while nothing happens, and never more than anybody asked for."""
        waits = self._snapshot()
        slowest = min((wait.slowest for wait in waits), default=0.0)
        if any(wait.is_ending for wait in waits):
            first = FASTEST
        elif self._is_pushed:
            first = ON_THE_WAY if any(wait.states or wait.logs for wait in waits) else slowest
        else:
            first = max(FASTEST, min(SHARE * (monotonic() - self._since), BUSIEST))
        first = min(first, slowest)
        jitter = first / 10
        return wait_exponential(first - jitter, slowest - jitter, GROWTH) + wait_random(0, jitter)

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
        waits = self._snapshot()
        spacing = min([FASTEST, *(wait.slowest for wait in waits)])
        sleep(max(0.0, self._last_look + spacing - monotonic()))
        with self._lock:
            self._woken.clear()
            waits = list(self._waits)
            can_wait = self._is_pushed and not any(wait.is_new or wait.is_ending for wait in waits)
            if not waits:
                return True
            hold = self._hold = api.Hold(self._hold_for if can_wait else 0.0)
        try:
            self._declare(waits)
            return self._ask(waits, hold)
        except api.Released:
            return True
        except (BackendUnreachable, BadAnswer) as error:
            self.failure, self._is_pushed = error, False
            self._end([wait for wait in waits if wait.is_new and monotonic() >= wait.since + wait.patience], error)
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
        lasting = [wait for wait in waits if wait.edge and monotonic() > wait.since + LASTING]
        try:
            errors = cycles.declare({wait.edge for wait in lasting if wait.edge}) if lasting else {}
        except (BackendUnreachable, BadAnswer):
            raise
        except Exception:
            # such as logs that are not allowed; the waits end at their limits, if they are in a cycle
            _logger.debug("Flow runs that wait for each other cannot be looked for", exc_info=True)
            errors = {}
        for wait in lasting:
            edge, wait.edge = wait.edge, None
            if edge in errors:
                self._end([wait], errors[edge])

    def _ask(self, waits: List[Wait], hold: api.Hold) -> bool:
        document, variables = _question(waits, self._logs_since)
        ids = variables["ids"]["id"]["_in"]
        purpose = f"watching flow run {ids[0]!r}" if len(ids) == 1 else f"watching {len(ids)} flow runs"
        answer = api.ask(document, variables, purpose, hold)
        found = {name: api.rows_of(answer, name, purpose) for name in variables if name != "ids"}
        count = api.count_of(answer, "flow_run", purpose)
        self.failure, self._is_pushed = None, hold.is_applied
        rows = {row["id"]: row for row in found["told"] + found.get("untold", [])}
        logs = found.get("logs", [])
        if len(logs) == api.PAGE:
            # there may be more
            logs = [log for page in api.pages("log", variables["logs"], fields=_LOG_FIELDS) for log in page]
        by_run: Dict[str, List[api.Row]] = {}
        for log in logs:
            by_run.setdefault(log["flow_run_id"], []).append(log)
        news = [wait.see(rows.get(wait.flow_run_id), by_run.get(wait.flow_run_id, [])) for wait in waits]
        if logs:
            self._logs_since = _overlapping(max([*(log["created"] for log in logs), self._logs_since or ""]))
            for wait in waits:
                wait.forget_logs(self._logs_since)
        cancelled = {row["id"] for row in found.get("cancelled", [])}
        for wait in waits:
            wait.see_parent(cancelled)
        if count < len(ids):
            self._end_missing(waits, ids)
        return any(news)

    def _end_missing(self, waits: List[Wait], ids: List[str]) -> None:
        there = {row["id"] for row in api.find("flow_run", {"id": {"_in": ids}}, fields="id")}
        for wait in waits:
            if wait.flow_run_id not in there:
                self._end([wait], NotFound(f"No flow run {wait.flow_run_id!r} was found."))


def _overlapping(created: str) -> str:
    moment = pendulum.parse(created)
    assert isinstance(moment, pendulum.DateTime)
    return str((moment - LOG_OVERLAP).isoformat())


def _question(waits: List[Wait], logs_since: Optional[str]) -> Tuple[str, api.Row]:
    """The query for all that is new: its text, which is the same for all waits of a kind, and its variables."""
    ids = sorted({wait.flow_run_id for wait in waits})
    by_version: Dict[Optional[int], Set[str]] = {}
    for wait in waits:
        by_version.setdefault(wait.version, set()).add(wait.flow_run_id)
    changed: api.Row = {
        "_or": [
            {"id": {"_in": sorted(group)}, **({} if version is None else {"version": {"_neq": version}})}
            for version, group in by_version.items()
        ]
    }
    fields = f"{api.FIELDS['flow_run']} version"
    # a backend that holds its answer does so for the first field
    parts = [("told", f"flow_run(where: $told) {{ {fields} }}", "flow_run_bool_exp", changed)]
    if len(ids) > FEW:
        parts[0] = (*parts[0][:3], {"_and": [changed, {"state": {"_in": _FINISHED}}]})
        untold = {"_and": [changed, {"state": {"_nin": _FINISHED}}]}
        parts.append(("untold", f"flow_run(where: $untold) {{ {fields} }}", "flow_run_bool_exp", untold))
    guards = sorted({wait.guarded_by for wait in waits if wait.guarded_by and not wait.is_parent_cancelled})
    if guards:
        cancelled = {"id": {"_in": guards}, "state": {"_in": ["Cancelling", "Cancelled"]}}
        parts.append(("cancelled", "flow_run(where: $cancelled) { id }", "flow_run_bool_exp", cancelled))
    logging = [wait for wait in waits if wait.logs]
    if logging:
        known = {wait.flow_run_id for wait in logging if not wait.is_new}
        new = {wait.flow_run_id for wait in logging if wait.is_new}
        since = {"created": {"_gt": logs_since}} if logs_since else {}
        where = {"_or": [{"flow_run_id": {"_in": sorted(known)}, **since}, {"flow_run_id": {"_in": sorted(new)}}]}
        selected = f"log(where: $logs, order_by: {{created: asc}}, limit: {api.PAGE}) {{ {_LOG_FIELDS} }}"
        parts.append(("logs", selected, "log_bool_exp", where))
    declared = ", ".join(f"${name}: {kind}" for name, _, kind, _ in parts)
    selected = " ".join(f"{name}: {text}" for name, text, _, _ in parts)
    count = "flow_run_aggregate(where: $ids) { aggregate { count } }"
    variables = {name: value for name, _, _, value in parts}
    return (
        f"query({declared}, $ids: flow_run_bool_exp) {{ {selected} {count} }}",
        {**variables, "ids": {"id": {"_in": ids}}},
    )


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
