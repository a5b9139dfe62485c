"""A database file that one process has for itself, until that ends, however it ends."""

import errno
import fcntl
import os
import struct
import sys
from contextlib import suppress
from typing import Optional
from weakref import WeakSet

#: Locks an open file, whatever its names are. Only Linux is known to have it; Python 3.8 does not know its number.
_SET_LOCK: Optional[int] = getattr(fcntl, "F_OFD_SETLK", 37) if sys.platform == "linux" else None

#: The byte that is locked: behind those by which SQLite locks (PENDING_BYTE in its os.h), and behind any content
_BYTE = 2**62

#: What systems say of a file that is locked by another process
_LOCKED = (errno.EAGAIN, errno.EACCES)


class InUse(Exception):
    """Another process has the file."""


class Reservation:
    """A file that can be taken for this process.

    Two locks keep others away: one of the file itself, which no other name of it (a hard link) gets around, and one of
    a file beside it, for systems without the first, and for earlier versions of this package.

    Args:
        path: of the file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._beside: Optional[int] = None
        self._itself: Optional[int] = None

    def take(self) -> None:
        """Takes the file.

        Raises:
            InUse: another process has it.
            OSError: the file beside it cannot be opened.
        """
        # it stays: one that is removed could be locked by one backend, and made anew by another
        self._beside = os.open(f"{self._path}-lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        _taken.add(self)
        try:
            # whoever can open it can lock it
            with suppress(PermissionError):
                os.fchmod(self._beside, 0o600)
            fcntl.flock(self._beside, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._set_lock(fcntl.F_WRLCK)
        except OSError as error:
            self.give_back()
            if error.errno in _LOCKED:
                raise InUse from error
            raise

    def _set_lock(self, kind: int) -> None:
        if _SET_LOCK is None:
            return
        if self._itself is None:
            self._itself = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.fcntl(self._itself, _SET_LOCK, struct.pack("hhqqi4x", kind, os.SEEK_SET, _BYTE, 1, 0))
        except OSError as error:
            # some file systems have no such locks
            if error.errno in _LOCKED:
                raise

    def give_back(self) -> None:
        """Lets others take the file."""
        if self._itself is not None:
            # not closed, as that would drop the locks that SQLite holds in this process
            self._set_lock(fcntl.F_UNLCK)
        if self._beside is not None:
            os.close(self._beside)
            self._beside = None

    def close(self) -> None:
        """Lets others take the file. To be called when SQLite has closed it."""
        self.give_back()
        if self._itself is not None:
            os.close(self._itself)
            self._itself = None

    def leave_to_parent(self) -> None:
        """Closes the files in a forked child, which shares their locks with its parent, and so must not unlock them."""
        for file in (self._beside, self._itself):
            if file is not None:
                os.close(file)
        self._beside = self._itself = None


#: what this process has taken
_taken: "WeakSet[Reservation]" = WeakSet()


def _leave_to_parent() -> None:
    for each in _taken:
        each.leave_to_parent()


# the files are free when the parent has ended
os.register_at_fork(after_in_child=_leave_to_parent)
