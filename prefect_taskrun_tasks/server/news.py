"""Answers that are held back until there is something to say, so that callers need not ask again and again."""

import asyncio
import re
import time
from contextlib import suppress
from typing import Any, AsyncIterator, Awaitable, Callable, List, Mapping, NamedTuple, Optional

#: Seconds for which an answer is held at most
LONGEST_HOLD = 30

#: Seconds in which several pieces of news are gathered for one answer
GATHERING = 0.01

#: Seconds between two looks whether the backend is to stop
PULSE = 0.5


class Answered(NamedTuple):
    """An answer, and what is known of it."""

    #: HTTP's
    status: int
    #: as JSON, in pieces
    pieces: List[str]
    #: see `is_empty`
    is_empty: bool
    #: how the request has ended, in one word
    ending: str
    #: names of what was asked for
    fields: List[str]


Ask = Callable[[], Awaitable[Answered]]


class News:
    """Something has happened to a flow run: told by any thread, awaited in the event loop."""

    #: set when there is something new; then another takes its place
    coming: asyncio.Event

    def __init__(self) -> None:
        self._loop: Optional[asyncio.AbstractEventLoop] = None

    def start(self) -> None:
        """To be called in the event loop."""
        self._loop, self.coming = asyncio.get_running_loop(), asyncio.Event()

    def tell(self) -> None:
        """For any thread."""
        # nobody waits before the event loop runs, or after it has ended
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        told, self.coming = self.coming, asyncio.Event()
        told.set()

    async def hold(
        self, coming: asyncio.Event, ask: Ask, seconds: float, is_stopping: Callable[[], bool]
    ) -> AsyncIterator[str]:
        """Yields an answer once, as JSON: as soon as it is not empty any more, or when the time is over.

        Args:
            coming: what `coming` was before it was seen that the answer is empty.
            ask: gives the answer as it is now.
            seconds: for which the answer is held at most.
            is_stopping: whether the backend is to stop.
        """
        until = time.monotonic() + seconds
        while not is_stopping() and time.monotonic() < until:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(coming.wait(), min(PULSE, max(0.0, until - time.monotonic())))
                await asyncio.sleep(GATHERING)
                coming = self.coming
                answered = await ask()
                if not answered.is_empty:
                    yield "".join(answered.pieces)
                    return
        yield "".join((await ask()).pieces)


def preferred_hold(headers: Mapping[str, str]) -> Optional[int]:
    """For how many seconds a caller wants an empty answer to be held, as ``Prefer: wait=N`` says (RFC 7240)."""
    asked = re.search(r"\bwait=(\d{1,9})\b", headers.get("prefer", ""))
    return min(int(asked.group(1)), LONGEST_HOLD) if asked else None


def is_empty(answer: Any) -> bool:
    """Whether the first thing that was asked for is a list with nothing in it."""
    data = answer.get("data") if isinstance(answer, dict) else None
    return isinstance(data, dict) and next(iter(data.values()), None) == []
