"""``prefect-taskrun server prune`` and ``backup``, beside a backend and by themselves."""

import re
import sqlite3
import threading
from pathlib import Path
from typing import Any, List

import command
import pytest
import requests
from click.testing import CliRunner
from processes import ended

from prefect_taskrun_tasks.cli import main
from prefect_taskrun_tasks.server import Backend, pruning, tables
from prefect_taskrun_tasks.server.clock import ago
from prefect_taskrun_tasks.server.database import Database
from prefect_taskrun_tasks.server.rules import flow_runs, flows, logs, states, tenants
from prefect_taskrun_tasks.server.sqlite_file import SqliteFile

DAY = 86400


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database with ten flow runs that ended 31 days ago, and two that ended 29 days ago."""
    file = tmp_path / "prefect.db"
    database = Database(f"sqlite:///{file}")
    with database.write() as tx:
        [tenant] = tx.rows(tables.tenant.select())
        project_id = tenants.create_project(tx, tenant["id"], "p")["id"]
        flow = {"name": "f", "tasks": [{"slug": "a", "name": "a"}, {"slug": "b", "name": "b"}]}
        flow_id = flows.create_flow(tx, flow, project_id=project_id)["id"]
        for number in range(12):
            run_id = flow_runs.create_flow_run(tx, flow_id=flow_id)["id"]
            states.set_flow_run_states(tx, [{"flow_run_id": run_id, "state": {"type": "Success"}}])
            then = ago((31 if number < 10 else 29) * DAY)
            tx.update(tables.flow_run, tables.flow_run.c.id == run_id, state_timestamp=then)
            logs.write_run_logs(tx, [{"flow_run_id": run_id, "message": "x" * 1000}] * 500)
    database.close()
    return file


def server(subcommand: str, *arguments: Any) -> command.Ended:
    return command.ended("server", subcommand, *arguments)


def prune(file: Path, *arguments: str) -> str:
    code, output, errors = server("prune", "--older-than", "30d", "--database-url", f"sqlite:///{file}", *arguments)
    assert (code, errors) == (0, "")
    return output


def count(file: Path, table: str) -> int:
    connection = sqlite3.connect(file)
    (found,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
    connection.close()
    return int(found)


def test_prune_says_what_it_would_delete_and_then_deletes_that(file: Path) -> None:
    what = "10 flow runs with 20 task runs, 40 states and 5,000 lines of logs"
    assert prune(file, "--dry-run").startswith(f"Would delete {what}, ended before ")
    assert count(file, "flow_run") == 12
    before = file.stat().st_size
    output = prune(file)
    assert output.startswith(f"Deleted {what}, ended before ")
    assert count(file, "flow_run") == 2
    assert file.stat().st_size < before / 2
    assert f"has {file.stat().st_size / 1e6:,.1f} MB, before it had {before / 1e6:,.1f} MB" in output
    assert prune(file).startswith("Deleted 0 flow runs")


def test_a_backend_goes_on_serving_while_prune_and_backup_work_on_its_database(file: Path, tmp_path: Path) -> None:
    failures: List[str] = []
    served = 0
    is_over = threading.Event()

    def use(url: str) -> None:
        nonlocal served
        while not is_over.is_set():
            name = f"meanwhile-{served}"
            query = f'mutation {{ create_tenant(input: {{name: "{name}", slug: "{name}"}}) {{ id }} }}'
            for each in (query, "{ flow_run { id logs { id } } }"):
                answer = requests.post(url, json={"query": each}, timeout=20)
                if not answer.ok or "errors" in answer.json():
                    failures.append(answer.text)
            served += 1

    with Backend(f"sqlite:///{file}", port=0) as backend:
        user = threading.Thread(target=use, args=[backend.url])
        user.start()
        copy = tmp_path / "copy.db"
        before = file.stat().st_size
        for arguments in (("backup", copy), ("prune", "--older-than", "30d")):
            process = ended("prefect-taskrun", "server", *arguments, "--database-url", f"sqlite:///{file}")
            assert (process.returncode, process.stderr) == (0, "")
        is_over.set()
        user.join()
        # without that the backend has been stopped
        assert file.stat().st_size < before / 2
    assert failures == []
    assert served > 3
    assert (count(copy, "flow_run"), count(file, "flow_run")) == (12, 2)


@pytest.mark.parametrize("age", ["30", "d", "-1d", "30y", "1.5d", "forever"])
def test_an_age_that_is_none_is_refused(file: Path, age: str) -> None:
    code, _, errors = server("prune", "--older-than", age, "--database-url", f"sqlite:///{file}")
    assert (code, "--older-than" in errors) == (2, True)
    assert count(file, "flow_run") == 12


def test_prune_does_nothing_without_an_age() -> None:
    assert server("prune")[0] == 2


def test_a_backup_can_be_served(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "a copy.db"
    code, output, _ = server("backup", copy, "--database-url", f"sqlite:///{file}")
    assert code == 0
    assert re.fullmatch(rf"Wrote {re.escape(str(copy))}, [\d.]+ MB\.\n", output)
    with Backend(f"sqlite:///{copy}", port=0) as backend:
        body = {"query": "{ flow_run_aggregate { aggregate { count } } }"}
        answer = requests.post(backend.url, json=body, timeout=20).json()
    assert answer["data"]["flow_run_aggregate"]["aggregate"]["count"] == 12


def test_a_backup_takes_the_place_of_a_file_only_by_force(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    copy.write_text("precious")
    options = ("--database-url", f"sqlite:///{file}")
    code, _, errors = server("backup", copy, *options)
    assert (code, copy.read_text()) == (1, "precious")
    assert "--force" in errors
    assert server("backup", copy, "--force", *options)[0] == 0
    assert count(copy, "flow_run") == 12


@pytest.mark.parametrize("arguments", [["prune", "--older-than", "1d"], ["prune", "--older-than", "1d", "--dry-run"]])
@pytest.mark.parametrize("kind", ["missing", "text", "newer", "other"])
def test_a_database_that_prune_cannot_use_is_named(tmp_path: Path, arguments: List[str], kind: str) -> None:
    _is_named(tmp_path, arguments, kind)


@pytest.mark.parametrize("kind", ["missing", "text", "newer", "other"])
def test_a_database_that_backup_cannot_use_is_named(tmp_path: Path, kind: str) -> None:
    _is_named(tmp_path, ["backup", str(tmp_path / "copy.db")], kind)
    assert not (tmp_path / "copy.db").exists()


def _is_named(tmp_path: Path, arguments: List[str], kind: str) -> None:
    file = tmp_path / "named.db"
    if kind == "text":
        file.write_text("This is no database, however long it is. " * 100)
    elif kind != "missing":
        Database(f"sqlite:///{file}").close() if kind == "newer" else None
        with sqlite3.connect(file) as connection:
            connection.execute("CREATE TABLE other (x)")
            if kind == "newer":
                connection.execute("UPDATE prefect_taskrun_version SET version_num = '9999'")
    code, output, errors = server(*arguments, "--database-url", f"sqlite:///{file}")
    assert (code, output) == (1, "")
    (line,) = errors.splitlines()
    assert str(file) in line
    says = {"missing": "no database", "text": "not a database", "newer": "Update", "other": "another program"}
    assert says[kind] in line
    assert file.exists() == (kind != "missing")


def test_progress_is_told_of_what_takes_its_time(capsys: "pytest.CaptureFixture[str]", monkeypatch: Any) -> None:
    from prefect_taskrun_tasks.cli.server import progress

    clock = iter([100.0, 101.0, 102.5, 102.5, 103.0, 104.6, 104.6])
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    report = progress.Progress("Flow runs")
    for done in (1, 2000, 3000, 4000):
        report(done, 10_000)
    told = capsys.readouterr()
    assert told.err.splitlines() == ["Flow runs: 2,000 of 10,000", "Flow runs: 4,000 of 10,000"]
    assert told.out == ""


@pytest.mark.parametrize(("owner", "part"), [(pruning, "prune"), (SqliteFile, "give_back")])
def test_a_database_that_fails_half_way_is_told_in_one_line(
    file: Path, monkeypatch: Any, owner: Any, part: str
) -> None:
    def fail(*arguments: Any) -> Any:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(owner, part, fail)
    command = ["server", "prune", "--older-than", "30d", "--database-url", f"sqlite:///{file}"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert "The database failed: database or disk is full. Prune again" in result.output
