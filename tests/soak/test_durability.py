"""A backend that is killed at any moment has every write that it acknowledged when it is started again."""

import random
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any, Dict, List, Tuple

import pytest
from asking import Caller
from killed_backend import KilledBackend, Writer, Written, await_death_time
from sqlalchemy import Connection, text

from prefect_taskrun_tasks.server.database import Database

#: Clients that write at once
CLIENTS = 6


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--kills"))


def test_no_acknowledged_write_is_lost_when_the_backend_is_killed(
    tmp_path: Path, database_url: str, request: pytest.FixtureRequest, kills: int, capsys: "pytest.CaptureFixture[str]"
) -> None:
    seed = request.config.getoption("--seed")
    choose, written, over = random.Random(f"{seed}"), Written(), Event()
    while_starting = 0
    with ExitStack() as stack:
        database = Database(database_url)
        stack.callback(database.close)
        backend = stack.enter_context(KilledBackend(tmp_path, database_url=database_url))
        flow_id = Caller(database).flow_id()
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
        with database.read() as connection:
            _check(connection, written)
    with capsys.disabled():
        print(
            f"\nSeed {seed}, {kills} kills, {while_starting} of them of a backend that was starting: "
            f"{written.acknowledged} acknowledged writes are there, {written.lost} requests were not answered"
        )


def _check(connection: Connection, written: Written) -> None:
    if connection.dialect.name == "sqlite":
        assert connection.execute(text("PRAGMA integrity_check")).all() == [("ok",)]
        assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
    # each once, however often it was asked for
    by_key = connection.execute(text("SELECT idempotency_key, id FROM flow_run")).all()
    assert sorted(map(tuple, by_key)) == sorted(written.flow_runs.items())
    # a flow run is there with all its parts
    parts = "SELECT f.id, count(t.id) FROM flow_run f LEFT JOIN task_run t ON t.flow_run_id = f.id GROUP BY f.id"
    assert {count for _, count in connection.execute(text(parts))} == {2}
    states = _grouped(connection, "SELECT flow_run_id, version, message FROM flow_run_state ORDER BY version")
    latest = {
        id: rest for id, *rest in connection.execute(text("SELECT id, version, state, state_message FROM flow_run"))
    }
    lines = _grouped(connection, "SELECT flow_run_id, message FROM log ORDER BY timestamp")
    for key, id in written.flow_runs.items():
        messages = ["Flow run scheduled.", *written.states[key]]
        assert states[id] == list(enumerate(messages, 1)), key
        assert [line for (line,) in lines[id]] == written.lines[key]
        # the copy of the last state in the run itself
        assert latest[id] == [len(messages), "Success", messages[-1]], key


def _grouped(connection: Connection, query: str) -> "Dict[str, List[Tuple[Any, ...]]]":
    """Rows by their first column."""
    found: Dict[str, List[Tuple[Any, ...]]] = {}
    for id, *rest in connection.execute(text(query)):
        found.setdefault(id, []).append(tuple(rest))
    return found
