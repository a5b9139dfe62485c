"""The process that flow runs are forked from.

It has imported Prefect, has one thread, and only forks and reaps. For each flow run the agent sends it one end of a
connection, and there the environment. The template answers with the PID of the process that it has forked, and later
with its exit code.

Run as ``python -m prefect_taskrun_tasks.warm.template FILE_DESCRIPTOR``.
"""

import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
import traceback
from array import array
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Dict, Iterable, List, Optional, Tuple

from . import flow_run

#: A file's size and time of change
_Stamp = Tuple[int, int]


def run(control: socket.socket, preload: Iterable[str] = ()) -> None:
    """Serve an agent. Only the forked processes return from here, when their flow run has ended.

    Args:
        control: where the agent sends the connections of its flow runs. The first message from here says whether the
            modules were imported: what went wrong, and what may go wrong.
        preload: names of modules to import before the first fork.
    """
    # an interrupt of the agent's process group is not for the template; a forked process gets it as soon as it can
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    importlib.import_module("prefect.cli.execute")
    errors, warnings = _preload(preload)
    control.send(json.dumps([errors, warnings]).encode())
    base_path = flow_run.path_without_additions()
    request = None if errors else _serve(control)
    if request is None:
        # without what modules have registered for the end of a flow run
        os._exit(0)
    flow_run.become(request, base_path)


def _preload(names: Iterable[str]) -> Tuple[List[str], List[str]]:
    """Import modules; returns errors and warnings."""
    warnings: List[str] = []
    for name in names:
        threads = set(threading.enumerate())
        try:
            importlib.import_module(name)
        except BaseException:
            return [f"The module {name!r} cannot be preloaded:\n{traceback.format_exc()}"], warnings
        started = ", ".join(thread.name for thread in set(threading.enumerate()) - threads)
        if started:
            warnings.append(
                f"The preloaded module {name!r} has started threads ({started}). Flow runs do not have these threads, "
                "and may wait for their locks for ever: do not preload this module."
            )
    return [], warnings


def _serve(control: socket.socket) -> Optional[bytes]:
    """Fork when the agent asks for it.

    Returns:
        In a forked process: what it executes. In the template: None, when the agent has ended, or when a module has
        changed on disk since its import and the last forked process has ended.
    """
    interrupted, wake_up = socket.socketpair()
    interrupted.setblocking(False)
    wake_up.setblocking(False)
    signal.set_wakeup_fd(wake_up.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    children: Dict[int, Connection] = {}
    stamps = _stamps()
    gc.collect()
    # the memory of what is there now stays shared: the collector of a forked process does not touch it
    gc.freeze()
    is_serving = True
    while is_serving or children:
        ready = wait([interrupted, control] if is_serving else [interrupted])
        if interrupted in ready:
            interrupted.recv(4096)
            _reap(children)
        if control not in ready:
            continue
        answers = _receive(control)
        if answers is None:
            return None
        if stamps != _stamps(stamps):
            # the agent starts another template, because this one does not answer
            is_serving = False
            answers.close()
            control.close()
            continue
        try:
            request = answers.recv_bytes()
            pid = os.fork()
        except (EOFError, OSError) as error:
            with answers:
                _answer(answers, str(error))
            continue
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for sock in (control, interrupted, wake_up):
                sock.close()
            for connection in (answers, *children.values()):
                connection.close()
            return request
        children[pid] = answers
        _answer(answers, str(pid))
    return None


def _receive(control: socket.socket) -> "Optional[Connection]":
    """The connection of a flow run; None if the agent has ended."""
    data, ancillary, _, _ = control.recvmsg(1, socket.CMSG_SPACE(array("i").itemsize))
    return Connection(array("i", ancillary[0][2])[0]) if data else None


def _reap(children: "Dict[int, Connection]") -> None:
    """Send the agent the exit codes of forked processes that have ended."""
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        with children.pop(pid) as answers:
            _answer(answers, str(code))


def _answer(answers: "Connection", text: str) -> None:
    # the agent may have ended
    with suppress(OSError):
        answers.send_bytes(text.encode())


def _stamps(files: Optional[Iterable[str]] = None) -> Dict[str, _Stamp]:
    """Sizes and times of the files of modules: of those that are imported now, or of the given ones."""
    found: Dict[str, _Stamp] = {}
    modules = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    for file in filter(None, modules) if files is None else files:
        # one that is gone has changed
        with suppress(OSError):
            status = os.stat(file)
            found[file] = (status.st_size, status.st_mtime_ns)
    return found


if __name__ == "__main__":
    run(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
