"""The SQLite file: one writer at a time, readers that never wait for it, and transactions that rules work on."""

import fcntl
import math
import os
import sqlite3
import threading
from contextlib import closing, contextmanager
from functools import lru_cache
from time import monotonic
from typing import IO, Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional

from sqlalchemy import Connection, Select, Table, bindparam, create_engine, event, make_url, select
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable

from . import tables
from .clock import now

#: Version of the tables, kept in the file's ``PRAGMA user_version``. Tables and indexes that come to it later are made
#: when a file is opened, and do not disturb who does not know them; another version is one whose tables are others.
SCHEMA_VERSION = 1

#: For `NULLS LAST`
OLDEST_SQLITE = (3, 30)

#: Steps of SQLite's virtual machine between two looks at the clock, a millisecond or so
STEPS = 100_000

#: Seconds to wait for another program that writes; after one wait in vain, those behind it in the queue do not each
#: wait as long again
PATIENCE, BRIEF = 10.0, 0.2

#: What SQLite says when the disk or another program keeps it from writing
HINDRANCES = (
    "database is locked",
    "database or disk is full",
    "disk I/O error",
    "attempt to write a readonly database",
    "unable to open database file",
)

#: Requests that are worked on at once; each may hold one connection
CONNECTIONS = 8

Row = Mapping[str, Any]


class DatabaseUnusable(Exception):
    """The database cannot be opened, or is not one of ours."""


class Call(NamedTuple):
    """Something that somebody outside wants to know."""

    #: a row of `cloud_hook`
    hook: Row
    #: what has happened, as JSON
    event: Dict[str, Any]


class TookTooLong(Exception):
    """What was to be read was not all there when the time for it was over."""


class NotStored(Exception):
    """Nothing of a write transaction was stored, because of the disk or of another program."""


class Transaction:
    """What a rule works on: one write transaction, and who asked for it.

    Args:
        connection: an open SQLAlchemy connection.
        agent_id: the agent that sent the request, from its ``X-PREFECT-AGENT-ID`` header.
        core_version: the caller's Prefect version, from ``X-PREFECT-CORE-VERSION``.
    """

    def __init__(
        self, connection: Connection, agent_id: Optional[str] = None, core_version: Optional[str] = None
    ) -> None:
        self.connection = connection
        self.agent_id = agent_id
        self.core_version = core_version
        #: a run became ready for an agent: agents are told once the transaction is stored
        self.queued = False
        #: a flow run changed its state, or is gone: who waits for that is told
        self.news = False
        #: what cloud hooks are to be told once the transaction is stored
        self.calls: List[Call] = []

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Undoes what a block has done when it raises, and keeps what was done before it."""
        calls = len(self.calls)
        try:
            with self.connection.begin_nested():
                yield
        except BaseException:
            del self.calls[calls:]
            raise

    def rows(self, statement: Any, values: Optional[Dict[str, Any]] = None) -> List[Row]:
        return [dict(row) for row in self.connection.execute(statement, values).mappings()]

    def row(self, statement: Any, values: Optional[Dict[str, Any]] = None) -> Optional[Row]:
        found = self.connection.execute(statement, values).mappings().first()
        return None if found is None else dict(found)

    def get(self, table: Table, id: str) -> Optional[Row]:
        return self.row(_by_id(table), {"id": id})

    def insert(self, table: Table, **values: Any) -> str:
        """Stores one row and returns its id."""
        values.setdefault("id", tables.new_id())
        self.connection.execute(table.insert().values(values))
        return str(values["id"])

    def insert_many(self, table: Table, rows: Iterable[Dict[str, Any]]) -> None:
        rows = list(rows)
        if rows:
            self.connection.execute(table.insert(), rows)

    def update(self, table: Table, *where: Any, **values: Any) -> int:
        """Changes the rows that match and returns how many did."""
        return self.connection.execute(table.update().where(*where).values(values)).rowcount

    def delete(self, table: Table, *where: Any) -> int:
        """Deletes the rows that match, and all that hangs on them; returns how many matched."""
        self.news = True
        return self.connection.execute(table.delete().where(*where)).rowcount


@lru_cache(maxsize=None)
def _by_id(table: Table) -> "Select[Any]":
    # kept: to make it, and to see that it is the same as before, takes SQLAlchemy as long as to run it
    return select(table).where(table.c.id == bindparam("id"))


class Database:
    """A backend's data, by SQLAlchemy URL.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``.
        on_stored: called with each write transaction once it is stored.
        must_exist: it is not made if it is not there.

    Raises:
        DatabaseUnusable: the URL is not SQLite's, the file cannot be opened, is no database, or was written by
            a newer version of this package.
    """

    def __init__(
        self, url: str, on_stored: Callable[[Transaction], None] = lambda tx: None, must_exist: bool = False
    ) -> None:
        self._on_stored = on_stored
        try:
            parsed = make_url(url)
        except ArgumentError as error:
            raise DatabaseUnusable(f"{url!r} is not a database URL. Give one such as sqlite:///prefect.db") from error
        if parsed.drivername not in ("sqlite", "sqlite+pysqlite") or parsed.database in (None, "", ":memory:"):
            raise DatabaseUnusable(
                f"{parsed.render_as_string()!r} is not an SQLite file. Give a URL such as sqlite:///prefect.db"
            )
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise DatabaseUnusable(f"SQLite {sqlite3.sqlite_version} is too old: {OLDEST_SQLITE} is needed.")
        #: the file: the same for every name of it, and wherever this process changes to
        self.path = os.path.realpath(str(parsed.database))
        if must_exist and not os.path.exists(self.path):
            raise DatabaseUnusable(f"There is no database {self.path!r}.")
        parsed = parsed.set(database=self.path)
        self._engine = create_engine(parsed, pool_size=CONNECTIONS + 2, max_overflow=4)
        # SQLite lets one writer in at a time; waiting here is fair and costs nothing, its own waiting polls
        self._writer = threading.Lock()
        self._patience = PATIENCE
        self._lock: Optional[IO[str]] = None
        event.listen(self._engine, "connect", _on_connect)
        event.listen(self._engine, "begin", _on_begin)
        event.listen(self._engine, "before_cursor_execute", _on_execute)
        try:
            self._create()
        except DatabaseError as error:
            raise DatabaseUnusable(
                f"The database {self.path!r} cannot be used: {error.orig}. Is it an SQLite file, in a folder "
                "that exists and may be written to?"
            ) from error

    def _create(self) -> None:
        with self._write_connection() as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            if version > SCHEMA_VERSION:
                raise DatabaseUnusable(
                    f"The database {self.path!r} has schema version {version}, this package knows "
                    f"versions up to {SCHEMA_VERSION}. Update prefect-taskrun-tasks, or name another file."
                )
            if version == 0:
                if connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one():
                    raise DatabaseUnusable(f"The database {self.path!r} belongs to another program. Name another file.")
                connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
            # a file of an earlier version of this package may lack some; those that it has are the same
            for table in tables.metadata.sorted_tables:
                connection.execute(CreateTable(table, if_not_exists=True))
            for index in (each for table in tables.metadata.tables.values() for each in table.indexes):
                connection.execute(CreateIndex(index, if_not_exists=True))
            if version == 0:
                tenant = {"id": tables.new_id(), "name": "default", "slug": "default", "created": now()}
                connection.execute(tables.tenant.insert().values(tenant))

    @contextmanager
    def _write_connection(self) -> Iterator[Connection]:
        with self._writer, self._engine.connect().execution_options(writes=True) as connection:
            sqlite = connection.connection.driver_connection
            assert sqlite is not None
            sqlite.execute(f"PRAGMA busy_timeout = {self._patience * 1000:.0f}")
            # until it is known that nobody else writes
            self._patience = BRIEF
            with connection.begin():
                self._patience = PATIENCE
                yield connection

    @contextmanager
    def write(self, **caller: Any) -> Iterator[Transaction]:
        """A write transaction: stored when the block ends, undone when it raises.

        Raises:
            NotStored: it could not be.
        """
        try:
            with self._write_connection() as connection:
                tx = Transaction(connection, **caller)
                yield tx
                _assert_in_transaction(connection)
        except OperationalError as error:
            if str(error.orig) in HINDRANCES:
                raise NotStored(f"The backend's database cannot be written: {error.orig}.") from error
            raise
        self._on_stored(tx)

    @contextmanager
    def read(self, until: float = math.inf) -> Iterator[Connection]:
        """One consistent picture of the data, while others write.

        Args:
            until: the reading of `time.monotonic` at which it is over.

        Raises:
            TookTooLong: it was not finished by then.
        """
        with self._engine.connect() as connection:
            sqlite = connection.connection.driver_connection
            assert sqlite is not None
            sqlite.set_progress_handler(lambda: monotonic() > until, STEPS)
            try:
                with connection.begin():
                    yield connection
            except OperationalError as error:
                if monotonic() > until:
                    raise TookTooLong from error
                raise
            finally:
                # the connection is for others next
                sqlite.set_progress_handler(None, 0)

    def size(self) -> int:
        """Bytes on the disk, of the file and of what was written but is not in it yet."""
        return sum(os.path.getsize(path) for path in (self.path, f"{self.path}-wal") if os.path.exists(path))

    def check(self) -> None:
        """Returns if the data can be read.

        Raises:
            DatabaseUnusable: it cannot.
        """
        # what is open can be read also when it is deleted, but it is gone as soon as it is closed
        if not os.path.exists(self.path):
            raise DatabaseUnusable(f"The database {self.path!r} is not there any more.")
        try:
            with self.read() as connection:
                connection.execute(select(tables.tenant.c.id).limit(1)).all()
        except SQLAlchemyError as error:
            raise DatabaseUnusable(f"The database {self.path!r} cannot be read: {error}") from error

    def shrinks(self) -> bool:
        """Whether free pages can be given back one by one; in files of early versions of this package they cannot."""
        return self._pragma("auto_vacuum") == 2

    def free_pages(self) -> int:
        return self._pragma("freelist_count")

    def _pragma(self, name: str) -> int:
        with self.read() as connection:
            value: int = connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
        return value

    def shrink(self, pages: int) -> None:
        """Gives some free pages back."""
        with self._outside_transactions() as cursor:
            # `execute` does the first step of it, which is one page
            cursor.executescript(f"PRAGMA incremental_vacuum({pages})")

    def checkpoint(self) -> None:
        """Moves what was written into the file itself, unless somebody is reading what it would replace."""
        with self._outside_transactions() as cursor:
            # those who write wait for it
            cursor.execute("PRAGMA busy_timeout = 1000")
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def rewrite(self) -> bool:
        """Writes the file anew, without free pages, and so that it can `shrink` from then on.

        Returns:
            False if a backend has it, which could not write for too long.

        Raises:
            DatabaseUnusable: it cannot be written, such as for want of room on the disk.
        """
        try:
            self.reserve()
        except DatabaseUnusable:
            return False
        try:
            with self._outside_transactions() as cursor:
                cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")
                cursor.execute("VACUUM")
        except sqlite3.Error as error:
            raise DatabaseUnusable(f"The database {self.path!r} cannot be written anew: {error}") from error
        finally:
            self._release()
        self.checkpoint()
        # connections that are open know the file as it was
        self._engine.dispose()
        return True

    @contextmanager
    def _outside_transactions(self) -> Iterator[sqlite3.Cursor]:
        """A connection for what cannot be done in a transaction."""
        with closing(sqlite3.connect(self.path, timeout=0)) as connection:
            _on_connect(connection, None)
            yield connection.cursor()

    def reserve(self) -> None:
        """Keeps other backends away from the file, until this one is closed or its process ends, however it ends.

        Raises:
            DatabaseUnusable: another backend has it.
        """
        # not the database file itself: closing it here would drop the locks that SQLite holds on it
        lock = open(f"{self.path}-lock", "a")  # noqa: SIM115 - open for as long as it is locked
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise DatabaseUnusable(
                f"The database {self.path!r} is in use by another backend. Stop that one, or name another file."
            ) from error
        self._lock = lock

    def close(self) -> None:
        self._engine.dispose()
        self._release()

    def _release(self) -> None:
        if self._lock:
            # the file stays: one that is removed could be locked by one backend, and made anew by another
            self._lock.close()
            self._lock = None


def _on_connect(connection: sqlite3.Connection, record: Any) -> None:
    # transactions are begun by _on_begin; by itself the driver would begin them late, and never for reads
    connection.isolation_level = None
    # SQLite's own knows only the letters of English, and a search without regard to case is made of it
    connection.create_function("lower", 1, lambda text: text if text is None else str(text).lower(), deterministic=True)
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {PATIENCE * 1000:.0f}")
    if cursor.execute("PRAGMA page_count").fetchone() == (0,):
        # before the next line, which makes the file; later it would wait for writers, and take effect only by `rewrite`
        cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")
    cursor.execute("PRAGMA journal_mode = WAL")
    # with WAL, NORMAL keeps every stored transaction when the process is killed
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    # a transaction that reads first and then writes is refused when another wrote in between; IMMEDIATE is not
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _on_execute(connection: Connection, cursor: Any, statement: str, *rest: Any) -> None:
    if connection.get_execution_options().get("writes") and not statement.startswith("BEGIN"):
        _assert_in_transaction(connection)


def _assert_in_transaction(connection: Connection) -> None:
    """Without one, each statement would be stored by itself.

    Raises:
        NotStored: SQLite has undone it, as it does by itself when the disk is full, and a rule went on all the same.
    """
    sqlite = connection.connection.driver_connection
    assert sqlite is not None
    if not sqlite.in_transaction:
        raise NotStored("The backend's database cannot be written: the transaction was undone.")
