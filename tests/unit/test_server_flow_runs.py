"""Flow runs: what they are created with, once per key, and their task runs."""

from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest
import stored
from prefect.engine.state import Pending
from sqlalchemy import event

from prefect_taskrun_tasks.server import tables
from prefect_taskrun_tasks.server.clock import ago
from prefect_taskrun_tasks.server.errors import Refused
from prefect_taskrun_tasks.server.rules import flow_groups, flow_runs, flows, task_runs
from prefect_taskrun_tasks.server.transaction import Transaction


@pytest.fixture
def tx(database_url: str) -> Iterator[Transaction]:
    with stored.transaction(database_url) as tx:
        yield tx


def test_a_new_flow_run_is_scheduled_for_now(tx: Transaction) -> None:
    run = stored.flow_run(tx, stored.flow_run_id(tx))
    assert (run["state"], run["state_message"], run["version"]) == ("Scheduled", "Flow run scheduled.", 1)
    assert ago(60) < run["scheduled_start_time"] == run["state_start_time"] <= ago(0)
    assert run["serialized_state"]["start_time"] == run["scheduled_start_time"]
    assert (run["auto_scheduled"], run["context"], run["parameters"], run["labels"]) == (False, {}, {}, [])
    assert run["name"].count("-") == 1
    assert stored.history(tx, run["id"]) == ["Scheduled"]


def test_a_flow_run_can_be_scheduled_for_later(tx: Transaction) -> None:
    start = "2031-01-01T00:00:00.000000+00:00"
    run = stored.flow_run(tx, stored.flow_run_id(tx, scheduled_start_time=start))
    assert run["scheduled_start_time"] == run["state_start_time"] == start
    stored.set_state(tx, run["id"], "Scheduled")
    assert stored.flow_run(tx, run["id"])["scheduled_start_time"] == start


def test_the_history_of_all_new_task_runs_is_stored_by_one_statement(tx: Transaction) -> None:
    """A flow may have 10,000 tasks, and other writers wait."""
    flow_id = stored.flow_id(tx, tasks=[str(number) for number in range(20)])
    sent: List[Tuple[str, bool]] = []

    def note(connection: Any, cursor: Any, statement: str, given: Any, context: Any, is_many: bool) -> None:
        sent.append((statement, is_many))

    event.listen(tx.connection, "before_cursor_execute", note)
    run_id = stored.flow_run_id(tx, flow_id=flow_id)
    [is_many] = [is_many for statement, is_many in sent if "INTO task_run_state" in statement]
    assert not is_many
    runs = {run["id"]: run for run in stored.task_runs(tx, run_id)}
    history = stored.rows(tx, tables.task_run_state)
    assert {each["task_run_id"] for each in history} == set(runs)
    assert len(history) == 20
    for each in history:
        run = runs[each["task_run_id"]]
        copied = [run[name] for name in ("state", "state_message", "state_timestamp", "serialized_state", "version")]
        assert [each[name] for name in ("state", "message", "timestamp", "serialized_state", "version")] == copied
        assert each["tenant_id"] == run["tenant_id"]
        assert (each["result"], each["start_time"]) == (None, None)


def test_a_flow_run_has_a_task_run_for_each_task_from_the_start(tx: Transaction) -> None:
    """T35: the runner learns the ids of the tasks from them."""
    flow_id = stored.flow_id(tx, tasks=[], name="other")
    flows.register_tasks(tx, flow_id, [{"slug": "a", "cache_key": "key"}, {"slug": "b"}])
    stored.flow_id(tx, tasks=["c"], name="another")
    run_id = stored.flow_run_id(tx, flow_id=flow_id)
    runs = stored.task_runs(tx, run_id)
    slugs = {task["id"]: task["slug"] for task in stored.rows(tx, tables.task, flow_id=flow_id)}
    assert sorted(slugs[run["task_id"]] for run in runs) == ["a", "b"]
    for run in runs:
        assert (run["state"], run["map_index"], run["version"]) == ("Pending", -1, 1)
        assert run["serialized_state"] == Pending("Task run created").serialize()
        assert run["tenant_id"] == stored.tenant_id(tx)
        assert run["cache_key"] == ("key" if slugs[run["task_id"]] == "a" else None)
        assert stored.task_history(tx, run["id"]) == ["Pending"]


def test_one_key_makes_one_run_of_a_flow_and_changes_nothing_in_it(tx: Transaction) -> None:
    """T25, T29: the client sends a request again that was not answered in time."""
    flow_id = stored.flow_id(tx)
    first = stored.flow_run_id(tx, flow_id=flow_id, idempotency_key="k", parameters={"x": 1})
    stored.set_state(tx, first, "Running")
    again = stored.flow_run_id(tx, flow_id=flow_id, idempotency_key="k", parameters={"x": 2}, flow_run_name="other")
    assert again == first
    assert stored.count(tx, tables.flow_run) == 1
    assert stored.count(tx, tables.task_run) == 2
    run = stored.flow_run(tx, first)
    assert (run["parameters"], run["state"]) == ({"x": 1}, "Running")


def test_one_key_makes_a_run_of_each_version(tx: Transaction) -> None:
    """T29: the key belongs to the version, not to the flow's group."""
    first = stored.flow_run_id(tx, flow_id=stored.flow_id(tx), idempotency_key="k")
    assert stored.flow_run_id(tx, flow_id=stored.flow_id(tx), idempotency_key="k") != first


def test_runs_without_a_key_are_runs_of_their_own(tx: Transaction) -> None:
    flow_id = stored.flow_id(tx)
    assert stored.flow_run_id(tx, flow_id=flow_id) != stored.flow_run_id(tx, flow_id=flow_id)


def test_a_version_group_runs_its_newest_unarchived_version(tx: Transaction) -> None:
    for _ in range(3):
        newest = stored.flow_id(tx, version_group_id="group")
    run = stored.flow_run(tx, stored.flow_run_id(tx, version_group_id="group"))
    assert run["flow_id"] == newest
    flows.archive_flow(tx, newest)
    with pytest.raises(Refused, match="no unarchived flow"):
        stored.flow_run_id(tx, version_group_id="group")


def test_an_archived_flow_cannot_be_run(tx: Transaction) -> None:
    flow_id = stored.flow_id(tx)
    flows.archive_flow(tx, flow_id)
    with pytest.raises(Refused, match="is archived"):
        stored.flow_run_id(tx, flow_id=flow_id)


def test_a_flow_run_needs_a_flow_that_there_is(tx: Transaction) -> None:
    with pytest.raises(Refused, match="needs a flow_id"):
        flow_runs.create_flow_run(tx)
    with pytest.raises(Refused, match=r"Flow .* not found"):
        stored.flow_run_id(tx, flow_id=tables.new_id())
    with pytest.raises(Refused, match="no unarchived flow"):
        stored.flow_run_id(tx, version_group_id="unheard of")


def parameter(name: str, default: Any = None, required: bool = False) -> Dict[str, Any]:
    return {"name": name, "slug": name, "default": default, "required": required}


def group_of(tx: Transaction, flow_id: str) -> str:
    return str(stored.rows(tx, tables.flow, id=flow_id)[0]["flow_group_id"])


def test_given_parameters_come_before_those_of_the_group_and_of_the_flow(tx: Transaction) -> None:
    flow_id = stored.flow_id(tx, parameters=[parameter(name, "flow") for name in ("x", "y", "z")])
    flow_groups.set_flow_group_default_parameters(tx, group_of(tx, flow_id), {"y": "group", "z": "group"})
    run = stored.flow_run(tx, stored.flow_run_id(tx, flow_id=flow_id, parameters={"z": "run", "more": 1}))
    assert run["parameters"] == {"x": "flow", "y": "group", "z": "run", "more": 1}


@pytest.mark.parametrize("default", [0, False, "", [], None])
def test_a_falsy_default_is_left_to_the_runner(tx: Transaction, default: Any) -> None:
    """T30."""
    flow_id = stored.flow_id(tx, parameters=[parameter("x", default)])
    assert stored.flow_run(tx, stored.flow_run_id(tx, flow_id=flow_id))["parameters"] == {}


def test_a_required_parameter_needs_a_value_but_may_be_null(tx: Transaction) -> None:
    flow_id = stored.flow_id(tx, parameters=[parameter("x", required=True)])
    with pytest.raises(Refused, match="Required parameters were not supplied"):
        stored.flow_run_id(tx, flow_id=flow_id)
    assert stored.count(tx, tables.flow_run) == 0
    run = stored.flow_run(tx, stored.flow_run_id(tx, flow_id=flow_id, parameters={"x": None}))
    assert run["parameters"] == {"x": None}
    flow_groups.set_flow_group_default_parameters(tx, group_of(tx, flow_id), {"x": 1})
    assert stored.flow_run(tx, stored.flow_run_id(tx, flow_id=flow_id))["parameters"] == {"x": 1}


@pytest.mark.parametrize("name", ["parameters", "context", "run_config"])
@pytest.mark.parametrize("value", [[], "x", 1, True])
def test_what_must_be_an_object_is_refused_if_it_is_none(tx: Transaction, name: str, value: Any) -> None:
    """T6: the client calls methods of objects on them."""
    with pytest.raises(Refused, match=f"{name} of a flow run must be an object"):
        stored.flow_run_id(tx, **{name: value})


@pytest.mark.parametrize(
    ("labels", "run_config", "group_labels", "group_config", "flow_config", "environment", "expected"),
    [
        (["b", "a"], ["r"], ["g"], ["gc"], ["fc"], ["e"], ["a", "b"]),
        ([], ["r"], ["g"], ["gc"], ["fc"], ["e"], []),
        (None, ["r"], ["g"], ["gc"], ["fc"], ["e"], ["r"]),
        (None, None, ["g2", "g1"], ["gc"], ["fc"], ["e"], ["g1", "g2"]),
        (None, None, [], ["gc"], ["fc"], ["e"], []),
        (None, None, None, ["gc"], ["fc"], ["e"], ["gc"]),
        (None, None, None, [], ["fc"], ["e"], []),
        (None, None, None, None, ["fc"], ["e"], ["fc"]),
        (None, None, None, None, [], ["e"], []),
        (None, None, None, None, None, ["e"], ["e"]),
        (None, None, None, None, None, None, []),
    ],
)
def test_labels_are_the_first_that_are_set(
    tx: Transaction,
    labels: Any,
    run_config: Any,
    group_labels: Any,
    group_config: Any,
    flow_config: Any,
    environment: Any,
    expected: Any,
) -> None:
    """T7, T28: none at all is also something that can be set."""

    def config(labels: Any) -> Optional[Dict[str, Any]]:
        return None if labels is None else {"type": "LocalRun", "labels": labels}

    flow_id = stored.flow_id(tx, run_config=config(flow_config), environment=config(environment))
    group_id = group_of(tx, flow_id)
    flow_groups.set_flow_group_labels(tx, group_id, group_labels)
    flow_groups.set_flow_group_run_config(tx, group_id, config(group_config))
    run_id = stored.flow_run_id(tx, flow_id=flow_id, labels=labels, run_config=config(run_config))
    assert stored.flow_run(tx, run_id)["labels"] == expected


def test_a_run_config_without_labels_means_none(tx: Transaction) -> None:
    """T28."""
    flow_id = stored.flow_id(tx, run_config={"type": "LocalRun", "labels": ["flow"]})
    run_id = stored.flow_run_id(tx, flow_id=flow_id, run_config={"type": "UniversalRun"})
    assert stored.flow_run(tx, run_id)["labels"] == []


def test_the_run_config_is_that_of_the_run_else_the_groups_else_the_flows(tx: Transaction) -> None:
    flow_id = stored.flow_id(tx, run_config={"type": "flow", "env": {"A": "1"}})

    def effective(**given: Any) -> Any:
        return stored.flow_run(tx, stored.flow_run_id(tx, flow_id=flow_id, **given))["run_config"]

    assert effective() == {"type": "flow", "env": {"A": "1"}}
    flow_groups.set_flow_group_run_config(tx, group_of(tx, flow_id), {"type": "group"})
    assert effective() == {"type": "group"}
    assert effective(run_config={"type": "run"}) == {"type": "run"}
    flow_groups.set_flow_group_run_config(tx, group_of(tx, flow_id), None)
    assert effective()["type"] == "flow"


def test_a_flow_run_can_be_named_and_renamed_but_not_to_nothing(tx: Transaction) -> None:
    run_id = stored.flow_run_id(tx, flow_run_name="mine")
    assert stored.flow_run(tx, run_id)["name"] == "mine"
    assert flow_runs.set_flow_run_name(tx, run_id, "yours") == {"success": True}
    assert stored.flow_run(tx, run_id)["name"] == "yours"
    with pytest.raises(Refused, match="empty"):
        flow_runs.set_flow_run_name(tx, run_id, "")
    assert flow_runs.set_flow_run_name(tx, tables.new_id(), "x") == {"success": False}


def test_a_heartbeat_is_noted_and_never_fails(tx: Transaction) -> None:
    run_id = stored.flow_run_id(tx)
    assert flow_runs.update_flow_run_heartbeat(tx, run_id) == {"success": True}
    assert stored.flow_run(tx, run_id)["heartbeat"] is not None
    assert flow_runs.update_flow_run_heartbeat(tx, tables.new_id()) == {"success": True}


def test_the_task_run_of_a_task_is_found_and_not_made_again(tx: Transaction) -> None:
    run_id = stored.flow_run_id(tx)
    known = stored.task_runs(tx, run_id)[0]
    for map_index in (None, -1):
        info = task_runs.get_or_create_task_run_info(tx, run_id, known["task_id"], map_index)
        assert (info["id"], info["version"], info["state"]) == (known["id"], 1, "Pending")
    assert stored.count(tx, tables.task_run) == 2


def test_a_mapped_child_is_made_once(tx: Transaction) -> None:
    """T20: after a redeploy several workers may ask for the same child."""
    flow_id = stored.flow_id(tx, tasks=[])
    flows.register_tasks(tx, flow_id, [{"slug": "mapped", "cache_key": "key"}])
    run_id = stored.flow_run_id(tx, flow_id=flow_id)
    task_id = stored.task_runs(tx, run_id)[0]["task_id"]
    ids = {task_runs.get_or_create_task_run_info(tx, run_id, task_id, 0)["id"] for _ in range(3)}
    assert len(ids) == 1
    [child_id] = ids
    child = stored.task_run(tx, child_id)
    assert (child["map_index"], child["state"], child["cache_key"]) == (0, "Pending", "key")
    assert child["serialized_state"]["type"] == "Pending"
    assert child["tenant_id"] == stored.tenant_id(tx)
    assert stored.task_history(tx, child_id) == ["Pending"]


def test_a_task_run_of_a_task_that_the_flow_does_not_have_is_refused(tx: Transaction) -> None:
    run_id = stored.flow_run_id(tx)
    stored.flow_id(tx, name="other", tasks=["c"])
    foreign = stored.rows(tx, tables.task, slug="c")[0]["id"]
    for task_id in (tables.new_id(), foreign):
        with pytest.raises(Refused, match="Invalid task ID"):
            task_runs.get_or_create_task_run_info(tx, run_id, task_id)
    with pytest.raises(Refused, match="not found"):
        task_runs.get_or_create_task_run_info(tx, tables.new_id(), foreign)


def test_a_task_run_can_be_named_but_not_to_nothing(tx: Transaction) -> None:
    task_run_id = stored.task_runs(tx, stored.flow_run_id(tx))[0]["id"]
    assert stored.task_run(tx, task_run_id)["name"] is None
    assert task_runs.set_task_run_name(tx, task_run_id, "mine") == {"success": True}
    assert stored.task_run(tx, task_run_id)["name"] == "mine"
    with pytest.raises(Refused, match="empty"):
        task_runs.set_task_run_name(tx, task_run_id, "")


def test_an_unknown_task_run_has_no_info(tx: Transaction) -> None:
    with pytest.raises(Refused, match="Invalid task run ID"):
        task_runs.get_task_run_info(tx, tables.new_id())
