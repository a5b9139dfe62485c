"""What a forked process does to be as ``prefect execute flow-run`` is in a new interpreter."""

import importlib
import json
import logging
import os
import runpy
import signal
import sys
import tempfile
from contextlib import suppress
from typing import Dict, Iterable, List, Optional

import prefect
import psutil
from prefect import configuration
from prefect.utilities.logging import configure_extra_loggers, configure_logging

_FLOW_RUN_ID = "PREFECT__CONTEXT__FLOW_RUN_ID"

#: Prefixes of the names of variables that the interpreter, the C library, or a module that Prefect imports reads only
#: when it starts. PYTHONPATH is no problem: see `become`.
_READ_AT_START = (
    "PYTHON",
    "PREFECT1_REPAIRS",
    "PREFECT__USER_CONFIG_PATH",
    "PREFECT__BACKEND_CONFIG_PATH",
    "PREFECT__HOME_DIR",
    "PYTZDATA_",
    "TZ",
    "LD_",
    "LC_",
    "LANG",
    "MALLOC_",
    "GLIBC_",
    "DASK_",
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "NUMEXPR_",
)


def read_at_start(environment: Dict[str, str]) -> List[str]:
    """Return the variables that differ from this process's and would only be read by a new interpreter, in order."""
    names = {*environment, *os.environ} - {"PYTHONPATH"}
    return sorted(
        name for name in names if name.startswith(_READ_AT_START) and environment.get(name) != os.environ.get(name)
    )


def find_processes(flow_run_ids: Iterable[str]) -> List[psutil.Process]:
    """Return the processes that execute flow runs, warm or not, and those that flow runs have started."""
    wanted, found = set(flow_run_ids), []
    titles = set(map(title, wanted))
    for process in psutil.process_iter():
        # one that has ended, or that belongs to another user
        with suppress(psutil.Error):
            # a forked process shows the environment of the template
            if process.name() in titles or process.environ().get(_FLOW_RUN_ID) in wanted:
                found.append(process)
    return found


def title(flow_run_id: str) -> str:
    """Return what ``top`` and ``ps -o comm`` show of a warm flow run: 13 characters; Linux has room for 15."""
    return f"flow-{flow_run_id[:8]}"


def path_without_additions() -> List[str]:
    """Return `sys.path` without what Python has put first, and without what PYTHONPATH has put there."""
    # an editable install may have put the working folder there too
    added = _entries_of_environment()
    return [entry for entry in sys.path[len(_first_entry()) :] if entry not in added]


def set_import_paths(folders: List[str]) -> None:
    """Have a script's process, and its children, import modules as ``python -m`` does with `folders` in PYTHONPATH."""
    path = path_without_additions()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*folders, os.environ.get("PYTHONPATH")]))
    _set_path(path)


def become(request: bytes, base_path: List[str]) -> None:
    """Execute a flow run as a new interpreter would, and return when it has ended.

    Args:
        request: its environment and its working folder, as JSON.
        base_path: what `path_without_additions` has returned in the template.

    Raises:
        SystemExit: with the exit code of ``prefect execute flow-run``.
    """
    content = json.loads(request)
    _set_environment(content["environment"], content["working_dir"])
    _set_path(base_path)
    configure_prefect()
    sys.argv[:] = ["prefect", "execute", "flow-run"]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


def _set_environment(environment: Dict[str, str], working_dir: Optional[str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    if working_dir:
        os.chdir(working_dir)
    # it is read from the environment when it is needed first
    tempfile.tempdir = None
    with suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write(title(environment[_FLOW_RUN_ID]))
    # Python's own random numbers are others after a fork, those of numpy are the same
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random:
        numpy_random.seed()


def _first_entry() -> List[str]:
    """What ``python -m`` puts first into `sys.path`."""
    return [] if getattr(sys.flags, "safe_path", False) else [os.getcwd()]


def _set_path(base_path: List[str]) -> None:
    sys.path[:] = [*_first_entry(), *dict.fromkeys([*_entries_of_environment(), *base_path])]
    importlib.invalidate_caches()


def _entries_of_environment() -> List[str]:
    python_path = os.environ.get("PYTHONPATH")
    return [os.path.abspath(entry) for entry in python_path.split(os.pathsep)] if python_path else []


def configure_prefect() -> None:
    """Read Prefect's configuration anew.

    prefect 1.4.1 reads it when it is imported, and keeps it in `prefect.config`, `prefect.context` and its loggers.
    """
    for name in ("prefect", *prefect.context.config.logging.get("extra_loggers", [])):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)
    # modules have imported the object itself
    config = configuration.load_default_config()
    prefect.config.clear()
    prefect.config.update(config)
    prefect.context.clear()
    prefect.context.update(type(prefect.context)())
    prefect.context.logger = configure_logging()
    configure_extra_loggers()
