"""Tenants, projects, and flows: how versions are registered, replaced and scheduled."""

import base64
import gzip
import json
from datetime import datetime, timedelta, timezone
from typing import Any, Dict, Iterator

import pendulum
import pytest
import stored
from prefect.schedules import IntervalSchedule, Schedule
from prefect.schedules.clocks import CronClock, DatesClock, IntervalClock
from prefect.serialization.schedule import ScheduleSchema

from prefect_taskrun_tasks.server import tables
from prefect_taskrun_tasks.server.clock import moment
from prefect_taskrun_tasks.server.errors import Refused
from prefect_taskrun_tasks.server.rules import flow_groups, flows, schedules, tenants
from prefect_taskrun_tasks.server.transaction import Row, Transaction


@pytest.fixture
def tx(database_url: str) -> Iterator[Transaction]:
    with stored.transaction(database_url) as tx:
        yield tx


def flow(tx: Transaction, id: str) -> Row:
    return stored.rows(tx, tables.flow, id=id)[0]


def group(tx: Transaction, flow_id: str) -> Row:
    return stored.rows(tx, tables.flow_group, id=flow(tx, flow_id)["flow_group_id"])[0]


@pytest.mark.parametrize("slug", ["", "Not A Slug", "a_b", "-a", "a--b", "ä"])
def test_a_tenant_needs_a_slug_that_is_one(tx: Transaction, slug: str) -> None:
    with pytest.raises(Refused, match="is not a slug"):
        tenants.create_tenant(tx, "Tenant", slug)


def test_what_there_is_already_is_refused_in_exactly_the_words_that_the_client_knows(tx: Transaction) -> None:
    with pytest.raises(Refused, match=r"^Uniqueness violation\.$"):
        tenants.create_tenant(tx, "Other name", "default")
    stored.project_id(tx, "p")
    with pytest.raises(Refused, match=r"^Uniqueness violation\.$"):
        tenants.create_project(tx, stored.tenant_id(tx), "p")


def test_two_tenants_may_have_projects_of_one_name(tx: Transaction) -> None:
    other = tenants.create_tenant(tx, "Other", "other")["id"]
    assert stored.project_id(tx, "p") != tenants.create_project(tx, other, "p", "mine")["id"]


def test_a_project_needs_a_tenant_that_there_is(tx: Transaction) -> None:
    with pytest.raises(Refused, match="no tenant"):
        tenants.create_project(tx, tables.new_id(), "p")


def test_a_flow_is_stored_in_parts(tx: Transaction) -> None:
    parts: Dict[str, Any] = {
        "storage": {"type": "Local"},
        "run_config": {"type": "LocalRun"},
        "environment": {"type": "LocalEnvironment"},
        "parameters": [{"name": "x", "slug": "x", "required": False, "default": 1}],
    }
    stored_flow = flow(tx, stored.flow_id(tx, name="f", description="about", **parts))
    assert {name: stored_flow[name] for name in parts} == parts
    assert (stored_flow["name"], stored_flow["version"], stored_flow["archived"]) == ("f", 1, False)
    assert (stored_flow["core_version"], stored_flow["description"]) == ("1.4.1", "about")
    assert stored_flow["tenant_id"] == stored.tenant_id(tx)
    assert stored_flow["settings"] == {}
    settings = group(tx, stored_flow["id"])["settings"]
    assert settings["heartbeat_enabled"] is settings["lazarus_enabled"] is True


def test_parts_that_a_flow_does_not_have_are_null(tx: Transaction) -> None:
    stored_flow = flow(tx, stored.flow_id(tx, environment=None))
    assert [stored_flow[name] for name in ("storage", "run_config", "environment", "schedule")] == [None] * 4
    assert stored_flow["parameters"] == []


def test_a_compressed_flow_is_that_flow(tx: Transaction) -> None:
    packed = base64.b64encode(gzip.compress(json.dumps({"name": "packed"}).encode())).decode()
    answer = flows.create_flow_from_compressed_string(tx, packed, project_id=stored.project_id(tx))
    assert flow(tx, answer["id"])["name"] == "packed"


@pytest.mark.parametrize("packed", ["", "!", "aGVsbG8=", base64.b64encode(gzip.compress(b"{", mtime=0)).decode()])
def test_a_compressed_flow_that_cannot_be_read_is_refused(tx: Transaction, packed: str) -> None:
    with pytest.raises(Refused, match="cannot be read"):
        flows.create_flow_from_compressed_string(tx, packed, project_id=stored.project_id(tx))


@pytest.mark.parametrize("serialized", [None, [], "flow", {}, {"name": ""}, {"name": 5}, {"name": ["x"]}])
def test_what_is_no_flow_is_refused(tx: Transaction, serialized: Any) -> None:
    with pytest.raises(Refused, match="must be an object with a name"):
        flows.create_flow(tx, serialized, project_id=stored.project_id(tx))


@pytest.mark.parametrize(
    "part",
    [
        {"run_config": "x"},
        {"environment": []},
        {"storage": 5},
        {"schedule": [1]},
        {"tasks": {}},
        {"tasks": [5]},
        {"tasks": [{"slug": ["x"]}]},
        {"tasks": [{"slug": "x", "trigger": "y"}]},
        {"tasks": [{"slug": "x", "retry_delay": "z"}]},
        {"edges": 5},
        {"edges": ["x"]},
        {"parameters": {"x": 1}},
        {"parameters": [1]},
        {"__version__": [1]},
    ],
)
def test_a_flow_with_parts_that_none_of_its_runs_could_use_is_refused(tx: Transaction, part: Any) -> None:
    project_id = stored.project_id(tx)
    with pytest.raises(Refused), tx.attempt():
        flows.create_flow(tx, {"name": "f", **part}, project_id=project_id)
    assert stored.count(tx, tables.flow) == 0


def test_an_edge_that_is_none_is_refused(tx: Transaction) -> None:
    with pytest.raises(Refused, match="An edge"):
        flows.register_edges(tx, stored.flow_id(tx), [True])  # type: ignore[list-item]


def test_a_flow_needs_a_project_that_there_is(tx: Transaction) -> None:
    with pytest.raises(Refused, match=r"Invalid project\."):
        stored.flow_id(tx, project_id=tables.new_id())


def test_registering_a_name_again_makes_the_next_version_and_archives_the_last(tx: Transaction) -> None:
    """T31."""
    ids = [stored.flow_id(tx) for _ in range(3)]
    versions = [flow(tx, id) for id in ids]
    assert [each["version"] for each in versions] == [1, 2, 3]
    assert [each["archived"] for each in versions] == [True, True, False]
    assert len({each["flow_group_id"] for each in versions}) == 1
    assert versions[0]["version_group_id"] == group(tx, ids[0])["name"]


def test_a_name_is_known_within_its_project(tx: Transaction) -> None:
    first = stored.flow_id(tx)
    other = stored.flow_id(tx, project_id=stored.project_id(tx, "other"))
    assert (flow(tx, first)["archived"], flow(tx, other)["version"]) == (False, 1)


def test_a_given_version_group_decides_whatever_the_name(tx: Transaction) -> None:
    first = stored.flow_id(tx, name="before", version_group_id="group")
    second = stored.flow_id(tx, name="after", version_group_id="group")
    assert flow(tx, second)["version"] == 2
    assert flow(tx, first)["archived"] is True
    assert stored.flow_id(tx, name="after", version_group_id=None)
    assert stored.count(tx, tables.flow_group) == 1


def test_an_archived_flow_still_names_its_group(tx: Transaction) -> None:
    flows.archive_flow(tx, stored.flow_id(tx))
    assert flow(tx, stored.flow_id(tx))["version"] == 2


def test_one_idempotency_key_makes_one_version(tx: Transaction) -> None:
    """T29."""
    first = stored.flow_id(tx, idempotency_key="k")
    assert stored.flow_id(tx, idempotency_key="k") == first
    assert stored.count(tx, tables.flow) == 1


@pytest.mark.parametrize("between", ["other", None, ""])
def test_only_the_latest_key_of_a_flow_counts(tx: Transaction, between: Any) -> None:
    """T29: also no key replaces one."""
    first = stored.flow_id(tx, idempotency_key="k")
    stored.flow_id(tx, idempotency_key=between)
    assert stored.flow_id(tx, idempotency_key="k") != first
    assert stored.count(tx, tables.flow) == 3


def test_a_key_whose_versions_are_all_archived_makes_a_new_one(tx: Transaction) -> None:
    first = stored.flow_id(tx, idempotency_key="k")
    flows.archive_flow(tx, first)
    assert flow(tx, stored.flow_id(tx, idempotency_key="k"))["version"] == 2


def test_a_key_is_kept_beside_the_other_settings_of_the_group(tx: Transaction) -> None:
    first = stored.flow_id(tx)
    changed = {"lazarus_enabled": False}
    tx.update(tables.flow_group, settings=changed)
    stored.flow_id(tx, idempotency_key="k")
    assert group(tx, first)["settings"] == {"lazarus_enabled": False, "idempotency_key": "k"}


def test_tasks_are_stored_with_what_prefect_says_of_them(tx: Transaction) -> None:
    flow_id = stored.flow_id(tx, tasks=[])
    given = {
        "slug": "a-1",
        "name": "a",
        "type": "prefect.tasks.core.function.FunctionTask",
        "tags": ["t"],
        "max_retries": 2,
        "retry_delay": 10,
        "trigger": {"fn": "prefect.triggers.all_successful", "kwargs": {}},
        "cache_key": "key",
        "auto_generated": True,
        "mapped": True,
        "unheard_of": {"x": 1},
    }
    assert flows.register_tasks(tx, flow_id, [given]) == {"success": True}
    [task] = stored.rows(tx, tables.task)
    same = ("slug", "name", "type", "tags", "max_retries", "cache_key", "auto_generated")
    assert {name: task[name] for name in same} == {name: given[name] for name in same}
    assert (task["retry_delay"], task["trigger"]) == ("00:00:10", "prefect.triggers.all_successful")
    assert task["tenant_id"] == stored.tenant_id(tx)
    assert flow(tx, flow_id)["serialized_flow"]["tasks"] == [given]


@pytest.mark.parametrize(
    ("seconds", "interval"),
    [(None, None), (0, "00:00:00"), (59.6, "00:00:59"), (3661, "01:01:01"), (90_000, "25:00:00")],
)
def test_a_retry_delay_is_stored_as_hours_minutes_and_seconds(tx: Transaction, seconds: Any, interval: Any) -> None:
    flow_id = stored.flow_id(tx, tasks=[])
    flows.register_tasks(tx, flow_id, [{"slug": "a", "retry_delay": seconds}])
    assert stored.rows(tx, tables.task)[0]["retry_delay"] == interval


def test_tasks_and_edges_may_come_in_parts_and_twice(tx: Transaction) -> None:
    """T25: and an empty part at the end, which the client sends when their number is a multiple of 500."""
    flow_id = stored.flow_id(tx, tasks=["a"])
    edge = {"upstream_task": {"slug": "a"}, "downstream_task": {"slug": "b"}, "key": "x"}
    for _ in range(2):
        assert flows.register_tasks(tx, flow_id, [{"slug": "a"}, {"slug": "b"}, {"slug": "b"}])["success"]
        assert flows.register_tasks(tx, flow_id, [])["success"]
        assert flows.register_edges(tx, flow_id, [edge, {**edge, "key": "y"}])["success"]
        assert flows.register_edges(tx, flow_id, [])["success"]
    assert stored.count(tx, tables.task) == 2
    assert stored.count(tx, tables.edge) == 1
    assert [task["slug"] for task in flow(tx, flow_id)["serialized_flow"]["tasks"]] == ["a", "b"]


def test_the_ends_of_an_edge_may_be_slugs(tx: Transaction) -> None:
    flow_id = stored.flow_id(tx)
    flows.register_edges(tx, flow_id, [{"upstream_task": "a", "downstream_task": "b", "mapped": True}])
    [edge] = stored.rows(tx, tables.edge)
    slugs = {task["id"]: task["slug"] for task in stored.rows(tx, tables.task)}
    assert (slugs[edge["upstream_task_id"]], slugs[edge["downstream_task_id"]]) == ("a", "b")
    assert (edge["mapped"], edge["key"]) == (True, None)


def test_an_edge_of_an_unknown_task_is_refused(tx: Transaction) -> None:
    flow_id = stored.flow_id(tx)
    with pytest.raises(Refused, match="'c'"):
        flows.register_edges(tx, flow_id, [{"upstream_task": "a", "downstream_task": "c"}])


@pytest.mark.parametrize("task", [None, "a", {}, {"slug": ""}])
def test_a_task_without_a_slug_is_refused(tx: Transaction, task: Any) -> None:
    with pytest.raises(Refused, match="needs a slug"):
        flows.register_tasks(tx, stored.flow_id(tx), [task])


def test_tasks_and_edges_need_a_flow_that_there_is(tx: Transaction) -> None:
    for register in (flows.register_tasks, flows.register_edges):
        with pytest.raises(Refused, match="not found"):
            register(tx, tables.new_id(), [])


def test_a_new_version_cancels_waiting_runs_of_the_last_and_leaves_its_running_ones(tx: Transaction) -> None:
    """T31."""
    old = stored.flow_id(tx)
    waiting, running, done = (stored.flow_run_id(tx, flow_id=old) for _ in range(3))
    stored.set_state(tx, running, "Running")
    stored.set_state(tx, done, "Success")
    stored.flow_id(tx)
    assert [stored.flow_run(tx, id)["state"] for id in (waiting, running, done)] == ["Cancelled", "Running", "Success"]
    assert stored.flow_run(tx, waiting)["state_message"] == f"Flow {old} was archived."
    assert {run["state"] for run in stored.task_runs(tx, waiting)} == {"Cancelled"}


HOURLY = ScheduleSchema().dump(IntervalSchedule(interval=pendulum.duration(hours=1)))


def scheduled(tx: Transaction) -> Any:
    return stored.rows(tx, tables.flow_run, auto_scheduled=True)


def test_a_schedule_is_active_from_registration_on_unless_told_otherwise(tx: Transaction) -> None:
    """T7."""
    flow_id = stored.flow_id(tx, schedule=HOURLY, set_schedule_active=False)
    assert (flow(tx, flow_id)["is_schedule_active"], scheduled(tx)) == (False, [])
    flow_id = stored.flow_id(tx, schedule=HOURLY)
    assert (flow(tx, flow_id)["is_schedule_active"], len(scheduled(tx))) == (True, 10)


def test_an_active_schedule_has_its_next_ten_runs_waiting(tx: Transaction) -> None:
    stored.flow_id(tx, schedule=HOURLY)
    runs = scheduled(tx)
    starts = [moment(run["scheduled_start_time"]) for run in runs]
    assert all(run["state"] == "Scheduled" for run in runs)
    assert {(later - earlier).total_seconds() for earlier, later in zip(starts, starts[1:])} == {3600}
    assert starts[0] > pendulum.now()
    key = f"auto-scheduled:{runs[0]['scheduled_start_time']}"
    assert runs[0]["idempotency_key"] == key


def test_scheduling_again_makes_no_run_twice(tx: Transaction) -> None:
    flow_id = stored.flow_id(tx, schedule=HOURLY)
    assert schedules.schedule_flow_runs(tx, flow_id) == []
    assert schedules.set_schedule_active(tx, flow_id) == {"success": True}
    assert len(scheduled(tx)) == 10


def test_clocks_with_parameters_of_their_own_each_get_their_run(tx: Transaction) -> None:
    at = [pendulum.now().add(hours=1)]
    clocks = [DatesClock(at, parameter_defaults={"x": x}) for x in (1, 2)]
    clocks.append(DatesClock(at, labels=["special"]))
    flow_id = stored.flow_id(tx, schedule=ScheduleSchema().dump(Schedule(clocks=clocks)))
    schedules.schedule_flow_runs(tx, flow_id)
    runs = scheduled(tx)
    assert sorted(str(run["parameters"]) for run in runs) == ["{'x': 1}", "{'x': 2}", "{}"]
    assert sorted(run["labels"] for run in runs) == [[], [], ["special"]]


def test_a_flow_without_a_schedule_is_told_so_without_an_error(tx: Transaction) -> None:
    """Every registration asks for it."""
    flow_id = stored.flow_id(tx)
    assert schedules.set_schedule_active(tx, flow_id) == {"success": False}
    assert flow(tx, flow_id)["is_schedule_active"] is False


def test_a_schedule_must_give_required_parameters_a_value(tx: Transaction) -> None:
    parameters = [{"name": "x", "slug": "x", "required": True, "default": None}]
    flow_id = stored.flow_id(tx, schedule=HOURLY, parameters=parameters)
    assert flow(tx, flow_id)["is_schedule_active"] is False
    with pytest.raises(Refused, match="'x'"):
        schedules.set_schedule_active(tx, flow_id)
    flow_groups.set_flow_group_default_parameters(tx, flow(tx, flow_id)["flow_group_id"], {"x": 1})
    assert schedules.set_schedule_active(tx, flow_id) == {"success": True}
    clock = IntervalClock(pendulum.duration(hours=1), parameter_defaults={"x": 1})
    schedule = ScheduleSchema().dump(Schedule(clocks=[clock]))
    assert flow(tx, stored.flow_id(tx, name="g", schedule=schedule, parameters=parameters))["is_schedule_active"]


@pytest.mark.parametrize("clock", [{"type": "Sundial"}, {"type": "CronClock", "cron": "x"}, {"type": "IntervalClock"}])
def test_a_flow_whose_schedule_cannot_be_read_is_refused_with_the_reason(tx: Transaction, clock: Any) -> None:
    """Prefect Server registers it, with its schedule off, and only its log says why."""
    stored.flow_id(tx)
    with pytest.raises(Refused, match="The schedule of flow 'flow' cannot be used"), tx.attempt():
        stored.flow_id(tx, schedule={"type": "Schedule", "clocks": [clock]})
    assert [row["archived"] for row in stored.rows(tx, tables.flow)] == [False]
    assert stored.flow_id(tx, schedule={"type": "Schedule", "clocks": [clock]}, set_schedule_active=False)


@pytest.mark.parametrize(
    ("kind", "offset"),
    [
        (CronClock, 0),
        (CronClock, 120),
        (CronClock, -300),
        (IntervalClock, 0),
        (IntervalClock, -300),
        (IntervalClock, 330),
    ],
)
def test_a_schedule_that_starts_at_a_fixed_offset_is_active(tx: Transaction, kind: Any, offset: int) -> None:
    """Prefect writes the zone of such a start as `+00:00`, which it cannot read."""
    zone = timezone(timedelta(minutes=offset))
    start = datetime(2026, 1, 1, 5, tzinfo=zone)
    clock = kind("0 5 * * *" if kind is CronClock else timedelta(days=1), start_date=start)
    flow_id = stored.flow_id(tx, schedule=ScheduleSchema().dump(Schedule(clocks=[clock])))
    assert flow(tx, flow_id)["is_schedule_active"] is True
    starts = [moment(run["scheduled_start_time"]).astimezone(zone) for run in scheduled(tx)]
    assert [(each.hour, each.minute) for each in starts] == [(5, 0)] * 10


def test_the_schedule_of_a_flow_that_is_not_there_is_neither_switched_on_nor_off(tx: Transaction) -> None:
    assert schedules.set_schedule_active(tx, tables.new_id()) == {"success": False}
    assert schedules.set_schedule_inactive(tx, tables.new_id()) == {"success": False}


def test_an_inactive_schedule_has_no_waiting_runs(tx: Transaction) -> None:
    flow_id = stored.flow_id(tx, schedule=HOURLY)
    started = scheduled(tx)[0]["id"]
    stored.set_state(tx, started, "Running")
    asked_for = stored.flow_run_id(tx, flow_id=flow_id)
    assert schedules.set_schedule_inactive(tx, flow_id) == {"success": True}
    assert flow(tx, flow_id)["is_schedule_active"] is False
    assert {run["id"] for run in stored.rows(tx, tables.flow_run)} == {started, asked_for}


def test_a_new_version_takes_over_the_schedule(tx: Transaction) -> None:
    old = stored.flow_id(tx, schedule=HOURLY)
    new = stored.flow_id(tx, schedule=HOURLY)
    assert {run["flow_id"] for run in scheduled(tx)} == {new} != {old}
    assert len(scheduled(tx)) == 10


def test_the_schedule_of_a_group_replaces_that_of_its_flows(tx: Transaction) -> None:
    flow_id = stored.flow_id(tx, schedule=HOURLY)
    group_id = flow(tx, flow_id)["flow_group_id"]
    daily = {"cron": "0 5 * * *", "parameter_defaults": {"x": 1}}
    assert schedules.set_flow_group_schedule(tx, group_id, cron_clocks=[daily], timezone="Europe/Berlin")["success"]
    assert scheduled(tx) == []
    # Prefect Server's own form, which the web UI reads
    [clock] = group(tx, flow_id)["schedule"].pop("clocks")
    assert group(tx, flow_id)["schedule"]["type"] == "Schedule"
    start = clock.pop("start_date")
    assert clock == {"type": "CronClock", **daily}
    assert start["tz"] == "Europe/Berlin"
    assert pendulum.parse(start["dt"], tz=start["tz"]) < pendulum.now()
    schedules.schedule_flow_runs(tx, flow_id)
    starts = [moment(run["scheduled_start_time"]) for run in scheduled(tx)]
    assert len(starts) == 10
    assert {pendulum.instance(start).in_timezone("Europe/Berlin").hour for start in starts} == {5}
    assert scheduled(tx)[0]["parameters"] == {"x": 1}


def test_a_group_may_have_clocks_of_both_kinds(tx: Transaction) -> None:
    flow_id = stored.flow_id(tx)
    group_id = flow(tx, flow_id)["flow_group_id"]
    schedules.set_flow_group_schedule(tx, group_id, [{"cron": "0 5 * * *"}], [{"interval": 3600}])
    clocks = group(tx, flow_id)["schedule"]["clocks"]
    assert [clock["type"] for clock in clocks] == ["CronClock", "IntervalClock"]
    assert clocks[1]["interval"] == 3_600_000_000
    assert [clock["start_date"]["tz"] for clock in clocks] == ["UTC", "UTC"]
    assert schedules.set_schedule_active(tx, flow_id) == {"success": True}


@pytest.mark.parametrize(
    "schedule",
    [
        {},
        {"cron_clocks": [{"cron": "every now and then"}]},
        {"interval_clocks": [{"interval": 0}]},
        {"interval_clocks": [{"interval": 3600}], "timezone": "Middle/Earth"},
    ],
)
def test_a_group_schedule_that_makes_no_sense_is_refused(tx: Transaction, schedule: Any) -> None:
    flow_id = stored.flow_id(tx)
    with pytest.raises(Refused, match="schedule"):
        schedules.set_flow_group_schedule(tx, flow(tx, flow_id)["flow_group_id"], **schedule)
    assert group(tx, flow_id)["schedule"] is None


def test_the_labels_of_a_group_can_be_set_emptied_and_unset(tx: Transaction) -> None:
    flow_id = stored.flow_id(tx)
    group_id = flow(tx, flow_id)["flow_group_id"]
    for given, kept in ((["b", "a", "b"], ["a", "b"]), ([], []), (None, None)):
        assert flow_groups.set_flow_group_labels(tx, group_id, given) == {"success": True}
        assert group(tx, flow_id)["labels"] == kept


def test_a_group_that_is_not_there_is_not_changed(tx: Transaction) -> None:
    id = tables.new_id()
    assert flow_groups.set_flow_group_labels(tx, id, []) == {"success": False}
    assert flow_groups.set_flow_group_run_config(tx, id, {}) == {"success": False}
    assert flow_groups.set_flow_group_default_parameters(tx, id, {}) == {"success": False}
    with pytest.raises(Refused, match="must be an object"):
        flow_groups.set_flow_group_default_parameters(tx, id, [])
