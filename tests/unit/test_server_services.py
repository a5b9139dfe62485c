"""What the backend does by itself: scheduling, starting lost runs again, ending zombies."""

import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Iterator, List, Set

import pendulum
import pytest
import stored
from conftest import eventually
from prefect.schedules import IntervalSchedule
from prefect.serialization.schedule import ScheduleSchema

from prefect_taskrun_tasks.server import services, tables
from prefect_taskrun_tasks.server.clock import ago
from prefect_taskrun_tasks.server.database import Database
from prefect_taskrun_tasks.server.rules import flows
from prefect_taskrun_tasks.server.transaction import Transaction

SILENCE = services.HEARTBEAT_TIMEOUT + 1


@pytest.fixture
def tx(database_url: str) -> Iterator[Transaction]:
    with stored.transaction(database_url) as tx:
        yield tx


@pytest.fixture
def run_id(tx: Transaction) -> str:
    """Of a flow run whose process has gone, with the task `a`, which is retried once, 26 hours later."""
    flow_id = stored.flow_id(tx, tasks=[])
    flows.register_tasks(tx, flow_id, [{"slug": "a", "max_retries": 1, "retry_delay": 26 * 3600}])
    run_id = stored.running(tx, flow_id=flow_id)
    stored.no_heartbeat_for(tx, run_id, SILENCE)
    return run_id


def running_task(tx: Transaction, run_id: str) -> str:
    id: str = stored.task_runs(tx, run_id)[0]["id"]
    stored.set_task_state(tx, id, "Running")
    return id


def settings(tx: Transaction, **values: Any) -> None:
    tx.update(tables.flow_group, settings=values)


def levels(tx: Transaction) -> List[str]:
    return [row["level"] for row in stored.rows(tx, tables.log)]


@pytest.mark.parametrize("name", ["Running", "Submitted"])
def test_lazarus_starts_a_lost_run_again(tx: Transaction, run_id: str, name: str) -> None:
    stored.set_state(tx, run_id, name)
    stored.no_heartbeat_for(tx, run_id, SILENCE)
    services.lazarus(tx)
    run = stored.flow_run(tx, run_id)
    assert (run["state"], run["times_resurrected"]) == ("Scheduled", 1)
    assert run["state_start_time"] is not None
    assert levels(tx) == ["INFO"]
    assert tx.queued


@pytest.mark.parametrize("is_lost", [True, False])
def test_lazarus_starts_a_run_again_that_was_lost_while_an_agent_started_it(tx: Transaction, is_lost: bool) -> None:
    """Whatever else may bring it back would not bring back what is Submitted."""
    run_id = stored.running(tx)
    lost, waiting = (row["id"] for row in stored.task_runs(tx, run_id))
    stored.set_task_state(tx, waiting, "Scheduled", start_time=ago(-3600))
    stored.set_task_state(tx, lost, "Submitted")
    since = ago(SILENCE if is_lost else SILENCE / 2)
    tx.update(tables.task_run, tables.task_run.c.id == lost, state_timestamp=since)
    stored.no_heartbeat_for(tx, run_id, SILENCE)
    # what still runs is for the zombie killer
    stored.set_task_state(tx, waiting, "Running")
    services.lazarus(tx)
    assert stored.flow_run(tx, run_id)["state"] == "Running"
    stored.set_task_state(tx, waiting, "Scheduled", start_time=ago(-3600))
    services.lazarus(tx)
    assert stored.flow_run(tx, run_id)["state"] == ("Scheduled" if is_lost else "Running")


def test_lazarus_gives_up_after_three_times(tx: Transaction, run_id: str) -> None:
    for attempt in (1, 2, 3):
        services.lazarus(tx)
        assert stored.flow_run(tx, run_id)["times_resurrected"] == attempt
        stored.set_state(tx, run_id, "Running")
        stored.no_heartbeat_for(tx, run_id, SILENCE)
    services.lazarus(tx)
    run = stored.flow_run(tx, run_id)
    assert (run["state"], run["times_resurrected"]) == ("Failed", 3)
    assert "Lazarus" in run["state_message"]
    assert levels(tx) == ["INFO"] * 3 + ["ERROR"]


@pytest.mark.parametrize("name", ["Scheduled", "Retrying", "Paused", "Resume", "Running"])
def test_lazarus_leaves_a_run_alone_whose_task_runs_will_bring_it_back(tx: Transaction, run_id: str, name: str) -> None:
    """Contract 4.4: such a run waits without a process."""
    stored.set_task_state(tx, stored.task_runs(tx, run_id)[0]["id"], name)
    services.lazarus(tx)
    assert stored.flow_run(tx, run_id)["state"] == "Running"


@pytest.mark.parametrize("name", ["Scheduled", "Pending", "Cancelling", "Success", "Failed"])
def test_lazarus_looks_for_runs_that_should_have_a_process(tx: Transaction, run_id: str, name: str) -> None:
    stored.set_state(tx, run_id, name)
    stored.no_heartbeat_for(tx, run_id, SILENCE)
    services.lazarus(tx)
    assert stored.flow_run(tx, run_id)["state"] == name


@pytest.mark.parametrize("service", [services.lazarus, services.kill_zombies])
def test_a_run_that_sent_a_heartbeat_is_left_alone(tx: Transaction, run_id: str, service: services.Pass) -> None:
    task_run_id = running_task(tx, run_id)
    stored.no_heartbeat_for(tx, run_id, services.HEARTBEAT_TIMEOUT - 30)
    service(tx)
    assert stored.flow_run(tx, run_id)["state"] == "Running"
    assert stored.task_run(tx, task_run_id)["state"] == "Running"


@pytest.mark.parametrize("service", [services.lazarus, services.kill_zombies])
def test_a_run_that_never_sent_a_heartbeat_is_left_alone(tx: Transaction, run_id: str, service: services.Pass) -> None:
    tx.update(tables.flow_run, heartbeat=None)
    service(tx)
    assert stored.flow_run(tx, run_id)["state"] == "Running"


@pytest.mark.parametrize("setting", ["heartbeat_enabled", "lazarus_enabled"])
def test_lazarus_can_be_switched_off_for_a_flow(tx: Transaction, run_id: str, setting: str) -> None:
    settings(tx, **{setting: False})
    services.lazarus(tx)
    assert stored.flow_run(tx, run_id)["state"] == "Running"


def test_a_zombie_task_is_retried_after_its_delay_while_it_has_retries_left(tx: Transaction, run_id: str) -> None:
    task_run_id = running_task(tx, run_id)
    services.kill_zombies(tx)
    run = stored.task_run(tx, task_run_id)
    assert (run["state"], run["serialized_state"]["run_count"]) == ("Retrying", 1)
    assert ago(-27 * 3600) > run["state_start_time"] > ago(-25 * 3600)
    stored.set_task_state(tx, task_run_id, "Running")
    services.kill_zombies(tx)
    run = stored.task_run(tx, task_run_id)
    assert run["state"] == "Failed"
    assert run["state_message"].startswith("No heartbeat detected from the remote task")
    assert levels(tx) == ["ERROR", "ERROR"]


@pytest.mark.parametrize("name", ["Failed", "Cancelled", "Scheduled"])
def test_a_zombie_task_of_a_flow_run_that_does_not_run_is_failed(tx: Transaction, run_id: str, name: str) -> None:
    task_run_id = running_task(tx, run_id)
    tx.update(tables.flow_run, state=name)
    services.kill_zombies(tx)
    assert stored.task_run(tx, task_run_id)["state"] == "Failed"


@pytest.mark.parametrize("name", ["Pending", "Retrying", "Success", "Submitted"])
def test_only_running_tasks_are_zombies(tx: Transaction, run_id: str, name: str) -> None:
    task_run_id = stored.task_runs(tx, run_id)[0]["id"]
    stored.set_task_state(tx, task_run_id, name)
    services.kill_zombies(tx)
    assert stored.task_run(tx, task_run_id)["state"] == name


def test_a_run_that_was_lost_while_it_was_cancelled_is_failed(tx: Transaction, run_id: str) -> None:
    stored.set_state(tx, run_id, "Cancelling")
    stored.no_heartbeat_for(tx, run_id, SILENCE)
    services.kill_zombies(tx)
    assert stored.flow_run(tx, run_id)["state"] == "Failed"
    assert levels(tx) == ["ERROR"]


def test_the_zombie_killer_can_be_switched_off_for_a_flow(tx: Transaction, run_id: str) -> None:
    task_run_id = running_task(tx, run_id)
    settings(tx, heartbeat_enabled=False)
    services.kill_zombies(tx)
    assert stored.task_run(tx, task_run_id)["state"] == "Running"
    stored.set_state(tx, run_id, "Cancelling")
    stored.no_heartbeat_for(tx, run_id, SILENCE)
    services.kill_zombies(tx)
    assert stored.flow_run(tx, run_id)["state"] == "Cancelling"


def test_a_crashed_run_comes_back_when_its_tasks_are_ended(tx: Transaction, run_id: str) -> None:
    running_task(tx, run_id)
    services.lazarus(tx)
    assert stored.flow_run(tx, run_id)["state"] == "Running"
    tx.update(tables.task, max_retries=0)
    services.kill_zombies(tx)
    services.lazarus(tx)
    assert stored.flow_run(tx, run_id)["state"] == "Scheduled"


HOURLY = ScheduleSchema().dump(IntervalSchedule(interval=pendulum.duration(hours=1)))


def test_the_scheduler_fills_up_the_runs_that_wait(tx: Transaction) -> None:
    stored.flow_id(tx, schedule=HOURLY)
    starts = {run["scheduled_start_time"] for run in stored.rows(tx, tables.flow_run)}
    gone = stored.rows(tx, tables.flow_run)[-1]
    tx.delete(tables.flow_run, tables.flow_run.c.id == gone["id"])
    services.schedule(tx)
    assert {run["scheduled_start_time"] for run in stored.rows(tx, tables.flow_run)} == starts


def test_the_scheduler_leaves_archived_and_inactive_flows_alone(tx: Transaction) -> None:
    stored.flow_id(tx, name="inactive", schedule=HOURLY, set_schedule_active=False)
    archived = stored.flow_id(tx, name="archived", schedule=HOURLY)
    flows.archive_flow(tx, archived)
    services.schedule(tx)
    assert stored.count(tx, tables.flow_run) == 0


def test_a_broken_schedule_does_not_keep_other_flows_from_running(tx: Transaction) -> None:
    broken = stored.flow_id(tx, name="broken", schedule=HOURLY)
    stored.flow_id(tx, name="sound", schedule=HOURLY)
    tx.update(tables.flow, tables.flow.c.id == broken, schedule={"type": "Unheard"})
    tx.delete(tables.flow_run)
    services.schedule(tx)
    assert stored.count(tx, tables.flow_run) == 10


def test_services_run_at_their_intervals_and_survive_a_pass_that_fails(tmp_path: Path) -> None:
    """The intervals are those of a test; the threads are real."""
    passes: List[str] = []
    told: List[str] = []
    database = Database(f"sqlite:///{tmp_path / 'prefect.db'}", lambda tx: told.append("queued") if tx.queued else None)

    def fails(tx: Transaction, done: Any) -> bool:
        passes.append("fails")
        raise RuntimeError("as this test wants it")

    def queues(tx: Transaction, done: Any) -> bool:
        tx.queued = True
        return False

    running = services.Services(database, {fails: 0.01, queues: 0.01})
    running.start()
    eventually(lambda: len(passes) > 2 and told)
    running.stop()
    database.close()


def test_lazarus_leaves_a_flow_run_alone_whose_task_run_an_agent_has_just_submitted(tx: Transaction) -> None:
    run_id = stored.running(tx)
    task_run_id = stored.task_runs(tx, run_id)[0]["id"]
    tx.update(tables.flow_run, heartbeat=ago(services.HEARTBEAT_TIMEOUT + 1))
    stored.set_task_state(tx, task_run_id, "Retrying")
    stored.set_task_state(tx, task_run_id, "Submitted")
    services.lazarus(tx)
    assert stored.flow_run(tx, run_id)["state"] == "Running"


def test_a_service_can_be_run_once_and_counts_how_that_ended(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'prefect.db'}")

    def fails(tx: Transaction, done: Any) -> bool:
        tx.update(tables.tenant, name="changed")
        raise RuntimeError("as this test wants it")

    idle = services.Services(database, {services.schedule: 1e6, fails: 1e6})
    for service in (services.schedule, fails, fails):
        idle.run(service)
    assert dict(idle.runs) == {"schedule": 1, "fails": 2}
    assert dict(idle.failures) == {"fails": 2}
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT name FROM tenant").scalar_one() == "default"
    database.close()


def test_others_write_between_the_turns_of_a_long_pass(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each flow has its turn once, whichever was done before."""
    monkeypatch.setattr(services, "TURN", 0.0)
    database = Database(database_url)
    with database.write() as tx:
        for name in "abc":
            stored.flow_id(tx, name, schedule=ScheduleSchema().dump(IntervalSchedule(interval=timedelta(hours=1))))
            # what registering it has scheduled
            tx.delete(tables.flow_run)
    own = services.Services(database, {services.schedule: 1e6})
    turns: List[Set[str]] = []

    def counting(tx: Transaction, done: Set[str]) -> bool:
        is_more = services.schedule(tx, done)
        turns.append(set(done))
        return is_more

    own.run(counting)
    assert [len(done) for done in turns] == [1, 2, 3, 3]
    with database.read() as connection:
        assert len(connection.execute(tables.flow_run.select()).all()) == 30
    database.close()


def test_a_machine_that_was_asleep_has_time_for_heartbeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be put to sleep by a test, hence the replaced time."""
    asleep, passes = [0.0], threading.Event()
    monkeypatch.setattr(services, "_asleep", lambda: asleep[0])
    monkeypatch.setattr(services, "AWAKE", 2.0)
    database = Database(f"sqlite:///{tmp_path / 'prefect.db'}")
    times: List[float] = []

    def counting(tx: Transaction, done: Set[str]) -> bool:
        times.append(time.monotonic())
        passes.set()
        return False

    running = services.Services(database, {counting: 0.05})
    running.start()
    assert passes.wait(60)
    asleep[0] = 3600.0
    eventually(lambda: max(after - before for before, after in zip(times, times[1:])) > 1.5 if times[1:] else False)
    running.stop()
    database.close()


def test_a_pass_that_does_not_end_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "GRACE", 0.2)
    database = Database(f"sqlite:///{tmp_path / 'prefect.db'}")
    begun, may_end = threading.Event(), threading.Event()

    def hangs(tx: Transaction, done: Any) -> bool:
        begun.set()
        return not may_end.wait(60)

    running = services.Services(database, {hangs: 0.01, services.schedule: 1e6})
    running.start()
    assert begun.wait(60)
    stopping = threading.Thread(target=running.stop)
    stopping.start()
    stopping.join(10)
    assert not stopping.is_alive()
    may_end.set()
    stopping.join()
    database.close()
