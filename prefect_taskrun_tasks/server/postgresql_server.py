"""The database in a PostgreSQL server: one writer at a time there too, whichever backend it belongs to."""

import json
import logging
import math
import os
import re
import subprocess
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable, Collection, Dict, Iterator, Optional, Sequence, Set, Union

from sqlalchemy import URL, Connection, create_engine, event, func, select
from sqlalchemy.exc import DBAPIError, OperationalError

from . import tables
from .errors import DatabaseUnusable, Refused, TookTooLong
from .transaction import ANYTHING

#: Seconds to wait for a connection, for the writer before this one, and for a writer of whom nothing is heard any more
PATIENCE = 10

#: What the lock of the writer is called; within one database, locks are numbers
WRITER = 0x70746B74

#: Where backends on one database tell each other what has happened, and seconds between two looks whether to go on
CHANNEL, PULSE = "prefect_taskrun", 0.5

#: Ids of what has changed that are told at once
MOST_ANNOUNCED = 150

#: What keeps a transaction from being stored, by SQLSTATE or its class
HINDRANCES = {
    "": "its server cannot be reached",
    "08": "its server cannot be reached",
    "25006": "it may only be read",
    "25P03": "nothing was heard of the transaction for too long",
    "53": "its server lacks room, memory or connections",
    "55": "it is locked",
    "57014": "its server has ended it",
    "57": "its server is stopping or starting",
    "58": "its server's disk fails",
}

#: Class of SQLSTATE for what is beyond the server's limits, and the words of the driver's library, which has no number
LIMITS, TOO_MANY = "54", "number of parameters"

#: SQLSTATEs of a regular expression, or an escape in a pattern, that PostgreSQL cannot read
INVALID_PATTERN = ("2201B", "22025")

#: SQLSTATE of a statement that took too long, or that somebody has ended
CANCELED = "57014"


logger = logging.getLogger(__name__)

Report = Callable[[int, int], None]


class PostgresqlServer:
    """A database of a PostgreSQL server, by SQLAlchemy URL.

    Several backends may use one. Their writers take turns, by a lock that the server gives back when one of them dies,
    so that rules need not expect that somebody else writes while they are at work.

    Args:
        url: ``postgresql://user:password@host/database``.
        connections: that are open at once, and are kept.

    Raises:
        DatabaseUnusable: there is no driver.
    """

    def __init__(self, url: URL, connections: int) -> None:
        if "password" in url.query:
            # where it is not shown; of two, PostgreSQL's client library takes this one
            url = url.set(password=_joined(url.query["password"])).difference_update_query(["password"])
        self._url = url
        self._id = str(uuid.uuid4())
        self._closed = threading.Event()
        self._is_interrupted = False
        #: connections that read
        self._reading: Set[Any] = set()
        self._listener: Optional[threading.Thread] = None
        #: for messages, without passwords
        self.name = repr(url.difference_update_query(["sslpassword"]).render_as_string())
        self.hint = "Is the server running, does the database exist, and may this user make tables in it?"
        self._options: Dict[str, Any] = {
            "connect_timeout": PATIENCE,
            "application_name": "prefect-taskrun",
            # a server that has vanished is noticed: while it is sent something, and while its answer is waited for
            "tcp_user_timeout": 3000 * PATIENCE,
            "keepalives_idle": PATIENCE,
            "keepalives_interval": PATIENCE,
            "keepalives_count": 2,
            **{name: _joined(value) for name, value in url.query.items()},
        }
        try:
            self.engine = create_engine(
                url.set(drivername="postgresql+psycopg", query={}),
                connect_args=self._options,
                pool_size=connections,
                max_overflow=4,
                # a server that was started again is noticed before the connection is used
                pool_pre_ping=True,
                json_serializer=_json,
                # errors are logged, and what flows are given is not for logs
                hide_parameters=True,
                # whatever the server's default is: who waited for the lock has to see what was stored meanwhile
                isolation_level="READ COMMITTED",
            )
        except ModuleNotFoundError as error:
            raise DatabaseUnusable(
                f"The database {self.name} needs the module {error.name}, which is not installed. Install this package "
                "with its extra [postgresql], in a clone of it:\n    pip install '.[server,postgresql]'"
            ) from error
        event.listen(self.engine, "before_cursor_execute", _on_execute)

    def prepare(self) -> None:
        """Does nothing: a server needs no preparation."""

    def is_ours(self, connection: Connection) -> bool:
        return False

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection in a write transaction, the only one of all backends."""
        with self.engine.connect() as connection, connection.begin():
            connection.exec_driver_sql(
                f"SET LOCAL lock_timeout = '{PATIENCE}s';"
                f"SET LOCAL idle_in_transaction_session_timeout = '{3 * PATIENCE}s';"
                f"SELECT pg_advisory_xact_lock({WRITER})"
            )
            yield connection

    @contextmanager
    def reading(self, until: float) -> Iterator[Connection]:
        """A connection that sees one moment, until `time.monotonic` reads `until`."""
        with self.engine.connect() as connection:
            connection = connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True, until=until
            )
            driver = connection.connection.driver_connection
            self._reading.add(driver)
            try:
                if self._is_interrupted:
                    raise TookTooLong
                with connection.begin():
                    if until < math.inf:
                        left = max(1, int(1000 * (until - time.monotonic())))
                        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {left}")
                    yield connection
            except DBAPIError as error:
                if _sqlstate(error) in INVALID_PATTERN:
                    raise Refused(str(error.orig).splitlines()[0]) from error
                # by this limit; somebody else may end it too
                if until < math.inf and _sqlstate(error) == CANCELED:
                    raise TookTooLong from error
                raise
            finally:
                self._reading.discard(driver)

    def hindrance(self, error: DBAPIError) -> Optional[str]:
        """What kept a transaction from being stored, if it was neither its own fault nor ours."""
        code = _sqlstate(error)
        if not (code or error.connection_invalidated or isinstance(error, OperationalError)):
            # the driver's own: the server was not even asked
            return None
        return HINDRANCES.get(code, HINDRANCES.get(code[:2]))

    def is_too_much(self, error: DBAPIError) -> bool:
        """Whether a statement was refused for its size."""
        return _sqlstate(error).startswith(LIMITS) or TOO_MANY in str(error.orig)

    def check_in_place(self) -> None:
        """Does nothing: a server knows where its files are."""

    def size(self) -> int:
        """Bytes on the server's disk."""
        with self.engine.connect() as connection:
            size: int = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one()
        return size

    def give_back(self, report: Report = lambda done, total: None) -> bool:
        """Does nothing: the server uses the space of what was deleted again, by itself."""
        return True

    def copy(self, file: str, report: Report) -> None:
        """Copies all that is there at this moment into a file, with PostgreSQL's own program.

        Raises:
            DatabaseUnusable: there is no ``pg_dump``, or it has failed.
        """
        secret = {"PGPASSWORD": self._url.password} if self._url.password else {}
        command = ["pg_dump", "--verbose", "--format=custom", f"--file={file}", f"--dbname={self._where()}"]
        lines = []
        try:
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **secret})
        except FileNotFoundError as error:
            raise DatabaseUnusable(
                "A copy of a PostgreSQL database is made by pg_dump, which is not on the PATH (on Debian: apt-get "
                "install postgresql-client)."
            ) from error
        with process:
            assert process.stderr is not None
            for line in process.stderr:
                lines.append(line.strip())
                report(sum("dumping contents of table" in each for each in lines), len(tables.metadata.tables))
        if process.returncode:
            raise DatabaseUnusable(f"pg_dump has failed: {' '.join(lines[-3:])}")

    def _where(self) -> str:
        """How PostgreSQL's own programs get there, without passwords: everybody on this machine sees command lines."""
        from psycopg.conninfo import make_conninfo

        options = {**self._url.translate_connect_args(username="user", database="dbname"), **self._options}
        return make_conninfo(**{name: options[name] for name in options if name not in ("password", "sslpassword")})

    def is_in(self, file: Path) -> bool:
        return False

    def reserve(self) -> None:
        """Does nothing: backends share a server."""

    def announce(self, connection: Connection, queued: bool, news: Collection[str]) -> None:
        """Tells the other backends, as soon as the transaction is stored."""
        # PostgreSQL takes 8,000 characters
        ids = list(news) if len(news) <= MOST_ANNOUNCED else [ANYTHING]
        payload = json.dumps([self._id, queued, ids])
        connection.execute(select(func.pg_notify(CHANNEL, payload)))

    def listen(self, told: Callable[[bool, Collection[str]], None]) -> None:
        """Calls `told` with what other backends announce, from a thread of its own, until this is closed."""
        self._listener = threading.Thread(target=self._listen, args=[told], name="listen", daemon=True)
        self._listener.start()

    def _listen(self, told: Callable[[bool, Collection[str]], None]) -> None:
        is_heard = True
        while not self._closed.is_set():
            try:
                with self._listening() as server:
                    # there may have been something before
                    told(True, [ANYTHING])
                    is_heard = True
                    while not self._closed.is_set():
                        # returns at least that often, to see whether it is closed
                        for each in server.notifies(timeout=PULSE):
                            self._heard(each.payload, told)
            except Exception as error:
                # once, until it works again
                if is_heard:
                    logger.warning("Other backends are not heard of: %s", " ".join(str(error).split()))
                is_heard = False
                self._closed.wait(PULSE)

    @contextmanager
    def _listening(self) -> Iterator[Any]:
        """The driver's connection, to which the server sends what is announced."""
        with self.engine.connect() as connection:
            try:
                connection.execution_options(isolation_level="AUTOCOMMIT")
                connection.exec_driver_sql(f"LISTEN {CHANNEL}")
                yield connection.connection.driver_connection
            finally:
                # in the pool it would go on to be sent it
                connection.invalidate()

    def _heard(self, payload: str, told: Callable[[bool, Collection[str]], None]) -> None:
        try:
            sender, queued, news = json.loads(payload)
        except (TypeError, ValueError):
            # whoever may use the database may send whatever it likes
            return
        if sender != self._id:
            # a backend of an earlier version says only whether there is something
            told(bool(queued), list(map(str, news)) if isinstance(news, list) else [ANYTHING] if news else [])

    def interrupt(self) -> None:
        """See `Database.interrupt`."""
        self._is_interrupted = True
        for connection in list(self._reading):
            # it may be answered just now, or the server be gone
            with suppress(Exception):
                connection.cancel()

    def close(self) -> None:
        self._closed.set()
        if self._listener:
            # a server that has vanished keeps it for longer
            self._listener.join(PATIENCE)
        self.engine.dispose()


def _joined(value: Union[str, Sequence[str]]) -> str:
    """What a URL says several times, such as hosts, as PostgreSQL's client library takes it."""
    return value if isinstance(value, str) else ",".join(value)


def _sqlstate(error: DBAPIError) -> str:
    """Of an error that the server has told; empty if it did not answer."""
    return getattr(error.orig, "sqlstate", None) or ""


def _on_execute(connection: Connection, *statement: Any) -> None:
    # each statement has as long as all of them
    if time.monotonic() > connection.get_execution_options().get("until", math.inf):
        raise TookTooLong


def _json(value: Any) -> str:
    """JSON text as PostgreSQL takes it: without the character 0, and halves of surrogate pairs, as question marks."""
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()
    return re.sub(r"(\\\\)|\\u0000", lambda found: found[1] or "?", text)
