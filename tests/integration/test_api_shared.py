"""Two backends on one PostgreSQL database: each hears of what the other has stored, and services run once."""

import threading
from time import monotonic
from typing import Any, Dict, Iterator, List

import pytest
import requests
import stored
from asking import Caller
from cluster import Cluster
from conftest import eventually
from sqlalchemy import select

from prefect_taskrun_tasks.server import Backend, services, tables
from prefect_taskrun_tasks.server.clock import ago
from prefect_taskrun_tasks.server.database import Database

HOURLY = {
    "type": "Schedule",
    "clocks": [
        {"type": "IntervalClock", "interval": 3_600_000_000, "start_date": {"dt": "2020-01-01T00:00:00", "tz": "UTC"}}
    ],
}


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster.cleared_database()


@pytest.fixture
def backends(url: str) -> Iterator[List[Backend]]:
    with Backend(url, port=0) as first, Backend(url, port=0) as second:
        yield [first, second]


@pytest.fixture
def databases(url: str) -> Iterator[List[Database]]:
    databases = [Database(url), Database(url)]
    yield databases
    for each in databases:
        each.close()


def ask(backend: Backend, query: str, wait: int = 0, **variables: Any) -> Any:
    body: Dict[str, Any] = {"query": query, "variables": variables}
    answer = requests.post(backend.url, json=body, headers={"Prefer": f"wait={wait}"}, timeout=60).json()
    assert "errors" not in answer, answer
    return answer["data"]


def test_an_answer_is_held_until_another_backend_has_news(url: str, backends: List[Backend]) -> None:
    database = Database(url)
    run_id = Caller(database).running()
    database.close()
    finish = "mutation($i: set_flow_run_states_input!) { set_flow_run_states(input: $i) { states { status } } }"
    states = [{"flow_run_id": run_id, "state": {"type": "Success"}}]
    later = threading.Timer(0.5, ask, [backends[1], finish], {"i": {"states": states}})
    later.start()
    begun = monotonic()
    query = 'query($id: uuid) { flow_run(where: {id: {_eq: $id}, state: {_eq: "Success"}}) { id } }'
    assert ask(backends[0], query, wait=30, id=run_id) == {"flow_run": [{"id": run_id}]}
    # well before it would be looked for in any case
    assert monotonic() - begun < 15
    later.join()


def test_agents_of_one_backend_are_told_of_flow_runs_that_are_created_at_another(
    backends: List[Backend], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    poked: List[str] = []
    for number, backend in enumerate(backends):
        monkeypatch.setattr(backend._poker, "poke", lambda number=number: poked.append(str(number)))
    database = Database(url)
    Caller(database).flow_run_id()
    database.close()
    eventually(lambda: {"0", "1"} <= set(poked))


@pytest.mark.usefixtures("cluster")
def test_a_backend_hears_of_others_again_after_the_server_was_away() -> None:
    with Cluster() as cluster:
        url = cluster.new_database()
        with Backend(url, port=0) as first, Backend(url, port=0) as second:
            told: List[bool] = []
            cluster.stop()
            cluster.start()
            eventually(lambda: requests.get(f"{second.url}/health", timeout=20).ok)
            first._news.tell = lambda ids: told.append(True)  # type: ignore[method-assign]
            # what it was told when it began to listen again does not count
            eventually(lambda: _creates_a_run_that_is_told(second, told))


def _creates_a_run_that_is_told(backend: Backend, told: List[bool]) -> bool:
    del told[:]
    Caller(backend._database).flow_run_id()
    try:
        eventually(lambda: told, 1)
    except Exception:
        return False
    return True


def at_once(databases: List[Database], service: services.Pass, times: int = 5) -> None:
    """Each database has its own services, whose passes come together."""
    barrier = threading.Barrier(len(databases))
    failures: List[int] = []

    def work(database: Database) -> None:
        own = services.Services(database, {service: 1e6})
        for _ in range(times):
            barrier.wait(60)
            own.run(service)
        failures.append(sum(own.failures.values()))

    threads = [threading.Thread(target=work, args=[database]) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [0] * len(databases)


def test_two_schedulers_create_each_flow_run_once(databases: List[Database]) -> None:
    with databases[0].write() as tx:
        stored.flow_id(tx, schedule=HOURLY)
        tx.delete(tables.flow_run)
    at_once(databases, services.schedule)
    with databases[0].read() as connection:
        starts = connection.scalars(select(tables.flow_run.c.scheduled_start_time)).all()
    assert len(starts) == len(set(starts)) == 10


def test_a_lost_flow_run_is_resurrected_once(databases: List[Database]) -> None:
    with databases[0].write() as tx:
        run_id = stored.running(tx)
        tx.update(tables.flow_run, heartbeat=ago(services.HEARTBEAT_TIMEOUT + 1))
    at_once(databases, services.lazarus)
    with databases[0].write() as tx:
        assert stored.flow_run(tx, run_id)["times_resurrected"] == 1
        assert stored.history(tx, run_id) == ["Scheduled", "Running", "Scheduled"]


def test_a_dead_task_run_is_ended_once(databases: List[Database]) -> None:
    with databases[0].write() as tx:
        run_id = stored.running(tx)
        [task_run, _] = stored.task_runs(tx, run_id)
        stored.set_task_state(tx, task_run["id"], "Running")
        tx.update(tables.flow_run, heartbeat=ago(services.HEARTBEAT_TIMEOUT + 1))
    at_once(databases, services.kill_zombies)
    with databases[0].write() as tx:
        assert stored.task_history(tx, task_run["id"]) == ["Pending", "Running", "Failed"]


def test_two_agents_that_submit_a_flow_run_at_once_get_it_once(databases: List[Database]) -> None:
    with databases[0].write() as tx:
        run_id = stored.flow_run_id(tx)
    state = {"flow_run_id": run_id, "state": {"type": "Submitted"}}
    answers: List[Any] = []
    barrier = threading.Barrier(2)

    def submit(database: Database) -> None:
        caller = Caller(database)
        query = "mutation($i: set_flow_run_states_input!) { set_flow_run_states(input: $i) { states { status } } }"
        barrier.wait(60)
        answers.append(caller.post(query, {"i": {"states": [state]}})[1])

    threads = [threading.Thread(target=submit, args=[database]) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [each["errors"][0]["message"] for each in answers if "errors" in each]
    assert len(refused) == 1
    assert "already been submitted" in refused[0]
