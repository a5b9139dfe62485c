"""The process of a `LocalRunner`'s agent, as the runner sees it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from typing import Any, Dict, Iterable
from weakref import WeakSet

import psutil

from ..warm import can_fork, set_import_paths

#: Seconds for the agent to stop its flow runs and itself
GRACE = 10.0


class AgentFailed(Exception):
    """The agent has ended, so that nothing would be run any more."""


class AgentProcess:
    """The process of an agent. It ends with this object's block, or when this process is killed.

    It begins at once, so that it is ready when the backend is, and waits there for `configure`.

    Attributes:
        pid: its PID, which is that of its process group.

    Args:
        import_paths: folders from which flow runs may import modules, besides the current one.
        warm: whether flow runs are forked from a process that has imported Prefect.
        preload: names of modules to import before the first fork.
        fork: whether the agent may be forked from this process, which has imported Prefect already. This process must
            be the program's own, because flow runs end by `SystemExit` in a copy of the caller's stack.
    """

    def __init__(
        self, import_paths: Iterable[str] = (), warm: bool = True, preload: Iterable[str] = (), fork: bool = False
    ) -> None:
        self._options = [] if warm else ["--cold"]
        for module in preload:
            self._options += ["--preload", module]
        self._import_paths = [os.path.abspath(path) for path in import_paths]
        #: what it prints
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `__exit__`)
        self._theirs, self._ours = os.pipe()
        _agents.add(self)
        self._process = self._fork() if fork and _may_fork() else self._spawn()
        os.close(self._theirs)
        self.pid = self._process.pid
        self._parent = os.getpid()
        self._checking = threading.Lock()

    def _spawn(self) -> psutil.Process:
        # the agent puts what it finds here before its flow runs' own
        paths = [*self._import_paths, os.environ.get("PYTHONPATH", "")]
        return psutil.Popen(
            [sys.executable, "-m", __package__, *self._options],
            stdin=self._theirs,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            # an interrupt from the keyboard is for this process, which then ends the agent in its own time
            start_new_session=True,
        )

    def _fork(self) -> psutil.Process:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            return psutil.Process(pid)
        os.setsid()
        for descriptor, source in enumerate((self._theirs, self._output.fileno(), self._output.fileno())):
            os.dup2(source, descriptor)
        self._output.close()
        os.close(self._theirs)
        _close_inherited()
        set_import_paths(self._import_paths)
        from .__main__ import main

        try:
            main(self._options)
        except Exception:
            # the command would turn some errors into exit codes of its own
            traceback.print_exc()
            sys.exit(1)
        sys.exit()

    def configure(self, address: str, environment: Dict[str, str]) -> None:
        """Have it take flow runs.

        Args:
            address: where the backend tells it of new flow runs; empty if it does not.
            environment: variables that point Prefect at the backend.
        """
        # one that has ended is noticed by `check`
        with suppress(BrokenPipeError):
            os.write(self._ours, json.dumps({"address": address, "environment": environment}).encode() + b"\n")

    def check(self) -> None:
        """Return if it runs.

        Raises:
            AgentFailed: it has ended.
        """
        if os.getpid() != self._parent:
            # the exit code of a process is only known to its parent
            return
        try:
            with self._checking:
                code = self._process.wait(0)
        except psutil.TimeoutExpired:
            return
        size = os.fstat(self._output.fileno()).st_size
        # not by the file's position, which is the agent's too
        output = os.pread(self._output.fileno(), 2000, max(0, size - 2000)).decode(errors="replace")
        raise AgentFailed(f"The agent has ended with exit code {code}. Its last output:\n{output}")

    def __enter__(self) -> "AgentProcess":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._output.closed:
            return
        self.close_input()
        try:
            self._process.wait(GRACE)
        except psutil.TimeoutExpired:
            pass
        finally:
            # an agent that was killed itself has left its flow runs
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            self._output.close()

    def close_input(self) -> None:
        """Close this process's end of the pipe; the agent ends when the last process has closed it."""
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1


def _may_fork() -> bool:
    # locks that other threads have would never be released in the forked process; descriptors 0 to 2 are its own
    is_alone = psutil.Process().num_threads() == 1
    return can_fork() and is_alone and None not in (sys.stdin, sys.stdout, sys.stderr)


def _close_inherited() -> None:
    """Close the files that this process was started with, other than standard ones, as `subprocess` does."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        # the one that lists is closed by now
        with suppress(OSError):
            if descriptor > 2 and os.get_inheritable(descriptor):
                os.close(descriptor)


#: agents that this process has started
_agents: "WeakSet[AgentProcess]" = WeakSet()


def _close_inputs() -> None:
    for agent in _agents:
        agent.close_input()


# a forked child leaves the agents to its parent
os.register_at_fork(after_in_child=_close_inputs)
