"""Mutations as callers see them: what they accept, and the same request a second time."""

from typing import Any, Iterator

import pytest
from asking import Caller, caller

UNKNOWN = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def api(database_url: str) -> Iterator[Caller]:
    with caller(database_url) as api:
        yield api


def test_input_may_be_written_in_the_document(api: Caller) -> None:
    """The client does so for two mutations, and the page of Prefect mixes both."""
    run_id = api.running()
    [task, *_] = api.ask("{ task { id } }")["task"]
    query = f"""mutation {{
        get_or_create_task_run_info(input: {{flow_run_id: "{run_id}", task_id: "{task["id"]}", map_index: -1}}) {{
            id version serialized_state state
        }}
        update_flow_run_heartbeat(input: {{flow_run_id: "{run_id}"}}) {{ success }}
    }}"""
    answer = api.ask(query)
    assert answer["get_or_create_task_run_info"]["state"] == "Pending"
    assert answer["update_flow_run_heartbeat"] == {"success": True}
    query = """mutation($id: UUID!, $state: JSON!) {
        set_flow_run_states(input: {states: [{flow_run_id: $id, state: $state}]}) { states { id status } }
    }"""
    state = {"type": "Failed", "message": "m"}
    assert api.ask(query, id=run_id, state=state)["set_flow_run_states"]["states"][0]["status"] == "SUCCESS"
    query = query.replace("$state}", '"{\\"type\\": \\"Success\\"}"}').replace(", $state: JSON!", "")
    api.ask(query, id=run_id)
    assert api.flow_run(run_id, "state") == {"state": "Success"}


def test_an_object_stands_for_a_list_of_one(api: Caller) -> None:
    run_id = api.flow_run_id()
    assert api.mutate("write_run_logs", "success", logs={"flow_run_id": run_id, "message": "m"}) is True
    assert api.count("log") == 1


@pytest.mark.parametrize("id", ["{upper}", "{plain}"])
def test_an_id_may_be_spelled_in_any_way_that_python_reads(api: Caller, id: str) -> None:
    run_id = api.flow_run_id()
    spelled = id.format(upper=run_id.upper(), plain=run_id.replace("-", ""))
    assert api.set_state(spelled, "Running")["states"] == [{"id": run_id, "status": "SUCCESS"}]


def test_optional_fields_may_be_null_or_missing(api: Caller) -> None:
    """T7."""
    flow = {"name": "f", "tasks": []}
    nulls = {"version_group_id": None, "description": None, "idempotency_key": None, "set_schedule_active": None}
    flow_id = api.mutate("create_flow", project_id=api.project_id(), serialized_flow=flow, **nulls)
    nulls = dict.fromkeys(("parameters", "context", "labels", "run_config", "idempotency_key", "flow_run_name"))
    run_id = api.flow_run_id(flow_id, version_group_id=None, scheduled_start_time=None, **nulls)
    run = api.flow_run(run_id, "parameters context labels run_config idempotency_key state")
    assert run == {
        "parameters": {},
        "context": {},
        "labels": [],
        "run_config": None,
        "idempotency_key": None,
        "state": "Scheduled",
    }
    tenant_id = api.tenant_id()
    assert api.mutate("register_agent", type="LocalAgent", labels=None, agent_config_id=None, name=None)
    assert api.mutate("get_runs_in_queue", "flow_run_ids", tenant_id=tenant_id, before=None, labels=None) == [run_id]


def test_a_flow_whose_schedule_is_not_to_be_active_says_so_with_null(api: Caller) -> None:
    """T7: missing means yes, null means no."""
    schedule = {"type": "Schedule", "clocks": [{"type": "IntervalClock", "interval": 3_600_000_000}], "filters": []}
    schedule.update(or_filters=[], not_filters=[], adjustments=[])
    flow: Any = {"name": "f", "tasks": [], "schedule": schedule}
    project_id = api.project_id()
    missing = api.mutate("create_flow", project_id=project_id, serialized_flow=flow)
    flow["name"] = "g"
    null = api.mutate("create_flow", project_id=project_id, serialized_flow=flow, set_schedule_active=None)
    query = "query($id: uuid!) { flow_by_pk(id: $id) { is_schedule_active } }"
    assert api.ask(query, id=missing)["flow_by_pk"] == {"is_schedule_active": True}
    assert api.ask(query, id=null)["flow_by_pk"] == {"is_schedule_active": False}


def test_requests_that_come_twice_store_no_run_task_edge_agent_or_child_twice(api: Caller) -> None:
    """T25: the client sends again what was not answered in time."""
    flow_id = api.flow_id(edges=[{"upstream_task": "a", "downstream_task": "b"}])
    run_id = api.flow_run_id(flow_id, idempotency_key="k")
    [task, *_] = api.ask("{ task { id } }")["task"]
    tables = ("flow_run", "task_run", "task_run_state", "task", "edge", "agent", "flow")

    def everything() -> None:
        api.mutate("create_flow_run", flow_id=flow_id, idempotency_key="k")
        api.mutate("register_tasks", "success", flow_id=flow_id, serialized_tasks=[{"slug": "a"}, {"slug": "b"}])
        edge = {"upstream_task": "a", "downstream_task": "b"}
        api.mutate("register_edges", "success", flow_id=flow_id, serialized_edges=[edge])
        api.mutate("register_agent", type="LocalAgent", tenant_id=api.tenant_id(), name="agent")
        api.mutate("get_or_create_task_run_info", flow_run_id=run_id, task_id=task["id"], map_index=0)

    everything()
    before = {table: api.count(table) for table in tables}
    everything()
    assert {table: api.count(table) for table in tables} == before


def test_a_task_of_a_cancelled_run_is_refused_in_words_that_end_it(api: Caller) -> None:
    """T24."""
    run_id = api.running()
    [task_run] = api.flow_run(run_id, 'task_runs(where: {task: {slug: {_eq: "a"}}}) { id }')["task_runs"]
    assert api.mutate("cancel_flow_run", "state", flow_run_id=run_id) == "Cancelling"
    states = [{"task_run_id": task_run["id"], "state": {"type": "Running"}}]
    assert "State update failed" in api.refused("set_task_run_states", "states { id }", states=states)
    api.set_state(run_id, "Cancelled")
    run = api.flow_run(run_id, "state task_runs { state }")
    assert run == {"state": "Cancelled", "task_runs": [{"state": "Cancelled"}] * 2}


def test_payloads_may_be_asked_for_their_types(api: Caller) -> None:
    """T4."""
    run_id = api.flow_run_id()
    states = [{"flow_run_id": run_id, "state": {"type": "Running"}}]
    query = """mutation($input: set_flow_run_states_input!) {
        __typename set_flow_run_states(input: $input) { __typename states { __typename status message } }
    }"""
    assert api.ask(query, input={"states": states}) == {
        "__typename": "Mutation",
        "set_flow_run_states": {
            "__typename": "states_payload",
            "states": [{"__typename": "set_state_result", "status": "SUCCESS", "message": None}],
        },
    }


def test_a_task_run_is_read_by_the_query_of_the_client(api: Caller) -> None:
    run_id = api.running()
    [task_run, _] = api.flow_run(run_id, "task_runs { id }")["task_runs"]
    query = "query($id: UUID!) { get_task_run_info(task_run_id: $id) { id version serialized_state state } }"
    info = api.ask(query, id=task_run["id"])["get_task_run_info"]
    assert (info["id"], info["version"], info["state"]) == (task_run["id"], 1, "Pending")
    assert "Invalid task run ID" in api.error(query, id=UNKNOWN)


@pytest.mark.parametrize(
    ("name", "input"),
    [
        ("delete_flow", {"flow_id": UNKNOWN}),
        ("archive_flow", {"flow_id": UNKNOWN}),
        ("delete_project", {"project_id": UNKNOWN}),
        ("delete_flow_run", {"flow_run_id": UNKNOWN}),
        ("set_flow_run_name", {"flow_run_id": UNKNOWN, "name": "x"}),
        ("set_task_run_name", {"task_run_id": UNKNOWN, "name": "x"}),
        ("set_flow_group_labels", {"flow_group_id": UNKNOWN, "labels": []}),
        ("set_flow_group_run_config", {"flow_group_id": UNKNOWN, "run_config": {}}),
        ("set_flow_group_default_parameters", {"flow_group_id": UNKNOWN, "parameters": {}}),
        ("set_flow_group_schedule", {"flow_group_id": UNKNOWN, "cron_clocks": {"cron": "0 0 * * *"}}),
        ("set_flow_group_description", {"flow_group_id": UNKNOWN, "description": "x"}),
        ("delete_flow_group_schedule", {"flow_group_id": UNKNOWN}),
        ("delete_flow_group", {"flow_group_id": UNKNOWN}),
        ("set_flow_run_labels", {"flow_run_id": UNKNOWN, "labels": "x"}),
        ("delete_tenant", {"tenant_id": UNKNOWN, "confirm": True}),
        ("delete_agent", {"agent_id": UNKNOWN}),
        ("update_agent_config", {"agent_config_id": UNKNOWN, "name": "x", "settings": None}),
        ("delete_agent_config", {"agent_config_id": UNKNOWN}),
        ("delete_task_run_artifact", {"task_run_artifact_id": UNKNOWN}),
    ],
)
def test_what_is_not_there_is_no_success_and_no_error(api: Caller, name: str, input: Any) -> None:
    assert api.mutate(name, "success", **input) is False


def test_a_flow_is_registered_run_archived_and_deleted(api: Caller) -> None:
    flow_id = api.flow_id()
    waiting = api.flow_run_id(flow_id)
    assert api.mutate("archive_flow", "success", flow_id=flow_id) is True
    assert api.flow_run(waiting, "state") == {"state": "Cancelled"}
    assert "is archived" in api.refused("create_flow_run", flow_id=flow_id)
    assert api.mutate("delete_flow", "success", flow_id=flow_id) is True
    assert [api.count(table) for table in ("flow", "flow_run", "task", "task_run_state")] == [0] * 4


def test_logs_with_a_level_and_characters_of_any_kind_are_taken(api: Caller) -> None:
    """T9."""
    run_id = api.flow_run_id()
    messages = ['it\'s "quoted"\n\t\\', "👋", "\x00\x1b[31m", "", "caf\udce9"]
    logs = [{"flow_run_id": run_id, "message": message, "level": "CUSTOM"} for message in messages]
    logs.append({"flow_run_id": UNKNOWN, "message": "lost", "level": "INFO"})
    assert api.mutate("write_run_logs", "success", logs=logs) is True
    kept = api.flow_run(run_id, "logs(order_by: {timestamp: asc}) { message level }")["logs"]
    # the character 0 may be kept or not
    assert [log["message"].replace("\0", "?") for log in kept] == [messages[0], "👋", "?\x1b[31m", "", "caf?"]
    assert {log["level"] for log in kept} == {"CUSTOM"}
