"""Connections to the backend: none is kept for somebody who asks for nothing."""

import asyncio
import errno
import logging
import resource
import time
from typing import Any, Dict

from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)

#: Seconds in which the first request of a connection has to begin, headers and all
FIRST_REQUEST = 20.0

#: Files and connections that a backend has open at most, if the system lets it
MOST_OPEN = 65_536

#: Seconds between two lines of the log that say the same of connections that cannot be taken
SELDOM = 60.0


class Connection(H11Protocol):
    """A connection that is closed if nobody has asked for anything by it. (Later on, uvicorn sees to that.)"""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(FIRST_REQUEST, self._close_if_unused)

    def _close_if_unused(self) -> None:
        if self.cycle is None:
            self.transport.close()


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
        self._next = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: Dict[str, Any]) -> None:
        if getattr(context.get("exception"), "errno", None) not in (errno.EMFILE, errno.ENFILE):
            loop.default_exception_handler(context)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + SELDOM
            logger.error("No more connections can be taken: as many files are open as may be. See `ulimit -n`.")
