"""One loop that watches all deferred waits of a Prefect API, and makes them due when what they wait for is over."""

import random
import threading
from datetime import timedelta
from time import monotonic
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Set, Tuple

import pendulum
import requests
from prefect.exceptions import ClientError
from prefect.utilities.logging import get_logger

from .. import api
from ..errors import BackendUnreachable, BadAnswer, InvalidArgument
from . import cancelling, questions
from .deferred import SENDING, Deferred, store
from .tick import Cancellation, Tick, Wake

#: Seconds for which the Prefect API is asked again within one look, if it does not answer
PATIENCE = 10.0

#: What is due within this time is left alone. An agent of Prefect 1.4.1 takes a task run of a flow run that is running
#: three seconds after it was due (agent/agent.py, `_get_flow_run_metadata`), so none has taken it by the time at which
#: the mutation, which is sent only once, has come or was given up
LEAD = timedelta(seconds=SENDING)

#: Seconds for which what was seen is taken for true: another triggerer may have woken it, and an agent has taken it
#: after three seconds at the earliest
FRESH = 1.0

#: Waits that come due by themselves within this time are put off, or processes would be started only to look
SOON = timedelta(seconds=45)

#: Seconds between two looks, at most: there are some while a wait is due soon, also if it is deferred for a minute
LONGEST_INTERVAL = 15.0

#: How long they are put off, unless their time limit is over before: when they look at the latest if no triggerer is
#: left that would wake them
LATER = timedelta(minutes=10)

#: Task runs woken or put off by one mutation
BATCH = 100

#: Seconds until a task run is woken again that was woken, and is as it was before: what was sent has been lost by then
AGAIN = 30.0

#: Of a pause, the share by which it may be shorter, so that two triggerers do not ask in step
JITTER = 0.1

_logger = get_logger(__name__)


class Triggerer:
    """Watches all deferred waits of the Prefect API that is configured, and wakes those whose flow run has ended.

    All that it knows it has asked for, so it may be killed and started again at any moment, and there may be several.
    What it does not wake comes due by itself.

    Args:
        interval: seconds between two looks, at most 15; more where a look takes longer.

    Raises:
        InvalidArgument: `interval` is not positive, or too long to put off what would soon look for itself (a
            `ValueError`).

    Example:
        >>> for tick in Triggerer().ticks():
        ...     print(tick.waits, [wake.reason for wake in tick.woken])
    """

    def __init__(self, interval: float = 1.0) -> None:
        if not 0 < interval <= LONGEST_INTERVAL:
            raise InvalidArgument(
                f"The interval is more than 0 and at most {LONGEST_INTERVAL:g} s, and not {interval!r}."
            )
        self._interval = interval
        self._stopped = threading.Event()
        #: by the ids of their task runs, as they were at the last look
        self._waits: Dict[str, Deferred] = {}
        #: flow runs that wait, and whose process is at work. A second one would do what comes after the wait, and
        #: neither of them what comes after tasks of both
        self._busy: Set[str] = set()
        #: flow runs that are waited for, and of which there is no row
        self._gone: Set[str] = set()
        self._looked_at = 0.0
        #: what was woken, and when, as `monotonic` says it
        self._sent: Dict[Tuple[str, int], float] = {}
        #: what was refused together, of which one may spoil it for the others
        self._refused: Set[Tuple[str, int]] = set()

    def stop(self) -> None:
        """Ends `ticks`, at the latest when a look that has begun is over; from any thread, or from a signal handler."""
        self._stopped.set()

    def ticks(self) -> Iterator[Tick]:
        """Looks again and again, until `stop` is called. A Prefect API that is away is asked until it is back.

        Yields:
            What each look has led to.

        Raises:
            prefect.exceptions.ClientError, requests.HTTPError: the API has refused the very first look.
        """
        has_looked, failure = False, ""
        while not self._stopped.is_set():
            start = monotonic()
            try:
                tick = self.tick()
                has_looked, failure = True, ""
                yield tick
                if tick.is_more:
                    continue
            except (BackendUnreachable, BadAnswer):
                # which `api` has told
                pass
            except (ClientError, requests.RequestException) as error:
                if not has_looked:
                    raise
                if failure != str(error):
                    failure = str(error)
                    _logger.warning("The Prefect API refused (%s). Trying again...", failure)
            # at most half of the time is spent asking
            pause = max(self._interval - (monotonic() - start), monotonic() - start)
            self._stopped.wait(pause * random.uniform(1 - JITTER, 1))

    def tick(self) -> Tick:
        """Looks once: one query; then a mutation if it wakes or puts off, or else a query for what is new or cancelled.

        Raises:
            BackendUnreachable, BadAnswer: no answer.
            prefect.exceptions.ClientError, requests.HTTPError: the API refused.
        """
        with api.patience(PATIENCE):
            listed, reasons, being_cancelled, are_all_there = self._look()
            if not are_all_there:
                self._find_gone()
                return Tick(len(listed), is_more=True)
            # at once, as long as what was seen is true
            woken, is_more = self._wake(reasons)
            has_put_off = False
            if not (woken or is_more):
                has_put_off, is_more = self._put_off(reasons)
            unknown = [id for id in listed if id not in self._waits]
            cancelled: List[Cancellation] = []
            if (unknown or being_cancelled) and not (woken or has_put_off):
                cancelled = self._learn(unknown[: api.PAGE], being_cancelled)
                unknown, being_cancelled = unknown[api.PAGE :], []
        return Tick(len(listed), tuple(woken), tuple(cancelled), bool(is_more or unknown or being_cancelled))

    def _look(self) -> Tuple[Dict[str, int], Dict[str, str], List[str], bool]:
        """Asks for waits and their versions, for flow runs that are over and why, for those that are being cancelled.

        And whether all that are waited for are there.

        What has another version than it had at the last look is forgotten.
        """
        asked = self._awaited()
        self._gone &= {wait.awaits for wait in self._waits.values() if wait.awaits}
        waiting = sorted({wait.flow_run_id for wait in self._waits.values()})
        document, variables = questions.look(pendulum.now("utc") + LEAD, asked, waiting)
        purpose = f"looking at {len(self._waits)} deferred waits"
        self._looked_at = monotonic()
        answer = api.ask(document, variables, purpose)
        rows = api.rows_of(answer, "deferred", purpose)
        if rows and len(rows) < api.count_of(answer, "task_run", purpose):
            rows += questions.rest(variables["deferred"], rows[-1]["id"])
        self._busy = {row["flow_run_id"] for row in api.rows_of(answer, "busy", purpose)}
        listed = {row["id"]: row["version"] for row in rows}
        self._waits = {id: wait for id, wait in self._waits.items() if listed.get(id) == wait.version}
        self._refused &= {wait.key for wait in self._waits.values()}
        reasons = {id: f"There is no flow run {id}." for id in self._gone}
        for row in api.rows_of(answer, "ended", purpose):
            reasons[row["id"]] = f"Flow run {row['name']!r} ({row['id']}) has ended as {row['state']}."
        being_cancelled = [row["id"] for row in api.rows_of(answer, "cancelling", purpose)]
        return listed, reasons, being_cancelled, api.count_of(answer, "flow_run", purpose) >= len(asked)

    def _awaited(self) -> List[str]:
        """Flow runs that are waited for, as far as they are known to be there."""
        return sorted({wait.awaits for wait in self._waits.values() if wait.awaits} - self._gone)

    def _find_gone(self) -> None:
        asked = self._awaited()
        self._gone |= set(asked) - {row["id"] for row in api.find("flow_run", {"id": {"_in": asked}}, fields="id")}

    def _wake(self, reasons: Dict[str, str]) -> Tuple[List[Wake], bool]:
        """Wakes waits for flow runs that are over, some at a time; whether there are more."""
        latest = pendulum.now("utc") + LEAD
        over = [wait for wait in self._waits.values() if wait.awaits in reasons and wait.due > latest]
        batch, is_more = self._some([wait for wait in over if wait.flow_run_id not in self._busy])
        wakes = [
            Wake(wait.id, wait.flow_run_id, wait.flow_run_name, reasons[wait.awaits]) for wait in batch if wait.awaits
        ]
        if self._has_stored(batch, [wait.woken(each.reason) for wait, each in zip(batch, wakes)], "waking"):
            return wakes, is_more
        if len(batch) > 1:
            # a backend may have done it for some; what is still there is woken one by one, each as it is then
            for wait in batch:
                self._refused.add(wait.key)
                del self._sent[wait.key]
        return [], is_more or len(batch) > 1

    def _put_off(self, reasons: Dict[str, str]) -> Tuple[bool, bool]:
        """Puts off waits for flow runs that go on, which are about to look for themselves, some at a time.

        Returns:
            Whether it has tried, and whether there are more.
        """
        now = pendulum.now("utc")
        earliest, latest, until = now + LEAD, now + SOON, now + LATER
        lasting = [wait for wait in self._waits.values() if wait.awaits and wait.awaits not in reasons]
        soon = [wait for wait in lasting if earliest < wait.due < latest < (wait.limit or until)]
        batch, is_more = self._some(soon)
        later = [wait.put_off(min(wait.limit or until, until)) for wait in batch]
        has_stored = self._has_stored(batch, [wait.serialized_state for wait in later], "putting off")
        if has_stored:
            self._waits.update({wait.id: wait for wait in later})
        # or else they look for themselves
        return bool(batch), is_more and has_stored

    def _some(self, waits: List[Deferred]) -> Tuple[List[Deferred], bool]:
        """As many of some waits as one mutation changes, if they are as they were; whether there are more."""
        self._sent = {key: at for key, at in self._sent.items() if at + AGAIN > monotonic()}
        waits = [wait for wait in waits if wait.key not in self._sent]
        batch = [wait for wait in waits if wait.key in self._refused][:1] or waits[:BATCH]
        is_more = len(waits) > len(batch)
        if batch and monotonic() > self._looked_at + FRESH:
            batch = questions.unchanged(batch)
        return batch, is_more

    def _has_stored(self, batch: List[Deferred], states: Sequence[Mapping[str, Any]], doing: str) -> bool:
        """Stores other states of waits, one for each; whether that was done."""
        if not batch:
            return False
        # whatever becomes of it, it is not sent again while it may still happen
        self._sent.update({wait.key: monotonic() for wait in batch})
        purpose = f"{doing} {len(batch)} task runs"
        try:
            store(batch, states, purpose)
        except BadAnswer:
            raise
        except ClientError as error:
            _logger.warning("The Prefect API refused %s: %s", purpose, error)
            return False
        return True

    def _learn(self, task_run_ids: List[str], flow_run_ids: List[str]) -> List[Cancellation]:
        """Asks for all about some waits, and ends flow runs that are being cancelled and have no process."""
        document, variables = questions.details(task_run_ids, flow_run_ids)
        purpose = f"looking at {len(task_run_ids)} deferred waits, and {len(flow_run_ids)} flow runs being cancelled"
        answer = api.ask(document, variables, purpose)
        for row in api.rows_of(answer, "deferred", purpose):
            if row["state_start_time"]:
                self._waits[row["id"]] = Deferred.of(row)
        cancelled: List[Cancellation] = []
        for row in api.rows_of(answer, "cancelling", purpose):
            if cancelling.has_process(row):
                continue
            try:
                cancelled += cancelling.finish(row)
            except BadAnswer:
                raise
            except ClientError as error:
                _logger.warning("The Prefect API refused to cancel flow run %s: %s", row["id"], error)
        return cancelled
