"""The database in a file: one writer at a time, and readers that never wait for it."""

import os
import sqlite3
import threading
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Callable, Collection, Iterator, Optional, Tuple

from sqlalchemy import URL, Connection, create_engine, event, inspect
from sqlalchemy.exc import DBAPIError, OperationalError
from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_fixed

from . import sqlite_functions
from .errors import DatabaseUnusable, NotInPlace, NotStored, TookTooLong
from .reservation import InUse, Reservation

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

#: How SQLite's words for what is beyond its limits begin
LIMITS = (
    "Expression tree is too large",
    "parser stack overflow",
    "too many",
    "string or blob too big",
)

#: Pages that are given back in one transaction, or copied between two reports
PAGES = 1000

#: Seconds in which what was written is moved into the file itself
SETTLING = 5.0

Report = Callable[[int, int], None]


class SqliteFile:
    """An SQLite file, by SQLAlchemy URL.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``.
        connections: that are open at once, and are kept.
        must_exist: it is not made if it is not there.

    Raises:
        DatabaseUnusable: the URL names no file, or the file is not there.
    """

    def __init__(self, url: URL, connections: int, must_exist: bool = False) -> None:
        if url.drivername not in ("sqlite", "sqlite+pysqlite") or url.database in (None, "", ":memory:"):
            raise DatabaseUnusable(
                f"{url.render_as_string()!r} is not an SQLite file. Give a URL such as sqlite:///prefect.db"
            )
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise DatabaseUnusable(f"SQLite {sqlite3.sqlite_version} is too old: {OLDEST_SQLITE} is needed.")
        #: the file: the same for every name of it, and wherever this process changes to
        self.path = os.path.realpath(str(url.database))
        if must_exist and not os.path.exists(self.path):
            raise DatabaseUnusable(f"There is no database {self.path!r}.")
        # SQLite would let everybody read what flows are given, and the secrets of cloud hooks; what is wrong with the
        # path, it says itself
        with suppress(OSError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        self._identity = _identity(self.path)
        #: for messages
        self.name = repr(self.path)
        self.hint = "Is it an SQLite file, in a folder that exists and may be written to?"
        self.engine = create_engine(
            url.set(database=self.path),
            pool_size=connections,
            max_overflow=4,
            # errors are logged, and what flows are given is not for logs
            hide_parameters=True,
        )
        # SQLite lets one writer in at a time; waiting here is fair and costs nothing, its own waiting polls
        self._writer = threading.Lock()
        self._patience = PATIENCE
        self._is_interrupted = False
        self._reservation = Reservation(self.path)
        event.listen(self.engine, "connect", _on_connect)
        event.listen(self.engine, "begin", _on_begin)
        event.listen(self.engine, "before_cursor_execute", _on_execute)

    def prepare(self) -> None:
        """Lets the file, which is ours or about to be, be read while it is written, and given back in parts."""
        event.listen(self.engine, "connect", _on_connect_to_ours)
        # those that are open were opened when it was not known whose it is
        self.engine.dispose()
        self._identity = _identity(self.path)

    def is_ours(self, connection: Connection) -> bool:
        """Whether a version of this package made it that knew nothing of Alembic."""
        # others number theirs as well
        has_tables = {"flow_group", "flow_run", "task_run_state"} <= set(inspect(connection).get_table_names())
        return has_tables and bool(connection.exec_driver_sql("PRAGMA user_version").scalar_one() == 1)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection in a write transaction, the only one."""
        with self._writer, self.engine.connect().execution_options(writes=True) as connection:
            sqlite = connection.connection.driver_connection
            assert sqlite is not None
            sqlite.execute(f"PRAGMA busy_timeout = {self._patience * 1000:.0f}")
            # until it is known that nobody else writes
            self._patience = BRIEF
            with connection.begin():
                self._patience = PATIENCE
                self.check_in_place()
                yield connection
                _assert_in_transaction(connection)
                self.check_in_place()

    @contextmanager
    def reading(self, until: float) -> Iterator[Connection]:
        """A connection that sees one moment, until `time.monotonic` reads `until`."""
        with self.engine.connect() as connection:
            sqlite = connection.connection.driver_connection
            assert sqlite is not None
            sqlite.set_progress_handler(lambda: self._is_interrupted or time.monotonic() > until, STEPS)
            try:
                with connection.begin():
                    yield connection
            except OperationalError as error:
                sqlite_functions.raise_refusal(error)
                if self._is_interrupted or time.monotonic() > until:
                    raise TookTooLong from error
                raise
            finally:
                # the connection is for others next
                sqlite.set_progress_handler(None, 0)

    def hindrance(self, error: DBAPIError) -> Optional[str]:
        """What kept a transaction from being stored, if it was neither its own fault nor ours."""
        return str(error.orig) if str(error.orig) in HINDRANCES else None

    def is_too_much(self, error: DBAPIError) -> bool:
        """Whether a statement was refused for its size."""
        return str(error.orig).startswith(LIMITS)

    def check_in_place(self) -> None:
        """Returns if the file is the one that was opened.

        Raises:
            NotInPlace: it was deleted, or another took its place. What is open can still be read, and even written, but
                all that is gone as soon as it is closed.
        """
        if self._identity != _identity(self.path):
            raise NotInPlace(
                f"The database {self.name} was deleted or replaced while the backend was running. "
                "Nothing is stored any more: stop the backend, put the file back, and start it again."
            )

    def size(self) -> int:
        """Bytes on the disk, of the file and of what was written but is not in it yet."""
        return sum(os.path.getsize(path) for path in (self.path, f"{self.path}-wal") if os.path.exists(path))

    def give_back(self, report: Report = lambda done, total: None) -> bool:
        """Makes the file as small as what is in it, beside a backend that goes on serving. Whether that could be done.

        A file that was made by an early version of this package is written anew for it, which cannot be done beside a
        backend.

        Raises:
            DatabaseUnusable: there is not enough room on the disk to write it anew.
        """
        if self._pragma("auto_vacuum") != 2:
            return self._rewrite()
        # what others delete meanwhile is not waited for
        total = self._pragma("freelist_count")
        for done in range(0, total, PAGES):
            report(done, total)
            begun = time.monotonic()
            with self._outside_transactions() as cursor:
                # `execute` does the first step of it, which is one page
                cursor.executescript(f"PRAGMA incremental_vacuum({PAGES})")
            # for as long as has been worked, the others may
            time.sleep(max(0.01, time.monotonic() - begun))
        self.checkpoint()
        return True

    def _pragma(self, name: str) -> int:
        with self.engine.connect() as connection:
            value: int = connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
        return value

    def checkpoint(self) -> None:
        """Moves what was written into the file itself, unless somebody reads for long what it would replace."""
        until = time.monotonic() + SETTLING
        with self._outside_transactions() as cursor:
            # those who write wait for it
            cursor.execute("PRAGMA busy_timeout = 1000")
            # it waits for readers and writers, but gives up at once when another connection does the same, as each may
            # that has written while there was much
            while cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] and time.monotonic() < until:
                time.sleep(0.01)

    def _rewrite(self) -> bool:
        """Writes the file anew, without free pages, and so that they can be given back from then on.

        Returns:
            False if a backend has it, which could not write for too long.
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
            raise DatabaseUnusable(f"The database {self.name} cannot be written anew: {error}") from error
        finally:
            self._reservation.give_back()
        self.checkpoint()
        # connections that are open know the file as it was
        self.engine.dispose()
        return True

    @contextmanager
    def _outside_transactions(self) -> Iterator[sqlite3.Cursor]:
        """A connection for what cannot be done in a transaction."""
        with closing(sqlite3.connect(self.path, timeout=0)) as connection:
            _on_connect(connection, None)
            yield connection.cursor()

    def copy(self, file: str, report: Report) -> None:
        """Copies all that is there at this moment into another file, while others go on writing."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as reading, closing(
            sqlite3.connect(file)
        ) as writing:
            # one moment for all steps: without, SQLite would begin anew whenever somebody has written in between
            reading.execute("BEGIN")
            reading.execute("SELECT count(*) FROM sqlite_master").fetchall()
            reading.backup(writing, pages=PAGES, progress=lambda status, left, total: report(total - left, total))
            reading.execute("ROLLBACK")

    def is_in(self, file: Path) -> bool:
        """Whether it is this file, or one that belongs to it, by whatever name; some are there only at times."""
        belonging = {self.path + end for end in ("-journal", "-lock", "-shm", "-wal")}
        return os.path.realpath(file) in belonging or (file.exists() and os.path.samefile(file, self.path))

    def reserve(self) -> None:
        """Keeps other backends away from the file, until this one is closed or its process ends, however it ends.

        Raises:
            DatabaseUnusable: another backend has it, or it cannot be known whether one has.
        """
        try:
            self._reservation.take()
        except InUse as error:
            raise DatabaseUnusable(
                f"The database {self.name} is in use by another backend. Stop that one, or name another file."
            ) from error
        except OSError as error:
            raise DatabaseUnusable(f"The database {self.name} cannot be reserved: {error}.") from error

    def announce(self, connection: Connection, queued: bool, news: Collection[str]) -> None:
        """Does nothing: no other backend uses the file."""

    def listen(self, told: Callable[[bool, Collection[str]], None]) -> None:
        """Does nothing: no other backend uses the file."""

    def interrupt(self) -> None:
        """See `Database.interrupt`."""
        self._is_interrupted = True

    def close(self) -> None:
        self.engine.dispose()
        self._reservation.close()


def _identity(path: str) -> Optional[Tuple[int, int]]:
    """Which file is at a path, if any."""
    with suppress(OSError):
        found = os.stat(path)
        return found.st_dev, found.st_ino
    return None


def _on_connect(connection: sqlite3.Connection, record: Any) -> None:
    # transactions are begun by _on_begin; by itself the driver would begin them late, and never for reads
    connection.isolation_level = None
    sqlite_functions.register(connection)
    connection.execute(f"PRAGMA busy_timeout = {PATIENCE * 1000:.0f}")
    # with WAL, NORMAL keeps every stored transaction when the process is killed
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _on_connect_to_ours(connection: sqlite3.Connection, record: Any) -> None:
    if connection.execute("PRAGMA page_count").fetchone() == (0,):
        # before the next line, which makes the file; later it would wait for writers, and take effect only by `VACUUM`
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    # when several connections make the file at once, SQLite refuses this without waiting for `busy_timeout`
    patience = Retrying(
        retry=retry_if_exception_message("database is locked"),
        wait=wait_fixed(0.02),
        stop=stop_after_delay(PATIENCE),
        reraise=True,
    )
    patience(connection.execute, "PRAGMA journal_mode = WAL")


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
