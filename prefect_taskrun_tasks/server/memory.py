"""Memory that large requests took, given back to the system."""

import ctypes
from typing import Any, Callable

#: A parameter of the GNU C library: bytes from which on memory is the system's own, and given back when freed.
#: The library would raise it by itself, to the largest that was freed.
_MMAP_THRESHOLD, LARGE = -3, 1024 * 1024


def _of_c(name: str) -> "Callable[..., Any]":
    """A function of the C library, which the GNU one has and others may lack."""
    return getattr(ctypes.CDLL(None), name, lambda *given: None)


_malloc_trim, _mallopt = _of_c("malloc_trim"), _of_c("mallopt")


def give_back() -> None:
    """Gives the system all memory that is free."""
    _malloc_trim(0)


def give_back_large_at_once() -> None:
    """Has large memory given back as soon as it is freed, in the whole process and from now on."""
    _mallopt(_MMAP_THRESHOLD, LARGE)
