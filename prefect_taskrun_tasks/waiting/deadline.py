"""When a wait ends at the latest."""

import math
from datetime import timedelta
from time import monotonic
from typing import Optional, Union

import pendulum

from ..errors import InvalidArgument, WaitTimeout, WrongType

#: Seconds, or a `timedelta`, or None
Timeout = Union[float, timedelta, None]

#: How long a wait lasts at most, unless the caller says otherwise; that of prefect.backend 1.4.1
LONGEST_WAIT = timedelta(hours=12)


class Deadline:
    """When a wait ends at the latest, on a clock that nobody sets.

    Args:
        max_duration: from now; None for without end. Zero, as Prefect takes it, leaves time for one look.
        timeout: instead of `max_duration`, in seconds or as a `timedelta`.
        waited: seconds for which the wait has lasted already, in other processes.

    Raises:
        WrongType: `timeout` is no time (a `TypeError`).
        InvalidArgument: `timeout` is not positive (a `ValueError`).
    """

    def __init__(self, max_duration: Optional[timedelta], timeout: Timeout = None, waited: float = 0.0) -> None:
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float, timedelta, type(None))):
            raise WrongType(f"A timeout is a number of seconds or a timedelta, not {timeout!r}.")
        given = max_duration if timeout is None else timeout
        seconds = given.total_seconds() if isinstance(given, timedelta) else given
        # written so that it also refuses nan
        if timeout is not None and seconds is not None and not seconds > 0:
            raise InvalidArgument(f"A timeout must be longer than 0 s, and not {timeout!r}.")
        self._start = monotonic() - waited
        self._seconds = math.inf if seconds is None else seconds
        #: the one that counts, if this is a sooner one
        self.final = self

    def was_over(self, at: float) -> bool:
        """Whether there was no time left at a reading of `time.monotonic`: a wait that began then has one look."""
        return at >= self._start + self._seconds

    @property
    def left(self) -> float:
        """Seconds, at least 0."""
        return max(0.0, self._start + self._seconds - monotonic())

    @property
    def end(self) -> Optional[pendulum.DateTime]:
        """When that is, by the clock on the wall, in UTC; None if never, or after the year 9999."""
        try:
            end: pendulum.DateTime = pendulum.now("utc") + timedelta(seconds=self.left)
            return end
        except OverflowError:
            return None

    def sooner(self, seconds: float) -> "Deadline":
        """One that is over in so many seconds, or when this one is."""
        if seconds >= self.left:
            return self
        sooner = Deadline(timedelta(seconds=seconds))
        sooner.final = self
        return sooner

    def missed(self, awaited: str, last_seen: str) -> WaitTimeout:
        """The error for what has not happened in time."""
        return WaitTimeout(
            f"{awaited} has not finished within {timedelta(seconds=round(self._seconds, 3))} and {last_seen}; waited "
            f"for {monotonic() - self._start:.1f} s."
        )
