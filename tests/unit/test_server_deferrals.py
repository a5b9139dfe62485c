"""Waits without a process: woken when what they wait for has ended, and cancelled with their flow run at once."""

from typing import Any, Iterator, Optional

import pytest
import stored

from prefect_taskrun_tasks.server import tables
from prefect_taskrun_tasks.server.clock import ago, now
from prefect_taskrun_tasks.server.rules import (
    agents,
    deferrals,
    flow_groups,
    flow_runs,
    flows,
    schedules,
    states,
    tenants,
)
from prefect_taskrun_tasks.server.transaction import Row, Transaction
from prefect_taskrun_tasks.views.deferral import Deferral


@pytest.fixture
def tx(database_url: str) -> Iterator[Transaction]:
    with stored.transaction(database_url) as tx:
        yield tx


@pytest.fixture
def child(tx: Transaction) -> str:
    return stored.running(tx)


@pytest.fixture
def parent(tx: Transaction) -> str:
    return stored.running(tx, flow_id=stored.flow_id(tx, name="parent"))


def defer(tx: Transaction, parent: str, awaits: str, index: int = 0, until: Optional[str] = None) -> str:
    """One of the parent's task runs, which is put off for a minute."""
    task_run_id = str(stored.task_runs(tx, parent)[index]["id"])
    stored.set_task_state(tx, task_run_id, "Running")
    context = {"tags": [], "task_run_count": 1, **Deferral(awaits, now(), until=until).as_context()}
    stored.set_task_state(tx, task_run_id, "Scheduled", start_time=ago(-60), context=context)
    return task_run_id


def queue(tx: Transaction) -> Any:
    return agents.get_runs_in_queue(tx, tenant_id=stored.tenant_id(tx))["flow_run_ids"]


@pytest.mark.parametrize("ends_as", ["Success", "Failed", "Cancelled", "TimedOut"])
def test_a_deferred_wait_is_due_as_soon_as_its_flow_run_has_ended(
    tx: Transaction, parent: str, child: str, ends_as: str
) -> None:
    other = stored.running(tx)
    waits = [defer(tx, parent, child), defer(tx, parent, other, index=1)]
    assert queue(tx) == []
    tx.queued = False
    stored.set_state(tx, child, ends_as)
    assert tx.queued
    assert queue(tx) == [parent]
    woken, asleep = [stored.task_run(tx, each) for each in waits]
    assert woken["state"] == "Scheduled"
    assert child in woken["state_message"]
    assert ends_as in woken["state_message"]
    assert woken["serialized_state"]["context"]["task_run_count"] == 1
    assert woken["state_start_time"] <= now() < asleep["state_start_time"]


def test_a_wait_that_is_deferred_after_its_flow_run_has_ended_is_due_at_once(
    tx: Transaction, parent: str, child: str
) -> None:
    """It has ended between the last look and the state that puts the wait off."""
    stored.set_state(tx, child, "Success")
    defer(tx, parent, child)
    assert queue(tx) == [parent]


def test_a_process_that_is_between_two_tasks_is_left_alone(tx: Transaction, parent: str, child: str) -> None:
    """A second one beside it would not run what needs both."""
    before, wait = str(stored.task_runs(tx, parent)[1]["id"]), defer(tx, parent, child)
    stored.set_task_state(tx, before, "Running")
    stored.set_task_state(tx, before, "Success")
    # an agent takes what has been due for three seconds
    taken = ago(3)
    stored.set_state(tx, child, "Success")
    assert queue(tx) == []
    tx.update(tables.task_run, tables.task_run.c.id == before, state_timestamp=ago(deferrals.BETWEEN_TASKS))
    assert queue(tx) == [parent]
    assert stored.task_run(tx, wait)["state_start_time"] > taken


def test_a_wait_that_has_slept_is_taken_at_once(tx: Transaction, parent: str, child: str) -> None:
    wait = defer(tx, parent, child)
    tx.update(tables.task_run, tables.task_run.c.id == wait, state_timestamp=ago(10))
    stored.set_state(tx, child, "Success")
    assert stored.task_run(tx, wait)["state_start_time"] < ago(3.5)


def test_a_wait_for_a_flow_run_that_is_gone_is_due_at_once(tx: Transaction, parent: str) -> None:
    defer(tx, parent, tables.new_id())
    assert queue(tx) == [parent]


@pytest.mark.parametrize(
    ("limit", "looks_after"),
    [(None, 3600), (7200, 3600), (600, 600), (60, 60), (1, 60)],
    ids=["no limit", "far limit", "limit", "no later than asked for", "limit that is near"],
)
def test_a_wait_sleeps_until_it_is_woken_or_its_time_is_over(
    tx: Transaction, parent: str, child: str, limit: Optional[float], looks_after: float
) -> None:
    wait = defer(tx, parent, child, until=None if limit is None else ago(-limit))
    row = stored.task_run(tx, wait)
    assert ago(5 - looks_after) < row["state_start_time"] <= ago(-looks_after)
    assert row["serialized_state"]["start_time"] == row["state_start_time"]


@pytest.mark.parametrize("until", ["soon", 7, {}, "9" * 99, "0001-01-01T00:00:00+23:00"])
def test_a_wait_whose_limit_is_no_time_looks_when_it_would(
    tx: Transaction, parent: str, child: str, until: Any
) -> None:
    row = stored.task_run(tx, defer(tx, parent, child, until=until))
    assert ago(-50) < row["state_start_time"] <= ago(-60)


def test_a_wait_that_somebody_else_wakes_stays_awake(tx: Transaction, parent: str, child: str) -> None:
    wait = defer(tx, parent, child)
    context = stored.task_run(tx, wait)["serialized_state"]["context"]
    for more in ({"message": "Go on."}, {}, {"start_time": ago(5)}):
        stored.set_task_state(tx, wait, "Scheduled", context=context, **more)
        assert queue(tx) == [parent]
        stored.set_task_state(tx, wait, "Scheduled", start_time=ago(-60), context=context)
        assert queue(tx) == []


def test_a_wait_of_a_process_whose_clock_is_late_sleeps_too(tx: Transaction, parent: str, child: str) -> None:
    task_run_id = str(stored.task_runs(tx, parent)[0]["id"])
    stored.set_task_state(tx, task_run_id, "Running")
    context = Deferral(child, ago(300)).as_context()
    stored.set_task_state(tx, task_run_id, "Scheduled", start_time=ago(240), context=context)
    assert stored.task_run(tx, task_run_id)["state_start_time"] > ago(-3000)


def test_a_wait_that_is_deferred_twice_by_the_same_message_is_deferred_once(
    tx: Transaction, parent: str, child: str
) -> None:
    wait = defer(tx, parent, child)
    row = stored.task_run(tx, wait)
    context = row["serialized_state"]["context"]
    stored.set_task_state(tx, wait, "Scheduled", start_time=ago(-60), context=context)
    assert stored.task_run(tx, wait)["version"] == row["version"]


DELETIONS = {
    "flow run": lambda tx, child: flow_runs.delete_flow_run(tx, child),
    "flow": lambda tx, child: flows.delete_flow(tx, flow_of(tx, child)["id"]),
    "flow group": lambda tx, child: flow_groups.delete_flow_group(tx, flow_of(tx, child)["flow_group_id"]),
    "project": lambda tx, child: tenants.delete_project(tx, flow_of(tx, child)["project_id"]),
}


def flow_of(tx: Transaction, flow_run_id: str) -> Row:
    return stored.rows(tx, tables.flow, id=stored.flow_run(tx, flow_run_id)["flow_id"])[0]


@pytest.mark.parametrize("what", sorted(DELETIONS))
def test_a_wait_is_due_as_soon_as_its_flow_run_is_deleted(tx: Transaction, child: str, what: str) -> None:
    parent = stored.running(tx, flow_id=stored.flow_id(tx, project_id=stored.project_id(tx, "another")))
    waits = [defer(tx, parent, child), defer(tx, parent, parent, index=1)]
    assert queue(tx) == []
    assert DELETIONS[what](tx, child) == {"success": True}
    assert queue(tx) == [parent]
    woken, asleep = [stored.task_run(tx, each) for each in waits]
    assert woken["state_message"] == f"There is no flow run {child}."
    assert woken["state_start_time"] <= now() < asleep["state_start_time"]


def test_a_wait_is_due_as_soon_as_its_flow_run_is_taken_from_the_schedule(tx: Transaction, parent: str) -> None:
    scheduled = flow_runs.create_flow_run(tx, stored.flow_id(tx))["id"]
    tx.update(tables.flow_run, tables.flow_run.c.id == scheduled, auto_scheduled=True)
    defer(tx, parent, scheduled)
    assert parent not in queue(tx)
    schedules.set_schedule_inactive(tx, flow_of(tx, scheduled)["id"])
    assert queue(tx) == [parent]


def test_a_wait_that_goes_on_already_is_left_alone(tx: Transaction, parent: str, child: str) -> None:
    wait = defer(tx, parent, child)
    for name in ("Submitted", "Running"):
        stored.set_task_state(tx, wait, name)
        stored.set_state(tx, child, "Success", message=name)
        assert stored.task_run(tx, wait)["state"] == name


def test_a_flow_run_that_only_waits_is_cancelled_at_once(tx: Transaction, parent: str, child: str) -> None:
    wait = defer(tx, parent, child)
    assert states.cancel_flow_run(tx, parent) == {"state": "Cancelled"}
    assert stored.flow_run(tx, parent)["state"] == "Cancelled"
    assert stored.task_run(tx, wait)["state"] == "Cancelled"
    assert stored.history(tx, parent)[-2:] == ["Cancelling", "Cancelled"]
    # what it waited for ends later, and wakes nobody
    stored.set_state(tx, child, "Success")
    assert queue(tx) == []


def test_so_is_one_that_a_page_sets_to_cancelling(tx: Transaction, parent: str, child: str) -> None:
    defer(tx, parent, child)
    stored.set_state(tx, parent, "Cancelling")
    assert stored.flow_run(tx, parent)["state"] == "Cancelled"


@pytest.mark.parametrize("name", ["Running", "Submitted"])
def test_one_that_does_something_else_is_asked_to_stop(tx: Transaction, parent: str, child: str, name: str) -> None:
    defer(tx, parent, child)
    stored.set_task_state(tx, stored.task_runs(tx, parent)[1]["id"], name)
    assert states.cancel_flow_run(tx, parent) == {"state": "Cancelling"}
    assert stored.flow_run(tx, parent)["state"] == "Cancelling"


def test_one_whose_task_waits_to_be_retried_is_asked_to_stop(tx: Transaction, parent: str) -> None:
    """A process waits for that."""
    task_run_id = stored.task_runs(tx, parent)[0]["id"]
    stored.set_task_state(tx, task_run_id, "Retrying", start_time=ago(-300))
    stored.set_task_state(tx, stored.task_runs(tx, parent)[1]["id"], "Scheduled", start_time=ago(-300))
    assert states.cancel_flow_run(tx, parent) == {"state": "Cancelling"}
