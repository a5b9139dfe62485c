"""A file that another program has locked: who writes is told so, who reads does not notice."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Tuple

import pytest
import requests
from conftest import eventually

from prefect_taskrun_tasks.server import Backend, sqlite_file

#: Writes at once
WRITES = 6

LOCK = """
import sqlite3, sys
file = sqlite3.connect(sys.argv[1], isolation_level=None)
file.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    with Backend(f"sqlite:///{tmp_path / 'prefect.db'}", port=0) as backend:
        yield backend


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Another process writes for as long as the block lasts."""
    command = [sys.executable, "-c", LOCK, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"locked\n"
        try:
            yield
        finally:
            process.stdin.close()
            process.wait()


def post(backend: Backend, query: str, **variables: Any) -> Tuple[int, Any]:
    answer = requests.post(backend.url, json={"query": query, "variables": variables}, timeout=8)
    return answer.status_code, answer.json()


def create_project(backend: Backend, name: str) -> Tuple[int, Any]:
    _, tenants = post(backend, "{ tenant { id } }")
    query = "mutation($input: create_project_input!) { create_project(input: $input) { id } }"
    return post(backend, query, input={"tenant_id": tenants["data"]["tenant"][0]["id"], "name": name})


def projects(backend: Backend) -> Any:
    return post(backend, "{ project(order_by: {name: asc}) { name } }")


def test_writes_to_a_locked_file_are_errors_and_reading_goes_on(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_project(backend, "before")
    # each by itself would wait for as long, all of them longer than a caller does
    monkeypatch.setattr(sqlite_file, "PATIENCE", 3.0)
    backend._database.store._patience = 3.0
    with ThreadPoolExecutor(WRITES) as callers:
        with locked(backend._database.store.path):
            writing = [callers.submit(create_project, backend, f"meanwhile {number}") for number in range(WRITES)]
            while not all(each.done() for each in writing):
                assert projects(backend) == (200, {"data": {"project": [{"name": "before"}]}})
                assert requests.get(f"{backend.url}/health", timeout=8).ok
        for each in writing:
            status, answer = each.result()
            assert (status, answer["data"]) == (200, {"create_project": None})
            assert "database is locked" in answer["errors"][0]["message"]
    assert "errors" not in create_project(backend, "later")[1]
    assert projects(backend)[1]["data"]["project"] == [{"name": "before"}, {"name": "later"}]


def test_a_write_waits_for_another_program_that_is_done_soon(backend: Backend) -> None:
    with ThreadPoolExecutor(1) as callers:
        with locked(backend._database.store.path):
            writing = callers.submit(create_project, backend, "patient")
            eventually(backend._database.store._writer.locked)
            assert not writing.done()
        assert "errors" not in writing.result()[1]
