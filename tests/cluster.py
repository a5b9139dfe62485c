"""A PostgreSQL server of the tests' own, on this machine's loopback address."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from itertools import count
from pathlib import Path
from typing import Optional

from sqlalchemy import create_engine
from sqlalchemy.exc import ProgrammingError

from prefect_taskrun_tasks.server import tables
from prefect_taskrun_tasks.server.database import Database

#: Who it runs as if the tests run as root, which it refuses
UNPRIVILEGED = "postgres"

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": 300,
    "shared_buffers": "64MB",
}


#: Removes all rows
_CLEAR = "; ".join(str(table.delete()) for table in reversed(tables.metadata.sorted_tables))


def _with_driver(url: str) -> str:
    return url.replace("postgresql:", "postgresql+psycopg:")


def program(name: str) -> Optional[str]:
    """The path of one of its programs, which Debian keeps in a folder for each version, not on the PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda it: int(it.parts[-3]))
    return str(versions[-1]) if versions else shutil.which(name)


ENCODING = ["--no-sync", "--encoding", "UTF8", "--locale", "C.UTF-8"]


class Cluster:
    """A server with databases, which are gone with it. They do not survive a crash of the machine."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="postgresql-"))
        self._password = secrets.token_hex(8)
        self._numbers = count(1)
        self._cleared: Optional[str] = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"tests_{next(self._numbers)}"
        engine = create_engine(_with_driver(self._url("postgres")))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return self._url(name)

    def cleared_database(self) -> str:
        """The URL of a database that is as good as new. It is the same each time: to make one takes a while."""
        if self._cleared is None:
            self._cleared = self.new_database()
            Database(self._cleared).close()
            # it connects again if a test has stopped the server
            self._engine = create_engine(_with_driver(self._cleared), pool_pre_ping=True)
        try:
            with self._engine.begin() as connection:
                connection.exec_driver_sql(_CLEAR)
                connection.execute(tables.tenant.insert().values(id=tables.new_id(), name="default", slug="default"))
        except ProgrammingError:
            # a test has dropped a table
            self._engine.dispose()
            self._cleared = None
            return self.cleared_database()
        return self._cleared

    def _url(self, database: str) -> str:
        return f"postgresql://tests:{self._password}@127.0.0.1:{self._port}/{database}"

    def __enter__(self) -> "Cluster":
        password = self._directory / "password"
        password.write_text(self._password)
        if os.getuid() == 0:
            for path in (self._directory, password):
                shutil.chown(path, UNPRIVILEGED)
        self._run("initdb", "--username", "tests", "--auth", "scram-sha-256", "--pwfile", password, *ENCODING)
        password.unlink()
        self.start()
        return self

    def start(self) -> None:
        settings = {**SETTINGS, "port": self._port, "unix_socket_directories": self._directory}
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._run("pg_ctl", "--log", self._directory / "log", "--wait", "--options", options, "start")

    def stop(self) -> None:
        """As when it is killed."""
        self._run("pg_ctl", "--mode", "immediate", "stop")

    def __exit__(self, *error: object) -> None:
        if self._cleared:
            self._engine.dispose()
        self.stop()
        shutil.rmtree(self._directory)

    def _run(self, name: str, *arguments: object) -> None:
        as_other = ["setpriv", "--reuid", UNPRIVILEGED, "--regid", UNPRIVILEGED, "--clear-groups"]
        command = [*(as_other if os.getuid() == 0 else []), program(name), "--pgdata", self._directory / "data"]
        # into no pipe, which the server would hold open
        with (self._directory / "output").open("w") as output:
            done = subprocess.run([*map(str, command), *map(str, arguments)], stdout=output, stderr=output)
        assert not done.returncode, (self._directory / "output").read_text()
