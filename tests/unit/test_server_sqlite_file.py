"""The SQLite file: what is accepted, what it undoes by itself, and that a backend has it for itself."""

import os
import shutil
import sqlite3
import stat
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
import stored
from sqlalchemy import select

from prefect_taskrun_tasks.server import DatabaseUnusable, tables
from prefect_taskrun_tasks.server.database import Database
from prefect_taskrun_tasks.server.errors import NotInPlace, NotStored
from prefect_taskrun_tasks.server.reservation import InUse, Reservation
from prefect_taskrun_tasks.server.rules import tenants
from prefect_taskrun_tasks.server.transaction import Transaction


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'prefect.db'}")
    yield database
    database.close()


@pytest.mark.parametrize("url", ["mysql://host/db", "nonsense", "sqlite://", "sqlite:///:memory:", ""])
def test_a_url_that_names_no_sqlite_file_is_refused(url: str) -> None:
    with pytest.raises(DatabaseUnusable, match=r"sqlite:///prefect\.db"):
        Database(url)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but longer than the header of one " * 20)
    before = file.read_bytes()
    with pytest.raises(DatabaseUnusable, match=r"notes\.txt"):
        Database(f"sqlite:///{file}")
    assert file.read_bytes() == before


@pytest.mark.parametrize("version", [0, 1])
def test_the_database_of_another_program_is_left_as_it_is(tmp_path: Path, version: int) -> None:
    """Whatever number it has given to it."""
    file = tmp_path / "other.db"
    with closing(sqlite3.connect(file)) as other:
        other.executescript(f"CREATE TABLE other (title); PRAGMA user_version = {version}")
    before = file.read_bytes()
    with pytest.raises(DatabaseUnusable, match="another program"):
        Database(f"sqlite:///{file}")
    assert (file.read_bytes(), os.listdir(tmp_path)) == (before, ["other.db"])


def test_a_file_in_which_nothing_is_yet_is_left_as_it_is_where_one_must_exist(tmp_path: Path) -> None:
    file = tmp_path / "empty.db"
    file.touch()
    with pytest.raises(DatabaseUnusable, match="no backend's data"):
        Database(f"sqlite:///{file}", must_exist=True)
    assert file.read_bytes() == b""


def test_a_file_that_cannot_be_reserved_says_why(database: Database) -> None:
    os.mkdir(f"{database.store.path}-lock")
    with pytest.raises(DatabaseUnusable, match=r"cannot be reserved: .*directory"):
        database.reserve()


@pytest.mark.parametrize("length", [50, 4096, 20_000])
def test_a_file_whose_end_is_missing_is_refused_and_left_alone(tmp_path: Path, length: int) -> None:
    file = tmp_path / "cut.db"
    Database(f"sqlite:///{file}").close()
    os.truncate(file, length)
    before = file.read_bytes()
    with pytest.raises(DatabaseUnusable, match=r"cut\.db' cannot be used: database disk image is malformed"):
        Database(f"sqlite:///{file}")
    assert file.read_bytes() == before


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="folder"):
        Database(f"sqlite:///{tmp_path / 'nowhere' / 'prefect.db'}")


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


def test_a_file_that_one_backend_has_is_refused_to_another_until_it_is_closed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'prefect.db'}"
    first, second = Database(url), Database(url)
    first.reserve()
    with pytest.raises(DatabaseUnusable, match="in use by another backend"):
        second.reserve()
    first.close()
    second.reserve()
    second.close()


def replaced(path: str) -> None:
    os.rename(path, f"{path}-old")
    shutil.copy(f"{path}-old", path)


@pytest.mark.parametrize("harm", [os.remove, replaced])
def test_nothing_is_stored_in_a_file_that_was_deleted_or_replaced(database: Database, harm: Any) -> None:
    with database.write() as tx:
        tx.insert(tables.tenant, name="before", slug="before")
    harm(database.store.path)
    for _ in range(2):
        with pytest.raises(NotInPlace, match="Nothing is stored"), database.write() as tx:
            tx.insert(tables.tenant, name="after", slug="after")
    with pytest.raises(NotInPlace):
        database.check()


def test_nothing_is_stored_in_a_file_that_is_deleted_meanwhile(database: Database) -> None:
    def write() -> None:
        with database.write() as tx:
            tx.insert(tables.tenant, name="t", slug="t")
            os.remove(database.store.path)

    with pytest.raises(NotInPlace):
        write()


@pytest.mark.parametrize("way", ["hard link", "lock removed", "lock replaced"])
def test_no_trick_lets_a_second_backend_have_a_file(tmp_path: Path, way: str) -> None:
    first = Database(f"sqlite:///{tmp_path / 'prefect.db'}")
    first.reserve()
    path = tmp_path / "prefect.db"
    if way == "hard link":
        path = tmp_path / "other.db"
        os.link(first.store.path, path)
    else:
        os.remove(f"{path}-lock")
        if way == "lock replaced":
            Path(f"{path}-lock").touch()
    # SQLite itself opens a file by two names in two processes, but not in one
    second = Reservation(str(path))
    with pytest.raises(InUse):
        second.take()
    first.close()
    second.take()
    second.close()


def test_the_lock_file_is_the_owners_alone_and_no_link(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'prefect.db'}")
    lock = tmp_path / "prefect.db-lock"
    lock.touch(0o644)
    database.reserve()
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    database.close()
    lock.unlink()
    lock.symlink_to(tmp_path / "elsewhere")
    again = Database(f"sqlite:///{tmp_path / 'prefect.db'}")
    with pytest.raises(DatabaseUnusable, match="cannot be reserved"):
        again.reserve()
    again.close()
    assert not (tmp_path / "elsewhere").exists()
