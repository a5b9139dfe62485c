"""Where requests to the API arrive: who may ask, how much, and on which thread it is answered."""

import asyncio
import json
import logging
import re
from concurrent.futures import Executor
from time import perf_counter
from typing import Any, Callable, Iterator, List, Mapping, Optional

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from .api import Api
from .api_key import ApiKey
from .errors import Outdated, Refused
from .limits import Limits
from .metrics import Requests
from .news import Answered, News, is_empty, preferred_hold

logger = logging.getLogger(__name__)

#: The documents in a request
_QUERY = re.compile(rb'"query"\s*:\s*"((?:[^"\\]|\\.)*)"')

#: Seconds after which a request is logged as slow; Prefect's client waits for three times as long
SLOW = 5.0

#: Codes of the errors of rules that refuse something
REFUSALS = (Refused.CODE, Outdated.CODE)


def json_response(status: int, value: Any, headers: Optional[Mapping[str, str]] = None) -> Response:
    return Response(json.dumps(value), status, headers, media_type="application/json")


def _fields(answer: Any) -> List[str]:
    """The names of what was asked for: arguments and variables may hold what is nobody's business."""
    return list(answer.get("data") or ()) if isinstance(answer, dict) else ["batch"]


def _is_mutation(body: bytes) -> bool:
    """Whether a request may change something; a query for which that is wrong is answered all the same."""
    # mostly the word is a value, in the variables
    return b"mutation" in body and any(b"mutation" in text for text in _QUERY.findall(body) or [body])


def _kinds_of_error(answer: Any) -> Iterator[str]:
    for error in answer.get("errors") or ():
        extensions = error.get("extensions") or {}
        code = extensions.get("code", "refused")
        # what went wrong inside the backend has an id; the others with these codes are a rule's refusals
        yield "failed" if "id" in extensions else "refused" if code in REFUSALS else code.lower()


def _ending(answer: Any) -> str:
    """How a request has ended, in one word: what is wrong with its first error, unless a later one is a fault."""
    errors = [kind for each in (answer if isinstance(answer, list) else [answer]) for kind in _kinds_of_error(each)]
    return "failed" if "failed" in errors else next(iter(errors), "ok")


class Endpoint:
    """Takes GraphQL requests over HTTP.

    Args:
        api: what answers them.
        readers: threads for queries.
        writer: the thread for mutations.
        outside: threads for what waits for somebody outside.
        news: when to look again for who waits for an answer.
        limits: how large a request may be.
        key: what callers must know, if anything.
        is_stopping: whether held answers are to be given now.
        requests: where they are counted.
    """

    def __init__(
        self,
        api: Api,
        readers: Executor,
        writer: Executor,
        outside: Executor,
        news: News,
        limits: Limits,
        key: Optional[ApiKey],
        is_stopping: Callable[[], bool],
        requests: Requests,
    ) -> None:
        self._api = api
        self._readers = readers
        self._writer = writer
        self._outside = outside
        self._news = news
        self._limits = limits
        self._key = key
        self._is_stopping = is_stopping
        self._requests = requests

    def admits(self, request: Request) -> bool:
        """Whether the caller knows the key, or there is none to be known."""
        return self._key is None or self._key.is_in(request.headers)

    async def post(self, request: Request) -> Response:
        is_admitted = self.admits(request)
        # a page in a browser may send other types, and so start flow runs, to an address that it cannot read from
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return self._refuse(415, "A request's content type is application/json.")
        body = bytearray()
        try:
            async for chunk in request.stream():
                # the rest is read and dropped: a caller whose connection is closed while it sends gets no answer
                if is_admitted and len(body) <= self._limits.body:
                    body += chunk
        except ClientDisconnect:
            return self._refuse(400, "The request ended before its body had come.")
        if not is_admitted:
            # not 401: prefect.Client raises AuthorizationError for this code, and only in an ordinary answer
            # (client/client.py, graphql)
            known = "This API needs a key" if "authorization" not in request.headers else "That is not this API's key"
            message = f"{known}. Set PREFECT__CLOUD__API_KEY to the one that the backend was started with."
            return self._refuse(200, message, "UNAUTHENTICATED")
        if len(body) > self._limits.body:
            return self._refuse(413, f"The request is larger than {self._limits.body} bytes.")
        return await self._answer(bytes(body), request.headers)

    async def _answer(self, body: bytes, headers: Mapping[str, str]) -> Response:
        kind = "mutation" if _is_mutation(body) else "query"
        # one that waits for somebody outside holds no other up
        is_outside = b"test_cloud_hook" in body
        workers = self._outside if is_outside else self._writer if kind == "mutation" else self._readers
        loop = asyncio.get_running_loop()

        def work() -> Answered:
            # as text, which the event loop would take its time for
            status, answer = self._api.answer(body, headers)
            return Answered(status, json.dumps(answer), is_empty(answer), _ending(answer), _fields(answer))

        async def ask() -> Answered:
            return await loop.run_in_executor(workers, work)

        begun, coming = perf_counter(), self._news.coming
        answered = await ask()
        self._note(kind, answered, perf_counter() - begun)
        seconds = None if workers is self._writer else preferred_hold(headers)
        applied = None if seconds is None else {"Preference-Applied": f"wait={seconds}"}
        if not seconds or not answered.is_empty:
            return Response(answered.text, answered.status, applied, media_type="application/json")
        held = self._news.hold(coming, ask, seconds, self._is_stopping)
        return StreamingResponse(held, headers=applied, media_type="application/json")

    def _refuse(self, status: int, message: str, code: str = "BAD_REQUEST") -> Response:
        """The answer to a request that was not looked into."""
        answer = {"errors": [{"message": message, "extensions": {"code": code}}]}
        self._note("unread", Answered(status, "", False, _ending(answer), _fields(answer)), 0.0)
        return json_response(status, answer)

    def _note(self, kind: str, answered: Answered, seconds: float) -> None:
        """Counts a request and logs it: of those that all is well with, nothing is seen unless it is asked for."""
        status, ending, fields = answered.status, answered.ending, answered.fields
        self._requests.note(kind, ending, seconds)
        is_wrong = seconds >= SLOW or ending in ("failed", "unauthenticated")
        level = logging.WARNING if is_wrong else logging.DEBUG
        if logger.isEnabledFor(level):
            milliseconds = round(seconds * 1000, 1)
            known = {"kind": kind, "fields": fields, "http": status, "status": ending, "milliseconds": milliseconds}
            logger.log(
                level, "%s %s: %s in %s ms", kind, ", ".join(fields), ending, milliseconds, extra={"request": known}
            )
