"""The triggerer with 1,000 deferred waits: requests of each look; processor time of it and of the backend."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List
from unittest.mock import patch

from prefect.utilities.configuration import set_temporary_config
from requests.adapters import HTTPAdapter

from prefect_taskrun_tasks.runner import settings, variables
from prefect_taskrun_tasks.server import Backend
from prefect_taskrun_tasks.triggerer import Triggerer

from . import silent
from .driven import create
from .measure import called

#: Flow runs that wait, each for another one
WAITS = 1_000

#: Seconds for the process to start and learn of the waits, and for which processor time is measured then
SETTLING, STEADY = 10.0, 60.0

#: Looks of which requests are counted, after those at which the waits were new
LOOKS = 10


def requests_per_look(waits: int) -> List[int]:
    """Of a triggerer in this process: the requests of each look, from the first."""
    counts, sent, send = [], 0, HTTPAdapter.send

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal sent
        sent += 1
        return send(*args, **kwargs)

    with patch.object(HTTPAdapter, "send", counted):
        triggerer = Triggerer()
        for _ in range(LOOKS):
            sent = 0
            assert triggerer.tick().waits == waits
            counts.append(sent)
    return counts


def woken(waits: int) -> float:
    """Seconds that a triggerer in this process takes to wake them all, from its first look."""
    triggerer, start, count = Triggerer(), time.perf_counter(), 0
    while count < waits:
        count += len(triggerer.tick().woken)
    return round(time.perf_counter() - start, 2)


def steady(url: str) -> Dict[str, float]:
    """The command, as people start it: the share of a core that its process takes, and what the backend's does."""
    environment = variables(url)
    program = "from prefect_taskrun_tasks.cli import main; main()"
    command = subprocess.Popen(
        [sys.executable, "-c", program, "triggerer"],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        time.sleep(SETTLING)
        before, mine, begin = _busy(command.pid), time.process_time(), time.monotonic()
        time.sleep(STEADY)
        seconds = time.monotonic() - begin
        return {
            "percent_of_a_core": round(100 * (_busy(command.pid) - before) / seconds, 2),
            "backend_percent_of_a_core": round(100 * (time.process_time() - mine) / seconds, 2),
        }
    finally:
        command.terminate()
        command.wait()


def _busy(pid: int) -> float:
    """Seconds of processor time of a process."""
    # after its name, which may contain anything: utime and stime are the 14th and 15th field
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(directory: Path) -> Dict[str, Any]:
    with Backend(f"sqlite:///{directory / 'prefect.db'}", port=0) as backend, set_temporary_config(
        settings(backend.url)
    ):
        ids = create(backend, "waits", 2 * WAITS)
        parents, children = ids[:WAITS], ids[WAITS:]
        silent.defer(backend, parents, children)
        silent.enter(backend, children, "Running")
        counts = called(backend.url, requests_per_look, WAITS)[0]
        figures: Dict[str, Any] = {"waits": WAITS, "requests_of_each_look": counts, **steady(backend.url)}
        print(f"  {WAITS:,} waits: {figures}", flush=True)
        silent.enter(backend, children, "Success")
        figures["seconds_to_wake_all"] = called(backend.url, woken, WAITS)[0]
        print(f"  all are woken in {figures['seconds_to_wake_all']} s")
    return figures
