"""1,000 flow runs that are watched while nothing happens: processor time; memory after 1,000 and 10,000 looks."""

import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Tuple
from unittest.mock import patch

import prefect
from prefect.tasks.prefect import wait_for_flow_run as prefects_wait_for_flow_run
from requests.adapters import HTTPAdapter

from prefect_taskrun_tasks import wait_for_flow_run
from prefect_taskrun_tasks.server import Backend
from prefect_taskrun_tasks.waiting import Deadline, Waits
from prefect_taskrun_tasks.waiting.watcher import Watcher

from .driven import create, enter, polled
from .measure import called, resident_mb

#: Flow runs that are watched
WATCHED = 1_000

#: Seconds until our pauses have grown to their longest, and for which processor time is measured then
SETTLING, STEADY = 110.0, 60.0

#: The same for Prefect's, whose pauses do not grow
PREFECTS_SETTLING, PREFECTS_STEADY = 15.0, 30.0

#: Flow runs that are looked at without pause
LOOKED_AT = 50

#: Looks after which memory is measured
FIRST, LAST = 1_000, 10_000


class _Requests:
    """Counts those of this process from now on."""

    def __init__(self) -> None:
        self.count = 0
        send = HTTPAdapter.send

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return send(*args, **kwargs)

        HTTPAdapter.send = counted  # type: ignore[method-assign]


def one_thread(flow_run_ids: List[str]) -> Dict[str, float]:
    """Waits for all of them in this thread, as `map_flow_run` does."""
    with Waits(Deadline(None)) as waits:
        for flow_run_id in flow_run_ids:
            waits.add(flow_run_id)
        news = waits.news()

        def wait(seconds: float) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                next(news)

        return _busy(wait, SETTLING, STEADY)


def our_threads(flow_run_ids: List[str]) -> Dict[str, float]:
    """Waits for each in a thread of its own, as mapped tasks do."""
    _wait_in_threads(wait_for_flow_run, flow_run_ids)
    return _busy(time.sleep, SETTLING, STEADY)


def prefects_threads(flow_run_ids: List[str]) -> Dict[str, float]:
    _wait_in_threads(prefects_wait_for_flow_run, flow_run_ids)
    return _busy(time.sleep, PREFECTS_SETTLING, PREFECTS_STEADY)


def _wait_in_threads(task: Any, flow_run_ids: List[str]) -> None:
    logging.getLogger("prefect").setLevel(logging.ERROR)

    def wait(flow_run_id: str) -> None:
        with prefect.context(logger=logging.getLogger("prefect.wait")):
            task.run(flow_run_id)

    for flow_run_id in flow_run_ids:
        # which end with the process
        threading.Thread(target=wait, args=(flow_run_id,), daemon=True).start()


def _busy(wait: Callable[[float], None], settling: float, steady: float) -> Dict[str, float]:
    """The share of a core that this process takes, and its requests."""
    wait(settling)
    requests, start, begin = _Requests(), time.process_time(), time.monotonic()
    wait(steady)
    seconds = time.monotonic() - begin
    return {
        "percent_of_a_core": round(100 * (time.process_time() - start) / seconds, 2),
        "requests_per_minute": round(60 * requests.count / seconds, 1),
        "mb": round(resident_mb()),
    }


class _Looking(Watcher):
    """Counts its looks."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.mb: Dict[int, float] = {}

    def _look(self) -> bool:
        self.looks += 1
        if self.looks in (FIRST, LAST):
            self.mb[self.looks] = resident_mb()
        return super()._look()


def looks(flow_run_ids: List[str]) -> Dict[str, float]:
    """Looks without pause, also for logs. Memory of the process after `FIRST` and `LAST` looks."""
    watcher = _Looking()
    start = time.process_time()
    own = patch("prefect_taskrun_tasks.waiting.waits.watcher", lambda: watcher)
    with own, Waits(Deadline(None), poll_time=0, states=True, logs=True) as waits:
        for flow_run_id in flow_run_ids:
            waits.add(flow_run_id)
        for _ in waits.news():
            if LAST in watcher.mb:
                break
    return {
        f"mb_after_{FIRST}": round(watcher.mb[FIRST], 1),
        f"mb_after_{LAST}": round(watcher.mb[LAST], 1),
        "growth_mb": round(watcher.mb[LAST] - watcher.mb[FIRST], 2),
        "processor_ms_per_look": round(1000 * (time.process_time() - start) / watcher.looks, 2),
    }


class Case(NamedTuple):
    """What one of our processes does while the others do theirs."""

    function: Callable[[List[str]], Dict[str, float]]
    is_polling: bool
    flow_runs: int = WATCHED


# one of threads only: several thousand threads keep two cores from doing anything else
STEADY_CASES = {
    f"{WATCHED:,} waits of one thread, pushed": Case(one_thread, False),
    f"{WATCHED:,} waits of one thread, polling": Case(one_thread, True),
    f"{WATCHED:,} waits of {WATCHED:,} threads, pushed": Case(our_threads, False),
}

LOOKS_CASES = {
    f"{LAST:,} looks at {LOOKED_AT} flow runs, pushed": Case(looks, False, LOOKED_AT),
    f"{LAST:,} looks at {LOOKED_AT} flow runs, polling": Case(looks, True, LOOKED_AT),
}


def run(directory: Path) -> Dict[str, Any]:
    figures: Dict[str, Any] = {"ours": {}, "prefect": {}, "ratio": {}}
    with Backend(f"sqlite:///{directory / 'prefect.db'}", port=0) as backend, polled(backend) as polled_url:
        flow_run_ids = create(backend, "watched", WATCHED)
        enter(backend, flow_run_ids, "Running")
        for cases in (STEADY_CASES, LOOKS_CASES):
            with ThreadPoolExecutor(len(cases)) as processes:
                running: List[Tuple[str, Future[Any]]] = [
                    (name, processes.submit(called, url, case.function, flow_run_ids[: case.flow_runs]))
                    for name, case in cases.items()
                    for url in [polled_url if case.is_polling else backend.url]
                ]
                print(f"  {', '.join(cases)}, at the same time: up to three minutes", flush=True)
                for name, future in running:
                    figures["ours"][name] = future.result()[0]
                    print(f"  {name}: ours: {figures['ours'][name]}", flush=True)
        prefects = called(backend.url, prefects_threads, flow_run_ids)[0]
        print(f"  {WATCHED:,} waits of {WATCHED:,} threads: prefect: {prefects}", flush=True)
        for name in STEADY_CASES:
            figures["prefect"][name] = prefects
            figures["ratio"][name] = {
                each: round(prefects[each] / figures["ours"][name][each], 1)
                for each in ("percent_of_a_core", "requests_per_minute")
                if figures["ours"][name][each]
            }
            print(f"  {name}: ratio: {figures['ratio'][name]}")
    return figures
