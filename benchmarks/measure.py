"""What a function costs: seconds, HTTP requests, and the peak memory of a process that does nothing else."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, Dict, Tuple

from prefect.utilities.configuration import set_temporary_config
from requests.adapters import HTTPAdapter

from prefect_taskrun_tasks.runner import settings


def measure(url: str, function: Callable[..., Any], *arguments: Any) -> Dict[str, float]:
    """Calls `function` in a new process whose Prefect talks to the backend at `url`."""
    return called(url, function, *arguments)[1]


def called(url: str, function: Callable[..., Any], *arguments: Any) -> Tuple[Any, Dict[str, float]]:
    """Like `measure`, with what the function returns before its costs."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_called, url, function, arguments).result()


def _called(url: str, function: Callable[..., Any], arguments: Any) -> Tuple[Any, Dict[str, float]]:
    requests = 0
    send = HTTPAdapter.send

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal requests
        requests += 1
        return send(*args, **kwargs)

    # in a process that is there for this one measurement
    HTTPAdapter.send = counted  # type: ignore[method-assign]
    with set_temporary_config(settings(url)):
        start = perf_counter()
        returned = function(*arguments)
        seconds = perf_counter() - start
    return returned, {"requests": requests, "seconds": round(seconds, 4), "peak_mb": round(_peak_mb())}


def _peak_mb() -> float:
    # getrusage says the peak of the process that started this one, if that was higher
    return _status("VmHWM")


def resident_mb() -> float:
    """Memory of this process."""
    return _status("VmRSS")


def _status(name: str) -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name)) / 1024


def ratios(ours: Dict[str, float], prefect: Dict[str, float]) -> Dict[str, float]:
    """How many times more Prefect's own costs."""
    return {name: round(prefect[name] / ours[name], 2) for name in ours if ours[name]}
