"""What the processes of tests leave behind when the one that started them is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import List

import psutil
from conftest import eventually
from reaper import MARK

TESTS = Path(__file__).parents[1]

#: Starts a reaper, a server that ends in a while after an interrupt, and a process that ignores interrupts
START = """
import subprocess
import sys
from reaper import Reaper

reaper = Reaper()
IGNORE = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(flush=True); time.sleep(600)"
ignoring = subprocess.Popen([sys.executable, "-c", IGNORE], stdout=subprocess.PIPE, start_new_session=True)
ignoring.stdout.readline()
sleeping = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(reaper.folder, reaper._process.pid, ignoring.pid, sleeping.pid, flush=True)
sys.stdin.read()
"""


class Owner:
    """A process that has started others, a reaper among them."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
            text=True,
        )
        assert self._process.stdout is not None
        folder, *pids = self._process.stdout.readline().split()
        self.folder = Path(folder)
        self.reaper, *self.started = [psutil.Process(int(pid)) for pid in pids]

    def kill(self) -> None:
        self._process.kill()
        # what it has started still holds its standard output open
        self._process.wait(60)


def alive(processes: List[psutil.Process]) -> List[psutil.Process]:
    return [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def test_processes_and_folder_are_gone_soon_after_their_owner_was_killed() -> None:
    owner = Owner()
    assert alive(owner.started) == owner.started
    owner.kill()
    eventually(lambda: not alive([*owner.started, owner.reaper]))
    assert not owner.folder.exists()


def test_the_next_run_cleans_up_what_a_killed_reaper_has_left() -> None:
    owner = Owner()
    owner.reaper.send_signal(signal.SIGKILL)
    owner.kill()
    assert alive(owner.started) == owner.started
    assert owner.folder.exists()
    next_one = Owner()
    try:
        assert not alive(owner.started)
        assert not owner.folder.exists()
        assert alive(next_one.started) == next_one.started
    finally:
        next_one.kill()


def test_the_processes_of_this_run_are_marked() -> None:
    assert Path(os.environ[MARK]).is_dir()
