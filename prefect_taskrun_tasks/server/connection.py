"""Connections to the backend: each has a time for its request and for its answer, and none keeps the others out."""

import asyncio
import errno
import logging
import resource
import time
from typing import Any, Callable, Dict, Optional

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .seldom import Seldom

logger = logging.getLogger(__name__)

#: Seconds in which the head of a request has to arrive, from the beginning of the connection or the last answer on
HEAD = 20.0

#: Seconds in which the body of a request has to arrive, however it dribbles
BODY = 60.0

#: Seconds in which an answer that does not fit into the system's buffers has to be read
ANSWER = 60.0

#: Bytes that are looked at before it is known whether the request is one to be read on
FIRST = 4096

#: Files and connections that a backend has open at most, if the system lets it
MOST_OPEN = 65_536

#: Files that are kept for others than connections: the database's, the log, the event loop's own
KEPT_FILES = 48

#: Connections that are accepted before those that are too many are closed
ACCEPTED_AT_ONCE = 8

#: What a caller has to send next -> seconds for it
_SECONDS: Dict[Any, Callable[[], float]] = {h11.IDLE: lambda: HEAD, h11.SEND_BODY: lambda: BODY}


class Connection(H11Protocol):
    """A connection that is closed when its request does not arrive in time, or its answer is not read in time.

    uvicorn has one time limit, for connections that are silent between two requests; any byte ends it.
    When there are too many connections, the one is closed that has been sending its request for longest.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._state: Any = None
        self._since = 0.0
        self._receiving: Optional[asyncio.TimerHandle] = None
        self._unread: Optional[asyncio.TimerHandle] = None
        self._is_chunked = False
        self._limit_time()
        if len(self.connections) > _most_connections():
            self._make_room()

    def _make_room(self) -> None:
        idle = [each for each in self.connections if isinstance(each, Connection) and each._state in _SECONDS]
        # this one has just begun, so it is the last to be chosen
        longest = min(idle, key=lambda each: each._since)
        self.connections.discard(longest)
        longest.transport.abort()

    def data_received(self, data: bytes) -> None:
        begun = 0
        while begun < len(data) and not self._is_chunked and not self.transport.is_closing():
            # h11 makes an object of each chunk, of which one byte may be a whole one
            end = begun + FIRST if self.conn.their_state is h11.IDLE else len(data)
            super().data_received(data[begun:end])
            begun = end
            if self.conn.their_state is h11.SEND_BODY:
                self._is_chunked = any(name == b"transfer-encoding" for name, _ in self.headers)
        self._limit_time()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._limit_time()
        if self.transport.get_write_buffer_size():
            self._limit_reading()

    def _limit_time(self) -> None:
        """Begins the time of what the caller has to send next, if that is another part of a request."""
        state = self.conn.their_state
        if state is self._state:
            return
        self._state, self._since = state, time.monotonic()
        if self._receiving:
            self._receiving.cancel()
            self._receiving = None
        if state in _SECONDS:
            self._receiving = self.loop.call_later(_SECONDS[state](), self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._limit_reading()

    def _limit_reading(self) -> None:
        if not self._unread:
            self._unread = self.loop.call_later(ANSWER, self._end_unread, self.cycle)

    def _end_unread(self, cycle: Any) -> None:
        self._unread = None
        if self.transport.get_write_buffer_size() and (self.cycle is cycle or self.transport.is_closing()):
            self.transport.abort()

    def timeout_keep_alive_handler(self) -> None:
        # what is closed as usual stays open until it is read
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        if self._state is h11.SEND_BODY:
            self.transport.abort()
        else:
            super().shutdown()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        for timer in (self._receiving, self._unread):
            if timer:
                timer.cancel()
        super().connection_lost(exc)


def _most_connections() -> int:
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_OPEN if open_files == resource.RLIM_INFINITY else max(ACCEPTED_AT_ONCE, open_files - KEPT_FILES)


def open_as_many_as_possible() -> None:
    """Lets this process open as many files and connections as the system allows; many systems begin with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_OPEN if hard == resource.RLIM_INFINITY else min(hard, MOST_OPEN)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class SeldomTold:
    """What the event loop calls with errors that nobody has caught. That there are too many connections is told seldom.

    asyncio says it of each of them, with a traceback, hundreds of times a second.
    """

    def __init__(self) -> None:
        self._seldom = Seldom()

    def __call__(self, loop: asyncio.AbstractEventLoop, context: Dict[str, Any]) -> None:
        if getattr(context.get("exception"), "errno", None) not in (errno.EMFILE, errno.ENFILE):
            loop.default_exception_handler(context)
        elif self._seldom.counted():
            logger.error("No more connections can be taken: as many files are open as may be. See `ulimit -n`.")
