"""A backend that is killed at any moment has every write that it acknowledged when it is started again."""

import random
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Event
from typing import Any, Dict, List, Tuple

import pytest
from asking import Caller
from killed_backend import KilledBackend, Writer, Written, await_death_time

from prefect_taskrun_tasks.server.database import Database

#: Clients that write at once
CLIENTS = 6


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--kills"))


def test_no_acknowledged_write_is_lost_when_the_backend_is_killed(
    tmp_path: Path, request: pytest.FixtureRequest, kills: int, capsys: "pytest.CaptureFixture[str]"
) -> None:
    seed = request.config.getoption("--seed")
    choose, written, over = random.Random(f"{seed}"), Written(), Event()
    while_starting = 0
    with ExitStack() as stack:
        backend = stack.enter_context(KilledBackend(tmp_path))
        flow_id = _registered(backend.path)
        clients = stack.enter_context(ThreadPoolExecutor(CLIENTS))
        stack.callback(over.set)
        writers = [Writer(backend.url, flow_id, f"{seed}/{number}", written, over) for number in range(CLIENTS)]
        working = [clients.submit(writer.work) for writer in writers]
        for _ in range(kills):
            backend.start()
            while_starting += not await_death_time(choose, written, backend)
            assert backend.end(signal.SIGKILL) == -signal.SIGKILL
        backend.start()
        backend.await_ready()
        over.set()
        for each in working:
            each.result()
        assert backend.end(signal.SIGTERM) in (0, -signal.SIGTERM)
    with closing(sqlite3.connect(backend.path)) as file:
        _check(file, written)
    with capsys.disabled():
        print(
            f"\nSeed {seed}, {kills} kills, {while_starting} of them of a backend that was starting: "
            f"{written.acknowledged} acknowledged writes are there, {written.lost} requests were not answered"
        )


def _registered(path: Path) -> str:
    """The id of a flow in a new file."""
    database = Database(f"sqlite:///{path}")
    try:
        return Caller(database).flow_id()
    finally:
        database.close()


def _check(file: sqlite3.Connection, written: Written) -> None:
    assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert file.execute("PRAGMA foreign_key_check").fetchall() == []
    # each once, however often it was asked for
    by_key = file.execute("SELECT idempotency_key, id FROM flow_run").fetchall()
    assert sorted(by_key) == sorted(written.flow_runs.items())
    # a flow run is there with all its parts
    parts = "SELECT f.id, count(t.id) FROM flow_run f LEFT JOIN task_run t ON t.flow_run_id = f.id GROUP BY f.id"
    assert {count for _, count in file.execute(parts)} == {2}
    states = _grouped(file, "SELECT flow_run_id, version, message FROM flow_run_state ORDER BY flow_run_id, version")
    latest = {id: rest for id, *rest in file.execute("SELECT id, version, state, state_message FROM flow_run")}
    lines = _grouped(file, "SELECT flow_run_id, message FROM log ORDER BY rowid")
    for key, id in written.flow_runs.items():
        history = states[id]
        assert [version for version, _ in history] == list(range(1, len(history) + 1)), key
        messages = [message for _, message in history if message != "Flow run scheduled."]
        assert len(messages) == len(history) - 1, key
        _assert_as_sent(messages, written.states[key], written)
        _assert_as_sent([line for (line,) in lines[id]], written.lines[key], written)
        # the copy of the last state in the run itself
        assert latest[id] == [len(history), "Success", messages[-1]], key


def _assert_as_sent(found: List[str], acknowledged: List[str], written: Written) -> None:
    """All that was acknowledged is there, in its order, and nothing more often than it was sent."""
    assert list(dict.fromkeys(found)) == acknowledged
    for text in acknowledged:
        assert found.count(text) <= written.sent[text], text


def _grouped(file: sqlite3.Connection, query: str) -> "Dict[str, List[Tuple[Any, ...]]]":
    """Rows by their first column."""
    found: Dict[str, List[Tuple[Any, ...]]] = {}
    for id, *rest in file.execute(query):
        found.setdefault(id, []).append(tuple(rest))
    return found
