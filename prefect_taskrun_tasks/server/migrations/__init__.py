"""
The versions of the tables, and the way from each to the next.

A database is always made by going all the way. What `tables` says is what comes out at the end: a new index or column
there needs a file in `versions`, which is never changed once it was released.
"""

import threading
from pathlib import Path
from typing import Optional

from sqlalchemy import Connection, String, column, inspect, select, table

from ..errors import DatabaseUnusable

#: Where a database says which version it has; other programs that use Alembic have a table of another name
VERSION_TABLE = "prefect_taskrun_version"

#: What a database is that has tables, but not that one, and is one of ours
FIRST = "0001"

#: The newest version, which is asked for at every start. Only on the way to it Alembic is needed.
NEWEST = "0002"

#: Alembic keeps what it works on where the whole process sees it: it works on one database at a time
_alembic = threading.Lock()


def version(connection: Connection) -> Optional[str]:
    """Of a database that has one."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.scalar(select(column("version_num", String)).select_from(table(VERSION_TABLE)))


def is_empty(connection: Connection, name: str, is_first: bool) -> bool:
    """Whether there is nothing in a database yet.

    Args:
        connection: to the database.
        name: of the database, for messages.
        is_first: it has no version and is one of ours all the same.

    Raises:
        DatabaseUnusable: it belongs to another program.
    """
    if is_first or version(connection) is not None:
        return False
    if inspect(connection).get_table_names():
        raise DatabaseUnusable(f"The database {name} belongs to another program. Name another one.")
    return True


def upgrade(connection: Connection, name: str, is_first: bool) -> bool:
    """Brings a database to the newest version, in the transaction that is open. Whether it was empty.

    Args:
        connection, name, is_first: see `is_empty`.

    Raises:
        DatabaseUnusable: it belongs to another program, was written by a newer version of this package, or what it says
            of its version makes no sense.
    """
    found = version(connection)
    if found == NEWEST:
        return False
    was_empty = is_empty(connection, name, is_first)
    with _alembic:
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory
        from alembic.util import CommandError

        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
        known = {each.revision for each in ScriptDirectory.from_config(config).walk_revisions()}
        if found is not None and found not in known:
            raise DatabaseUnusable(
                f"The database {name} has schema version {found}, this package knows versions up to {NEWEST}. "
                "Update prefect-taskrun-tasks, or name another one."
            )
        if found is None and is_first:
            command.stamp(config, FIRST)
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise DatabaseUnusable(f"The database {name} cannot be upgraded: {error}.") from error
    return was_empty
