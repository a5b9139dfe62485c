"""The command ``prefect-taskrun``."""

import click

from .run import run
from .server import server


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="prefect-taskrun-tasks")
def main() -> None:
    """Run Prefect 1 flows of flows on one machine: backend, agent and all.

    \b
    Examples:
        $ prefect-taskrun run flows.py --flow parent --param size=5
        $ prefect-taskrun server start
    """


main.add_command(run)
main.add_command(server)
