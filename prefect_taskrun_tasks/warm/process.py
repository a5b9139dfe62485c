"""Processes of flow runs, as the agent sees them."""

import json
import os
import socket
import subprocess
import sys
import threading
from array import array
from multiprocessing.connection import Connection, Pipe, wait
from time import monotonic
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import psutil

from . import template

#: Seconds for a template to fork, which imports the modules first if it has just started
LONGEST_FORK = 60.0


class NotForked(Exception):
    """The template cannot fork a process; says why."""


class NotPreloaded(NotForked):
    """A module cannot be imported before flow runs are; holds its traceback."""


class WarmProcess:
    """A process that was forked from the template, with the part of `subprocess.Popen` that an agent needs.

    Attributes:
        pid: its PID.
        returncode: its exit code; the signal that killed it as a negative number; `UNKNOWN` if its template was killed;
            None while it runs.
    """

    #: Exit code of a process that has outlived its template
    UNKNOWN = 255

    def __init__(self, pid: int, answers: "Connection") -> None:
        self.pid = pid
        self.returncode: Optional[int] = None
        self._answers = answers
        self._lock = threading.Lock()

    def poll(self) -> Optional[int]:
        """Return the exit code, or None while the process runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: Optional[float] = None) -> int:
        """Wait until the process has ended, and return its exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        deadline = None if timeout is None else monotonic() + timeout
        # for all threads that wait: after the exit code there is the end of the connection
        if self.returncode is None and not wait([self._answers], timeout):
            raise subprocess.TimeoutExpired("flow run", timeout or 0)
        with self._lock:
            if self.returncode is None:
                try:
                    self.returncode = int(self._answers.recv_bytes())
                except (EOFError, OSError):
                    self.returncode = self._wait_without_template(deadline)
        return self.returncode

    def _wait_without_template(self, deadline: Optional[float]) -> int:
        try:
            psutil.Process(self.pid).wait(None if deadline is None else max(0.0, deadline - monotonic()))
        except psutil.TimeoutExpired as error:
            raise subprocess.TimeoutExpired("flow run", error.seconds) from None
        except psutil.NoSuchProcess:
            pass
        return self.UNKNOWN


def can_fork() -> bool:
    """Return whether a flow run can be warm here. On macOS, libraries of the system do not work after a fork."""
    return sys.platform == "linux"


class Template:
    """The agent's side of the process that flow runs are forked from. Another one starts when that has ended.

    Args:
        preload: names of modules that it imports before it forks.
        shows_output: whether what flow runs print goes where this process prints.
    """

    def __init__(self, preload: Sequence[str] = (), shows_output: bool = False) -> None:
        self._preload = list(preload)
        self._output = None if shows_output else subprocess.DEVNULL
        self._lock = threading.Lock()
        self._control: Optional[socket.socket] = None
        #: about the modules; None until they are imported
        self._warnings: Optional[List[str]] = None

    def fork(self) -> None:
        """Fork the first template from this process, which must have one thread. It has imported most of it already."""
        ours, theirs = _socket_pair()
        pid = os.fork()
        if pid:
            theirs.close()
            self._control = ours
            _call_in_thread(lambda: os.waitpid(pid, 0))
            return
        ours.close()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(null)
        template.run(theirs, self._preload)
        # not on into what this process would have done
        sys.exit()

    def imported(self) -> List[str]:
        """Wait until the modules are imported.

        Returns:
            Warnings about them.

        Raises:
            NotPreloaded: one of them cannot be imported.
        """
        with self._lock:
            self._connected()
            return self._warnings or []

    def start(self, environment: Dict[str, str], working_dir: Optional[str]) -> WarmProcess:
        """Start the process of a flow run.

        Args:
            environment: all of its environment variables.
            working_dir: its working folder; default: that of the agent.

        Raises:
            NotForked: there is no process.
        """
        request = json.dumps({"environment": environment, "working_dir": working_dir}).encode()
        # a template that has ended is noticed by its silence
        process = self._ask(request) or self._ask(request)
        if process is None:
            raise NotForked("The process that flow runs are forked from does not start.")
        return process

    def _ask(self, request: bytes) -> Optional[WarmProcess]:
        """Return None if the template has ended, or does not answer; the next request starts another."""
        ours, theirs = Pipe()
        with theirs, self._lock:
            control = self._connected()
            try:
                descriptor = array("i", [theirs.fileno()])
                control.sendmsg([b"+"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor)])
            except OSError:
                self._control = None
                return None
        try:
            ours.send_bytes(request)
            if not ours.poll(LONGEST_FORK):
                raise EOFError
            answer = ours.recv_bytes().decode()
        except (EOFError, OSError):
            with self._lock:
                if self._control is control:
                    self._control = None
            return None
        if not answer.isdecimal():
            raise NotForked(answer)
        return WarmProcess(int(answer), ours)

    def _connected(self) -> socket.socket:
        """A socket to a template that has imported its modules; to be called with the lock."""
        if self._control is None:
            self._control, self._warnings = self._begin(), None
        if self._warnings is None:
            try:
                errors, self._warnings = json.loads(self._control.recv(1_000_000))
            except (OSError, ValueError):
                errors = ["The process that flow runs are forked from does not start."]
            if errors:
                self._control = None
                raise NotPreloaded(errors[0])
        return self._control

    def _begin(self) -> socket.socket:
        ours, theirs = _socket_pair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", template.__name__, str(theirs.fileno()), *self._preload],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
            )
        _call_in_thread(process.wait)
        return ours


def _socket_pair() -> Tuple[socket.socket, socket.socket]:
    """The ends of the agent and of the template, between which messages stay whole."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(LONGEST_FORK)
    return ours, theirs


def _call_in_thread(wait_for_end: Callable[[], object]) -> None:
    # a process that nobody waits for stays as a zombie
    threading.Thread(target=wait_for_end, name="template", daemon=True).start()
