"""
Ends the processes that a pytest process has started, and removes its folder, once that process has ended.

However it ended: it may have been killed. Tests start PostgreSQL servers, backends, agents, flow runs and browsers,
many of them in sessions of their own. All of them inherit an environment variable, by which the reaper finds them.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import List

import psutil

#: The environment variable that holds the folder of the pytest process that a process belongs to
MARK = "PREFECT_TASKRUN_TESTS"

#: Folders are named so, with the PID of their pytest process. Paths of Unix sockets are short, so they are in /tmp.
PREFIX, PARENT = "prefect-taskrun-tests-", "/tmp"

#: Seconds that processes have to end after an interrupt, before they are killed
GRACE = 3.0


class Reaper:
    """A process that outlives this one, and cleans up after it.

    Attributes:
        folder: of this process; removed at the end.
    """

    def __init__(self) -> None:
        self._clean_up_after_earlier_runs()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=PARENT))
        # the user that PostgreSQL runs as passes through it
        self.folder.chmod(0o711)
        os.environ[MARK] = str(self.folder)
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(self.folder), str(os.getpid())],
            stdin=subprocess.PIPE,
            # an interrupt from the keyboard is not for it
            start_new_session=True,
        )

    def close(self) -> None:
        """Cleans up now."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(4 * GRACE)

    @staticmethod
    def _clean_up_after_earlier_runs() -> None:
        """Of which the reaper has been killed too."""
        for folder in Path(PARENT).glob(f"{PREFIX}*"):
            if not psutil.pid_exists(int(folder.name[len(PREFIX) :].split("-")[0])):
                _reap(folder)


def _reap(folder: Path) -> None:
    for process in _marked(folder):
        _signal(process, signal.SIGINT)
    psutil.wait_procs(_marked(folder), GRACE)
    # more than once: one may have started another meanwhile
    while _marked(folder):
        for process in _marked(folder):
            _signal(process, signal.SIGKILL)
        psutil.wait_procs(_marked(folder), GRACE)
    shutil.rmtree(folder, ignore_errors=True)


def _marked(folder: Path) -> List[psutil.Process]:
    return [process for process in psutil.process_iter() if process.pid != os.getpid() and _is_marked(process, folder)]


def _is_marked(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == str(folder)
    except psutil.Error:
        # it has ended, or is somebody else's
        return False


def _signal(process: psutil.Process, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def main(folder: Path, pid: int) -> None:
    # a fork of the pytest process may still hold the other end of standard input open
    while os.getppid() == pid and not select.select([sys.stdin], [], [], 0.5)[0]:
        pass
    _reap(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
