"""Answers that are held back until there is something to say, so that callers need not ask again and again."""

import asyncio
import re
import time
from collections import defaultdict
from contextlib import suppress
from typing import (
    Any,
    AsyncIterator,
    Awaitable,
    Callable,
    DefaultDict,
    FrozenSet,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Union,
)
from weakref import WeakSet

from .transaction import ANYTHING

#: Seconds for which an answer is held at most
LONGEST_HOLD = 30

#: Seconds in which several pieces of news are gathered for one answer
GATHERING = 0.01

#: Seconds after which an answer is asked again when there was news, but of no id in its request: it may ask for what is
#: related to that
RECHECK = 10.0

_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

#: Bytes of a request that is searched for ids, which takes some milliseconds
LONGEST_SEARCHED = 1024 * 1024


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


class Held:
    """An answer that is held back.

    Args:
        body: of the request. Of the ids in it, it is told when one has changed; without any, whatever changes.
    """

    def __init__(self, body: Union[bytes, bytearray]) -> None:
        found = _UUID.findall(body) if len(body) <= LONGEST_SEARCHED else []
        self.ids = frozenset(each.decode().lower() for each in found) or frozenset([ANYTHING])
        #: set when there may be something new
        self.news = asyncio.Event()


class News:
    """Something has happened to a flow run: told by any thread, awaited in the event loop."""

    def __init__(self) -> None:
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        #: id -> the answers whose requests have it; of a caller who went away at once, nothing else is heard
        self._held: DefaultDict[str, WeakSet[Held]] = defaultdict(WeakSet)
        #: how often there was something new
        self._count = 0

    def start(self) -> None:
        """To be called in the event loop."""
        self._loop = asyncio.get_running_loop()

    def tell(self, ids: Iterable[str]) -> None:
        """For any thread.

        Args:
            ids: of what has changed, with `ANYTHING` if there may be more.
        """
        # nobody waits before the event loop runs, or after it has ended
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._tell, frozenset(ids))

    def _tell(self, ids: FrozenSet[str]) -> None:
        self._count += 1
        for id in self._held if ANYTHING in ids else (*ids, ANYTHING):
            for each in self._held.get(id, ()):
                each.news.set()

    def begin(self, body: Union[bytes, bytearray]) -> Held:
        """To be called before it is seen that an answer is empty; it is told from then on, until it is forgotten."""
        held = Held(body)
        for id in held.ids:
            self._held[id].add(held)
        return held

    def forget(self, held: Held) -> None:
        for id in held.ids:
            self._held[id].discard(held)
            if not self._held[id]:
                del self._held[id]

    async def hold(self, held: Held, ask: Ask, seconds: float, is_stopping: Callable[[], bool]) -> AsyncIterator[str]:
        """Yields an answer once, as JSON: as soon as it is not empty any more, or when the time is over.

        Args:
            held: what `begin` has returned.
            ask: gives the answer as it is now.
            seconds: for which the answer is held at most.
            is_stopping: whether the backend is to stop; it tells that as news.
        """
        until, count = time.monotonic() + seconds, self._count
        try:
            while not is_stopping() and time.monotonic() < until:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(held.news.wait(), min(RECHECK, max(0.0, until - time.monotonic())))
                    await asyncio.sleep(GATHERING)
                if not held.news.is_set() and count == self._count:
                    continue
                held.news.clear()
                count = self._count
                answered = await ask()
                if not answered.is_empty:
                    yield "".join(answered.pieces)
                    return
            yield "".join((await ask()).pieces)
        finally:
            self.forget(held)


def preferred_hold(headers: Mapping[str, str]) -> Optional[int]:
    """For how many seconds a caller wants an empty answer to be held, as ``Prefer: wait=N`` says (RFC 7240)."""
    asked = re.search(r"\bwait=(\d{1,9})\b", headers.get("prefer", ""))
    return min(int(asked.group(1)), LONGEST_HOLD) if asked else None


def is_empty(answer: Any) -> bool:
    """Whether the first thing that was asked for is a list with nothing in it."""
    data = answer.get("data") if isinstance(answer, dict) else None
    return isinstance(data, dict) and next(iter(data.values()), None) == []
