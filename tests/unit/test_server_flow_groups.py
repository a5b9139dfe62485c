"""Flow groups and flows that are changed from outside: settings, descriptions, projects, schedules, deletion."""

from typing import Any, Dict, Iterator

import pytest
import stored

from prefect_taskrun_tasks.server import services, tables
from prefect_taskrun_tasks.server.errors import Refused
from prefect_taskrun_tasks.server.rules import flow_groups, flow_runs, flows, schedules, task_runs, tenants
from prefect_taskrun_tasks.server.transaction import Row, Transaction


@pytest.fixture
def tx(database_url: str) -> Iterator[Transaction]:
    with stored.transaction(database_url) as tx:
        yield tx


def group(tx: Transaction, flow_id: str) -> Row:
    [flow] = stored.rows(tx, tables.flow, id=flow_id)
    return stored.rows(tx, tables.flow_group, id=flow["flow_group_id"])[0]


SWITCHES: Dict[Any, Dict[str, bool]] = {
    flow_groups.disable_flow_heartbeat: {"heartbeat_enabled": False, "disable_heartbeat": True},
    flow_groups.enable_flow_heartbeat: {"heartbeat_enabled": True, "disable_heartbeat": False},
    flow_groups.disable_flow_lazarus_process: {"lazarus_enabled": False},
    flow_groups.enable_flow_lazarus_process: {"lazarus_enabled": True},
}


def test_a_switch_of_a_flow_changes_only_its_own_settings(tx: Transaction) -> None:
    flow_id, other = stored.flow_id(tx, idempotency_key="k"), stored.flow_id(tx, "other")
    expected, untouched = group(tx, flow_id)["settings"], group(tx, other)["settings"]
    for switch, settings in SWITCHES.items():
        expected = {**expected, **settings}
        for _ in range(2):
            assert switch(tx, flow_id) == {"success": True}
            assert group(tx, flow_id)["settings"] == expected
    assert group(tx, other)["settings"] == untouched


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_of_a_flow_that_is_not_there_is_refused(tx: Transaction, switch: Any) -> None:
    with pytest.raises(Refused, match="not found"):
        switch(tx, tables.new_id())


@pytest.mark.parametrize(
    ("off", "on"),
    [
        (flow_groups.disable_flow_heartbeat, flow_groups.enable_flow_heartbeat),
        (flow_groups.disable_flow_lazarus_process, flow_groups.enable_flow_lazarus_process),
    ],
)
def test_lazarus_passes_a_flow_by_for_which_it_is_switched_off(tx: Transaction, off: Any, on: Any) -> None:
    flow_id = stored.flow_id(tx)
    run_id = stored.running(tx, flow_id=flow_id)
    stored.no_heartbeat_for(tx, run_id, services.HEARTBEAT_TIMEOUT + 1)
    off(tx, flow_id)
    services.lazarus(tx)
    assert stored.flow_run(tx, run_id)["state"] == "Running"
    on(tx, flow_id)
    services.lazarus(tx)
    assert stored.flow_run(tx, run_id)["state"] == "Scheduled"


def test_a_flow_group_can_be_described(tx: Transaction) -> None:
    flow_id = stored.flow_id(tx)
    for description in ("about", None):
        flow_groups.set_flow_group_description(tx, group(tx, flow_id)["id"], description)
        assert group(tx, flow_id)["description"] == description


@pytest.mark.parametrize("run_config", [[], "x", 5, True])
def test_a_run_config_that_is_none_is_refused(tx: Transaction, run_config: Any) -> None:
    flow_id = stored.flow_id(tx)
    with pytest.raises(Refused, match="must be an object"):
        flow_groups.set_flow_group_run_config(tx, group(tx, flow_id)["id"], run_config)
    assert group(tx, flow_id)["run_config"] is None


def test_a_flow_group_is_deleted_with_all_versions_and_their_runs(tx: Transaction) -> None:
    first = stored.flow_id(tx)
    stored.flow_run_id(tx, flow_id=first)
    group_id = group(tx, first)["id"]
    stored.flow_run_id(tx, flow_id=stored.flow_id(tx))
    kept = stored.flow_run_id(tx, flow_id=stored.flow_id(tx, "kept"))
    assert flow_groups.delete_flow_group(tx, group_id) == {"success": True}
    assert flow_groups.delete_flow_group(tx, group_id) == {"success": False}
    assert [run["id"] for run in stored.rows(tx, tables.flow_run)] == [kept]
    assert stored.count(tx, tables.flow) == stored.count(tx, tables.flow_group) == 1


def test_without_the_schedule_of_its_group_a_flow_has_its_own(tx: Transaction) -> None:
    daily = {"type": "CronClock", "cron": "0 5 * * *", "start_date": None, "parameter_defaults": {}}
    own = {"type": "Schedule", "clocks": [daily], "filters": [], "or_filters": [], "not_filters": [], "adjustments": []}
    flow_id = stored.flow_id(tx, schedule=own)
    group_id = group(tx, flow_id)["id"]
    schedules.set_flow_group_schedule(tx, group_id, cron_clocks=[{"cron": "30 7 * * *"}])
    schedules.schedule_flow_runs(tx, flow_id)
    by_hand = stored.flow_run_id(tx, flow_id=flow_id)
    assert schedules.delete_flow_group_schedule(tx, group_id) == {"success": True}
    assert [run["id"] for run in stored.rows(tx, tables.flow_run)] == [by_hand]
    schedules.schedule_flow_runs(tx, flow_id)
    starts = [run["scheduled_start_time"] for run in stored.rows(tx, tables.flow_run) if run["auto_scheduled"]]
    assert {start[11:16] for start in starts} == {"05:00"}
    assert schedules.delete_flow_group_schedule(tx, tables.new_id()) == {"success": False}


def test_a_run_that_was_cancelled_long_before_its_time_keeps_no_other_from_being_scheduled(tx: Transaction) -> None:
    """Those of a schedule that has replaced the one which had asked for it."""
    flow_id = stored.flow_id(tx)
    schedules.set_flow_group_schedule(tx, group(tx, flow_id)["id"], cron_clocks=[{"cron": "0 0 1 * *"}])
    schedules.set_schedule_active(tx, flow_id)
    runs = sorted(stored.rows(tx, tables.flow_run), key=lambda run: str(run["scheduled_start_time"]))
    stored.set_state(tx, runs[-1]["id"], "Cancelled")
    for cron in ("0 0 1 * *", "30 * * * *"):
        schedules.set_flow_group_schedule(tx, group(tx, flow_id)["id"], cron_clocks=[{"cron": cron}])
        schedules.schedule_flow_runs(tx, flow_id)
        schedules.schedule_flow_runs(tx, flow_id)
        states = [run["state"] for run in stored.rows(tx, tables.flow_run)]
        # which is one of the ten, or none
        assert (states.count("Scheduled"), states.count("Cancelled")) == (9 if cron == "0 0 1 * *" else 10, 1)


@pytest.mark.parametrize("version", ["0.6.0", "0.5.12", "0.6", "0.6.0+3.gabcdef"])
def test_a_flow_of_a_prefect_that_is_too_old_is_refused(tx: Transaction, version: str) -> None:
    with pytest.raises(Refused, match=r"0\.6\.1"):
        stored.flow_id(tx, __version__=version)
    assert stored.count(tx, tables.flow) == stored.count(tx, tables.flow_group) == 0


@pytest.mark.parametrize("version", ["0.6.1", "0.10.0", "1.4.1", "1.4.1+10.gabc.dirty", "0+unknown", None, "9" * 5000])
def test_a_flow_of_any_other_prefect_is_taken(tx: Transaction, version: Any) -> None:
    assert stored.rows(tx, tables.flow, id=stored.flow_id(tx, __version__=version))[0]["core_version"] == version


def test_a_flow_can_be_moved_to_another_project_of_its_tenant(tx: Transaction) -> None:
    flow_id, target = stored.flow_id(tx), stored.project_id(tx, "target")
    for _ in range(2):
        assert flows.update_flow_project(tx, flow_id, target) == {"id": flow_id}
    assert stored.rows(tx, tables.flow)[0]["project_id"] == target
    foreign = tenants.create_project(tx, tenants.create_tenant(tx, "Other", "other")["id"], "p")["id"]
    for project_id in (foreign, tables.new_id()):
        with pytest.raises(Refused, match=r"Invalid project\."):
            flows.update_flow_project(tx, flow_id, project_id)
    with pytest.raises(Refused, match="not found"):
        flows.update_flow_project(tx, tables.new_id(), target)
    assert stored.rows(tx, tables.flow)[0]["project_id"] == target


def test_a_flow_run_gets_other_labels(tx: Transaction) -> None:
    run_id = stored.flow_run_id(tx, labels=["x"])
    tx.queued = False
    for _ in range(2):
        assert flow_runs.set_flow_run_labels(tx, run_id, ["b", "a"]) == {"success": True}
    assert stored.flow_run(tx, run_id)["labels"] == ["a", "b"]
    assert tx.queued
    assert flow_runs.set_flow_run_labels(tx, tables.new_id(), []) == {"success": False}


def test_a_heartbeat_of_a_task_run_is_its_own(tx: Transaction) -> None:
    run_id = stored.flow_run_id(tx)
    [first, second] = [run["id"] for run in stored.task_runs(tx, run_id)]
    assert task_runs.update_task_run_heartbeat(tx, first) == {"success": True}
    assert stored.task_run(tx, first)["heartbeat"] is not None
    assert stored.task_run(tx, second)["heartbeat"] is stored.flow_run(tx, run_id)["heartbeat"] is None
    assert task_runs.update_task_run_heartbeat(tx, tables.new_id()) == {"success": True}
    assert stored.task_history(tx, first) == ["Pending"]
