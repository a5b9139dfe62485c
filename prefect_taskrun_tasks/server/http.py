"""The API and the page over HTTP, on a socket of this machine, served from a thread or for good."""

import asyncio
import errno
import ipaddress
import logging
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from typing import Any, AsyncIterator, Collection, Dict, Iterable, List, Optional
from weakref import WeakSet

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import metrics, pages
from .api import Api, Step
from .api_key import ApiKey
from .connection import ACCEPTED_AT_ONCE, Connection, SeldomTold
from .database import CONNECTIONS, HEALTHY, Database
from .endpoint import Endpoint, json_response
from .errors import DatabaseUnusable, NotInPlace
from .hooks import Teller
from .hosts import AllowedHosts, own_names
from .limits import Limits
from .news import News
from .poke import Poker
from .services import INTERVALS, Pass, Services
from .transaction import ANYTHING, Transaction

logger = logging.getLogger(__name__)

#: Seconds that requests under way may take when the backend stops: to read, to write, and to send their answers
READING, GRACE = 2.0, 4

#: Connections that the system keeps until they are accepted
WAITING = 512


class PortUnavailable(Exception):
    """The address cannot be listened on."""


class Unguarded(Exception):
    """Others than this machine could reach the API without a key."""


class Backend:
    """The embedded Prefect 1 backend.

    Args:
        database_url: where to keep everything, see `Database`, such as ``sqlite:///prefect.db``.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        agent_addresses: ``--agent-address`` of agents to poke when a flow run is ready.
        api_key: what callers must know; needed if `host` is not this machine's own, 127.0.0.1.
        unguarded: `host` may be another without a key: whoever can reach it can run code through the agents.
        allowed_hosts: names of this backend besides those of this machine, such as a container's, by which it may be
            called without a key.
        cors_origins: sites whose pages may use the API from a browser, such as ``http://localhost:8080`` for the web UI
            of Prefect Server. Others may not.
        limits: how much one request may ask for.
        intervals: seconds between two passes of a service, where they are not to be as in Prefect Server.

    Raises:
        DatabaseUnusable: see `Database`.
        PortUnavailable: something else listens there.
        Unguarded: `host` needs a key.

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
        api_key: Optional[ApiKey] = None,
        unguarded: bool = False,
        allowed_hosts: Iterable[str] = (),
        cors_origins: Iterable[str] = (),
        limits: Limits = Limits(),  # noqa: B008 - a frozen value
        intervals: Optional[Dict[Pass, float]] = None,
    ) -> None:
        if not (api_key or unguarded or _is_loopback(host)):
            raise Unguarded(
                f"Whoever can reach {host} could run code through your agents. Give an API key with --api-key-file, "
                "or say with --unguarded that nobody else can reach it."
            )
        #: None for any: no page elsewhere has the key
        self._hosts: Optional[Dict[str, Any]] = None
        if not api_key:
            own = {host.lower(), "127.0.0.1", "localhost", *(each.lower() for each in allowed_hosts)}
            is_loopback = _is_loopback(host)
            self._hosts = {"names": own if is_loopback else {*own, *own_names()}, "any_address": not is_loopback}
        name = f"[{host}]" if ":" in host else host
        self._cors_origins = [origin.rstrip("/") for origin in cors_origins]
        self._poker = Poker(agent_addresses)
        self._news = News()
        with ExitStack() as undone:
            self._socket = undone.enter_context(_listen(host, port))
            #: the address to give to Prefect
            self.url = f"http://{name}:{self._socket.getsockname()[1]}"
            self._database = undone.enter_context(closing(Database(database_url, self._stored)))
            self._database.reserve()
            undone.pop_all()
        #: where everything is, without a password
        self.kept_in = self._database.store.name
        self._services = Services(self._database, {**INTERVALS, **(intervals or {})})
        self._teller = Teller(self.url)
        # writing goes one by one anyway; with threads of its own, reading never waits for it
        self._readers = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="read")
        # long documents are parsed one by one, so that they do not take the processor from all others; and large
        # answers are read so, for they take memory as well
        self._parser = ThreadPoolExecutor(1, thread_name_prefix="parse")
        self._large = ThreadPoolExecutor(1, thread_name_prefix="large")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")
        # nor does it wait for a thread to say that it is well
        self._upkeep = ThreadPoolExecutor(1, thread_name_prefix="upkeep")
        self._outside = ThreadPoolExecutor(2, thread_name_prefix="outside")
        api = Api(self._database, self.url, limits)
        self._requests = metrics.Requests()
        self._endpoint = Endpoint(
            api,
            {
                Step.PARSE: self._parser,
                Step.READ: self._readers,
                Step.LARGE: self._large,
                Step.WRITE: self._writer,
                Step.OUTSIDE: self._outside,
            },
            self._news,
            limits,
            api_key,
            self._is_stopping,
            self._requests,
        )
        config = uvicorn.Config(
            _quiet(self.app()),
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=GRACE,
            # asyncio accepts as many at once
            backlog=ACCEPTED_AT_ONCE,
            # by h11: the other that uvicorn takes where it is installed has no limit to what it reads of headers
            http=Connection,
        )
        self._server = _Server(config, self._database, self._news)
        _backends.add(self)
        self._thread: Optional[threading.Thread] = None

    def app(self) -> Starlette:
        """The ASGI application."""

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            asyncio.get_running_loop().set_exception_handler(SeldomTold())
            self._news.start()
            self._endpoint.start()
            self._poker.start()
            self._services.start()
            self._database.listen(self._told)
            yield
            self._services.stop()
            self._poker.stop()
            self._database.interrupt()
            self._outside.shutdown()
            self._parser.shutdown()
            self._large.shutdown()
            self._readers.shutdown()
            self._upkeep.shutdown()
            self._writer.shutdown()
            self._teller.stop()
            self._database.close()

        routes = [
            Route("/health", self._health),
            Route("/metrics", self._metrics),
            Route("/", self._endpoint.post, methods=["POST"]),
            Route("/graphql", self._endpoint.post, methods=["POST"]),
            Route("/graphql/", self._endpoint.post, methods=["POST"]),
            *pages.routes(),
        ]
        middleware = [Middleware(AllowedHosts, **self._hosts)] if self._hosts else []
        if self._cors_origins:
            # browsers ask first, as pages send JSON, the key, and headers of their own
            cors = Middleware(
                CORSMiddleware, allow_origins=self._cors_origins, allow_methods=["POST"], allow_headers=["*"]
            )
            middleware.append(cors)
        return Starlette(routes=routes, lifespan=lifespan, middleware=middleware)

    def _stored(self, tx: Transaction) -> None:
        self._told(tx.queued, tx.news)
        self._teller.tell(tx.calls)

    def _told(self, queued: bool, news: Collection[str]) -> None:
        if queued:
            self._poker.poke()
        if news:
            self._news.tell(news)

    async def _health(self, request: Request) -> Response:
        checked = asyncio.get_running_loop().run_in_executor(self._upkeep, self._database.check)
        try:
            await asyncio.wait_for(checked, HEALTHY)
        except NotInPlace as error:
            logger.error("%s", error)
            return json_response(503, {"status": "unavailable", "reason": NotInPlace.REASON})
        except (DatabaseUnusable, asyncio.TimeoutError) as error:
            # why is for the log, as anybody may ask
            logger.warning("The database does not answer: %s", str(error) or f"not within {HEALTHY:g} s")
            return json_response(503, {"status": "unavailable"})
        return json_response(200, {"status": "ok"})

    async def _metrics(self, request: Request) -> Response:
        if not self._endpoint.admits(request):
            await self._endpoint.slow_down(request)
            return Response("This needs the API key.\n", 401, {"WWW-Authenticate": "Bearer"}, "text/plain")
        stored = await asyncio.get_running_loop().run_in_executor(self._upkeep, self._count_stored)
        counted = [*self._requests.metrics(), *metrics.of_services(self._services), *stored]
        return Response(metrics.text(counted), 200, {"Content-Type": metrics.CONTENT_TYPE})

    def _count_stored(self) -> List[metrics.Metric]:
        # not meanwhile: it takes a connection of its own
        size = self._database.store.size()
        with self._database.read() as connection:
            return metrics.of_data(connection, size)

    def _is_stopping(self) -> bool:
        return self._server.should_exit

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
        self._thread.join(GRACE + 6)


def _quiet(app: Any) -> Any:
    """An ASGI application whose requests end without a word when the backend stops and cannot wait for them."""

    async def quiet(scope: Any, receive: Any, send: Any) -> None:
        with suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    return quiet


class _Server(uvicorn.Server):
    """A server that ends what is still at work some seconds after it was told to stop."""

    def __init__(self, config: uvicorn.Config, database: Database, news: News) -> None:
        super().__init__(config)
        self._database = database
        self._news = news

    async def startup(self, sockets: Optional[List[socket.socket]] = None) -> None:
        await super().startup(sockets)
        for each in sockets or []:
            # uvicorn has told the system how many are accepted at once
            each.listen(WAITING)

    async def shutdown(self, sockets: Optional[List[socket.socket]] = None) -> None:
        loop = asyncio.get_running_loop()
        # answers that are held are given now
        self._news.tell([ANYTHING])
        loop.call_later(READING, self._database.interrupt)
        loop.call_later(GRACE - 0.5, self._close_connections)
        await super().shutdown(sockets)

    def _close_connections(self) -> None:
        for each in list(self.server_state.connections):
            each.transport.abort()


#: backends of this process
_backends: "WeakSet[Backend]" = WeakSet()


def _leave_to_parent() -> None:
    """Has a forked child let go of the addresses: nobody would answer there when the parent has ended."""
    for backend in _backends:
        backend._socket.close()


os.register_at_fork(after_in_child=_leave_to_parent)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        # another name, which may mean any machine
        return False


def _listen(host: str, port: int) -> socket.socket:
    try:
        # requests are accepted from here on, and answered as soon as the server runs
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=WAITING)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        hint = " Is another backend running? Choose another port with --port." if taken else ""
        raise PortUnavailable(f"Cannot listen on {host}:{port}: {error}.{hint}") from error
    # connections inherit both: callers that vanish are noticed; and an answer on a kept connection does not wait 40 ms
    # for an acknowledgement
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
