"""PostgreSQL: who writes, what a caller is told when it fails, and what it refuses to keep."""

import json
import os
import socket
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from select import select as select_ready
from time import monotonic, sleep
from typing import Any, Iterator, List, Tuple
from urllib.parse import quote_plus

import pytest
import stored
from cluster import Cluster
from conftest import eventually
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import event, func, make_url, select
from sqlalchemy.exc import DBAPIError

from prefect_taskrun_tasks.server import DatabaseUnusable, postgresql_server, reading, services, tables
from prefect_taskrun_tasks.server import database as database_module
from prefect_taskrun_tasks.server.api import Api
from prefect_taskrun_tasks.server.database import Database
from prefect_taskrun_tasks.server.errors import NotStored, PerhapsStored, TookTooLong
from prefect_taskrun_tasks.server.rules import children, logs, schedules, tenants
from prefect_taskrun_tasks.server.transaction import Call


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster.cleared_database()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


def test_the_password_is_not_shown() -> None:
    with pytest.raises(DatabaseUnusable, match="Is the server running") as caught:
        Database("postgresql://user:secret@127.0.0.1:1/db")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://user:secret@host/db?password=secret",
        "postgresql:/user:secret@host/db",
        "postgresql://u:x@h:secret/db",
        "postgresql://user:x@secret@127.0.0.1:1/db",
        "postgresql://user:x@secret/y@127.0.0.1:1/db",
    ],
)
def test_another_url_is_refused_without_being_shown_and_both_kinds_are_named(url: str) -> None:
    with pytest.raises(DatabaseUnusable, match=r"sqlite:///\S+ or postgresql://") as caught:
        Database(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_passwords_of_options_are_used_and_not_shown(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = make_url(url)
    hosts = f"host={given.host}&host=127.0.0.1&port=1&port={given.port}"
    program = tmp_path / "pg_dump"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$PGPASSWORD" "$@" > {tmp_path}/given\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    secrets = f"password={given.password}&sslpassword=hidden"
    database = Database(
        f"postgresql:///{given.database}?{hosts}&user={given.username}&{secrets}&options=-c+work_mem%3D1234kB"
    )
    with database.read() as connection:
        assert connection.exec_driver_sql("SHOW work_mem").scalar_one() == "1234kB"
    database.store.copy(str(tmp_path / "copy"), lambda done, total: None)
    database.close()
    password, *arguments = (tmp_path / "given").read_text().splitlines()
    assert password == given.password
    for shown in (database.store.name, *arguments):
        assert str(given.password) not in shown
        assert "hidden" not in shown
    [where] = [each.partition("=")[2] for each in arguments if each.startswith("--dbname=")]
    options = conninfo_to_dict(where)
    assert options["options"] == "-c work_mem=1234kB"
    assert (options["host"], options["dbname"]) == (f"{given.host},127.0.0.1", given.database)


def test_a_database_that_is_not_there_is_named(url: str) -> None:
    with pytest.raises(DatabaseUnusable, match=r"nowhere.*does the database exist"):
        Database(url.rpartition("/")[0] + "/nowhere")


def test_what_to_install_is_said_where_the_driver_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(DatabaseUnusable, match=r"pip install '\.\[server,postgresql\]'"):
        Database("postgresql://127.0.0.1/db")


def test_a_writer_waits_for_another_and_not_for_ever(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql_server, "PATIENCE", 1)
    first, second = Database(url), Database(url)
    with first.write() as tx:
        begun = monotonic()
        with pytest.raises(NotStored, match="locked"), second.write():
            pass
        assert 0.9 < monotonic() - begun < 10
        tenants.create_project(tx, stored.tenant_id(tx), "first")
    with second.write() as tx:
        assert stored.count(tx, tables.project) == 1
    first.close()
    second.close()


def test_a_writer_that_is_heard_of_no_more_is_put_out(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one on a machine that has lost its network."""
    monkeypatch.setattr(postgresql_server, "PATIENCE", 1)
    first, second = Database(url), Database(url)

    def hang() -> None:
        with first.write() as tx:
            tenants.create_project(tx, stored.tenant_id(tx), "of the one that hangs")
            hanging.set()
            assert over.wait(60)
            tx.rows(select(tables.project))

    hanging, over, failed = threading.Event(), threading.Event(), []

    def run() -> None:
        try:
            hang()
        except NotStored as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert hanging.wait(60)
    # three times its patience
    monkeypatch.setattr(postgresql_server, "PATIENCE", 30)
    with second.write() as tx:
        assert stored.count(tx, tables.project) == 0
    over.set()
    thread.join()
    assert failed
    first.close()
    second.close()


@pytest.mark.usefixtures("cluster")
def test_a_server_that_is_started_again_is_used_again(tmp_path: Any) -> None:
    with Cluster() as cluster:
        database = Database(cluster.new_database())
        with database.write() as tx:
            stored.project_id(tx)
        cluster.stop()
        with pytest.raises(NotStored, match="cannot be reached"), database.write():
            pass
        with pytest.raises(DatabaseUnusable, match="cannot be read"):
            database.check()
        cluster.start()
        database.check()
        with database.write() as tx:
            assert stored.count(tx, tables.project) == 1
        database.close()


class Cut:
    """A proxy to a PostgreSQL server, for one connection at a time, which loses it when it is to store something.

    Args:
        server: host and port.
    """

    def __init__(self, server: Tuple[str, int]) -> None:
        self._server = server
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listening.getsockname())
        #: what is cut off: before the server hears of it, or before the client hears that it is done
        self.before, self.after = False, False
        threading.Thread(target=self._loop, daemon=True).start()

    def _loop(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listening.accept()[0]
                threading.Thread(target=self._pass_on, args=[client], daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server, suppress(OSError):
            is_storing = False
            while True:
                for each in select_ready([client, server], [], [])[0]:
                    data = each.recv(65536)
                    is_storing = b"COMMIT\0" in data if each is client else is_storing
                    if not data or (is_storing and (self.before or (self.after and each is server))):
                        return
                    (server if each is client else client).sendall(data)

    def close(self) -> None:
        self._listening.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_connection_that_is_lost_while_it_is_stored_leaves_it_open_what_was(url: str, when: str) -> None:
    server = make_url(url)
    assert server.host
    assert server.port
    proxy = Cut((server.host, server.port))
    told: List[Tuple[bool, int]] = []
    database = Database(
        url.replace(f"{server.host}:{server.port}", proxy.address), lambda tx: told.append((tx.queued, len(tx.calls)))
    )
    with database.write() as tx:
        tenant_id = stored.tenant_id(tx)

    def ask() -> Any:
        given = {"input": {"tenant_id": tenant_id, "name": f"{when} it is stored"}}
        query = "mutation($input: create_project_input!) { create_project(input: $input) { id } }"
        return Api(database).answer(json.dumps({"query": query, "variables": given}).encode())[1]

    setattr(proxy, when, True)
    told.clear()
    [error] = ask()["errors"]
    assert "It is not known whether create_project was stored" in error["message"]
    assert "Nothing" not in error["message"]

    def write() -> None:
        with database.write() as tx:
            tx.queued = True
            tx.calls.append(Call({}, {}))

    with pytest.raises(PerhapsStored, match="cannot be reached"):
        write()
    assert told == [(False, 0), (True, 0)]
    proxy.before = proxy.after = False
    with database.write() as tx:
        assert stored.count(tx, tables.project) == (when == "after")
    database.close()
    proxy.close()


def test_writers_take_turns_whatever_the_servers_default_is(url: str) -> None:
    """A picture that was taken before it was their turn would not show what was stored meanwhile."""
    defaults = quote_plus(r"-c default_transaction_isolation=repeatable\ read -c default_transaction_read_only=off")
    database = Database(f"{url}?options={defaults}")
    with database.write() as tx:
        assert tx.connection.exec_driver_sql("SHOW default_transaction_isolation").scalar_one() == "repeatable read"
        assert tx.connection.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "read committed"
    with database.read() as connection:
        assert connection.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "repeatable read"
    database.close()


def test_what_others_send_does_not_keep_a_backend_from_hearing_of_others(url: str) -> None:
    first, second = Database(url), Database(url)
    told: List[Any] = []
    first.listen(lambda *it: told.append(it))
    eventually(lambda: told)
    with second.write() as tx:
        for payload in ("", "no JSON", "5", "[1, 2]", "null", '{"a": 1}'):
            tx.connection.exec_driver_sql(f"NOTIFY {postgresql_server.CHANNEL}, '{payload}'")
        tx.queued = True
    eventually(lambda: told[1:])
    assert told == [(True, ["*"]), (True, [])]
    first.close()
    second.close()


def test_a_backend_that_cannot_hear_of_others_tries_again_and_says_so_once(
    url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_server, "PULSE", 0.01)
    database = Database(url)
    tries: List[int] = []

    def fail() -> None:
        tries.append(1)
        if len(tries) < 5:
            raise RuntimeError("as this test wants it")

    database.listen(lambda queued, news: fail())
    eventually(lambda: len(tries) == 5)
    assert len([each for each in caplog.records if each.levelname == "WARNING"]) == 1
    # what listened before is not among those that others use
    with ExitStack() as stack:
        for _ in range(6):
            connection = stack.enter_context(database.read())
            assert connection.exec_driver_sql("SELECT count(*) FROM pg_listening_channels()").scalar_one() == 0
    database.close()


@pytest.mark.usefixtures("cluster")
def test_a_server_that_is_away_is_told_of_once_and_heard_again(caplog: pytest.LogCaptureFixture) -> None:
    with Cluster() as cluster:
        database = Database(cluster.new_database())
        told: List[bool] = []
        database.listen(lambda *it: told.append(True))
        eventually(lambda: told)
        for times in (1, 2):
            cluster.stop()
            eventually(lambda times=times: caplog.text.count("are not heard of") == times)
            sleep(2)
            told.clear()
            cluster.start()
            eventually(lambda: told)
            assert caplog.text.count("are not heard of") == times
        database.close()


def test_a_database_that_does_not_answer_soon_is_not_well(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "HEALTHY", 0.3)
    with database.write() as tx:
        tx.connection.exec_driver_sql("LOCK TABLE tenant IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DatabaseUnusable, match=r"not read within 0\.3 s"):
            database.check()
    database.check()


def test_a_server_that_has_vanished_is_noticed_while_its_answer_is_waited_for(database: Database) -> None:
    with database.read() as connection:
        server: Any = connection.connection.driver_connection
        found = server.info.get_parameters()
    assert int(found["keepalives_idle"]) + int(found["keepalives_interval"]) * int(found["keepalives_count"]) <= 30


def test_a_statement_that_somebody_ends_is_told_so(database: Database) -> None:
    def write() -> None:
        with database.write() as tx:
            tx.connection.exec_driver_sql("SET LOCAL statement_timeout = 1; SELECT pg_sleep(10)")

    with pytest.raises(NotStored, match="its server has ended it"):
        write()
    # where there is no limit, it was not too late
    with pytest.raises(DBAPIError, match="canceling statement"), database.read() as connection:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 1; SELECT pg_sleep(10)")


def test_what_the_driver_refuses_is_no_fault_of_the_server(database: Database) -> None:
    with pytest.raises(DBAPIError, match="NUL"), database.write() as tx:
        tx.connection.exec_driver_sql("SELECT %s::text", ("\0",))


def test_a_service_ends_with_its_connection(
    database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And does not fail once more for each row."""

    def end(tx: Any, flow_id: str) -> None:
        tx.connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    monkeypatch.setattr(schedules, "schedule_flow_runs", end)
    with database.write() as tx:
        for name in ("a", "b", "c"):
            stored.flow_id(tx, name)
        tx.update(tables.flow, is_schedule_active=True, archived=False)
    with pytest.raises(NotStored, match="its server is stopping"), database.write() as tx:
        services.schedule(tx)
    assert "was left out" not in caplog.text


def read_in_small_steps(database: Database) -> None:
    with database.read(until=monotonic() + 0.3) as connection:
        for _ in range(1000):
            connection.execute(select(func.pg_sleep(0.01)))


def test_reading_that_takes_too_long_is_ended(database: Database) -> None:
    begun = monotonic()
    with pytest.raises(TookTooLong), database.read(until=monotonic() + 0.5) as connection:
        connection.execute(select(func.pg_sleep(30)))
    with pytest.raises(TookTooLong):
        read_in_small_steps(database)
    assert monotonic() - begun < 10
    # the connection is as good as new
    with database.read() as connection:
        connection.execute(select(func.pg_sleep(0.6)))


def test_what_postgresql_refuses_in_text_and_json_is_kept_as_question_marks(database: Database) -> None:
    message = "a\0b\udce9c \\u0000 ü"
    with database.write() as tx:
        run_id = stored.running(tx, parameters={"x": message, "y\0": [message]})
        logs.write_run_logs(tx, [{"flow_run_id": run_id, "message": message}])
        kept = "a?b?c \\u0000 ü"
        assert stored.rows(tx, tables.log)[0]["message"] == kept
        assert stored.flow_run(tx, run_id)["parameters"] == {"x": kept, "y?": [kept]}


def test_children_are_looked_for_by_an_index(database: Database) -> None:
    asked: List[Any] = []
    wanted = {"context": {"_contains": {children.LINEAGE: {"parent_flow_run_id": "x"}}}}
    with database.read() as connection:
        event.listen(connection, "before_cursor_execute", lambda _, cursor, *statement: asked.append(statement[:2]))
        reading.rows(connection, tables.flow_run, [], {"where": {"_or": [wanted, wanted]}})
        [(statement, values)] = asked
        # in a table that is empty it would not go by any
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        plan = connection.exec_driver_sql(f"EXPLAIN {statement}", values).scalars().all()
    assert [step for step in plan if "ix_flow_run_context" in step], plan
    assert not [step for step in plan if "Seq Scan" in step], plan
