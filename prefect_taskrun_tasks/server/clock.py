"""
Instants, in the one text form that the whole backend uses.

Every instant is UTC with six fraction digits and the offset ``+00:00``, so that comparing texts compares
instants: in SQLite, and in the Prefect client, which sorts `start_time` as text.
"""

import threading
from datetime import datetime, timedelta, timezone
from typing import Optional

#: By how much a clock is set back without being noticed here
AHEAD = timedelta(seconds=5)

#: Characters of an instant
LONGEST = 64


def instant(moment: datetime) -> str:
    """The text form of `moment`; a naive one is taken as UTC, as the Prefect client means it."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds")


def moment(text: str) -> datetime:
    """The `datetime` of an ISO 8601 text with an offset, a `Z`, or neither (UTC).

    Raises:
        ValueError: `text` is no ISO 8601 instant.
    """
    # datetime.fromisoformat reads a "Z", or a fraction of other than 3 or 6 digits, only from Python 3.11 on
    import pendulum

    parsed = pendulum.parse(text)
    if not isinstance(parsed, datetime):
        raise ValueError(f"{text!r} is not an instant")
    return parsed


def normal(text: str) -> str:
    """Any ISO 8601 text in the one form.

    Raises:
        ValueError: `text` is no ISO 8601 instant of the years 1 to 9999.
    """
    if len(text) > LONGEST:
        # what some releases of Python make of it, others do not
        raise ValueError(f"{text[:LONGEST]!r}... is not an instant")
    try:
        return _normal(text)
    except OverflowError as error:
        raise ValueError(f"{text!r} is not in the years 1 to 9999 of UTC") from error


def _normal(text: str) -> str:
    try:
        return instant(datetime.fromisoformat(text))
    except ValueError:
        return instant(moment(text))


class Clock:
    """Wall clock that never returns the same instant twice, nor goes back, so that state histories stay ordered.

    But one that was ahead by more than `AHEAD` is not followed: nothing would begin until the real time is there.
    """

    def __init__(self) -> None:
        self._last = datetime.min.replace(tzinfo=timezone.utc)
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            real, following = datetime.now(timezone.utc), self._last + timedelta(microseconds=1)
            self._last = real if following > real + AHEAD else max(real, following)
            return instant(self._last)


now = Clock()


def ago(seconds: float, since: Optional[str] = None) -> str:
    """The instant `seconds` before `since` (default: now); negative for later."""
    start = datetime.fromisoformat(since) if since else datetime.now(timezone.utc)
    return instant(start - timedelta(seconds=seconds))
