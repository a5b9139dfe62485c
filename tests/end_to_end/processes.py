"""Commands as a user starts them: processes of their own, none of which outlives its test."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Dict, Iterator, List, Optional, Sequence

import psutil
from conftest import eventually

#: Seconds for a command to end by itself
TIMEOUT = 60

#: The scripts of the environment that the tests run in
SCRIPTS = Path(sys.executable).parent


class Command:
    """A command that has been started, and what it has printed so far."""

    def __init__(self, arguments: List[str], stdout: IO[bytes], stderr: IO[bytes], **options: Any) -> None:
        self._stdout, self._stderr = stdout, stderr
        self.process = psutil.Popen(
            # the interrupts of a terminal are not for this process, nor those of the command for the tests
            [str(SCRIPTS / arguments[0]), *arguments[1:]],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            **options,
        )

    @property
    def stdout(self) -> str:
        return _text(self._stdout)

    @property
    def stderr(self) -> str:
        return _text(self._stderr)

    def exit_code(self) -> int:
        """Waits until it has ended."""
        code: int = self.process.wait(TIMEOUT)
        return code

    def descendants(self) -> "List[psutil.Process]":
        found: List[psutil.Process] = self.process.children(recursive=True)
        return found


def _text(file: IO[bytes]) -> str:
    # read without moving the position at which the process writes
    return os.pread(file.fileno(), 10_000_000, 0).decode()


@contextmanager
def started(*arguments: Any, env: Optional[Dict[str, str]] = None, cwd: Optional[Path] = None) -> Iterator[Command]:
    """A command that runs for as long as the block does, or until it ends."""
    with TemporaryFile() as stdout, TemporaryFile() as stderr:
        command = Command([str(each) for each in arguments], stdout, stderr, env={**os.environ, **(env or {})}, cwd=cwd)
        try:
            yield command
        finally:
            try:
                left = [command.process, *command.descendants()]
            except psutil.NoSuchProcess:
                left = []
            for process in left:
                if process.is_running():
                    process.kill()
            command.process.wait(TIMEOUT)


def ended(
    *arguments: Any, env: Optional[Dict[str, str]] = None, cwd: Optional[Path] = None, pass_fds: Sequence[int] = ()
) -> "subprocess.CompletedProcess[str]":
    """A command that has ended."""
    return subprocess.run(
        [str(SCRIPTS / arguments[0]), *map(str, arguments[1:])],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        pass_fds=pass_fds,
    )


def assert_gone(processes: "List[psutil.Process]") -> None:
    """Fails if one of the processes goes on for long. One that nobody has waited for yet counts as gone."""
    eventually(lambda: not [process for process in processes if _is_alive(process)])


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
