"""An end to what others' code does, such as a search for a date that never comes."""

import sys
import time
from contextlib import contextmanager
from typing import Any, Callable, Iterator

from .errors import TookTooLong


@contextmanager
def within(seconds: float, is_over: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Ends a block that takes longer, as soon as it calls some function in this thread.

    Args:
        seconds: that the block may take.
        is_over: whether it is to be ended before.

    Raises:
        TookTooLong: it has been ended.
    """
    until, before = time.monotonic() + seconds, sys.getprofile()

    def look(*event: Any) -> None:
        if time.monotonic() > until or is_over():
            raise TookTooLong

    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(before)
