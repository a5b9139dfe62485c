"""Where requests to the API arrive: who may ask, how much, and on which thread it is answered."""

import asyncio
import json
from concurrent.futures import Executor
from typing import Any, Callable, Mapping, Optional, Tuple

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from .api import Api
from .api_key import ApiKey
from .limits import Limits
from .news import News, is_empty, preferred_hold


def json_response(status: int, value: Any, headers: Optional[Mapping[str, str]] = None) -> Response:
    return Response(json.dumps(value), status, headers, media_type="application/json")


def refusal(status: int, message: str, code: str = "BAD_REQUEST") -> Response:
    return json_response(status, {"errors": [{"message": message, "extensions": {"code": code}}]})


class Endpoint:
    """Takes GraphQL requests over HTTP.

    Args:
        api: what answers them.
        readers: threads for queries.
        writer: the thread for mutations.
        news: when to look again for who waits for an answer.
        limits: how large a request may be.
        key: what callers must know, if anything.
        is_stopping: whether held answers are to be given now.
    """

    def __init__(
        self,
        api: Api,
        readers: Executor,
        writer: Executor,
        news: News,
        limits: Limits,
        key: Optional[ApiKey],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._api = api
        self._readers = readers
        self._writer = writer
        self._news = news
        self._limits = limits
        self._key = key
        self._is_stopping = is_stopping

    def admits(self, request: Request) -> bool:
        """Whether the caller knows the key, or there is none to be known."""
        return self._key is None or self._key.is_in(request.headers)

    async def post(self, request: Request) -> Response:
        is_admitted = self.admits(request)
        # a page in a browser may send other types, and so start flow runs, to an address that it cannot read from
        if not request.headers.get("content-type", "").startswith("application/json"):
            return refusal(415, "A request's content type is application/json.")
        body = bytearray()
        try:
            async for chunk in request.stream():
                # the rest is read and dropped: a caller whose connection is closed while it sends gets no answer
                if is_admitted and len(body) <= self._limits.body:
                    body += chunk
        except ClientDisconnect:
            return refusal(400, "The request ended before its body had come.")
        if not is_admitted:
            # not 401: prefect.Client raises AuthorizationError for this code, and only in an ordinary answer
            # (client/client.py, graphql)
            message = "This API needs a key. Set PREFECT__CLOUD__API_KEY to the one that the backend was started with."
            return refusal(200, message, "UNAUTHENTICATED")
        if len(body) > self._limits.body:
            return refusal(413, f"The request is larger than {self._limits.body} bytes.")
        return await self._answer(bytes(body), request.headers)

    async def _answer(self, body: bytes, headers: Mapping[str, str]) -> Response:
        # a query that only looks like a mutation is answered all the same
        workers = self._writer if b"mutation" in body else self._readers
        loop = asyncio.get_running_loop()

        async def ask() -> Tuple[int, Any]:
            return await loop.run_in_executor(workers, self._api.answer, body, headers)

        seconds = None if workers is self._writer else preferred_hold(headers)
        if seconds is None:
            return json_response(*await ask())
        applied = {"Preference-Applied": f"wait={seconds}"}
        coming = self._news.coming
        status, answer = await ask()
        if not seconds or not is_empty(answer):
            return json_response(status, answer, applied)
        held = self._news.hold(coming, ask, seconds, self._is_stopping)
        return StreamingResponse(held, headers=applied, media_type="application/json")
