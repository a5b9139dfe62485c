"""Waits: how many requests they take, and how long after a child's last state they end.

Ours where the backend holds its answers (pushed) and where it does not (polling), and Prefect's: each in a process of
its own, and all of them at the same time for the same children.
"""

import logging
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any, ContextManager, Dict, List, NamedTuple, Tuple
from unittest.mock import patch

import prefect
from prefect.tasks.prefect import wait_for_flow_run as prefects_wait_for_flow_run

from prefect_taskrun_tasks import wait_for_flow_run
from prefect_taskrun_tasks.server import Backend
from prefect_taskrun_tasks.waiting.watcher import Watcher

from .driven import Entry, create, drive, polled
from .measure import called

TASKS: Dict[str, Any] = {"ours": wait_for_flow_run, "prefect": prefects_wait_for_flow_run}

#: Seconds for the processes to start, before the first wait begins
START = 20.0

Range = Tuple[float, float]


class Case(NamedTuple):
    """Children, each of which is awaited in a thread of its own; times are in seconds and random within a range."""

    children: int
    #: whether each of our waits has a watcher of its own, as if it were in a process of its own
    is_alone: bool
    #: when the waits begin
    waits: Range
    #: from the beginning of its wait until a child is Running
    running: Range
    #: from the beginning of its wait until a child has finished
    finished: Range


CASES = {
    "500 concurrent waits": Case(500, False, (0, 2), (0, 60), (120, 130)),
    "single waits for children of 1 to 8 s": Case(48, True, (0, 20), (0.1, 0.5), (1, 8)),
    "single waits for children of 60 to 90 s": Case(24, True, (0, 20), (0.1, 2), (60, 90)),
    "20 concurrent waits": Case(20, False, (0, 1), (0.1, 2), (3, 30)),
}


class Wait(NamedTuple):
    """A wait for a flow run that begins when `time.time` says so."""

    begins: float
    flow_run_id: str


def wait_for_each(side: str, waits: List[Wait], is_alone: bool) -> List[float]:
    """Waits in a thread for each. Returns the seconds from the last state's storage to the end of each wait."""
    # 500 waits tell of 1,500 states
    logging.getLogger("prefect").setLevel(logging.ERROR)
    own: ContextManager[Any] = (
        patch("prefect_taskrun_tasks.waiting.waits.watcher", Watcher) if is_alone else nullcontext()
    )
    with own, ThreadPoolExecutor(len(waits)) as threads:
        return list(threads.map(partial(_delay, side), waits))


def _delay(side: str, wait: Wait) -> float:
    # Prefect's task needs a logger there
    with prefect.context(logger=logging.getLogger("prefect.wait")):
        time.sleep(max(0.0, wait.begins - time.time()))
        flow_run = TASKS[side].run(wait.flow_run_id)
        delay = time.time() - flow_run.states[-1].timestamp.timestamp()
    assert flow_run.state.is_successful()
    return float(delay)


def run(directory: Path) -> Dict[str, Any]:
    figures: Dict[str, Any] = {"ours": {}, "prefect": {}, "ratio": {}}
    with Backend(f"sqlite:///{directory / 'prefect.db'}", port=0) as backend, polled(backend) as polled_url:
        for name, case in CASES.items():
            sides = _sides(backend, polled_url, name, case)
            prefects = sides["prefect"]
            for way in ("pushed", "polling"):
                ours = sides[way]
                figures["ours"][f"{name}, {way}"] = ours
                figures["prefect"][f"{name}, {way}"] = prefects
                figures["ratio"][f"{name}, {way}"] = {
                    **{each: round(prefects[each] / ours[each], 2) for each in ("requests", "median_s", "p95_s")},
                    # who looks twice as often is told in half the time
                    "median_s_at_equal_requests": round(
                        prefects["median_s"] / ours["median_s"] * prefects["requests"] / ours["requests"], 2
                    ),
                }
                print(f"    {way}: {ours}, ratio: {figures['ratio'][f'{name}, {way}']}")
            print(f"    prefect: {prefects}", flush=True)
    return figures


def _sides(backend: Backend, polled_url: str, name: str, case: Case) -> Dict[str, Dict[str, float]]:
    rng = random.Random(name)
    children = create(backend, name, case.children)
    start = time.time() + START
    waits = [Wait(start + rng.uniform(*case.waits), child) for child in children]
    plan = [
        Entry(wait.begins + rng.uniform(*times), wait.flow_run_id, state)
        for wait in waits
        for times, state in ((case.running, "Running"), (case.finished, "Success"))
    ]
    print(f"  {name}: {max(plan).at - start:.0f} s", flush=True)
    urls = {"pushed": backend.url, "polling": polled_url, "prefect": backend.url}
    with ThreadPoolExecutor(len(urls)) as processes:
        running = {
            way: processes.submit(
                called, url, wait_for_each, "prefect" if way == "prefect" else "ours", waits, case.is_alone
            )
            for way, url in urls.items()
        }
        drive(backend, plan, lambda entered: print(f"    {entered} of {len(plan)} states", flush=True))
        return {way: _figures(*future.result()) for way, future in running.items()}


def _figures(delays: List[float], costs: Dict[str, float]) -> Dict[str, float]:
    return {
        "requests": costs["requests"],
        "median_s": round(median(delays), 3),
        "p95_s": round(quantiles(delays, n=20)[-1], 3),
        "peak_mb": costs["peak_mb"],
    }
