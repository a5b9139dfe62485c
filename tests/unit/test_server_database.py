"""The SQLite file: what is accepted, what a transaction keeps, and what hangs on what."""

import sqlite3
import threading
from contextlib import suppress
from pathlib import Path
from typing import Callable, Iterator

import pytest
import stored
from sqlalchemy import UniqueConstraint, create_engine, select

from prefect_taskrun_tasks.server import Backend, DatabaseUnusable, tables
from prefect_taskrun_tasks.server.database import SCHEMA_VERSION, Database, NotStored, Transaction
from prefect_taskrun_tasks.server.errors import Refused
from prefect_taskrun_tasks.server.rules import artifacts, flow_runs, flows, logs, tenants


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'prefect.db'}")
    yield database
    database.close()


def test_a_new_database_has_a_default_tenant(database: Database) -> None:
    with database.write() as tx:
        assert [row["slug"] for row in stored.rows(tx, tables.tenant)] == ["default"]


def test_what_was_stored_is_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'prefect.db'}"
    first = Database(url)
    with first.write() as tx:
        stored.flow_run_id(tx)
    first.close()
    again = Database(url)
    with again.write() as tx:
        assert stored.count(tx, tables.flow_run) == stored.count(tx, tables.tenant) == 1
    again.close()


@pytest.mark.parametrize("url", ["postgresql://host/db", "nonsense", "sqlite://", "sqlite:///:memory:", ""])
def test_a_url_that_names_no_sqlite_file_is_refused(url: str) -> None:
    with pytest.raises(DatabaseUnusable, match=r"sqlite:///prefect\.db"):
        Database(url)


def test_the_password_of_a_refused_url_is_not_shown() -> None:
    with pytest.raises(DatabaseUnusable) as caught:
        Database("postgresql://user:secret@host/db")
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but longer than the header of one " * 20)
    before = file.read_bytes()
    with pytest.raises(DatabaseUnusable, match=r"notes\.txt"):
        Database(f"sqlite:///{file}")
    assert file.read_bytes() == before


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="folder"):
        Database(f"sqlite:///{tmp_path / 'nowhere' / 'prefect.db'}")


def test_the_database_of_another_program_is_refused_and_gets_no_tables(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE project (title TEXT)")
    with pytest.raises(DatabaseUnusable, match="another program"):
        Database(f"sqlite:///{file}")
    with sqlite3.connect(file) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("project",)]


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "prefect.db"
    Database(f"sqlite:///{file}").close()
    with sqlite3.connect(file) as other:
        other.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(DatabaseUnusable, match="Update prefect-taskrun-tasks"):
        Database(f"sqlite:///{file}")


def test_a_backend_that_cannot_open_its_database_gives_its_port_back(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable):
        Backend(f"sqlite:///{tmp_path / 'nowhere' / 'prefect.db'}", port=0)


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


def test_a_write_transaction_keeps_other_writers_out_from_its_beginning(tmp_path: Path) -> None:
    """One that began to write only after it has read would be refused if another wrote in between."""
    file = tmp_path / "prefect.db"
    database = Database(f"sqlite:///{file}")
    other = sqlite3.connect(file, timeout=0, isolation_level=None)
    with database.write(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    other.close()
    database.close()


def test_what_sqlite_has_undone_by_itself_is_not_taken_for_stored(database: Database) -> None:
    """A rule that goes on without one of its parts must not lose all others, nor store what comes after it."""

    def rule(tx: Transaction) -> None:
        with suppress(Exception), tx.attempt():
            _write_too_much(tx)
        with suppress(Exception):
            tenants.create_project(tx, stored.tenant_id(tx), "after")

    _assert_not_stored(database, rule, "undone")


def test_a_part_that_fails_for_want_of_room_undoes_all(database: Database) -> None:
    _assert_not_stored(database, _write_too_much, "full")


def _write_too_much(tx: Transaction) -> None:
    project_id = stored.project_id(tx)
    pages = tx.connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    tx.connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 5}")
    tx.update(tables.project, tables.project.c.id == project_id, description="x" * 1_000_000)


def _assert_not_stored(database: Database, rule: Callable[[Transaction], None], reason: str) -> None:
    def write() -> None:
        with database.write() as tx:
            tenants.create_project(tx, stored.tenant_id(tx), "first")
            rule(tx)

    with pytest.raises(NotStored, match=reason):
        write()
    with database.read() as connection:
        assert connection.execute(select(tables.project)).all() == []


def test_writers_of_two_databases_on_one_file_take_turns(tmp_path: Path) -> None:
    """Each has a lock of its own, so that here SQLite's decides."""
    url = f"sqlite:///{tmp_path / 'prefect.db'}"
    databases = [Database(url), Database(url)]

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


def test_a_file_that_lacks_tables_gets_them_and_keeps_what_it_has(tmp_path: Path) -> None:
    """As one that a backend made which had no cloud hooks yet."""
    later = {tables.cloud_hook, tables.message}
    file = tmp_path / "earlier.db"
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        tables.metadata.create_all(connection, [each for each in tables.metadata.sorted_tables if each not in later])
        connection.exec_driver_sql("PRAGMA user_version = 1")
        connection.execute(tables.tenant.insert().values(id=tables.new_id(), name="mine", slug="mine"))
    engine.dispose()
    for _ in range(2):
        database = Database(f"sqlite:///{file}")
        with database.write() as tx:
            assert [row["slug"] for row in stored.rows(tx, tables.tenant)] == ["mine"]
            assert [stored.count(tx, each) for each in (tables.cloud_hook, tables.message)] == [0, 0]
            stored.running(tx)
        database.close()


def test_a_file_that_lacks_an_index_gets_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'earlier.db'}"
    database = Database(url)
    with database.write() as tx:
        tx.connection.exec_driver_sql("DROP INDEX ix_flow_run_updated")
    database.close()
    database = Database(url)
    with database.read() as connection:
        query = "SELECT count(*) FROM sqlite_master WHERE name = 'ix_flow_run_updated'"
        assert connection.exec_driver_sql(query).scalar_one() == 1
    database.close()


def test_text_that_is_no_unicode_is_stored_with_question_marks(database: Database) -> None:
    with database.write() as tx:
        tenants.create_project(tx, stored.tenant_id(tx), "caf\udce9")
        assert stored.rows(tx, tables.project)[0]["name"] == "caf?"


def test_a_file_that_one_backend_has_is_refused_to_another_until_it_is_closed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'prefect.db'}"
    first, second = Database(url), Database(url)
    first.reserve()
    with pytest.raises(DatabaseUnusable, match="in use by another backend"):
        second.reserve()
    first.close()
    second.reserve()
    second.close()
