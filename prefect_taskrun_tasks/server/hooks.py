"""Tells those outside what cloud hooks are for: by HTTP, each in the form that it expects."""

import logging
import math
import queue
import threading
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional

from .database import Database
from .deadline import within
from .errors import Refused, TookTooLong
from .rules import cloud_hooks
from .rules.events import Event
from .transaction import Call, Row

logger = logging.getLogger(__name__)

#: Seconds for each answer from outside
TIMEOUT = 2.0

#: Seconds for all that is still to be told when the backend stops, and for all that one request tries out
GRACE = 5.0

TOO_LATE = f"A request has {GRACE:g} seconds to try cloud hooks out. Try fewer at a time."

#: Calls that may wait; with somebody outside who does not answer, more would only come later and later
LONGEST_QUEUE = 1000

#: Somebody who does not answer holds up others only if there are several of that kind
THREADS = 4

TWILIO = "https://api.twilio.com/2010-04-01/Accounts/{}/Messages.json"
PAGERDUTY = "https://events.pagerduty.com/v2/enqueue"


class Post(NamedTuple):
    url: str
    #: keyword arguments of `requests.post`
    content: Dict[str, Any]


def _webhook(config: Row, event: Event, link: str) -> Iterator[Post]:
    yield Post(config["url"], {"json": {"event": event}, "headers": {"X-PREFECT-EVENT-ID": event["id"]}})


def _slack(config: Row, event: Event, link: str) -> Iterator[Post]:
    lines = [
        f"Run `{event['flow_run']['name']}` of flow `{event['flow']['name']}` entered a new state:",
        f"*State:* `{event['state']['state']}`",
        f"*Message:* {event['state']['message']}",
        f"*Link:* {link}",
    ]
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": line}} for line in lines]
    yield Post(config["url"], {"json": {"blocks": blocks}})


def _twilio(config: Row, event: Event, link: str) -> Iterator[Post]:
    run, flow, state = event["flow_run"]["name"], event["flow"]["name"], event["state"]["state"]
    text = f"Run {run} of flow {flow} entered a new state: {state}.\nLink: {link}"
    who = (config["account_sid"], config["auth_token"])
    for number in config["to"]:
        data = {"To": number, "From": config["messaging_service_sid"], "Body": text}
        yield Post(TWILIO.format(config["account_sid"]), {"data": data, "auth": who})


def _pagerduty(config: Row, event: Event, link: str) -> Iterator[Post]:
    run, flow, state = event["flow_run"]["name"], event["flow"]["name"], event["state"]["state"]
    details = {"flow": flow, "flow_run": run, "state": state, "state_message": event["state"]["message"] or ""}
    payload = {
        "summary": f"Run {run} entered a new state: {state}",
        "severity": config["severity"],
        "source": event["tenant"]["slug"],
        "component": flow,
        "group": run,
        "class": f"State->{state}",
        "custom_details": details,
    }
    links = [{"href": link, "text": f"Flow Run {run}"}]
    alarm = {"routing_key": config["routing_key"], "event_action": "trigger", "payload": payload, "links": links}
    yield Post(PAGERDUTY, {"json": alarm, "headers": {"Authorization": f"Token token={config['api_token']}"}})


#: Type of a hook -> what is to be sent
FORMS: Dict[str, Callable[[Row, Event, str], Iterator[Post]]] = {
    "WEBHOOK": _webhook,
    "SLACK_WEBHOOK": _slack,
    "TWILIO": _twilio,
    "PAGERDUTY": _pagerduty,
}


def make(call: Call, url: str, until: float = math.inf) -> None:
    """Makes one call.

    Args:
        call: who is to be told what.
        url: of this backend, for a link to its page.
        until: the reading of `time.monotonic` from which on nothing more is sent.

    Raises:
        requests.RequestException: nobody answered in time, it was too late, or somebody did not want to be told.
    """
    # only here: a backend without hooks does without it
    import requests

    event = call.event
    link = f"{url}/{event['tenant']['slug']}/flow-run/{event['flow_run']['id']}"
    for post in FORMS[call.hook["type"]](call.hook["config"], event, link):
        if time.monotonic() > until:
            raise requests.Timeout(TOO_LATE)
        try:
            # `timeout` is for each part of the answer, of which there may be many; the body is not read
            with within(TIMEOUT), requests.post(
                post.url, timeout=TIMEOUT, stream=True, allow_redirects=False, **post.content
            ) as answer:
                # a redirect too: it would be followed without what was to be told
                if not 200 <= answer.status_code < 300:
                    raise requests.HTTPError(f"The answer was {answer.status_code} {answer.reason}")
        except TookTooLong as error:
            raise requests.Timeout(f"There was no whole answer within {TIMEOUT:g} seconds") from error


def test_cloud_hook(database: Database, url: str, begun: float, **input: Any) -> Row:
    """Tries a hook out, with no transaction open while it waits for an answer.

    Args:
        database: where it is.
        url: of this backend.
        begun: when the request was that asks for it, and perhaps for more, by `time.monotonic`.
        input: what is to be tried out.
    """
    import requests

    try:
        if time.monotonic() > begun + GRACE:
            raise Refused(TOO_LATE)
        with database.write() as tx:
            calls = cloud_hooks.trial(tx, **input)
        for call in calls:
            make(call, url, begun + GRACE)
    except (Refused, requests.RequestException, UnicodeError) as error:
        return {"success": False, "error": str(error)}
    return {"success": True}


class Teller:
    """Makes the calls of cloud hooks from threads of its own. One that fails is only logged.

    Args:
        url: of this backend.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._calls: queue.Queue[Optional[Call]] = queue.Queue(LONGEST_QUEUE)
        self._threads: List[threading.Thread] = []
        self._starting = threading.Lock()

    def tell(self, calls: Iterable[Call]) -> None:
        """For any thread."""
        for call in calls:
            try:
                self._calls.put_nowait(call)
            except queue.Full:
                logger.error("Cloud hook %s was not told of an event: too many wait to be told", call.hook["id"])
            self._start()

    def _start(self) -> None:
        # as many as there has been work for: most backends have no hooks
        with self._starting:
            if len(self._threads) < THREADS:
                self._threads.append(threading.Thread(target=self._loop, name="hooks", daemon=True))
                self._threads[-1].start()

    def stop(self) -> None:
        """Returns when all has been told, or after a time of grace."""
        until = time.monotonic() + GRACE
        for _ in self._threads:
            try:
                self._calls.put(None, timeout=max(0.0, until - time.monotonic()))
            except queue.Full:
                return
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _loop(self) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                return
            try:
                make(call, self._url)
            except Exception as error:
                # not its text, which has the address: some are secrets
                logger.warning("Cloud hook %s could not be told of an event: %s", call.hook["id"], type(error).__name__)
