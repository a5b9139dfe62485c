"""Databases of every kind: what a transaction keeps, and what hangs on what."""

import threading
from pathlib import Path
from typing import Iterator, List

import pytest
import stored
from sqlalchemy import UniqueConstraint, select, text
from sqlalchemy.exc import DBAPIError

from prefect_taskrun_tasks.server import Backend, DatabaseUnusable, tables
from prefect_taskrun_tasks.server.database import Database
from prefect_taskrun_tasks.server.errors import Refused
from prefect_taskrun_tasks.server.rules import artifacts, flow_runs, flows, logs, tenants


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


def test_a_new_database_has_a_default_tenant(database: Database) -> None:
    with database.write() as tx:
        assert [row["slug"] for row in stored.rows(tx, tables.tenant)] == ["default"]


def test_what_was_stored_is_there_when_it_is_opened_again(database_url: str) -> None:
    first = Database(database_url)
    with first.write() as tx:
        stored.flow_run_id(tx)
    first.close()
    again = Database(database_url)
    with again.write() as tx:
        assert stored.count(tx, tables.flow_run) == stored.count(tx, tables.tenant) == 1
    again.close()


def test_a_backend_that_cannot_open_its_database_gives_its_port_back(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable):
        Backend(f"sqlite:///{tmp_path / 'nowhere' / 'prefect.db'}", port=0)


def test_a_backend_that_may_not_have_its_database_closes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Database(f"sqlite:///{tmp_path / 'prefect.db'}")
    first.reserve()
    closed: List[str] = []
    close = Database.close

    def note(database: Database) -> None:
        closed.append(database.store.name)
        close(database)

    monkeypatch.setattr(Database, "close", note)
    with pytest.raises(DatabaseUnusable, match="in use"):
        Backend(f"sqlite:///{tmp_path / 'prefect.db'}", port=0)
    assert closed == [first.store.name]
    first.close()


def test_what_is_given_is_not_in_errors(database: Database) -> None:
    """They are logged."""
    with pytest.raises(DBAPIError, match="nowhere") as caught, database.write() as tx:
        tx.connection.execute(text("SELECT x FROM nowhere WHERE x = :x"), {"x": "a secret"})
    assert "a secret" not in str(caught.value)


def test_a_transaction_that_raises_stores_nothing(database: Database) -> None:
    def fail() -> None:
        with database.write() as tx:
            stored.flow_run_id(tx)
            tenants.create_project(tx, stored.tenant_id(tx), "project")

    with pytest.raises(Refused):
        fail()
    with database.write() as tx:
        assert stored.count(tx, tables.project) == stored.count(tx, tables.flow_run) == 0


def test_a_reader_sees_one_moment_while_others_write(database: Database) -> None:
    with database.read() as connection:
        before = connection.execute(select(tables.project)).all()
        with database.write() as tx:
            stored.project_id(tx)
        assert connection.execute(select(tables.project)).all() == before == []


def test_a_reader_does_not_wait_for_a_writer(database: Database) -> None:
    with database.write() as tx:
        stored.project_id(tx)
        with database.read() as connection:
            assert connection.execute(select(tables.project)).all() == []


def test_writers_of_two_backends_take_turns(database_url: str) -> None:
    """A transaction that has read a number finds it unchanged when it writes."""
    databases = [Database(database_url), Database(database_url)]

    def write(database: Database) -> None:
        for number in range(5):
            with database.write() as tx:
                found = len(stored.rows(tx, tables.project))
                tenants.create_project(tx, stored.tenant_id(tx), f"{id(database)}-{number}-{found}")

    threads = [threading.Thread(target=write, args=[database]) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with databases[0].write() as tx:
        assert stored.count(tx, tables.project) == 10
    for database in databases:
        database.close()


ALL_OF_A_FLOW = [
    tables.flow,
    tables.task,
    tables.edge,
    tables.flow_run,
    tables.flow_run_state,
    tables.task_run,
    tables.task_run_state,
    tables.log,
    tables.task_run_artifact,
]


@pytest.mark.parametrize("deleted", ["project", "flow", "flow_run"])
def test_deleting_takes_all_that_hangs_on_it(database: Database, deleted: str) -> None:
    """T40."""
    with database.write() as tx:
        edge = {"upstream_task": {"slug": "a"}, "downstream_task": {"slug": "b"}, "key": "x"}
        flow_id = stored.flow_id(tx, edges=[edge])
        run_id = stored.flow_run_id(tx, flow_id=flow_id)
        task_run_id = stored.task_runs(tx, run_id)[0]["id"]
        logs.write_run_logs(tx, [{"flow_run_id": run_id, "task_run_id": task_run_id, "message": "here"}])
        artifacts.create_task_run_artifact(tx, task_run_id, "link", {"link": "x"})
        assert all(stored.count(tx, table) for table in ALL_OF_A_FLOW)
        if deleted == "project":
            tenants.delete_project(tx, stored.project_id(tx))
        elif deleted == "flow":
            flows.delete_flow(tx, flow_id)
        else:
            flow_runs.delete_flow_run(tx, run_id)
        kept = ALL_OF_A_FLOW[:3] if deleted == "flow_run" else []
        assert [table.name for table in ALL_OF_A_FLOW if stored.count(tx, table)] == [table.name for table in kept]
        assert stored.count(tx, tables.flow_group) == 1


@pytest.mark.parametrize("delete", [flows.delete_flow, flow_runs.delete_flow_run, tenants.delete_project])
def test_deleting_what_is_not_there_succeeds_not(database: Database, delete: object) -> None:
    with database.write() as tx:
        stored.flow_run_id(tx)
        assert delete(tx, tables.new_id()) == {"success": False}  # type: ignore[operator]
        assert stored.count(tx, tables.flow_run) == 1


def test_every_foreign_key_is_the_beginning_of_an_index() -> None:
    """T40: a cascade looks for children by them. Only a tenant, of which there is one, is looked for in all rows."""
    for table in tables.metadata.tables.values():
        first = {next(iter(index.columns)).name for index in table.indexes}
        first |= {next(iter(each.columns)).name for each in table.constraints if isinstance(each, UniqueConstraint)}
        keys = {column.name for column in table.c if column.foreign_keys} - {"tenant_id"}
        assert keys <= first, table.name


def test_text_that_is_no_unicode_is_stored_with_question_marks(database: Database) -> None:
    with database.write() as tx:
        tenants.create_project(tx, stored.tenant_id(tx), "caf\udce9")
        assert stored.rows(tx, tables.project)[0]["name"] == "caf?"
