"""``prefect-taskrun server backup``."""

from contextlib import closing
from pathlib import Path

import click

from .database_url import database_url_option
from .extra import needs_server_extra
from .progress import Progress, size


@click.command(
    short_help="Copy the database, also while a backend uses it.",
    epilog="""\b
Examples:
    $ prefect-taskrun server backup "prefect-$(date +%F).db"
    $ prefect-taskrun server backup --force /backups/prefect.db --database-url sqlite:///prefect.db
\b
    And back, of a PostgreSQL database
    $ createdb restored
    $ pg_restore --no-owner --dbname restored prefect.dump
""",
)
@click.argument("file", type=click.Path(path_type=Path))
@database_url_option("The database.")
@click.option("--force", is_flag=True, help="Take the place of a FILE that is there already.")
def backup(file: Path, database_url: str, force: bool) -> None:
    """Copy the database into FILE, as it is at one moment, also while a backend uses it.

    FILE is there as a whole or not at all, and only its owner can read it. To go back to it, stop the backend, put it
    in the place of the database, remove the -wal and -shm files beside that, and start the backend.

    Of a PostgreSQL database, the copy is made with pg_dump. To go back to it, make an empty database, give it to
    pg_restore together with FILE, and start the backend on it.
    """
    with needs_server_extra():
        from ...server import DatabaseUnusable
        from ...server.backup import BackupFailed
        from ...server.backup import backup as copy
        from ...server.database import Database

    try:
        with closing(Database(database_url, must_exist=True)) as database:
            copy(database, file, overwrite=force, report=Progress("Parts copied"))
    except (BackupFailed, DatabaseUnusable) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Wrote {file}, {size(file.stat().st_size)}.")
