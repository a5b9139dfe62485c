"""What a caller gets who sends something that cannot be answered: never a 5xx, a stack trace or SQL."""

import base64
import gzip
import json
import logging
import random
from typing import Any, Dict, Iterator

import pytest
from asking import Caller, caller

from prefect_taskrun_tasks.server.rules import schedules
from prefect_taskrun_tasks.server.rules.children import LINEAGE

UNKNOWN = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def api(database_url: str) -> Iterator[Caller]:
    with caller(database_url) as api:
        yield api


def checked(status: int, answer: Any) -> Any:
    """The errors of an answer, in the only form that the client survives (T2)."""
    text = json.dumps(answer, allow_nan=False)
    assert status in (200, 400)
    for leak in ("Traceback", "sqlite", "SELECT", "INSERT", "sqlalchemy", '.py"', "UNAUTHENTICATED", "API_ERROR"):
        assert leak not in text
    assert ("data" in answer) == (status == 200)
    assert answer["errors"]
    for error in answer["errors"]:
        assert error["message"]
        assert isinstance(error["extensions"]["code"], str)
    return answer["errors"]


def refusal(api: Caller, name: str, payload: str, input: Any) -> str:
    """The message with which a mutation is refused, because of its input and of nothing else."""
    status, answer = api.post(f"mutation($i: {name}_input!) {{ {name}(input: $i) {{ {payload} }} }}", {"i": input})
    [error] = checked(status, answer)
    assert "id" not in error["extensions"], error
    return str(error["message"])


DEEP = 100_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"\xff\xfe",
        b"null",
        b"5",
        b'"{ hello }"',
        b"{}",
        b'{"query": null}',
        b'{"query": 5}',
        b'{"query": ["{ hello }"]}',
        b'{"query": "{ hello }", "variables": []}',
        b'{"query": "{ hello }", "variables": 5}',
        b'{"query": "{ hello }", "variables": "{"}',
        b'{"query": "{ hello }", "variables": "[]"}',
        b'{"query": "{ hello }", "operationName": 5}',
        b'{"query": "{ hello }", "operationName": "Other"}',
        b'{"query": "{ hello }", "variables": {"x": NaN}}',
        b'{"query": "{ hello }", "variables": {"x": -Infinity}}',
        b'{"query": "{ hello }", "variables": {"x": 1e999}}',
        b'{"query": "{ hello }", "variables": "{\\"x\\": NaN}"}',
        b'{"query": "{ hello }", "variables": "{\\"x\\": -1e999}"}',
        b'{"query": "{ hello }", "variables": {"x": ' + b"9" * 5000 + b"x}}",
        b"[" * DEEP,
        b'{"a":' * DEEP,
        b'{"query": "{ hello }", "variables": "' + b"[" * DEEP + b'"}',
        b'{"query": "' + b"{a" * DEEP + b'"}',
        b'{"query": "query($x: ' + b"[" * DEEP + b'"}',
    ],
    ids=lambda body: str(body[:48]),
)
def test_a_body_that_is_no_request_is_the_callers_error(api: Caller, body: bytes) -> None:
    """T5: also the numbers that Python's JSON has and others do not."""
    status, answer = api.api.answer(body)
    assert status == 400
    checked(status, answer)


def deep(levels: int) -> Any:
    where: Any = {}
    for _ in range(levels):
        where = {"_and": [where]}
    return where


@pytest.mark.parametrize("levels", [10, 100, 200, 300, 400])
def test_deep_nesting_is_answered_or_refused(api: Caller, levels: int) -> None:
    text = "{_and: [" * levels + "{}" + "]}" * levels
    selection = "{ projects { tenant " * levels + "{ id }" + "} }" * levels
    for query, variables in (
        ("query($w: tenant_bool_exp) { tenant(where: $w) { id } }", {"w": deep(levels)}),
        (f"{{ tenant(where: {text}) {{ id }} }}", None),
        (f"{{ tenant {selection} }}", None),
    ):
        status, answer = api.post(query, variables)
        if "errors" in answer:
            checked(status, answer)
        else:
            assert len(answer["data"]["tenant"]) == 1


@pytest.mark.parametrize(
    "query",
    [
        "",
        "{",
        "# nothing",
        "{ unheard_of { id } }",
        "{ flow { unheard_of } }",
        "{ flow_run { created_by { id } } }",
        "{ flow }",
        "{ hello { id } }",
        "{ flow(unheard_of: 1) { id } }",
        "{ flow(where: {unheard_of: {_eq: 1}}) { id } }",
        '{ flow(where: {name: {_unheard: "x"}}) { id } }',
        "{ flow(where: {name: {_eq: 5}}) { id } }",
        '{ flow(where: {version: {_eq: "1"}}) { id } }',
        '{ flow(where: {id: {_eq: "no uuid"}}) { id } }',
        "{ flow(where: {id: {_eq: 5}}) { id } }",
        "{ flow(where: {id: {_in: [null]}}) { id } }",
        '{ flow(where: {created: {_gt: "yesterday-ish"}}) { id } }',
        '{ flow(where: {created: {_gt: "0001-01-01T00:00:00+14:00"}}) { id } }',
        "{ flow(where: {created: {_gt: 1700000000}}) { id } }",
        "{ flow(order_by: {name: sideways}) { id } }",
        "{ flow(distinct_on: unheard_of) { id } }",
        "{ flow(limit: 1.5) { id } }",
        "{ flow(limit: 99999999999) { id } }",
        "{ flow_by_pk(id: null) { id } }",
        "{ flow_by_pk { id } }",
        "{ agent_config_by_pk { settings } }",
        "query($x: uuid!) { flow_by_pk(id: $x) { id } }",
        "query($x: Unheard) { hello }",
        "query A { hello } query B { hello }",
        "fragment a on Query { hello }",
        "{ ...a } fragment a on Query { ...a }",
        "subscription { flow { id } }",
        "mutation { unheard_of(input: {}) { id } }",
        "mutation { create_flow_run { id } }",
        "mutation { create_flow_run(input: null) { id } }",
        'mutation { create_flow_run(input: {flow_id: "x"}) { id } }',
        "mutation { create_project(input: {tenant_id: 1}) { id } }",
        'mutation { set_flow_run_name(input: {flow_run_id: null, name: "x"}) { success } }',
        'mutation { create_task_run_artifact(input: {kind: "x", task_run_id: "'
        + UNKNOWN
        + '", data: {a: 1}}) { id } }',
        'mutation { create_task_run_artifact(input: {kind: "x", task_run_id: "' + UNKNOWN + '", data: "NaN"}) { id } }',
    ],
)
def test_a_document_that_does_not_fit_is_refused_with_400(api: Caller, query: str) -> None:
    status, answer = api.post(query.replace("%s", UNKNOWN))
    assert status == 400
    checked(status, answer)


@pytest.mark.parametrize(
    ("name", "payload", "input"),
    [
        ("create_flow_run", "id", {"flow_id": UNKNOWN}),
        ("create_flow_run", "id", {}),
        ("create_flow", "id", {"project_id": UNKNOWN, "serialized_flow": {"name": "x"}}),
        ("create_flow", "id", {"project_id": UNKNOWN, "serialized_flow": "text"}),
        ("create_flow_from_compressed_string", "id", {"project_id": UNKNOWN, "serialized_flow": "text"}),
        ("create_project", "id", {"tenant_id": UNKNOWN, "name": "x"}),
        ("create_tenant", "id", {"name": "x", "slug": "A B"}),
        ("register_tasks", "success", {"flow_id": UNKNOWN, "serialized_tasks": [1]}),
        ("register_edges", "success", {"flow_id": UNKNOWN, "serialized_edges": []}),
        ("cancel_flow_run", "state", {"flow_run_id": UNKNOWN}),
        ("set_flow_run_states", "states { id }", {"states": [{"flow_run_id": UNKNOWN, "state": {"type": "Running"}}]}),
        ("set_task_run_states", "states { id }", {"states": {"task_run_id": UNKNOWN, "state": 5}}),
        ("get_or_create_task_run_info", "id", {"flow_run_id": UNKNOWN, "task_id": UNKNOWN}),
        ("create_task_run_artifact", "id", {"task_run_id": UNKNOWN, "kind": "link", "data": {}}),
        ("register_agent", "id", {"type": "LocalAgent", "tenant_id": UNKNOWN}),
    ],
)
def test_a_mutation_that_cannot_be_carried_out_is_refused_with_200(
    api: Caller, caplog: pytest.LogCaptureFixture, name: str, payload: str, input: Any
) -> None:
    """The client sends a request again, for a minute, that is answered with 5xx."""
    status, answer = api.post(f"mutation($i: {name}_input!) {{ {name}(input: $i) {{ {payload} }} }}", {"i": input})
    assert status == 200
    [error] = checked(status, answer)
    assert error["path"] == [name]
    assert answer["data"] == {name: None}
    assert "inside the backend" not in error["message"]
    assert caplog.records == []


@pytest.mark.parametrize("part", ["tasks", "edges", "parameters"])
@pytest.mark.parametrize("value", [5, "text", {"a": 1}, [5], [[]], [{"slug": {}}], [{"slug": 1, "trigger": "x"}]])
def test_a_flow_of_a_strange_shape_is_refused_and_leaves_nothing_behind(api: Caller, part: str, value: Any) -> None:
    input = {"project_id": api.project_id(), "serialized_flow": {"name": "strange", part: value}}
    assert "strange" in refusal(api, "create_flow", "id", input)
    assert api.count("flow") == api.count("task") == api.count("flow_group") == 0


@pytest.mark.parametrize(
    "odd",
    [
        {"name": 5},
        {"type": {}},
        {"max_retries": "3"},
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"max_retries": 2**31},
        {"max_retries": 2**63},
        {"retry_delay": "00:01"},
        {"retry_delay": 1e308},
        {"trigger": {"fn": 5}},
        {"cache_key": 5},
        {"cache_key": "k" * 2001},
        {"tags": "abc"},
        {"slug": "a\0"},
        {"slug": "\ud800"},
        {"slug": ""},
    ],
    ids=lambda odd: repr(odd)[:40],
)
def test_a_task_that_is_not_one_of_prefects_is_refused_and_named(api: Caller, odd: Any) -> None:
    task = {"slug": "a", **odd}
    message = refusal(
        api, "create_flow", "id", {"project_id": api.project_id(), "serialized_flow": {"name": "f", "tasks": [task]}}
    )
    assert "of flow 'f'" in message
    assert next(iter(odd)) in message
    assert api.count("flow") == api.count("task") == 0
    # a flow that is registered in parts keeps those that were right
    flow_id = api.flow_id(tasks=["b"])
    tasks = [{"slug": "c"}, task]
    assert refusal(api, "register_tasks", "success", {"flow_id": flow_id, "serialized_tasks": tasks})
    assert api.ask("{ task { slug } }")["task"] == [{"slug": "b"}]


@pytest.mark.parametrize("edge", [{"key": 5}, {"upstream_task": {"slug": {}}}, {"downstream_task": ["a"]}, {}])
def test_an_edge_that_is_not_one_of_prefects_is_refused(api: Caller, edge: Any) -> None:
    edges = [{"upstream_task": "a", "downstream_task": "b"}, {"upstream_task": "a", "downstream_task": "b", **edge}]
    if not edge:
        edges[1] = {}
    message = refusal(api, "register_edges", "success", {"flow_id": api.flow_id(), "serialized_edges": edges})
    assert message.startswith(("An edge names", "An edge of flow"))
    assert api.count("edge") == 0


FLOW = gzip.compress(json.dumps({"name": "packed"}).encode())


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"text",
        FLOW[:5],
        FLOW[:-9],
        # of another length, with another checksum, with something behind it, with a beginning that is none
        FLOW[:-4] + b"abcd",
        FLOW[:-8] + b"abcd" + FLOW[-4:],
        FLOW + b"more",
        FLOW[:10] + b"\xff" * 20,
        gzip.compress(b"\xff\xfe\xfa"),
        gzip.compress(b'{"name": NaN}'),
        gzip.compress(b'{"name":' + b"[" * DEEP),
        gzip.compress(b'{"name": "bomb"}' + b" " * 70_000_000),
    ],
    ids=range(12),
)
def test_a_compressed_flow_that_is_damaged_is_refused_and_leaves_nothing_behind(api: Caller, packed: bytes) -> None:
    input = {"project_id": api.project_id(), "serialized_flow": base64.b64encode(packed).decode()}
    message = refusal(api, "create_flow_from_compressed_string", "id", input)
    assert message.startswith(("The compressed flow", "The request is nested"))
    assert api.count("flow") == api.count("flow_group") == 0


LABELS = [5, "abc", {"a": 1}, [1], [None], ["a", 1], [["a"]]]


@pytest.mark.parametrize("labels", LABELS, ids=repr)
def test_labels_that_are_not_text_are_refused_and_agents_are_served_on(api: Caller, labels: Any) -> None:
    """One run with a list among its labels once kept all agents from theirs."""
    flow_id, group = api.flow_id(), api.ask("{ flow_group { id } }")["flow_group"][0]["id"]
    run_id, config = api.flow_run_id(flow_id), {"type": "LocalRun", "labels": labels}
    for part in ("run_config", "environment"):
        flow = {"project_id": api.project_id(), "serialized_flow": {"name": "other", part: config}}
        assert f"The labels of the {part} of flow 'other'" in refusal(api, "create_flow", "id", flow)
    run = {"flow_id": flow_id, "run_config": config}
    assert "labels of a run config" in refusal(api, "create_flow_run", "id", run)
    given = {"flow_group_id": group, "run_config": config}
    assert "labels of a run config" in refusal(api, "set_flow_group_run_config", "success", given)
    schedule = {"type": "Schedule", "clocks": [{"type": "CronClock", "cron": "* * * * *", "labels": labels}]}
    scheduled = {"project_id": api.project_id(), "serialized_flow": {"name": "scheduled", "schedule": schedule}}
    assert "The schedule of flow 'scheduled'" in refusal(api, "create_flow", "id", scheduled)
    assert api.count("flow_run") == 1
    assert api.mutate("get_runs_in_queue", "flow_run_ids", tenant_id=api.tenant_id()) == [run_id]


@pytest.mark.parametrize("labels", [each for each in LABELS if each != "abc"], ids=repr)
def test_labels_that_are_a_list_of_text_in_the_schema_can_be_nothing_else(api: Caller, labels: Any) -> None:
    run_id = api.flow_run_id()
    [run] = api.ask("{ flow_run { flow { id flow_group_id tenant_id } } }")["flow_run"]
    for name, payload, input in (
        ("create_flow_run", "id", {"flow_id": run["flow"]["id"]}),
        ("set_flow_group_labels", "success", {"flow_group_id": run["flow"]["flow_group_id"]}),
        ("set_flow_run_labels", "success", {"flow_run_id": run_id}),
        ("register_agent", "id", {"type": "LocalAgent"}),
        ("get_runs_in_queue", "flow_run_ids", {"tenant_id": run["flow"]["tenant_id"]}),
    ):
        assert ".labels" in refusal(api, name, payload, {**input, "labels": labels})


#: Text that cannot be compressed, as which it would fit
LONG = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=100_000))


@pytest.mark.parametrize("name", [LONG, LONG[:2001], "\u00e9" * 1001])
def test_what_rows_are_looked_for_by_is_of_one_greatest_length_in_all_databases(api: Caller, name: str) -> None:
    """PostgreSQL has no room for more in its indexes."""
    run_id = api.flow_run_id()
    [flow] = api.ask("{ flow { id project_id tenant_id } }")["flow"]
    create_flow = {"project_id": flow["project_id"], "serialized_flow": {"name": "short"}}
    before = {table: api.count(table) for table in ("flow", "flow_group", "flow_run", "project", "tenant")}
    for mutation, payload, input in (
        ("create_project", "id", {"tenant_id": flow["tenant_id"], "name": name}),
        ("set_project_name", "id", {"project_id": flow["project_id"], "name": name}),
        ("create_flow", "id", {**create_flow, "serialized_flow": {"name": name}}),
        ("create_flow", "id", {**create_flow, "version_group_id": name}),
        ("create_flow", "id", {**create_flow, "serialized_flow": {"name": "short", "tasks": [{"slug": name}]}}),
        ("create_flow_run", "id", {"flow_id": flow["id"], "flow_run_name": name}),
        ("create_flow_run", "id", {"flow_id": flow["id"], "idempotency_key": name}),
        ("set_flow_run_name", "success", {"flow_run_id": run_id, "name": name}),
    ):
        message = refusal(api, mutation, payload, input)
        assert "at most 2000 bytes" in message
        # what is wrong is not hidden behind it
        assert len(message) < 200
    # text that is not looked for may be of any length
    assert api.mutate("register_agent", type="LocalAgent", name=name, labels=[name])
    assert api.mutate("create_flow", **create_flow, description=name, idempotency_key=name)
    after = {**before, "flow": before["flow"] + 1, "flow_group": before["flow_group"] + 1}
    assert {table: api.count(table) for table in before} == after
    # and none is there by such a name
    query = "query($n: String) { flow_run(where: {name: {_eq: $n}}) { id } }"
    assert api.ask(query, n=name) == {"flow_run": []}


def test_names_of_the_greatest_length_are_kept(api: Caller) -> None:
    flow_id = api.flow_id(LONG[:2000], tasks=[LONG[:2000]], project=LONG[:2000], version_group_id=LONG[:2000])
    api.flow_run_id(flow_id, flow_run_name=LONG[:2000], idempotency_key=LONG[:2000])
    query = "query($n: String) { flow_run(where: {name: {_eq: $n}, flow: {name: {_eq: $n}}}) { idempotency_key } }"
    assert api.ask(query, n=LONG[:2000]) == {"flow_run": [{"idempotency_key": LONG[:2000]}]}


def test_an_error_that_quotes_what_it_refuses_has_an_end(api: Caller) -> None:
    for message in (
        refusal(api, "create_flow_run", "id", {"version_group_id": LONG}),
        refusal(api, "create_flow_run", "id", {"flow_id": LONG}),
    ):
        assert len(message) < 3000
        # what graphql-core says after it depends on its release
        assert LONG[-20:] in message[-50:]


@pytest.mark.parametrize("character", ["\0", "\ud800"])
def test_characters_that_are_no_text_are_kept_in_some_form_in_names_and_json(api: Caller, character: str) -> None:
    odd, flow_id = f"x{character}", api.flow_id()
    run_id = api.flow_run_id(
        flow_id, flow_run_name=odd, idempotency_key=odd, parameters={odd: odd}, context={odd: [odd]}, labels=[odd]
    )
    api.mutate("write_run_logs", "success", logs=[{"flow_run_id": run_id, "message": odd, "info": {odd: odd}}])
    api.mutate("register_agent", type=odd, name=odd, labels=[odd])
    api.project_id(odd)
    assert api.flow_run_id(flow_id, idempotency_key=odd) == run_id
    run = api.flow_run(run_id, "name idempotency_key parameters context labels logs { message info }")
    kept = {run["name"], run["idempotency_key"], run["logs"][0]["message"], *run["labels"], *run["parameters"]}
    assert kept <= {odd, "x?"}
    query = "query($w: interval) { task(where: {retry_delay: {_eq: $w}}) { id } }"
    assert api.ask(query, w=odd) == {"task": []}


@pytest.mark.parametrize("character", ["\0", "\ud800"])
def test_what_is_no_id_of_a_flow_run_names_none(api: Caller, character: str) -> None:
    """Neither as a child's parent, nor as what is waited for."""
    lineage = {"parent_flow_run_id": character, "parent_close_policy": "cancel"}
    run_id = api.flow_run_id(context={LINEAGE: lineage})
    task_run = api.flow_run(run_id, "task_runs { id }")["task_runs"][0]
    api.set_task_state(task_run["id"], "Scheduled", context={LINEAGE: {"deferred": True, "awaits": character}})
    assert api.flow_run(run_id, "state")["state"] == "Scheduled"


def test_numbers_of_any_size_are_kept_where_json_is(api: Caller) -> None:
    numbers = {"large": 10**4000, "far": 1e308, "near": 5e-324, "below": -(2**63) - 1}
    run_id = api.flow_run_id(parameters=numbers)
    kept = api.flow_run(run_id, "parameters")["parameters"]
    # PostgreSQL writes the digits out
    assert {name: type(numbers[name])(number) for name, number in kept.items()} == numbers
    query = "query($w: jsonb) { flow_run(where: {parameters: {_contains: $w}}) { id } }"
    assert api.ask(query, w={"far": 1e308})["flow_run"] == [{"id": run_id}]


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 1e30, 0.5])
def test_a_number_beyond_its_column_is_refused(api: Caller, number: Any) -> None:
    run_id = api.flow_run_id()
    task_run = {"flow_run_id": run_id, "task_id": api.ask("{ task { id } }")["task"][0]["id"], "map_index": number}
    assert ".map_index" in refusal(api, "get_or_create_task_run_info", "id", task_run)
    assert api.count("task_run") == 2


BEYOND = [
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "10000-01-01T00:00:00Z",
    "+292278994-08-17T07:12:55Z",
    "0000-01-01T00:00:00Z",
    "-0001-01-01T00:00:00Z",
    "2024-02-30T00:00:00Z",
    "2024-01-01T00:00:00+99:00",
    "1" * 10_000,
    "\0",
    "",
]


@pytest.mark.parametrize("time", BEYOND, ids=lambda time: time[:30])
def test_a_time_beyond_the_calendar_is_refused_and_changes_nothing(api: Caller, time: str) -> None:
    flow_id, words = api.flow_id(), "an ISO 8601 time of the years 1 to 9999"
    run_id = api.running(flow_id)
    assert words in refusal(api, "create_flow_run", "id", {"flow_id": flow_id, "scheduled_start_time": time})
    queue = {"tenant_id": api.tenant_id(), "before": time}
    assert words in refusal(api, "get_runs_in_queue", "flow_run_ids", queue)
    logs = [{"flow_run_id": run_id, "message": "x", "timestamp": time}]
    assert words in refusal(api, "write_run_logs", "success", {"logs": logs})
    if time:
        # a state that has none of it starts now
        states = [{"flow_run_id": run_id, "state": {"type": "Scheduled", "start_time": time}}]
        message = refusal(api, "set_flow_run_states", "states { id }", {"states": states})
        assert message.startswith("State update failed: start_time")
    assert words in api.error("query($t: timestamptz) { flow(where: {created: {_gt: $t}}) { id } }", t=time)
    assert (api.count("flow_run"), api.count("log"), api.count("flow_run_state")) == (1, 0, 2)


FARTHEST = ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"]


def test_the_first_and_the_last_moment_of_the_calendar_are_times_like_others(api: Caller) -> None:
    flow_id, tenant = api.flow_id(), {"tenant_id": api.tenant_id()}
    first, last = (api.flow_run_id(flow_id, scheduled_start_time=time) for time in FARTHEST)
    assert api.mutate("get_runs_in_queue", "flow_run_ids", **tenant) == [first]
    assert api.mutate("get_runs_in_queue", "flow_run_ids", **tenant, before=FARTHEST[1]) == [first, last]
    assert api.mutate("get_runs_in_queue", "flow_run_ids", **tenant, before=FARTHEST[0]) == [first]
    api.set_state(first, "Running")
    api.set_state(first, "Scheduled", start_time=FARTHEST[1])
    assert api.mutate("get_runs_in_queue", "flow_run_ids", **tenant) == []
    logs = [{"flow_run_id": first, "message": time, "timestamp": time} for time in reversed(FARTHEST)]
    api.mutate("write_run_logs", "success", logs=logs)
    found = api.ask("{ log(order_by: {timestamp: asc}) { message } }")["log"]
    assert [log["message"] for log in found] == FARTHEST


def clock(type: str, **more: Any) -> Dict[str, Any]:
    return {"type": type, **more}


FAR = {"dt": "9999-12-30T00:00:00", "tz": "UTC"}


@pytest.mark.parametrize(
    "broken",
    [
        clock("IntervalClock", interval=24 * 3600 * 10**6, start_date=FAR),
        clock("IntervalClock", interval=10**30),
        clock("IntervalClock", interval=0),
        clock("CronClock", cron="0 0 * * *", start_date=FAR),
        clock("CronClock", cron="0 0 31 2 *"),
        clock("CronClock", cron="x"),
        clock("CronClock", cron="0 0 * * *", start_date={"dt": "10000-01-01T00:00:00", "tz": "UTC"}),
        clock("CronClock", cron="0 0 * * *", start_date={"dt": "2024-01-01T00:00:00", "tz": "Mars"}),
        clock("CronClock", cron="0 0 * * *", parameter_defaults=5),
        clock("Sundial"),
        5,
        [],
    ],
    ids=lambda broken: repr(broken)[:70],
)
def test_a_schedule_that_cannot_be_used_is_refused_and_stays_inactive(api: Caller, broken: Any) -> None:
    flow = {"name": "timed", "tasks": [], "schedule": {"type": "Schedule", "clocks": [broken]}}
    given = {"project_id": api.project_id(), "serialized_flow": flow}
    assert "The schedule of flow 'timed' cannot be used: " in refusal(api, "create_flow", "id", given)
    assert api.count("flow") == 0
    flow_id = api.mutate("create_flow", **given, set_schedule_active=False)
    message = refusal(api, "set_schedule_active", "success", {"flow_id": flow_id})
    assert "The schedule of flow 'timed' cannot be used: " in message
    assert api.ask("{ flow { is_schedule_active flow_runs { id } } }")["flow"] == [
        {"is_schedule_active": False, "flow_runs": []}
    ]


@pytest.mark.parametrize("rule", ["FREQ=MINUTELY", "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=31"])
def test_a_schedule_that_searches_for_ever_is_ended_and_others_can_write(
    api: Caller, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "LONGEST_SEARCH", 0.5)
    found = {"type": "rrule", "rr": rule, "_dtstart": "0001-01-01T00:00:00+00:00"}
    schedule = {"type": "Schedule", "clocks": [clock("RRuleClock", rrule_obj=found)]}
    flow = {"name": "timed", "tasks": [], "schedule": schedule}
    flow_id = api.mutate("create_flow", project_id=api.project_id(), serialized_flow=flow, set_schedule_active=False)
    message = refusal(api, "set_schedule_active", "success", {"flow_id": flow_id})
    assert "its next runs were not found in 0.5 seconds" in message
    assert api.flow_run_id(flow_id)


def test_a_schedule_of_long_ago_and_one_of_long_hence_are_used(api: Caller) -> None:
    for year in ("0001", "9990"):
        start = {"dt": f"{year}-01-01T00:00:00", "tz": "Asia/Tokyo"}
        timed = [clock("IntervalClock", interval=24 * 3600 * 10**6, start_date=start)]
        flow_id = api.flow_id(year, schedule={"type": "Schedule", "clocks": timed})
        query = "query($f: uuid) { flow_run(where: {flow_id: {_eq: $f}}) { scheduled_start_time } }"
        times = {run["scheduled_start_time"] for run in api.ask(query, f=flow_id)["flow_run"]}
        assert len(times) == 10
        assert all(time > "2020" for time in times)


@pytest.mark.parametrize(
    ("type", "field", "value"),
    [
        ("[flow_bool_exp!]", "flow(where: {_or: $v})", [{"name": {"_eq": "x"}}] * 3000),
        ("[flow_order_by!]", "flow(order_by: $v)", [{"name": "asc"}] * 3000),
        ("[uuid!]", "flow(where: {id: {_in: $v}})", [f"{number:032x}" for number in range(149_000)]),
        ("jsonb", "flow(where: {settings: {_contains: $v}})", {str(number): number for number in range(3000)}),
        ("jsonb", "flow(where: {settings: {_contains: $v}})", json.loads("[" * 100 + "]" * 100)),
        ("jsonb", "flow(where: {settings: {_contains: $v}})", json.loads('{"a":' * 500 + "1" + "}" * 500)),
    ],
    ids=range(6),
)
def test_a_question_too_large_for_the_database_is_refused_in_words_that_say_so(
    api: Caller, type: str, field: str, value: Any
) -> None:
    """Where one database refuses, another may have the answer."""
    api.flow_id()
    status, answer = api.post(f"query($v: {type}) {{ {field} {{ id }} hello }}", {"v": value})
    assert status == 200
    assert answer["data"]["hello"] == "\N{WAVING HAND SIGN}"
    if "errors" in answer:
        [error] = checked(status, answer)
        assert error["message"].startswith(("This is more than the database takes at once.", "The request is nested"))
        assert "id" not in error["extensions"]
    else:
        assert len(answer["data"]["flow"]) <= 1


def test_a_state_of_five_megabytes_is_refused_and_the_run_goes_on(api: Caller) -> None:
    run_id = api.running()
    task_run_id = api.ask("{ task_run { id } }")["task_run"][0]["id"]
    state = {"type": "Success", "message": "x" * 5_000_000}
    flow_states = {"states": [{"flow_run_id": run_id, "state": state}]}
    task_states = {"states": [{"task_run_id": task_run_id, "state": state}]}
    assert "too large" in refusal(api, "set_flow_run_states", "states { id }", flow_states)
    assert "too large" in refusal(api, "set_task_run_states", "states { id }", task_states)
    assert api.flow_run(run_id, "state") == {"state": "Running"}
    assert api.set_state(run_id, "Success") == {"states": [{"id": run_id, "status": "SUCCESS"}]}


def test_a_flow_of_ten_thousand_tasks_is_registered_run_read_and_deleted(api: Caller) -> None:
    tasks = [{"slug": f"t-{number}", "name": "t"} for number in range(9_500)]
    edges = [
        {"upstream_task": {"slug": f"t-{(number - 1) // 2}"}, "downstream_task": {"slug": f"t-{number}"}, "key": "x"}
        for number in range(1, 9_500)
    ]
    flow = {"name": "large", "tasks": tasks[:1000], "edges": []}
    packed = base64.b64encode(gzip.compress(json.dumps(flow).encode())).decode()
    input = {"project_id": api.project_id(), "serialized_flow": packed}
    flow_id = api.mutate("create_flow_from_compressed_string", **input)
    # the others as the client sends them, in several requests
    more = [{"slug": f"more-{number}"} for number in range(500)]
    for some in (*(tasks[first : first + 1000] for first in range(1000, 9_500, 1000)), more):
        assert api.mutate("register_tasks", "success", flow_id=flow_id, serialized_tasks=some)
    for first in range(0, 9_499, 1000):
        assert api.mutate("register_edges", "success", flow_id=flow_id, serialized_edges=edges[first : first + 1000])
    assert (api.count("task"), api.count("edge")) == (10_000, 9_499)
    run_id = api.flow_run_id(flow_id)
    read = api.flow_run(
        run_id, "task_runs(where: {map_index: {_eq: -1}}) { id version serialized_state task { slug } }"
    )
    assert {run["task"]["slug"] for run in read["task_runs"]} == {each["slug"] for each in (*tasks, *more)}
    assert api.set_state(run_id, "Cancelled")
    assert api.ask('{ task_run_aggregate(where: {state: {_eq: "Cancelled"}}) { aggregate { count } } }') == {
        "task_run_aggregate": {"aggregate": {"count": 10_000}}
    }
    assert api.mutate("delete_flow", "success", flow_id=flow_id)
    assert api.count("task_run") == 0


def test_a_fault_of_the_backend_is_told_without_its_details_and_logged_with_them(
    api: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    with api.database.write() as tx:
        tx.connection.exec_driver_sql("DROP TABLE log")
    with caplog.at_level(logging.ERROR):
        status, answer = api.post("{ log { id } hello }")
    [error] = checked(status, answer)
    assert error["message"].startswith("log failed inside the backend. Its log says why")
    assert answer["data"] == {"log": None, "hello": "👋"}
    assert "no such table" in caplog.text or "does not exist" in caplog.text


def test_a_mutation_that_fails_half_way_stores_nothing(api: Caller) -> None:
    first, second = api.flow_run_id(), UNKNOWN
    states = [{"flow_run_id": id, "state": {"type": "Running"}} for id in (first, second)]
    assert "State update failed" in api.refused("set_flow_run_states", "states { id }", states=states)
    assert api.flow_run(first, "state") == {"state": "Scheduled"}


def test_fields_of_one_document_succeed_and_fail_by_themselves(api: Caller) -> None:
    query = """mutation($good: create_project_input!, $bad: create_project_input!) {
        one: create_project(input: $good) { id } two: create_project(input: $bad) { id }
    }"""
    good = {"tenant_id": api.tenant_id(), "name": "p"}
    status, answer = api.post(query, {"good": good, "bad": {**good, "tenant_id": UNKNOWN}})
    [error] = checked(status, answer)
    assert error["path"] == ["two"]
    assert (answer["data"]["two"], api.count("project")) == (None, 1)


def test_a_success_has_no_key_for_errors(api: Caller) -> None:
    """T2: the client looks for the key and not for errors in it."""
    assert api.post("{ hello }") == (200, {"data": {"hello": "👋"}})


def test_operations_of_a_batch_are_answered_in_their_order(api: Caller) -> None:
    batch = [{"query": "{ hello }"}, {"query": "{ unheard_of }"}, 5, {"query": "query A { tenant { slug } }"}]
    status, answers = api.api.answer(json.dumps(batch).encode())
    assert status == 200
    assert [list(answer) for answer in answers] == [["data"], ["errors"], ["errors"], ["data"]]


def test_a_batch_has_an_end(api: Caller) -> None:
    """T2: refused with an object, not with a list."""
    status, answer = api.api.answer(json.dumps([{"query": "{ hello }"}] * 26).encode())
    assert status == 400
    checked(status, answer)


@pytest.mark.parametrize("variables", [None, "null", "{}", {}, '{"x": 1}', {"x": 1}])
def test_variables_may_be_text_or_an_object_or_nothing(api: Caller, variables: Any) -> None:
    """T1."""
    body = json.dumps({"query": "query($x: Int) { hello flow(limit: $x) { id } }", "variables": variables})
    assert api.api.answer(body.encode())[1] == {"data": {"hello": "👋", "flow": []}}


def test_an_operation_is_chosen_by_its_name(api: Caller) -> None:
    body = {"query": "query A { hello } query B { tenant { slug } }", "operationName": "B"}
    assert api.api.answer(json.dumps(body).encode())[1] == {"data": {"tenant": [{"slug": "default"}]}}


def test_the_schema_describes_itself(api: Caller) -> None:
    assert "request of its own" in api.error("{ __schema { queryType { name } } hello }")
    answer = api.ask('{ __schema { mutationType { name } } __type(name: "flow_run") { fields { name } } }')
    assert {"name": "parameters"} in answer["__type"]["fields"]


def test_the_page_of_prefect_learns_which_backend_this_is(api: Caller) -> None:
    answer = api.ask("{ api { backend mode version core_version release_timestamp } }")["api"]
    assert (answer["backend"], answer["mode"]) == ("SERVER", "normal")


@pytest.mark.parametrize("levels", [100, 400, 700, 800, 900, 950, 980])
def test_a_deeply_nested_state_can_be_read_if_it_can_be_stored(api: Caller, levels: int) -> None:
    run_id = api.flow_run_id()
    query = "mutation($i: set_flow_run_states_input!) { set_flow_run_states(input: $i) { states { id } } }"
    state = '{"type": "Failed", "context": ' + '{"a":' * levels + "1" + "}" * (levels + 1)
    variables = f'{{"i": {{"states": {{"flow_run_id": "{run_id}", "state": {state}}}}}}}'
    status, answer = api.api.answer(json.dumps({"query": query, "variables": variables}).encode())
    if "errors" in answer:
        checked(status, answer)
    run = api.flow_run(run_id, "state serialized_state states { serialized_state }")
    assert run["state"] == ("Scheduled" if "errors" in answer else "Failed")


def test_a_fault_of_the_backend_has_an_id_that_leads_to_its_place_in_the_log(
    api: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    with api.database.write() as tx:
        tx.connection.exec_driver_sql("DROP TABLE log")
    answers = [api.post("{ log { id } }")[1] for _ in range(2)]
    ids = [answer["errors"][0]["extensions"]["id"] for answer in answers]
    assert len(set(ids)) == 2
    for id, answer in zip(ids, answers):
        assert id in answer["errors"][0]["message"]
        assert [record.exc_info is not None for record in caplog.records if id in record.getMessage()] == [True]
