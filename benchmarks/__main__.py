"""
Runs benchmarks and prints what they measured; the last line of each is one JSON object.

    python -m benchmarks [NAME ...]
"""

import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from . import attacks, backend, child_step, deferring, growth, looking, pages, triggerer, views, waits, warm, watcher

BENCHMARKS = {
    "attacks": attacks,
    "backend": backend,
    "child_step": child_step,
    "deferring": deferring,
    "growth": growth,
    "looking": looking,
    "pages": pages,
    "triggerer": triggerer,
    "views": views,
    "waits": waits,
    "warm": warm,
    "watcher": watcher,
}


def main(names: "list[str]") -> None:
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        raise SystemExit(f"There is no benchmark {', '.join(sorted(unknown))}. There are: {', '.join(BENCHMARKS)}")
    print(f"CPython {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores")
    for name in names or BENCHMARKS:
        print(f"\n{name}: {BENCHMARKS[name].__doc__}", flush=True)
        with tempfile.TemporaryDirectory() as directory:
            figures = BENCHMARKS[name].run(Path(directory))
        print(json.dumps({"benchmark": name, **figures}))


if __name__ == "__main__":
    main(sys.argv[1:])
