"""``prefect-taskrun server``: the embedded backend by itself."""

import click

from .backup import backup
from .extra import needs_server_extra
from .prune import prune
from .start import start

__all__ = ["needs_server_extra", "server"]


@click.group(
    short_help="The embedded backend by itself.",
    epilog="""\b
Examples:
    $ prefect-taskrun server start
    $ prefect-taskrun server backup "prefect-$(date +%F).db"
    $ prefect-taskrun server prune --older-than 30d
""",
)
def server() -> None:
    """The embedded backend: Prefect Server's API on SQLite or PostgreSQL, without Docker."""


for _command in (backup, prune, start):
    server.add_command(_command)
