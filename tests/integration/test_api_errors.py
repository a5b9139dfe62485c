"""What a caller gets who sends something that cannot be answered: never a 5xx, a stack trace or SQL."""

import json
import logging
from typing import Any, Iterator

import pytest
from asking import Caller, caller

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
        ("set_schedule_active", "success", {"flow_id": UNKNOWN}),
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
def test_a_flow_of_a_strange_shape_is_answered_and_leaves_nothing_behind(api: Caller, part: str, value: Any) -> None:
    input = {"project_id": api.project_id(), "serialized_flow": {"name": "strange", part: value}}
    status, answer = api.post("mutation($i: create_flow_input!) { create_flow(input: $i) { id } }", {"i": input})
    if "errors" in answer:
        checked(status, answer)
        assert api.count("flow") == api.count("task") == api.count("flow_group") == 0
    else:
        run = {"flow_id": answer["data"]["create_flow"]["id"]}
        status, answer = api.post(
            "mutation($i: create_flow_run_input!) { create_flow_run(input: $i) { id } }", {"i": run}
        )
        assert status == 200
        if "errors" in answer:
            checked(status, answer)


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
