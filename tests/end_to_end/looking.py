"""``prefect-taskrun`` for people and scripts that look at the runs of a backend."""

import os
from contextlib import contextmanager
from typing import Any, ContextManager, Iterator, NamedTuple

import pytest
from driven import NewUrl, shared_backend
from processes import started
from terminal import Terminal, on_terminal

from prefect_taskrun_tasks.runner import settings
from prefect_taskrun_tasks.server import Backend

#: Of whoever runs the tests, and would be obeyed
WISHES = ("COLORTERM", "COLUMNS", "FORCE_COLOR", "LANG", "LINES", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


class Ended(NamedTuple):
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str


class Looking:
    """``prefect-taskrun``, each time as a process of its own, which is pointed at a backend."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        variables = {f"PREFECT__{k.upper().replace('.', '__')}": v for k, v in settings(backend.url).items()}
        ours = {name: value for name, value in os.environ.items() if name not in WISHES}
        self.env = {**ours, **variables, "LC_ALL": "C.UTF-8", "TERM": "xterm-256color", "TZ": "UTC"}

    def __call__(self, *arguments: Any, **env: str) -> Ended:
        """For another program: what is printed goes to files."""
        with started("prefect-taskrun", *arguments, env={**self.env, **env}) as command:
            code = command.exit_code()
            return Ended(code, command.stdout, command.stderr)

    def prints(self, *arguments: Any, **env: str) -> str:
        """What it prints, if it succeeds."""
        ended = self(*arguments, **env)
        assert ended.code == 0, ended
        return ended.stdout

    def fails(self, code: int, *arguments: Any, **env: str) -> str:
        """What it says on standard error when it ends with an exit code, and without a traceback or a result."""
        ended = self(*arguments, **env)
        assert (ended.code, ended.stdout) == (code, ""), ended
        assert "Traceback" not in ended.stderr
        return ended.stderr

    def on_terminal(self, *arguments: Any, columns: int = 80, lines: int = 40, **env: str) -> ContextManager[Terminal]:
        """For a person."""
        return on_terminal("prefect-taskrun", *arguments, env={**self.env, **env}, columns=columns, lines=lines)

    def at_terminal(self, *arguments: Any, columns: int = 80, lines: int = 40, **env: str) -> Terminal:
        """The terminal, once it has ended."""
        with self.on_terminal(*arguments, columns=columns, lines=lines, **env) as terminal:
            terminal.exit_code()
            return terminal


@contextmanager
def looking_at_a_backend(new_url: NewUrl) -> Iterator[Looking]:
    """The command for a backend of its own, to which this process's Prefect is pointed too."""
    with pytest.MonkeyPatch.context() as patch, shared_backend(new_url) as backend:
        for name in WISHES:
            patch.delenv(name, raising=False)
        yield Looking(backend)
