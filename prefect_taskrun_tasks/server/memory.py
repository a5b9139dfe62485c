"""Memory that large requests took, given back to the system."""

import ctypes
from typing import Any, Callable


def _trim() -> "Callable[[int], Any]":
    # of the GNU C library, which keeps what is freed, for the next request
    return getattr(ctypes.CDLL(None), "malloc_trim", lambda kept: None)


_malloc_trim = _trim()


def give_back() -> None:
    """Gives the system all memory that is free."""
    _malloc_trim(0)
