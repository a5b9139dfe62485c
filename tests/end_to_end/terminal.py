"""A terminal of its own for a command, and what a person sees on it."""

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List

import pyte
from conftest import eventually
from processes import SCRIPTS, TIMEOUT

#: What moves the cursor, clears, hides or colours
CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen:
    """What a terminal shows of the bytes that are written to it."""

    def __init__(self, columns: int, lines: int) -> None:
        self._emulated = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._emulated)
        self._written = b""

    def feed(self, some: bytes) -> None:
        self._written += some
        self._stream.feed(some)

    @property
    def written(self) -> str:
        """Everything, control sequences included."""
        return self._written.decode()

    @property
    def lines(self) -> List[str]:
        """Everything, line by line, as it would be without an edge; for what is not drawn again and again."""
        return CONTROL_SEQUENCE.sub("", self.written).replace("\r\n", "\n").splitlines()

    @property
    def screen(self) -> str:
        """What can be seen now."""
        return "\n".join(line.rstrip() for line in self._emulated.display).rstrip() + "\n"

    @property
    def is_cursor_shown(self) -> bool:
        return not self._emulated.cursor.hidden


class Terminal:
    """A command that has been started on a terminal, and what it has written there so far."""

    def __init__(self, arguments: List[str], columns: int, lines: int, env: Dict[str, str]) -> None:
        self._screen = Screen(columns, lines)
        self._is_closed = False
        self._ours, its = os.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process = subprocess.Popen(
            [str(SCRIPTS / arguments[0]), *arguments[1:]],
            stdin=its,
            stdout=its,
            stderr=its,
            env=env,
            start_new_session=True,
            # so that what is typed there interrupts it
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(its)

    def _read(self) -> bool:
        """Take over what has been written; whether that was the end."""
        if self._is_closed:
            return True
        while select.select([self._ours], [], [], 0)[0]:
            try:
                some = os.read(self._ours, 65_536)
            except OSError:
                # on Linux, what a terminal says that no process has open any more
                return True
            self._screen.feed(some)
        return False

    @property
    def now(self) -> Screen:
        """What it shows now."""
        self._read()
        return self._screen

    @property
    def screen(self) -> str:
        return self.now.screen

    @property
    def is_cursor_shown(self) -> bool:
        return self.now.is_cursor_shown

    def shows(self, text: str) -> "Terminal":
        """Waits until it can be seen."""
        eventually(lambda: text in self.screen, TIMEOUT)
        return self

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def exit_code(self) -> int:
        """Waits until it has ended, and written all."""
        eventually(self._read, TIMEOUT)
        return self.process.wait(TIMEOUT)

    def hang_up(self) -> None:
        """Closes the window."""
        if not self._is_closed:
            os.close(self._ours)
            self._is_closed = True

    def close(self) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT)
        self.hang_up()


@contextmanager
def on_terminal(*arguments: Any, env: Dict[str, str], columns: int = 80, lines: int = 40) -> Iterator[Terminal]:
    """A command on a terminal, for as long as the block lasts."""
    terminal = Terminal([str(each) for each in arguments], columns, lines, env)
    try:
        yield terminal
    finally:
        terminal.close()
