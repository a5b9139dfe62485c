"""Deleting flow runs that ended long ago: which, all of them, and the space that they took."""

import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Iterator, List, Tuple

import pytest
import stored
from sqlalchemy import event

from prefect_taskrun_tasks.server import DatabaseUnusable, pruning, tables
from prefect_taskrun_tasks.server.clock import ago
from prefect_taskrun_tasks.server.database import Database
from prefect_taskrun_tasks.server.rules import artifacts, children, logs, tenants
from prefect_taskrun_tasks.server.transaction import Transaction

DAY = 86400


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "prefect.db"


@pytest.fixture
def in_file(file: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{file}")
    yield database
    database.close()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


def ended(tx: Transaction, days_ago: float, state: str = "Success", lines: int = 1) -> str:
    """A flow run with task runs and logs, whose last state is so old."""
    flows = stored.rows(tx, tables.flow)
    run_id = stored.flow_run_id(tx, flow_id=flows[0]["id"] if flows else stored.flow_id(tx))
    stored.set_state(tx, run_id, state)
    tx.update(tables.flow_run, tables.flow_run.c.id == run_id, state_timestamp=ago(days_ago * DAY))
    logs.write_run_logs(tx, [{"flow_run_id": run_id, "message": str(number)} for number in range(lines)])
    return run_id


def left(database: Database) -> List[str]:
    with database.write() as tx:
        return [row["id"] for row in stored.rows(tx, tables.flow_run)]


@pytest.mark.parametrize("state", ["Success", "Failed", "Cancelled", "Skipped", "TimedOut"])
def test_flow_runs_that_ended_before_are_deleted_and_those_after_stay(database: Database, state: str) -> None:
    with database.write() as tx:
        ended(tx, 31, state)
        young = ended(tx, 29, state)
    assert pruning.prune(database, ago(30 * DAY))["flow_run"] == 1
    assert left(database) == [young]


@pytest.mark.parametrize("state", ["Scheduled", "Submitted", "Running", "Retrying", "Paused", "Cancelling"])
def test_a_flow_run_that_has_not_ended_stays_however_old_it_is(database: Database, state: str) -> None:
    with database.write() as tx:
        run_id = ended(tx, 1000, state)
    assert pruning.prune(database, ago(30 * DAY)) == {}
    assert left(database) == [run_id]


def test_a_flow_run_that_was_cancelled_long_before_its_time_stays_until_then(database: Database) -> None:
    """Its schedule would ask for it again."""
    with database.write() as tx:
        off, over = ended(tx, 31, "Cancelled"), ended(tx, 31, "Cancelled")
        for run_id, start in ((off, ago(-DAY)), (over, ago(1))):
            tx.update(tables.flow_run, tables.flow_run.c.id == run_id, scheduled_start_time=start)
    assert pruning.prune(database, ago(30 * DAY))["flow_run"] == 1
    assert left(database) == [off]


@pytest.mark.parametrize(("parent_state", "days_ago"), [("Running", 40), ("Scheduled", 40), ("Failed", 29)])
def test_children_stay_for_as_long_as_their_parent(database: Database, parent_state: str, days_ago: float) -> None:
    with database.write() as tx:
        parent = ended(tx, days_ago, parent_state)
        child, other = ended(tx, 31), ended(tx, 31)
        for id, parent_id in ((child, parent), (other, "00000000-0000-4000-8000-000000000000")):
            context = {children.LINEAGE: {"parent_flow_run_id": parent_id}}
            tx.update(tables.flow_run, tables.flow_run.c.id == id, context=context)
    assert pruning.prune(database, ago(30 * DAY))["flow_run"] == 1
    assert left(database) == [parent, child]
    with database.write() as tx:
        stored.set_state(tx, parent, "Success")
        tx.update(tables.flow_run, tables.flow_run.c.id == parent, state_timestamp=ago(31 * DAY))
    assert pruning.prune(database, ago(30 * DAY))["flow_run"] == 2


OF_A_RUN = [
    tables.flow_run,
    tables.flow_run_state,
    tables.task_run,
    tables.task_run_state,
    tables.log,
    tables.task_run_artifact,
]


def test_all_that_a_flow_run_consists_of_goes_with_it_and_its_flow_stays(database: Database) -> None:
    with database.write() as tx:
        task_run = stored.task_runs(tx, ended(tx, 31))[0]["id"]
        artifacts.create_task_run_artifact(tx, task_run, "link", {"link": "x"})
        before = {table.name: stored.count(tx, table) for table in OF_A_RUN}
    assert all(before.values())
    deleted = pruning.prune(database, ago(30 * DAY))
    with database.write() as tx:
        assert {table.name: stored.count(tx, table) for table in OF_A_RUN} == dict.fromkeys(before, 0)
        assert stored.count(tx, tables.flow) == stored.count(tx, tables.project) == 1
        assert stored.count(tx, tables.task) == 2
    # artifacts go with their task runs
    del before["task_run_artifact"]
    assert deleted == before


def test_what_would_be_deleted_is_counted_and_stays(database: Database) -> None:
    with database.write() as tx:
        ended(tx, 31, lines=3)
        ended(tx, 29)
    with database.read() as connection:
        counted = pruning.count(connection, ago(30 * DAY))
    assert len(left(database)) == 2
    assert counted["log"] == 3
    assert counted == pruning.prune(database, ago(30 * DAY))


def test_many_rows_are_deleted_in_transactions_of_a_few(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "CHUNK", 10)
    monkeypatch.setattr(pruning, "BATCH", 3)
    with database.write() as tx:
        for _ in range(8):
            ended(tx, 31, lines=25)
    deleted: List[Tuple[str, int]] = []
    event.listen(
        database.store.engine,
        "after_cursor_execute",
        lambda connection, cursor, statement, *rest: deleted.append((statement, cursor.rowcount)),
    )
    commits: List[Any] = []
    event.listen(database.store.engine, "commit", commits.append)
    done: List[Tuple[int, int]] = []
    assert pruning.prune(database, ago(30 * DAY), lambda *so_far: done.append(so_far))["log"] == 200
    sizes = [rows for statement, rows in deleted if statement.startswith("DELETE")]
    assert max(sizes) == 10
    # and the one in which it was asked what is old
    assert len(commits) == len(sizes) + 1
    assert done == [(0, 8), (3, 8), (6, 8), (8, 8)]
    assert left(database) == []


def test_a_flow_run_that_is_started_again_meanwhile_stays(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "BATCH", 1)
    with database.write() as tx:
        ended(tx, 32)
        second = ended(tx, 31)

    def restart(done: int, total: int) -> None:
        if done == 1:
            with database.write() as tx:
                stored.set_state(tx, second, "Scheduled")

    assert pruning.prune(database, ago(30 * DAY), restart)["flow_run"] == 1
    assert left(database) == [second]
    with database.write() as tx:
        assert stored.count(tx, tables.log) == 1


def test_others_write_while_it_deletes(database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other has locks of its own, as another process has: so the database decides whose turn it is."""
    monkeypatch.setattr(pruning, "CHUNK", 50)
    with database.write() as tx:
        for _ in range(20):
            ended(tx, 31, lines=200)
    other = Database(database_url)
    deleting = threading.Thread(target=pruning.prune, args=[database, ago(30 * DAY)])
    deleting.start()
    written = 0
    while deleting.is_alive():
        with other.write() as tx:
            tenants.create_project(tx, stored.tenant_id(tx), f"meanwhile {written}")
        written += 1
        # as between two requests
        time.sleep(0.005)
    deleting.join()
    other.close()
    assert written > 5
    assert left(database) == []


def fill(database: Database) -> None:
    with database.write() as tx:
        run_id = ended(tx, 31)
        logs.write_run_logs(tx, [{"flow_run_id": run_id, "message": "x" * 1000}] * 5000)


def test_space_is_given_back_beside_a_backend(file: Path, in_file: Database) -> None:
    in_file.reserve()
    other = Database(f"sqlite:///{file}")
    fill(in_file)
    other.store.checkpoint()
    full = file.stat().st_size
    pruning.prune(other, ago(30 * DAY))
    assert other.store.give_back()
    assert file.stat().st_size < full / 4
    assert other.store.size() == file.stat().st_size
    other.close()


#: Holds the lock of those who move what was written into the file: the byte of that name in SQLite's WAL-index
CHECKPOINTING = """
import fcntl, sys, time
with open(sys.argv[1], "rb+") as index:
    fcntl.lockf(index, fcntl.LOCK_EX, 1, 121)
    print("locked", flush=True)
    time.sleep(0.5)
"""


def test_space_is_given_back_when_somebody_else_is_about_the_same(file: Path, in_file: Database) -> None:
    fill(in_file)
    in_file.store.checkpoint()
    full = file.stat().st_size
    pruning.prune(in_file, ago(30 * DAY))
    command = [sys.executable, "-c", CHECKPOINTING, f"{file}-shm"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        assert in_file.store.give_back()
    assert in_file.store.size() == file.stat().st_size < full / 4


def as_made_by_an_early_version(file: Path) -> None:
    with sqlite3.connect(file, isolation_level=None) as connection:
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("VACUUM")
    connection.close()


def test_a_file_of_an_early_version_is_written_anew_unless_a_backend_has_it(file: Path, in_file: Database) -> None:
    in_file.close()
    as_made_by_an_early_version(file)
    fill(in_file)
    pruning.prune(in_file, ago(30 * DAY))
    in_file.store.checkpoint()
    full = file.stat().st_size
    backend = Database(f"sqlite:///{file}")
    backend.reserve()
    assert not in_file.store.give_back()
    assert file.stat().st_size == full
    backend.close()
    assert in_file.store.give_back()
    assert file.stat().st_size < full / 4
    assert in_file.store._pragma("auto_vacuum") == 2
    # it is for a backend again
    in_file.reserve()


def test_a_database_that_is_not_there_is_not_made(file: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="There is no database"):
        Database(f"sqlite:///{file}", must_exist=True)
    assert not file.exists()
