"""``prefect-taskrun server``: the embedded backend by itself."""

import click

from .extra import needs_server_extra
from .start import start

__all__ = ["needs_server_extra", "server"]


@click.group(
    short_help="The embedded backend by itself.",
    epilog="""\b
Examples:
    $ prefect-taskrun server start
""",
)
def server() -> None:
    """The embedded backend: Prefect Server's API on SQLite, without Docker."""


for _command in (start,):
    server.add_command(_command)
