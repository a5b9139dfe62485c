"""``prefect-taskrun`` for people and scripts that look at the runs of a backend."""

import os
from contextlib import contextmanager
from typing import Any, ContextManager, Iterator

import command
import pytest
from command import Ended
from driven import NewUrl, shared_backend
from prefect.utilities.configuration import set_temporary_config
from processes import started
from terminal import Screen, Terminal, on_terminal

from prefect_taskrun_tasks.runner import settings, variables
from prefect_taskrun_tasks.server import Backend

#: Of whoever runs the tests, and would be obeyed
WISHES = ("COLORTERM", "COLUMNS", "FORCE_COLOR", "LANG", "LINES", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


class Looking:
    """``prefect-taskrun``, pointed at a backend: in this process, or as a process of its own.

    A process of its own takes 0.6 s of CPU time to import Prefect. So only what is about processes has one: signals,
    pipes, keys, the environment that Python itself reads.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        ours = {name: value for name, value in os.environ.items() if name not in WISHES}
        self.env = {**ours, **variables(backend.url), "LC_ALL": "C.UTF-8", "TERM": "xterm-256color", "TZ": "UTC"}

    def __call__(self, *arguments: Any) -> Ended:
        """In this process, for another program: what is printed goes to files."""
        with set_temporary_config(settings(self.backend.url)):
            return command.ended(*arguments)

    def as_process(self, *arguments: Any, **env: str) -> Ended:
        """The same as a process of its own."""
        with started("prefect-taskrun", *arguments, env={**self.env, **env}) as process:
            code = process.exit_code()
            return Ended(code, process.stdout, process.stderr)

    def prints(self, *arguments: Any) -> str:
        """What it prints, if it succeeds."""
        ended = self(*arguments)
        assert ended.code == 0, ended
        return ended.stdout

    def fails(self, code: int, *arguments: Any) -> str:
        """What it says on standard error when it ends with an exit code, and without a traceback or a result."""
        return said_on_failure(self(*arguments), code)

    def on_terminal(self, *arguments: Any, columns: int = 80, lines: int = 40, **env: str) -> ContextManager[Terminal]:
        """As a process of its own, for a person."""
        return on_terminal("prefect-taskrun", *arguments, env={**self.env, **env}, columns=columns, lines=lines)

    def at_terminal(self, *arguments: Any, columns: int = 80, lines: int = 40, **env: str) -> Screen:
        """In this process, for a person: the screen once it has ended."""
        env = {"TERM": self.env["TERM"], "COLUMNS": str(columns), "LINES": str(lines), **env}
        output = command.Output(is_terminal=True)
        with pytest.MonkeyPatch.context() as patch, set_temporary_config(settings(self.backend.url)):
            for name, value in env.items():
                patch.setenv(name, value)
            command.exit_code(arguments, output, output)
        screen = Screen(columns, lines)
        screen.feed(output.written.replace(b"\n", b"\r\n"))
        return screen


def said_on_failure(ended: Ended, code: int) -> str:
    """What a command that ended with an exit code said on standard error, without a traceback or a result."""
    assert (ended.code, ended.stdout) == (code, ""), ended
    assert "Traceback" not in ended.stderr
    return ended.stderr


@contextmanager
def looking_at_a_backend(new_url: NewUrl) -> Iterator[Looking]:
    """The command for a backend of its own, to which this process's Prefect is pointed too."""
    with pytest.MonkeyPatch.context() as patch, shared_backend(new_url) as backend:
        for name in WISHES:
            patch.delenv(name, raising=False)
        yield Looking(backend)
