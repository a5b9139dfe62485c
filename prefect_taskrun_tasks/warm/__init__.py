"""Warm flow runs: their processes are forked from one that has imported Prefect, instead of importing it themselves.

`template` is the process that forks. `flow_run` makes a forked process what ``prefect execute flow-run`` would be in a
new interpreter. `process` is the agent's side of both. Nothing here uses the rest of this package.
"""

from .flow_run import configure_prefect, find_processes, read_at_start, set_import_paths, title
from .process import NotForked, NotPreloaded, Template, WarmProcess, can_fork

__all__ = [
    "NotForked",
    "NotPreloaded",
    "Template",
    "WarmProcess",
    "can_fork",
    "configure_prefect",
    "find_processes",
    "read_at_start",
    "set_import_paths",
    "title",
]
