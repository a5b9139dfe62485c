"""A week of operation: flow runs are created, run and pruned, and the backend takes no more than it did."""

import re
import signal
import sqlite3
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, Callable, Dict, Iterable, List
from typing import Counter as CounterOf

import command
import psutil
import pytest
import requests
from asking import Caller
from busy_agent import FATES, LOGGER, TASKS, BusyAgent, Ended
from killed_backend import KilledBackend

from prefect_taskrun_tasks.server.clock import ago
from prefect_taskrun_tasks.server.database import Database
from prefect_taskrun_tasks.server.services import HEARTBEAT_TIMEOUT

DAYS = 7

#: Agents that work at once
AGENTS = 2

#: Seconds
DAY = 86400

#: What ended yesterday is younger, and what ended on the day before is older
AGE = "36h"

#: Seconds for a request
PATIENCE = 60

#: The day with which the last is compared: from then on as much comes each day as goes
FIRST_FULL = 2

#: How much more there may be on the last day
MOST_MEMORY, MOST_SPACE = 1.15, 1.2

#: The share of a file's pages that may be free after pruning
MOST_FREE = 0.05

#: Seconds between two passes of the services
INTERVALS = {"scheduler": 5, "zombie-killer": 0.25, "lazarus": 0.25}

TABLES = ("flow_run", "flow_run_state", "task_run", "task_run_state", "log")

HOURLY = {
    "type": "Schedule",
    "clocks": [
        {"type": "IntervalClock", "interval": 3_600_000_000, "start_date": {"dt": "2024-01-01T00:00:00", "tz": "UTC"}}
    ],
    "filters": [],
}


@pytest.fixture
def week_runs(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--week-runs"))


def test_memory_and_file_stay_as_they_are_through_a_week_of_flow_runs(
    tmp_path: Path, request: pytest.FixtureRequest, week_runs: int, capsys: "pytest.CaptureFixture[str]"
) -> None:
    seed = request.config.getoption("--seed")
    #: day -> bytes after its night, and rows that are left then
    memory: Dict[int, int] = {}
    space: Dict[int, int] = {}
    rows: Dict[int, int] = {}
    options = [word for name, seconds in INTERVALS.items() for word in (f"--{name}-interval", str(seconds))]
    started = monotonic()
    with ExitStack() as stack:
        backend = stack.enter_context(KilledBackend(tmp_path, *options))
        flow_id = _registered(backend.path)
        backend.start()
        backend.await_ready()
        file = stack.enter_context(closing(sqlite3.connect(backend.path, timeout=60, isolation_level=None)))
        file.create_function("yesterday", 1, lambda time: ago(DAY, since=time))
        agents = [BusyAgent(backend.url, flow_id, f"{seed}/{number}") for number in range(AGENTS)]
        crew = stack.enter_context(ThreadPoolExecutor(AGENTS))
        scheduled = _ids(file, "auto_scheduled")
        assert scheduled
        for day, count in enumerate(_shares(week_runs, DAYS), start=1):
            begun = monotonic()
            _work(crew, agents, file, day, count)
            full, evening = _rows(file), monotonic()
            gone = _sleep(crew, agents, file, day, backend.path)
            assert scheduled <= _ids(file, "auto_scheduled")
            _check(file, agents)
            _check_metrics(backend.url)
            memory[day] = psutil.Process(backend.pid).memory_info().rss
            space[day] = sum(each.stat().st_size for each in _files(backend.path))
            rows[day] = _rows(file)
            with capsys.disabled():
                begins = "" if day > 1 else "\n"
                print(
                    f"{begins}Day {day}: {count} flow runs in {evening - begun:.0f} s, {full} rows; "
                    f"{gone} flow runs pruned in {monotonic() - evening:.0f} s, {rows[day]} rows are left; "
                    f"memory {memory[day] / 1e6:.1f} MB, file {space[day] / 1e6:.2f} MB",
                    flush=True,
                )
        assert memory[DAYS] <= MOST_MEMORY * memory[FIRST_FULL], memory
        # a day may have a few more rows than another
        assert space[DAYS] / rows[DAYS] <= MOST_SPACE * space[FIRST_FULL] / rows[FIRST_FULL], (space, rows)
        assert backend.end(signal.SIGTERM) in (0, -signal.SIGTERM)
    assert "ERROR" not in backend.log()
    met: CounterOf[str] = sum((agent.met for agent in agents), Counter())
    assert set(met) == set(FATES)
    with capsys.disabled():
        what = ", ".join(f"{met[fate]} {fate}" for fate in FATES)
        print(f"Seed {seed}, {week_runs} flow runs in {monotonic() - started:.0f} s: {what}")


def _work(crew: ThreadPoolExecutor, agents: List[BusyAgent], file: sqlite3.Connection, day: int, count: int) -> None:
    """All flow runs of a day, until they have ended, or are long."""
    _wait(crew.submit(agent.work, day, share) for agent, share in zip(agents, _shares(count, len(agents))))
    # nothing is heard of those whose process is lost, for longer than the backend waits
    then = ago(2 * HEARTBEAT_TIMEOUT)
    for agent in agents:
        file.executemany("UPDATE flow_run SET heartbeat = ? WHERE id = ?", [(then, id) for id in agent.silent])
    _wait(crew.submit(agent.find_lost) for agent in agents)


def _sleep(crew: ThreadPoolExecutor, agents: List[BusyAgent], file: sqlite3.Connection, day: int, path: Path) -> int:
    """All that there is becomes a day older, and what ended before this day is pruned. Returns how many flow runs."""
    file.execute("UPDATE flow_run SET state_timestamp = yesterday(state_timestamp)")
    old = sum(ended.day < day for agent in agents for ended in agent.ended.values())
    over = Event()
    watching = [crew.submit(agent.watch, over) for agent in agents]
    try:
        assert _pruned(path) == old
    finally:
        over.set()
    _wait(watching)
    for agent in agents:
        agent.forget(day)
    return old


def _registered(path: Path) -> str:
    """The id of a flow in a new file, in which another flow has a schedule."""
    database = Database(f"sqlite:///{path}")
    try:
        api = Caller(database)
        api.flow_id("hourly", schedule=HOURLY)
        tasks: List[Dict[str, Any]] = [{"slug": slug, "name": slug, "mapped": slug == "each"} for slug in TASKS]
        tasks[0].update(max_retries=1, retry_delay=0)
        flow = {"name": "busy", "tasks": tasks, "__version__": "1.4.1"}
        return str(api.mutate("create_flow", project_id=api.project_id(), serialized_flow=flow))
    finally:
        database.close()


def _shares(total: int, parts: int) -> List[int]:
    return [total * (part + 1) // parts - total * part // parts for part in range(parts)]


def _wait(working: Iterable[Any]) -> None:
    for each in list(working):
        each.result()


def _pruned(path: Path) -> int:
    """How many flow runs the command says that it has deleted."""
    ended = command.ended("server", "prune", "--older-than", AGE, "--database-url", f"sqlite:///{path}")
    assert ended.code == 0, ended
    said = re.match(r"Deleted ([\d,]+) flow runs", ended.stdout)
    assert said, ended
    return int(said.group(1).replace(",", ""))


def _check(file: sqlite3.Connection, agents: List[BusyAgent]) -> None:
    """All that is to be there is, with all its parts, and nothing else."""
    assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert file.execute("PRAGMA foreign_key_check").fetchall() == []
    # what was free was given back, but for what others freed meanwhile
    ((free,), (pages,)) = file.execute("PRAGMA freelist_count").fetchone(), file.execute("PRAGMA page_count").fetchone()
    assert free <= MOST_FREE * pages, (free, pages)
    ended: Dict[str, Ended] = {id: each for agent in agents for id, each in agent.ended.items()}
    alive = {id for agent in agents for id in agent.alive}
    expected = {**{id: each.state for id, each in ended.items()}, **dict.fromkeys(alive, "Running")}
    assert dict(file.execute("SELECT id, state FROM flow_run WHERE NOT auto_scheduled")) == expected
    # each state of a run is one version of it
    for table in ("flow_run", "task_run"):
        part = f"SELECT {table}_id, count(*), max(version) FROM {table}_state GROUP BY 1"  # noqa: S608
        histories = {id: versions for id, *versions in file.execute(part)}
        versions = {id: [version] * 2 for id, version in file.execute(f"SELECT id, version FROM {table}")}  # noqa: S608
        assert histories == versions
    counted: Dict[str, Callable[[BusyAgent], Dict[str, int]]] = {
        "SELECT flow_run_id, count(*) FROM task_run GROUP BY 1": lambda agent: agent.task_runs,
        f"SELECT flow_run_id, count(*) FROM log WHERE name = '{LOGGER}' GROUP BY 1": lambda agent: agent.lines,  # noqa: S608
    }
    for statement, noted in counted.items():
        found = dict(file.execute(statement))
        for agent in agents:
            for id, count in noted(agent).items():
                assert found.get(id, 0) == count, (statement, id)


def _check_metrics(url: str) -> None:
    """No request has failed, and no service."""
    text = requests.get(f"{url}/metrics", timeout=PATIENCE).text
    failures = [line for line in text.splitlines() if 'status="failed"' in line or "_failures_total{" in line]
    assert {line.rsplit(" ", 1)[1] for line in failures} == {"0"}, failures


def _ids(file: sqlite3.Connection, condition: str) -> "set[str]":
    return {id for (id,) in file.execute(f"SELECT id FROM flow_run WHERE {condition}")}  # noqa: S608


def _rows(file: sqlite3.Connection) -> int:
    return sum(file.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES)  # noqa: S608


def _files(path: Path) -> List[Path]:
    """The database, and what was written but is not in it yet."""
    return [each for each in (path, Path(f"{path}-wal")) if each.exists()]
