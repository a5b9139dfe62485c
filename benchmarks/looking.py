"""Looking: from the start of `prefect-taskrun list` or `tree` to its first row and its end, and its peak memory."""

import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any, Dict, Tuple

from prefect_taskrun_tasks.runner import variables
from prefect_taskrun_tasks.server import Backend

from . import mapped_run

#: Task runs; memory is flat if the last takes no more than the first
SIZES = (200, 2_000, 20_000)

#: Says at last how many KB a command has taken; a small process, because a new one begins with the peak of its parent
LAUNCH = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""

COMMANDS: Dict[str, Tuple[str, ...]] = {
    "list": ("list",),
    "list --json": ("list", "--json"),
    "list --state Failed": ("list", "--state", "Failed"),
    "tree": ("tree",),
}


def run(directory: Path) -> Dict[str, Any]:
    figures: Dict[str, Any] = {}
    for size in SIZES:
        database_url = f"sqlite:///{directory / f'{size}.db'}"
        flow_run_id = mapped_run.create(database_url, size - 1, directory / "results")
        with Backend(database_url, port=0) as backend:
            for name, arguments in COMMANDS.items():
                figures[f"{name}, {size:,}"] = figure = _looked(backend.url, *arguments, flow_run_id)
                print(f"{name:20} of {size:6,} task runs: {figure}", flush=True)
    return figures


def _looked(url: str, *arguments: str) -> Dict[str, float]:
    environment = variables(url)
    command = [sys.executable, "-c", LAUNCH, str(Path(sys.executable).parent / "prefect-taskrun"), *arguments]
    start = perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment}
    ) as process:
        assert process.stdout is not None
        # of a table the first line is its head
        process.stdout.readline()
        process.stdout.readline()
        first = perf_counter() - start
        _, messages = process.communicate()
    assert process.returncode == 0, messages
    return {
        "first_row": round(first, 2),
        "seconds": round(perf_counter() - start, 2),
        "peak_mb": round(int(messages.split()[-1]) / 1024),
    }
