"""Versions of the tables: from nothing and from the first version to what the metadata says, or not at all."""

import sqlite3
import warnings
from pathlib import Path
from threading import Thread
from typing import Any, List

import pytest
import stored
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from cluster import Cluster
from sqlalchemy import Connection, column, create_engine, inspect, select, table, text, update

from prefect_taskrun_tasks.server import DatabaseUnusable, migrations, postgresql_server, reading, sqlite_file, tables
from prefect_taskrun_tasks.server.database import Database
from prefect_taskrun_tasks.server.rules import children, cloud_hooks

#: What the first version of this package stored: a flow of two tasks, and a run of it
FIRST = Path(__file__).with_name("first_version.sql").read_text(encoding="utf-8")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "prefect.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, file: Path) -> str:
    """The URL of a database in which there is nothing yet."""
    if request.param == "postgresql":
        cluster: Cluster = request.getfixturevalue("cluster")
        return cluster.new_database()
    return f"sqlite:///{file}"


def as_first_made(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.executescript(FIRST)
        connection.execute("PRAGMA user_version = 1")
    connection.close()


#: Of one kind of database each, where a test asks for a plan with it
OF_ONE_KIND = {"ix_flow_run_parent", "ix_flow_run_context"}


def differences(database: Database) -> Any:
    """Between the tables that are there and those of the metadata."""
    options = {
        "version_table": migrations.VERSION_TABLE,
        "compare_type": False,
        "include_object": lambda it, name, *rest: name not in OF_ONE_KIND,
    }
    with database.read() as connection, warnings.catch_warnings():
        # of an index that is an expression
        warnings.simplefilter("ignore")
        return compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata)


def indexes(database: Database) -> "set[str]":
    with database.read() as connection:
        return set(connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE type = 'index'").scalars())


def test_a_new_database_has_what_the_metadata_says(empty_url: str) -> None:
    database = Database(empty_url)
    assert differences(database) == []
    database.close()


def test_the_newest_version_is_the_last_file() -> None:
    files = sorted(Path(migrations.__file__).parent.glob("versions/[0-9]*.py"))
    assert files[0].name.startswith(migrations.FIRST)
    assert files[-1].name.startswith(migrations.NEWEST)


def test_a_file_of_the_first_version_becomes_like_a_new_one_and_keeps_what_it_has(file: Path) -> None:
    as_first_made(file)
    database = Database(f"sqlite:///{file}")
    assert differences(database) == []
    new = Database(f"sqlite:///{file.with_name('new.db')}")
    assert indexes(database) == indexes(new)
    with database.read() as connection:
        lineage = {children.LINEAGE: {"parent_flow_run_id": "11111111-1111-4111-8111-111111111111"}}
        [run] = reading.rows(connection, tables.flow_run, [], {"where": {"context": {"_contains": lineage}}})
    with database.write() as tx:
        [run] = stored.rows(tx, tables.flow_run)
        assert (run["name"], run["state"]) == ("first run", "Running")
        assert [each["state"] for each in stored.task_runs(tx, run["id"])] == ["Success", "Success"]
        assert stored.history(tx, run["id"]) == ["Scheduled", "Running"]
        assert stored.count(tx, tables.log) == stored.count(tx, tables.tenant) == stored.count(tx, tables.edge) == 1
        # and is worked with
        stored.set_state(tx, run["id"], "Success")
        cloud_hooks.create_cloud_hook(
            tx, stored.tenant_id(tx), type="WEBHOOK", states=["Failed"], config={"url": "http://127.0.0.1"}
        )
    database.close()
    new.close()


def test_a_file_between_the_first_version_and_the_second_gets_what_it_lacks(file: Path) -> None:
    """They had the first one's number, and got tables and indexes one by one."""
    as_first_made(file)
    with sqlite3.connect(file) as connection:
        connection.execute("DROP INDEX ix_log_flow_run_id")
        connection.execute("CREATE INDEX ix_task_run_page ON task_run (flow_run_id, id)")
        connection.execute("CREATE INDEX ix_flow_run_updated ON flow_run (updated)")
        connection.execute("CREATE INDEX ix_task_run_updated ON task_run (flow_run_id, updated)")
        connection.execute("CREATE INDEX ix_log_updated ON log (flow_run_id, updated)")
    connection.close()
    for _ in range(2):
        database = Database(f"sqlite:///{file}")
        assert differences(database) == []
        database.close()


def test_an_upgrade_that_fails_half_way_changes_nothing(file: Path) -> None:
    as_first_made(file)
    with sqlite3.connect(file) as connection:
        # in the way of the last thing that it does
        connection.execute("CREATE TABLE message (id TEXT)")
        connection.execute("CREATE TABLE ix_task_run_updated (id TEXT)")
        before = list(connection.iterdump())
    connection.close()
    with pytest.raises(DatabaseUnusable, match="ix_task_run_updated"):
        Database(f"sqlite:///{file}")
    with sqlite3.connect(file) as connection:
        assert list(connection.iterdump()) == before
    connection.close()


def test_an_upgrade_that_sqlite_has_undone_by_itself_is_told_of(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def undone(connection: Connection, *rest: Any) -> bool:
        assert connection.connection.driver_connection is not None
        connection.connection.driver_connection.rollback()
        return False

    monkeypatch.setattr(migrations, "upgrade", undone)
    with pytest.raises(DatabaseUnusable, match="the transaction was undone"):
        Database(f"sqlite:///{file}")


def test_a_database_of_a_newer_version_is_refused(empty_url: str) -> None:
    database = Database(empty_url)
    with database.write() as tx:
        tx.connection.execute(update(table(migrations.VERSION_TABLE, column("version_num"))).values(version_num="9999"))
    database.close()
    with pytest.raises(DatabaseUnusable, match=r"schema version 9999.*Update prefect-taskrun-tasks"):
        Database(empty_url)


def test_a_version_that_makes_no_sense_is_told_of(file: Path) -> None:
    as_first_made(file)
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE prefect_taskrun_version (version_num TEXT)")
        connection.execute("INSERT INTO prefect_taskrun_version VALUES ('0001'), ('9999')")
    connection.close()
    with pytest.raises(DatabaseUnusable, match=r"prefect\.db' cannot be upgraded: .*9999"):
        Database(f"sqlite:///{file}")


def test_a_database_is_opened_also_while_others_write(database_url: str) -> None:
    first = Database(database_url)
    with first.write() as tx:
        stored.project_id(tx)
        Database(database_url).close()
    first.close()


def test_a_database_that_others_keep_from_being_upgraded_is_told_as_locked(
    file: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "PATIENCE", 0.2)
    monkeypatch.setattr(postgresql_server, "PATIENCE", 1)
    as_first_made(file)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnusable, match=r"locked.*try again when it is done"):
        Database(f"sqlite:///{file}")
    other.close()

    url = cluster.new_database()
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({postgresql_server.WRITER})")
        with pytest.raises(DatabaseUnusable, match=r"lock.*try again when it is done"):
            Database(url)
    engine.dispose()


def test_the_database_of_another_program_is_refused_and_gets_no_tables(empty_url: str) -> None:
    engine = create_engine(empty_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE project (title TEXT)"))
    with pytest.raises(DatabaseUnusable, match="another program"):
        Database(empty_url)
    assert inspect(engine).get_table_names() == ["project"]
    engine.dispose()


def test_two_that_make_the_same_database_at_once_make_it_once(empty_url: str) -> None:
    made: List[Database] = []
    threads = [Thread(target=lambda: made.append(Database(empty_url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4
    with made[0].read() as connection:
        assert len(connection.execute(select(tables.tenant)).all()) == 1
    for database in made:
        database.close()


def test_several_databases_can_be_made_at_once(tmp_path: Path) -> None:
    """What makes them is one thing for the whole process."""
    urls = [f"sqlite:///{tmp_path / str(number)}.db" for number in range(8)]
    made: List[Database] = []
    threads = [Thread(target=lambda url=url: made.append(Database(url))) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == len(urls)
    for database in made:
        assert differences(database) == []
        database.close()


def test_a_database_in_which_nothing_is_yet_is_not_made_where_one_must_exist(empty_url: str, file: Path) -> None:
    if empty_url.startswith("sqlite"):
        file.touch()
    with pytest.raises(DatabaseUnusable, match="There is no backend's data"):
        Database(empty_url, must_exist=True)
