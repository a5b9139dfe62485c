"""``prefect-taskrun server prune``."""

import re
import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import Mapping

import click

from .database_url import database_url_option
from .extra import needs_server_extra
from .progress import Progress, size

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _age(context: click.Context, option: click.Parameter, value: str) -> timedelta:
    given = re.fullmatch(r"(\d{1,5})([mhdw])", value)
    if given is None:
        raise click.BadParameter(f"{value!r} is not a time such as 30d: a number, and m, h, d or w.")
    return timedelta(**{_UNITS[given[2]]: int(given[1])})


def _told(rows: Mapping[str, int]) -> str:
    states = rows.get("flow_run_state", 0) + rows.get("task_run_state", 0)
    return (
        f"{rows.get('flow_run', 0):,} flow runs with {rows.get('task_run', 0):,} task runs, {states:,} states and "
        f"{rows.get('log', 0):,} lines of logs"
    )


@click.command(
    short_help="Delete flow runs that ended long ago.",
    epilog="""\b
Examples:
    $ prefect-taskrun server prune --older-than 30d --dry-run
    $ prefect-taskrun server prune --older-than 12w --database-url sqlite:///prefect.db
""",
)
@click.option(
    "--older-than",
    required=True,
    callback=_age,
    metavar="AGE",
    help="How long ago a flow run must have ended: a number, and m(inutes), h(ours), d(ays) or w(eeks), such as 30d.",
)
@database_url_option("The database.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
def prune(older_than: timedelta, database_url: str, dry_run: bool) -> None:
    """Delete flow runs that ended long ago.

    With them go their task runs, states and logs. The flows stay, and so do results, which are not in the database. A
    backend on the same database may go on serving. The space is given back to the disk; PostgreSQL uses it again.
    """
    with needs_server_extra():
        from sqlalchemy.exc import DatabaseError

        from ...server import DatabaseUnusable, pruning
        from ...server.clock import ago
        from ...server.database import Database
        from ...server.errors import NotStored

    try:
        with closing(Database(database_url, must_exist=True)) as database:
            before = ago(older_than.total_seconds())
            if dry_run:
                with database.read() as connection:
                    click.echo(f"Would delete {_told(pruning.count(connection, before))}, ended before {before}.")
                return
            space = database.store.size()
            deleted = _told(pruning.prune(database, before, Progress("Flow runs")))
            click.echo(f"Deleted {deleted}, ended before {before}.")
            if not database.store.give_back(Progress("Pages given back")):
                click.echo(
                    "The file keeps its size, as a backend has it that was made by an early version: what is free in "
                    "it is used again. To make it smaller, stop the backend and prune again."
                )
            click.echo(f"The database has {size(database.store.size())}, before it had {size(space)}.")
    except DatabaseUnusable as error:
        raise click.ClickException(str(error)) from error
    except (DatabaseError, NotStored, sqlite3.Error) as error:
        reason = getattr(error, "orig", error)
        raise click.ClickException(f"The database failed: {reason}. Prune again for what is left.") from error
