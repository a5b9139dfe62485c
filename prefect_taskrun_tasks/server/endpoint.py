"""Where requests to the API arrive: who may ask, how much, and on which thread it is answered."""

import asyncio
import json
import logging
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter
from typing import Any, AsyncIterator, Callable, Iterator, List, Mapping, Optional, Union

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from . import memory
from .api import Api, Step, Steps
from .api_key import ApiKey
from .errors import Outdated, Refused
from .limits import Limits
from .metrics import Requests
from .news import Answered, Held, News, is_empty, preferred_hold
from .seldom import Seldom

logger = logging.getLogger(__name__)

#: Bytes of a request that is parsed among the others, and not by a thread of its own
SMALL = 16_384

#: Bytes of a request that is too large and yet read, so that its caller sees the answer
DRAINED = 128 * 1024 * 1024

#: Bytes of all requests that are received or worked on at once; beyond that, only small ones are taken
RECEIVED = 128 * 1024 * 1024

#: Bytes of an answer that are sent at a time
PIECE = 262_144

#: Bytes of all answers of more than a piece that are being sent; one that is larger is sent alone
UNREAD = 64 * 1024 * 1024

#: Bytes of such answers beyond which no other large answer is begun
UNREAD_AT_START = 16 * 1024 * 1024

#: Said of a large answer that there is no room for
UNREAD_REFUSAL = "Too many large answers are being read at once. Try again."

#: Bytes of a request, or of an answer, that leave much memory behind
LARGE = 1024 * 1024

#: The header of an answer after which nothing more of the request is read
CLOSE = {"connection": "close"}

#: Seconds that a caller with a wrong key waits for the answer, so that it cannot try many
WRONG_KEY = 1.0

#: Seconds after which a request is logged as slow; Prefect's client waits for three times as long
SLOW = 5.0

#: Codes of the errors of rules that refuse something
REFUSALS = (Refused.CODE, Outdated.CODE)


def json_response(status: int, value: Any, headers: Optional[Mapping[str, str]] = None) -> Response:
    return Response(json.dumps(value), status, headers, media_type="application/json")


def _fields(answer: Any) -> List[str]:
    """The names of what was asked for: arguments and variables may hold what is nobody's business."""
    return list(answer.get("data") or ()) if isinstance(answer, dict) else ["batch"]


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


def _advance(steps: Steps, kind: Step) -> Union[Step, Answered]:
    """Does steps of one kind; returns the kind of the next one, or the answer.

    Between two that write, the thread is given to whoever waits for it.
    """
    try:
        step = next(steps)
        while step is kind and kind in (Step.READ, Step.LARGE):
            # what is read is held until it is written: a large answer is written before the next one is read
            step = next(steps)
        return step
    except StopIteration as end:
        status, answer = end.value
        # before the answer is taken apart
        kinds = is_empty(answer), _ending(answer), _fields(answer)
        # as text, which the event loop would take its time for
        pieces = list(_pieces(answer)) if kind is Step.LARGE else [json.dumps(answer)]
        return Answered(status, pieces, *kinds)


def _pieces(value: Any, levels: int = 3) -> Iterator[str]:
    """JSON in pieces: while one is made, no other thread can do anything.

    What is written is removed from the value, so that the memory of both is not needed at once.

    Args:
        value: what is to be written.
        levels: of objects and lists that are taken apart: answers of a batch, data, fields.
    """
    if levels and isinstance(value, dict):
        yield "{"
        for number, name in enumerate(list(value)):
            yield f"{', ' if number else ''}{json.dumps(name)}: "
            yield from _pieces(value.pop(name), levels - 1)
        yield "}"
    elif isinstance(value, list) and len(value) > 1:
        # many are small
        some = max(1, min(100, len(value) // 100))
        # further in, lists may belong to several rows
        left = value if levels else list(value)
        left.reverse()
        yield "["
        while left:
            written = left[: -some - 1 : -1]
            del left[-some:]
            yield json.dumps(written)[1:-1] + (", " if left else "]")
    else:
        yield json.dumps(value)


class _TooMuch(Exception):
    """All requests together, or all large answers that are being sent, are more than there is room for."""


class _InPieces(Response):
    """An answer that is sent as fast as it is read, so that no more than its text is held.

    Args:
        pieces: JSON, all of ASCII.
        status: HTTP's.
        headers: with the content's length.
        done: called when it is sent, or nobody reads it any more.
    """

    def __init__(self, pieces: List[str], status: int, headers: Mapping[str, str], done: Callable[[], None]) -> None:
        super().__init__(None, status, headers, media_type="application/json")
        self._pieces = pieces
        self._done = done

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            # each is freed when it is sent
            self._pieces.reverse()
            while self._pieces:
                text = self._pieces.pop()
                for begun in range(0, len(text), PIECE):
                    piece = text[begun : begun + PIECE].encode()
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._pieces.clear()
            self._done()


class Endpoint:
    """Takes GraphQL requests over HTTP.

    Args:
        api: what answers them.
        workers: the threads for each kind of step.
        news: when to look again for who waits for an answer.
        limits: how large a request may be.
        key: what callers must know, if anything.
        is_stopping: whether held answers are to be given now.
        requests: where they are counted.
    """

    def __init__(
        self,
        api: Api,
        workers: Mapping[Step, Executor],
        news: News,
        limits: Limits,
        key: Optional[ApiKey],
        is_stopping: Callable[[], bool],
        requests: Requests,
    ) -> None:
        self._api = api
        self._workers = workers
        self._news = news
        self._limits = limits
        self._key = key
        self._is_stopping = is_stopping
        self._requests = requests
        #: of requests that are received or worked on
        self._received_bytes = 0
        self._unauthenticated = Seldom()
        #: bytes of large answers that are being sent
        self._unread = 0
        #: held while a large answer is read from the database: its size is known, and counted, afterwards
        self._reading_large: Optional[asyncio.Lock] = None

    def start(self) -> None:
        """To be called in the event loop."""
        self._reading_large = asyncio.Lock()

    def admits(self, request: Request) -> bool:
        """Whether the caller knows the key, or there is none to be known."""
        return self._key is None or self._key.is_in(request.headers)

    async def slow_down(self, request: Request) -> None:
        """Lets a caller without the right key wait, and says once a minute that there are such."""
        count = self._unauthenticated.counted()
        if count:
            where = request.client.host if request.client else "somewhere"
            logger.warning("Requests without the right API key: %s, the last one from %s", count, where)
        if "authorization" in request.headers:
            await asyncio.sleep(WRONG_KEY)

    async def post(self, request: Request) -> Response:
        is_admitted = self.admits(request)
        # a page in a browser may send other types, and so start flow runs, to an address that it cannot read from
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return self._refuse(415, "A request's content type is application/json.")
        if "transfer-encoding" in request.headers:
            return self._refuse(
                411, "A request says how long it is (Content-Length), and is not sent in chunks.", **CLOSE
            )
        length = int(request.headers.get("content-length", 0))
        if length > DRAINED:
            return self._refuse(413, self._too_large(), **CLOSE)
        try:
            bodies = [await self._received(request, is_admitted and length <= self._limits.body)]
        except ClientDisconnect:
            return self._refuse(400, "The request ended before its body had come.")
        except _TooMuch:
            return self._refuse(503, "The backend is receiving too much at once. Try again.", **CLOSE)
        if not is_admitted:
            # not 401: prefect.Client raises AuthorizationError for this code, and only in an ordinary answer
            # (client/client.py, graphql)
            await self.slow_down(request)
            known = "This API needs a key" if "authorization" not in request.headers else "That is not this API's key"
            message = f"{known}. Set PREFECT__CLOUD__API_KEY to the one that the backend was started with."
            return self._refuse(200, message, "UNAUTHENTICATED")
        if length > self._limits.body:
            return self._refuse(413, self._too_large())
        try:
            return await self._answer(bodies, request.headers)
        except _TooMuch:
            return self._refuse(503, UNREAD_REFUSAL)
        finally:
            self._received_bytes -= length
            self._give_back(length)

    def _give_back(self, length: int) -> None:
        """Gives back the memory that a request or an answer took, after it is freed."""
        if length > LARGE:
            asyncio.get_running_loop().run_in_executor(self._workers[Step.LARGE], memory.give_back)

    def _too_large(self) -> str:
        return f"The request is larger than {self._limits.body} bytes."

    async def _received(self, request: Request, is_kept: bool) -> bytearray:
        """The body of a request; of one that is refused anyway, nothing.

        That is read too: a caller whose connection is closed while it sends gets no answer.
        """
        body = bytearray()
        try:
            async for chunk in request.stream():
                if is_kept:
                    body += chunk
                    self._received_bytes += len(chunk)
                    if len(body) > SMALL < RECEIVED < self._received_bytes:
                        raise _TooMuch
        except BaseException:
            self._received_bytes -= len(body)
            raise
        return body

    async def _answer(self, bodies: List[bytearray], headers: Mapping[str, str]) -> Response:
        seconds = preferred_hold(headers)
        loop = asyncio.get_running_loop()
        written = is_held = False

        async def ask() -> Answered:
            nonlocal written
            # one that is not asked again needs no room from now on
            body = bodies[0] if seconds else bodies.pop()
            kind = Step.READ if len(body) <= SMALL else Step.PARSE
            steps = self._api.steps(body, headers)
            del body
            while True:
                async with AsyncExitStack() as turn:
                    if kind is Step.LARGE:
                        await turn.enter_async_context(self._large_turn(is_refusable=not (written or is_held)))
                    done = await loop.run_in_executor(self._workers[kind], _advance, steps, kind)
                if isinstance(done, Answered):
                    return done
                kind = done
                written = written or kind in (Step.WRITE, Step.OUTSIDE)

        held = self._news.begin(bodies[0]) if seconds else None
        begun = perf_counter()
        try:
            answered = await ask()
        except BaseException:
            self._forget(held)
            raise
        self._note("mutation" if written else "query", answered, perf_counter() - begun)
        seconds = None if written else seconds
        applied = None if seconds is None else {"Preference-Applied": f"wait={seconds}"}
        if not seconds or not held or not answered.is_empty:
            self._forget(held)
            return self._response(answered, applied)
        is_held = True
        answers = self._news.hold(held, ask, seconds, self._is_stopping)
        return StreamingResponse(answers, headers=applied, media_type="application/json")

    @asynccontextmanager
    async def _large_turn(self, is_refusable: bool) -> AsyncIterator[None]:
        """The turn of a request whose answer is large.

        Args:
            is_refusable: nothing was written for the request, and nothing of the answer was sent.

        Raises:
            _TooMuch: callers are still reading large answers.
        """
        assert self._reading_large is not None
        async with self._reading_large:
            if self._unread > UNREAD_AT_START and is_refusable:
                raise _TooMuch
            yield

    def _forget(self, held: Optional[Held]) -> None:
        if held:
            self._news.forget(held)

    def _response(self, answered: Answered, headers: Optional[Mapping[str, str]]) -> Response:
        length = sum(map(len, answered.pieces))
        if length <= PIECE:
            return Response("".join(answered.pieces), answered.status, headers, media_type="application/json")
        if self._unread + length > max(UNREAD, length):
            return self._refuse(503, UNREAD_REFUSAL)
        self._unread += length

        def done() -> None:
            self._unread -= length
            self._give_back(length)

        return _InPieces(answered.pieces, answered.status, {**(headers or {}), "content-length": str(length)}, done)

    def _refuse(self, status: int, message: str, code: str = "BAD_REQUEST", **headers: str) -> Response:
        """The answer to a request that was not looked into."""
        answer = {"errors": [{"message": message, "extensions": {"code": code}}]}
        self._note("unread", Answered(status, [], False, _ending(answer), _fields(answer)), 0.0)
        return json_response(status, answer, headers)

    def _note(self, kind: str, answered: Answered, seconds: float) -> None:
        """Counts a request and logs it: of those that all is well with, nothing is seen unless it is asked for."""
        status, ending, fields = answered.status, answered.ending, answered.fields
        self._requests.note(kind, ending, seconds)
        is_wrong = seconds >= SLOW or ending == "failed"
        level = logging.WARNING if is_wrong else logging.DEBUG
        if logger.isEnabledFor(level):
            milliseconds = round(seconds * 1000, 1)
            known = {"kind": kind, "fields": fields, "http": status, "status": ending, "milliseconds": milliseconds}
            logger.log(
                level, "%s %s: %s in %s ms", kind, ", ".join(fields), ending, milliseconds, extra={"request": known}
            )
