"""The command ``prefect-taskrun``."""

import click

from .agent import agent
from .approve import approve
from .cancel import cancel
from .completion import completion
from .failures import Group
from .info import info
from .list import list_task_runs
from .logs import logs
from .own_process import OWN_PROCESS
from .result import result
from .run import run
from .server import server
from .timeline import timeline
from .tree import tree
from .triggerer import triggerer
from .version import version
from .watch import watch


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="prefect-taskrun-tasks")
def main() -> None:
    """Look at Prefect 1 task runs, and run flows of flows on one machine: backend, agent and all.

    \b
    Examples:
        $ prefect-taskrun run flows.py --flow parent --param size=5
        $ prefect-taskrun tree
        $ prefect-taskrun list brave-otter --state Failed
        $ prefect-taskrun logs --slug load-1 --follow

    \b
    Exit codes:
        0  success
        1  the run did not succeed, or what was asked for could not be done
        2  called wrongly
        3  no such run, or no such result
        4  the backend cannot be reached
    """


for _command in (
    agent,
    approve,
    cancel,
    completion,
    info,
    list_task_runs,
    logs,
    result,
    run,
    server,
    timeline,
    tree,
    triggerer,
    version,
    watch,
):
    main.add_command(_command)


def program() -> None:
    """The process ``prefect-taskrun``, which is this command's alone."""
    main(obj=OWN_PROCESS)
