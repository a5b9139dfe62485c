"""The API and the page over HTTP, on a socket of this machine, served from a thread or for good."""

import asyncio
import errno
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, AsyncIterator, Iterable, Mapping, Optional, Tuple

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from . import pages
from .api import Api
from .database import CONNECTIONS, Database, Transaction
from .hooks import Teller
from .news import News, is_empty, preferred_hold
from .poke import Poker
from .services import Services

#: Bytes. A batch of logs is up to 4 MB, and as JSON inside JSON its quotes are escaped twice.
LARGEST_BODY = 32 * 1024 * 1024

#: Seconds that requests under way may take when the backend stops
GRACE = 5


_LOOPBACK = ("127.0.0.1", "localhost")


class PortUnavailable(Exception):
    """The address cannot be listened on."""


def _json(status: int, value: Any, headers: Optional[Mapping[str, str]] = None) -> Response:
    return Response(json.dumps(value), status, headers, media_type="application/json")


def _refused(status: int, message: str) -> Response:
    return _json(status, {"errors": [{"message": message, "extensions": {"code": "BAD_REQUEST"}}]})


class Backend:
    """The embedded Prefect 1 backend.

    Args:
        database_url: where to keep everything, such as ``sqlite:///prefect.db``.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        agent_addresses: ``--agent-address`` of agents to poke when a flow run is ready.
        ui_origins: where web UIs come from that may use the API in a browser, such as ``http://localhost:8080`` for the
            one of Prefect Server. Others may not.

    Raises:
        DatabaseUnusable: see `Database`.
        PortUnavailable: something else listens there.

    Example:
        >>> with Backend("sqlite:///prefect.db", port=0) as backend:
        ...     requests.post(backend.url, json={"query": "{ hello }"})
    """

    def __init__(
        self,
        database_url: str,
        host: str = "127.0.0.1",
        port: int = 4200,
        agent_addresses: Iterable[str] = (),
        ui_origins: Iterable[str] = (),
    ) -> None:
        self._host = host
        self._ui_origins = [origin.rstrip("/") for origin in ui_origins]
        self._socket = _listen(host, port)
        self._poker = Poker(agent_addresses)
        self._news = News()
        try:
            self._database = Database(database_url, self._stored)
            self._database.reserve()
        except BaseException:
            self._socket.close()
            raise
        self._services = Services(self._database)
        #: the address to give to Prefect
        self.url = f"http://{host}:{self._socket.getsockname()[1]}"
        self._teller = Teller(self.url)
        self._api = Api(self._database, self.url)
        # writing goes one by one anyway; with threads of its own, reading never waits for it
        self._readers = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")
        config = uvicorn.Config(
            self.app(), log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=GRACE
        )
        self._server = uvicorn.Server(config)
        self._thread: Optional[threading.Thread] = None

    def app(self) -> Starlette:
        """The ASGI application."""

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            self._news.start()
            self._poker.start()
            self._services.start()
            yield
            self._services.stop()
            self._poker.stop()
            self._readers.shutdown()
            self._writer.shutdown()
            self._teller.stop()
            self._database.close()

        routes = [
            Route("/health", self._health),
            Route("/", self._graphql, methods=["POST"]),
            Route("/graphql", self._graphql, methods=["POST"]),
            Route("/graphql/", self._graphql, methods=["POST"]),
            *pages.routes(),
        ]
        # a name that somebody else's page has made to mean this machine is not among them
        hosts = _LOOPBACK if self._host in _LOOPBACK else ["*"]
        guard = Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
        guards = [guard]
        if self._ui_origins:
            # browsers ask first, as the UI sends JSON, and headers of its own
            origins = self._ui_origins
            guards.append(
                Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["POST"], allow_headers=["*"])
            )
        return Starlette(routes=routes, lifespan=lifespan, middleware=guards)

    def _stored(self, tx: Transaction) -> None:
        if tx.queued:
            self._poker.poke()
        if tx.news:
            self._news.tell()
        self._teller.tell(tx.calls)

    async def _health(self, request: Request) -> Response:
        return _json(200, {"status": "ok"})

    async def _graphql(self, request: Request) -> Response:
        # a page in a browser may send other types, and so start flow runs, to an address that it cannot read from
        if not request.headers.get("content-type", "").startswith("application/json"):
            return _refused(415, "A request's content type is application/json.")
        body = bytearray()
        try:
            async for chunk in request.stream():
                # the rest is read and dropped: a caller whose connection is closed while it sends gets no answer
                if len(body) <= LARGEST_BODY:
                    body += chunk
        except ClientDisconnect:
            return _refused(400, "The request ended before its body had come.")
        if len(body) > LARGEST_BODY:
            return _refused(413, f"The request is larger than {LARGEST_BODY} bytes.")
        # a query that only looks like a mutation is answered all the same, and so is a mutation among the queries:
        # there, one that waits for somebody outside holds no other up
        writes = b"mutation" in body and b"test_cloud_hook" not in body
        workers = self._writer if writes else self._readers
        loop = asyncio.get_running_loop()

        async def ask() -> Tuple[int, Any]:
            return await loop.run_in_executor(workers, self._api.answer, bytes(body), request.headers)

        seconds = None if workers is self._writer else preferred_hold(request.headers)
        if seconds is None:
            return _json(*await ask())
        applied = {"Preference-Applied": f"wait={seconds}"}
        coming = self._news.coming
        status, answer = await ask()
        if not seconds or not is_empty(answer):
            return _json(status, answer, applied)
        held = self._news.hold(coming, ask, seconds, lambda: self._server.should_exit)
        return StreamingResponse(held, headers=applied, media_type="application/json")

    def serve(self) -> None:
        """Serves until the process is told to stop (SIGINT, SIGTERM)."""
        self._server.run(sockets=[self._socket])

    def __enter__(self) -> "Backend":
        self._thread = threading.Thread(target=self.serve, name="backend", daemon=True)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)
            if not self._thread.is_alive():
                raise RuntimeError("The backend has ended while it was starting. Its log says why.")
        return self

    def __exit__(self, *error: Any) -> None:
        self._server.should_exit = True
        assert self._thread is not None
        self._thread.join(GRACE + 5)


def _listen(host: str, port: int) -> socket.socket:
    try:
        # requests are accepted from here on, and answered as soon as the server runs
        listening = socket.create_server((host, port), backlog=512)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        hint = " Is another backend running? Choose another port with --port." if taken else ""
        raise PortUnavailable(f"Cannot listen on {host}:{port}: {error}.{hint}") from error
    # connections inherit it; without, an answer on a kept connection waits 40 ms for an acknowledgement
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
