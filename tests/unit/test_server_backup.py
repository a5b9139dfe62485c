"""A copy of the database: of one moment, as a whole or not at all."""

import os
import sqlite3
import threading
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest
import stored

from prefect_taskrun_tasks.server import sqlite_file, tables
from prefect_taskrun_tasks.server.backup import BackupFailed, backup
from prefect_taskrun_tasks.server.database import Database
from prefect_taskrun_tasks.server.rules import logs, tenants


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'prefect.db'}")
    yield database
    database.close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "backups"
    folder.mkdir()
    return folder / "copy.db"


def projects(file: Path) -> List[str]:
    copy = Database(f"sqlite:///{file}", must_exist=True)
    with copy.write() as tx:
        found = [row["name"] for row in stored.rows(tx, tables.project)]
    copy.close()
    return found


def create(database: Database, name: str) -> None:
    with database.write() as tx:
        tenants.create_project(tx, stored.tenant_id(tx), name)


def test_a_copy_is_a_database_with_all_that_was_stored(database: Database, target: Path) -> None:
    create(database, "kept")
    backup(database, target)
    create(database, "later")
    assert list(target.parent.iterdir()) == [target]
    assert target.stat().st_mode & 0o077 == 0
    assert projects(target) == ["kept"]


def test_a_copy_is_of_one_moment_while_others_write(
    database: Database, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each writes a project and a log, which a copy of several moments would tear apart, and none is waited for."""
    monkeypatch.setattr(sqlite_file, "PAGES", 1)
    with database.write() as tx:
        run_id = stored.flow_run_id(tx)
        logs.write_run_logs(tx, [{"flow_run_id": run_id, "message": "x" * 1000}] * 3000)
    other = Database(f"sqlite:///{database.store.path}")
    steps: List[Tuple[int, int]] = []

    def write(done: int, total: int) -> None:
        steps.append((done, total))
        # not for ever: a copy that is begun anew each time would never end
        if len(steps) % 100 == 0 and len(steps) <= 1000:
            with other.write() as tx:
                tenants.create_project(tx, stored.tenant_id(tx), f"meanwhile {len(steps)}")
                logs.write_run_logs(tx, [{"flow_run_id": run_id, "message": "y" * 1000}])

    backup(database, target, report=write)
    other.close()
    # it was not begun anew
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})
    assert projects(target) == ["project"]
    assert len(projects(Path(database.store.path))) > 5
    with sqlite3.connect(target) as copy:
        assert copy.execute("SELECT count(*) FROM log").fetchone() == (3000,)
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_writers_do_not_wait_for_a_copy(database: Database, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "PAGES", 1)
    is_copying, may_end = threading.Event(), threading.Event()

    def wait(done: int, total: int) -> None:
        is_copying.set()
        assert may_end.wait(20)

    copying = threading.Thread(target=backup, args=[database, target], kwargs={"report": wait})
    copying.start()
    assert is_copying.wait(20)
    create(database, "meanwhile")
    may_end.set()
    copying.join()
    assert projects(target) == []


def test_a_file_that_is_there_stays_unless_it_may_be_overwritten(database: Database, target: Path) -> None:
    target.write_text("precious")
    with pytest.raises(BackupFailed, match="--force"):
        backup(database, target)
    assert target.read_text() == "precious"
    create(database, "kept")
    backup(database, target, overwrite=True)
    assert projects(target) == ["kept"]


def test_the_database_itself_is_never_overwritten(database: Database, tmp_path: Path) -> None:
    create(database, "kept")
    link = tmp_path / "link.db"
    link.symlink_to(database.store.path)
    parts = [Path(f"{database.store.path}-{end}") for end in ("journal", "lock", "shm", "wal")]
    through_a_link = tmp_path / "link" / "prefect.db-wal"
    through_a_link.parent.symlink_to(tmp_path)
    for file in (Path(database.store.path), link, *parts, through_a_link):
        with pytest.raises(BackupFailed, match="the database itself"):
            backup(database, file, overwrite=True)
    assert projects(Path(database.store.path)) == ["kept"]


def test_a_database_in_use_is_not_overwritten(database: Database, target: Path) -> None:
    """What its -wal file holds would be taken for a part of the copy."""
    used = Database(f"sqlite:///{target}")
    create(used, "of another")
    with pytest.raises(BackupFailed, match="in use"):
        backup(database, target, overwrite=True)
    used.close()
    assert projects(target) == ["of another"]


def test_a_copy_that_fails_half_way_leaves_nothing(
    database: Database, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "PAGES", 1)
    target.write_text("precious")

    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup(database, target, overwrite=True, report=fail)
    assert list(target.parent.iterdir()) == [target]
    assert target.read_text() == "precious"


def test_a_place_that_cannot_be_written_is_named(database: Database, target: Path) -> None:
    for file in (target.parent / "nowhere" / "copy.db", target.parent):
        with pytest.raises(BackupFailed, match=str(file)):
            backup(database, file)
    assert os.listdir(target.parent) == []
