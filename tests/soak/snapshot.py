"""All that a database holds at one moment, to be put back when something else is in it."""

import sqlite3
from contextlib import closing, contextmanager
from typing import Callable, Iterator

from sqlalchemy import make_url

from prefect_taskrun_tasks.server import tables
from prefect_taskrun_tasks.server.database import Database


@contextmanager
def snapshot(database: Database, url: str) -> Iterator[Callable[[], None]]:
    """Gives what puts back all that the database holds now."""
    kind = _of_file if url.startswith("sqlite") else _of_server
    with kind(database, url) as restore:
        yield restore


@contextmanager
def _of_file(database: Database, url: str) -> Iterator[Callable[[], None]]:
    path = str(make_url(url).database)
    with closing(sqlite3.connect(":memory:")) as kept:
        with closing(sqlite3.connect(path)) as file:
            file.backup(kept)

        def restore() -> None:
            with closing(sqlite3.connect(path, timeout=60)) as file:
                file.execute("PRAGMA synchronous = OFF")
                kept.backup(file)

        yield restore


@contextmanager
def _of_server(database: Database, url: str) -> Iterator[Callable[[], None]]:
    names = list(tables.metadata.tables)
    # without looking for what hangs on each row
    statements = ["SET LOCAL session_replication_role = replica"]
    statements += [f"DELETE FROM {name}; INSERT INTO {name} TABLE kept_{name}" for name in names]  # noqa: S608
    with database.store.engine.connect() as connection:
        with connection.begin():
            connection.exec_driver_sql(
                "; ".join(f"CREATE TEMPORARY TABLE kept_{name} AS TABLE {name}" for name in names)
            )

        def restore() -> None:
            with connection.begin():
                connection.exec_driver_sql("; ".join(statements))

        yield restore
        # the connection is used again, and its tables are its own
        connection.invalidate()
