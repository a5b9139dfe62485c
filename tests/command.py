"""``prefect-taskrun`` in this process, which spares the 0.6 s of CPU time in which a process imports Prefect."""

import io
import logging
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple, TextIO

from prefect_taskrun_tasks.cli import main


class Ended(NamedTuple):
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str


class Output(io.TextIOWrapper):
    """A standard output, or a standard error: a file, or a terminal."""

    def __init__(self, is_terminal: bool = False) -> None:
        self._bytes = io.BytesIO()
        self._is_terminal = is_terminal
        super().__init__(self._bytes, encoding="utf-8")

    def isatty(self) -> bool:
        return self._is_terminal

    @property
    def written(self) -> bytes:
        self.flush()
        return self._bytes.getvalue()


def ended(*arguments: Any) -> Ended:
    """A command that has ended, whose output went to files."""
    stdout, stderr = Output(), Output()
    code = exit_code(arguments, stdout, stderr)
    return Ended(code, stdout.written.decode(), stderr.written.decode())


def exit_code(arguments: "tuple[Any, ...]", stdout: TextIO, stderr: TextIO) -> int:
    """Run a command; for the backend that this process's Prefect is pointed at."""
    logger = logging.getLogger("prefect")
    handlers = logger.handlers
    try:
        with redirect_stdout(stdout), redirect_stderr(stderr):
            main([str(each) for each in arguments], prog_name="prefect-taskrun")
    except SystemExit as exit:
        return int(exit.code or 0)
    finally:
        # commands have Prefect log to their own standard error
        logger.handlers = handlers
    raise AssertionError("click ends each command by SystemExit")
