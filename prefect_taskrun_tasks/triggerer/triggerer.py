"""One loop that watches all deferred waits of a Prefect API, and makes them due when what they wait for is over."""

import random
import threading
from datetime import timedelta
from time import monotonic
from typing import Dict, Iterator, List, Set, Tuple

import pendulum
import requests
from prefect.exceptions import ClientError
from prefect.utilities.logging import get_logger

from .. import api
from ..errors import BackendUnreachable, BadAnswer
from . import cancelling, questions
from .deferred import SENDING, Deferred, wake
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

#: Task runs woken by one mutation
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
        interval: seconds between two looks; more where a look takes longer.

    Example:
        >>> for tick in Triggerer().ticks():
        ...     print(tick.waits, [wake.reason for wake in tick.woken])
    """

    def __init__(self, interval: float = 1.0) -> None:
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
        """Looks once: one query; a second one for what is new, and what is being cancelled; a mutation if it wakes.

        Raises:
            BackendUnreachable, BadAnswer: no answer.
            prefect.exceptions.ClientError, requests.HTTPError: the API refused.
        """
        with api.patience(PATIENCE):
            listed, reasons, being_cancelled = self._look()
            # at once, as long as what was seen is true
            woken, is_more = self._wake(reasons)
            unknown = [id for id in listed if id not in self._waits]
            cancelled: List[Cancellation] = []
            if unknown or being_cancelled:
                cancelled = self._learn(unknown[: api.PAGE], being_cancelled)
        return Tick(len(listed), tuple(woken), tuple(cancelled), is_more or len(unknown) > api.PAGE)

    def _look(self) -> Tuple[Dict[str, int], Dict[str, str], List[str]]:
        """Asks for waits and their versions, for flow runs that are over and why, for those that are being cancelled.

        What has another version than it had at the last look is forgotten.
        """
        awaited = {wait.awaits for wait in self._waits.values() if wait.awaits}
        self._gone &= awaited
        asked = sorted(awaited - self._gone)
        waiting = sorted({wait.flow_run_id for wait in self._waits.values()})
        document, variables = questions.look(pendulum.now("utc") + LEAD, asked, waiting)
        purpose = f"looking at {len(self._waits)} deferred waits"
        self._looked_at = monotonic()
        answer = api.ask(document, variables, purpose)
        rows = api.rows_of(answer, "deferred", purpose)
        if rows and len(rows) < api.count_of(answer, "task_run", purpose):
            rows += questions.rest(variables["deferred"], rows[-1]["id"])
        if api.count_of(answer, "flow_run", purpose) < len(asked):
            there = {row["id"] for row in api.find("flow_run", {"id": {"_in": asked}}, fields="id")}
            self._gone |= set(asked) - there
        self._busy = {row["flow_run_id"] for row in api.rows_of(answer, "busy", purpose)}
        listed = {row["id"]: row["version"] for row in rows}
        self._waits = {id: wait for id, wait in self._waits.items() if listed.get(id) == wait.version}
        reasons = {id: f"There is no flow run {id}." for id in self._gone}
        for row in api.rows_of(answer, "ended", purpose):
            reasons[row["id"]] = f"Flow run {row['name']!r} ({row['id']}) has ended as {row['state']}."
        return listed, reasons, [row["id"] for row in api.rows_of(answer, "cancelling", purpose)]

    def _wake(self, reasons: Dict[str, str]) -> Tuple[List[Wake], bool]:
        """Wakes waits for flow runs that are over, some at a time; whether there are more."""
        now, latest = monotonic(), pendulum.now("utc") + LEAD
        self._sent = {key: at for key, at in self._sent.items() if at + AGAIN > now}
        over = [wait for wait in self._waits.values() if wait.awaits in reasons and wait.due > latest]
        over = [wait for wait in over if wait.key not in self._sent and wait.flow_run_id not in self._busy]
        if not over:
            self._refused.clear()
        batch = [wait for wait in over if wait.key in self._refused][:1] or over[:BATCH]
        is_more = len(over) > len(batch)
        if batch and now > self._looked_at + FRESH:
            batch = questions.unchanged(batch)
        if not batch:
            return [], is_more
        # whatever becomes of it, it is not sent again while it may still happen
        self._sent.update({wait.key: now for wait in batch})
        wakes = [
            Wake(wait.id, wait.flow_run_id, wait.flow_run_name, reasons[wait.awaits]) for wait in batch if wait.awaits
        ]
        try:
            wake(batch, [each.reason for each in wakes])
        except BadAnswer:
            raise
        except ClientError as error:
            _logger.warning("The Prefect API refused to wake %s task runs: %s", len(batch), error)
            if len(batch) == 1:
                return [], is_more
            # a backend may have done it for some; what is still there is woken one by one, each as it is then
            for wait in batch:
                self._refused.add(wait.key)
                del self._sent[wait.key]
            return [], True
        return wakes, is_more

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
