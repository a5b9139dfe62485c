"""The backend's data: write transactions that rules work on, and pictures of one moment to read from."""

import math
import time
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Collection, Iterator, Union

from sqlalchemy import Connection, make_url, select
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, SQLAlchemyError

from . import migrations, tables
from .clock import now
from .errors import DatabaseUnusable, NotStored, PerhapsStored, Refused, TookTooLong
from .postgresql_server import PostgresqlServer
from .sqlite_file import SqliteFile
from .transaction import Transaction

#: What a caller is told whose request a database refuses for its size
TOO_MUCH = "This is more than the database takes at once. Ask for fewer things, or shorter or less deeply nested ones."

#: Requests that are worked on at once; each may hold one connection
CONNECTIONS = 8

#: What to say where there is another URL
KINDS = "Give a URL such as sqlite:///prefect.db or postgresql://user:password@host/database"

#: What to do about one that is locked
BUSY = "Another program has been writing there for long: try again when it is done."

#: Seconds in which the database has to answer for the backend to be well
HEALTHY = 5.0


class Database:
    """A backend's data, by SQLAlchemy URL.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``postgresql://user:password@host/database``.
        on_stored: called with each write transaction once it is stored, or may be (see `PerhapsStored`).
        must_exist: it is not made if it is not there.

    Raises:
        DatabaseUnusable: the URL is not one of these, the database cannot be opened, is no database, belongs to another
            program, or was written by a newer version of this package.
    """

    def __init__(
        self, url: str, on_stored: Callable[[Transaction], None] = lambda tx: None, must_exist: bool = False
    ) -> None:
        self._on_stored = on_stored
        #: the backend stops, see `interrupt`
        self.is_interrupted = False
        self.store = _store(url, must_exist)
        with ExitStack() as undone:
            undone.callback(self.store.close)
            try:
                self._upgrade(must_exist)
            except DatabaseError as error:
                reason = " ".join(str(error.orig).split())
                hint = BUSY if "locked" in (self.store.hindrance(error) or "") else self.store.hint
                raise DatabaseUnusable(f"The database {self.store.name} cannot be used: {reason}. {hint}") from error
            except NotStored as error:
                raise DatabaseUnusable(f"The database {self.store.name} cannot be used: {error}") from error
            undone.pop_all()

    def _upgrade(self, must_exist: bool) -> None:
        with self.store.reading(math.inf) as connection:
            is_empty = migrations.is_empty(connection, self.store.name, self.store.is_ours(connection))
            if is_empty and must_exist:
                raise DatabaseUnusable(f"There is no backend's data in the database {self.store.name}.")
        # what is refused stays as it is
        self.store.prepare()
        with self.store.reading(math.inf) as connection:
            # no writer is waited for where there is nothing to be done
            if migrations.version(connection) == migrations.NEWEST:
                return
        with self.store.writing() as connection:
            if migrations.upgrade(connection, self.store.name, self.store.is_ours(connection)):
                tenant = {"id": tables.new_id(), "name": "default", "slug": "default", "created": now()}
                connection.execute(tables.tenant.insert().values(tenant))

    @contextmanager
    def write(self, **caller: Any) -> Iterator[Transaction]:
        """A write transaction: stored when the block ends, undone when it raises. There is one at a time.

        Raises:
            NotStored: it could not be.
            Refused: it was more than the database takes.
            PerhapsStored: the server was not heard of any more when it was about to be stored.
        """
        is_over = False
        try:
            with self.store.writing() as connection:
                tx = Transaction(connection, **caller)
                yield tx
                if tx.queued or tx.news:
                    self.store.announce(connection, tx.queued, tx.news)
                is_over = True
        except DBAPIError as error:
            self._refuse(error)
            hindrance = self.store.hindrance(error)
            if not hindrance:
                raise
            reason = f"The backend's database cannot be written: {hindrance}."
            # a server that can still answer says that it has not stored it
            if not (is_over and error.connection_invalidated):
                raise NotStored(reason) from error
            # who waits looks in vain at worst, and cloud hooks are told what is known
            tx.calls.clear()
            self._on_stored(tx)
            raise PerhapsStored(reason) from error
        self._on_stored(tx)

    @contextmanager
    def read(self, until: float = math.inf) -> Iterator[Connection]:
        """One consistent picture of the data, while others write.

        Args:
            until: the reading of `time.monotonic` at which it is over.

        Raises:
            TookTooLong: it was not finished by then.
            Refused: it was more than the database takes.
        """
        try:
            with self.store.reading(until) as connection:
                yield connection
        except DBAPIError as error:
            self._refuse(error)
            raise

    def _refuse(self, error: DBAPIError) -> None:
        """Raises in words for the caller what is wrong with a statement for what he has put into it."""
        if self.store.is_too_much(error):
            raise Refused(TOO_MUCH) from error

    def check(self) -> None:
        """Returns if the data can be read, and soon.

        Raises:
            DatabaseUnusable: it cannot.
            NotInPlace: its file was deleted or replaced.
        """
        self.store.check_in_place()
        try:
            with self.read(time.monotonic() + HEALTHY) as connection:
                connection.execute(select(tables.tenant.c.id).limit(1)).all()
        except SQLAlchemyError as error:
            raise DatabaseUnusable(f"The database {self.store.name} cannot be read: {error}") from error
        except TookTooLong as error:
            raise DatabaseUnusable(f"The database {self.store.name} was not read within {HEALTHY:g} s.") from error

    def reserve(self) -> None:
        """Makes it this backend's own, where several could not share it.

        Raises:
            DatabaseUnusable: another backend has it.
        """
        self.store.reserve()

    def listen(self, told: Callable[[bool, Collection[str]], None]) -> None:
        """Calls `told` when another backend has stored something, with `Transaction.queued` and `Transaction.news`."""
        self.store.listen(told)

    def interrupt(self) -> None:
        """Ends what is being read, and lets nothing begin to read, so that it can be closed soon."""
        self.is_interrupted = True
        self.store.interrupt()

    def close(self) -> None:
        self.store.close()


def _store(url: str, must_exist: bool) -> Union[SqliteFile, PostgresqlServer]:
    try:
        parsed = make_url(url)
        kind = parsed.get_backend_name()
    except (ArgumentError, ValueError):
        # what there is of a password in it is anywhere: neither it nor the error, which quotes it, is shown
        raise DatabaseUnusable(f"That is not a database URL. {KINDS}") from None
    # one for each thread that reads, the one that writes, each service, one to hear of other backends, and one to say
    # how the database is
    connections = CONNECTIONS + 6
    if kind == "postgresql":
        if "@" in f"{parsed.host}{parsed.database}":
            # a part of the password is in one of them
            raise DatabaseUnusable(
                "The database URL has an @ too many. Write an @ in the password as %40, and a / as %2F. " + KINDS
            )
        return PostgresqlServer(parsed, connections)
    if kind == "sqlite":
        return SqliteFile(parsed, connections, must_exist)
    raise DatabaseUnusable(f"{kind}:// is not a database that is known here. {KINDS}")
