"""What one request may ask for, and how it is told that it has asked for more."""

import json
import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any, Iterator

import graphql
import pytest
from asking import Caller, caller
from conftest import eventually

from prefect_taskrun_tasks.server import document
from prefect_taskrun_tasks.server.api import Api, Step
from prefect_taskrun_tasks.server.clock import instant
from prefect_taskrun_tasks.server.limits import Limits

WRITE_LOGS = "mutation($input: write_run_logs_input!) { write_run_logs(input: $input) { success } }"


@pytest.fixture
def api(database_url: str) -> Iterator[Caller]:
    with caller(database_url) as api:
        yield api


def limited(api: Caller, **limits: Any) -> Caller:
    """The same, with other limits."""
    other = Caller(api.database)
    other.api = Api(api.database, limits=Limits(**limits))
    return other


def deep(levels: int) -> str:
    """Flows, their flow runs, the flows of these, and so on."""
    names = ["flow_runs" if level % 2 else "flow" for level in range(levels - 1)]
    return "{ " + " { ".join([*names, "id"]) + " }" * levels


@pytest.mark.parametrize("levels", [3, 5, 15])
def test_a_query_may_be_as_deep_as_the_limit(api: Caller, levels: int) -> None:
    assert api.post(deep(levels)) == (200, {"data": {"flow": []}})


def test_a_deeper_query_is_refused_with_the_limit(api: Caller) -> None:
    status, answer = api.post(deep(16))
    assert status == 400
    assert "15 levels" in answer["errors"][0]["message"]


def test_levels_cannot_be_hidden_in_fragments(api: Caller) -> None:
    fragments = " ".join(f"fragment f{i} on flow {{ flow_runs {{ flow {{ ...f{i + 1} }} }} }}" for i in range(10))
    status, answer = api.post(f"{{ flow {{ ...f0 }} }} {fragments} fragment f10 on flow {{ id }}")
    assert status == 400
    assert "15 levels" in answer["errors"][0]["message"]


def test_a_document_with_too_many_fields_is_refused_with_the_limit(api: Caller) -> None:
    fields = " ".join(f"a{number}: id" for number in range(2000))
    status, answer = api.post(f"{{ flow {{ {fields} }} }}")
    assert status == 400
    assert "2000 fields" in answer["errors"][0]["message"]


@pytest.mark.parametrize("last", ["fragment f30 on flow { id }", "fragment f30 on flow { ...f0 }"])
def test_fragments_that_stand_for_millions_of_fields_are_refused_at_once(api: Caller, last: str) -> None:
    fragments = " ".join(f"fragment f{i} on flow {{ ...f{i + 1} ...f{i + 1} }}" for i in range(30))
    begun = time.monotonic()
    status, answer = api.post(f"{{ flow {{ ...f0 }} }} {fragments} {last}")
    assert status == 400
    assert "field" in answer["errors"][0]["message"]
    # without the limit it takes longer than anybody has
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    "document",
    [
        "{ hello } fragment f on flow { " + "id " * 4000 + "}",
        "{ flow { " + "id " * 51 + "} }",
        "{ flow { " + ("flow_runs { " + "id " * 10 + "} ") * 6 + "} }",
        "{ flow { " + "flow_runs { id } " * 26 + "...f } } fragment f on flow { " + "flow_runs { id } " * 25 + "}",
        " ".join(f"query q{number} {{ hello }}" for number in range(51)),
        "{ hello } " + " ".join(f"fragment f{number} on flow {{ id }}" for number in range(50)),
        "{ flow(where: {version: {_in: [" + "1 " * 50_000 + "]}}) { id } }",
        "{ " + "a " * 240_000 + "}",
    ],
    ids=["unused fragment", "repeated", "repeated below", "in fragments", "operations", "fragments", "tokens", "long"],
)
def test_a_document_that_would_take_long_to_validate_is_refused_with_the_limit(api: Caller, document: str) -> None:
    """graphql-core compares each field with each, in all that a document defines."""
    status, answer = api.post(document)
    assert status == 400
    assert re.search("at most|more than 50000 tokens", answer["errors"][0]["message"])


def test_a_document_may_repeat_fields_in_fragments_and_operations(api: Caller) -> None:
    fragments = " ".join(f"fragment f{number} on flow {{ id name }}" for number in range(40))
    spreads = " ".join(f"...f{number}" for number in range(40))
    assert api.ask(f"{{ flow {{ {spreads} }} }} {fragments}") == {"flow": []}


def test_the_documents_of_a_batch_are_limited_together(api: Caller) -> None:
    batch = [{"query": "{ hello }" + " " * 20_000}] * 25
    status, answer = api.api.answer(json.dumps(batch).encode())
    assert status == 400
    assert "500000 characters, not 500225" in answer["errors"][0]["message"]
    _, answers = api.api.answer(
        json.dumps([{"query": "{ " + "a " * 2000 + "}"}] + [{"query": "{ hello }"}] * 24).encode()
    )
    assert "more than 2000 tokens" in answers[0]["errors"][0]["message"]
    assert answers[1:] == [{"data": {"hello": "👋"}}] * 24


def test_nothing_is_begun_when_the_backend_stops(api: Caller) -> None:
    api.database.interrupt()
    status, answer = api.post("{ hello }")
    assert status == 400
    assert "stopping" in answer["errors"][0]["message"]


@pytest.mark.parametrize("text", ["[" + "[]," * 150_001 + "[]]", "[" + '{"a":1},' * 75_001 + "1]"])
@pytest.mark.parametrize("is_within", [False, True], ids=["body", "variables"])
def test_json_of_more_values_than_the_limit_is_refused_before_it_is_parsed(
    api: Caller, text: str, is_within: bool
) -> None:
    body = json.dumps({"query": "{ hello }", "variables": text}) if is_within else text
    status, answer = api.api.answer(body.encode())
    assert status == 400
    assert "more than 150,000 values" in answer["errors"][0]["message"]


@pytest.mark.parametrize("escaped", [False, True], ids=["UTF-8", "escaped once"])
def test_long_text_outside_of_ascii_is_refused_before_python_takes_four_bytes_for_each_character(
    api: Caller, escaped: bool
) -> None:
    logs = [{"flow_run_id": api.flow_run_id(), "message": "x" * 8_400_000 + "\U0001f600"}]
    variables = json.dumps({"input": {"logs": logs}}, ensure_ascii=False)
    body = json.dumps({"query": WRITE_LOGS, "variables": variables}, ensure_ascii=escaped)
    status, answer = api.api.answer(body.encode())
    assert status == 400
    assert "more than 8,388,608 characters, and some are not ASCII" in answer["errors"][0]["message"]


def test_texts_are_limited_together_before_they_are_stored(api: Caller) -> None:
    run_id = api.flow_run_id()
    logs = [{"flow_run_id": run_id, "message": "x" * 900}] * 3
    assert limited(api, texts=4_000).mutate("write_run_logs", "success", logs=logs)
    status, answer = limited(api, texts=2_700).post(WRITE_LOGS, {"input": {"logs": logs}})
    assert status == 400
    assert "more than 2,700 characters together" in answer["errors"][0]["message"]


def test_marks_within_text_are_no_values(api: Caller) -> None:
    run_id = api.flow_run_id()
    message = '[1, {"a": 2}], ' * 60_000
    assert message.count(",") + message.count("[") + message.count("{") > 200_000
    logs = [{"flow_run_id": run_id, "message": message + str(number)} for number in range(5)]
    assert api.mutate("write_run_logs", "success", logs=logs)
    assert api.count("log") == 5


def test_a_document_that_is_too_long_is_refused_with_the_limit(api: Caller) -> None:
    status, answer = limited(api, document=100).post("{ hello }" + " " * 100)
    assert status == 400
    assert "100 characters, not 109" in answer["errors"][0]["message"]


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        (f"{{ tenant(where: {{{' '.join(f'no{number}: 1' for number in range(2000))}}}) {{ id }} }}", {}),
        (
            "query($where: tenant_bool_exp) { tenant(where: $where) { id } }",
            {"where": {f"no{number}": 1 for number in range(2000)}},
        ),
    ],
    ids=["written", "variables"],
)
def test_not_all_errors_of_a_request_are_looked_for(api: Caller, query: str, variables: Any) -> None:
    """Each quotes the whole."""
    status, answer = api.post(query, variables)
    assert status == 400
    assert "'no0'" in answer["errors"][0]["message"]
    # the last says that there may be more
    assert len(answer["errors"]) == document.MOST_ERRORS + 1


def test_a_pattern_that_is_too_long_is_refused_with_the_limit(api: Caller) -> None:
    """SQLite compares for as long as it takes, whatever time there is."""
    query = "query($pattern: String) { project(where: {description: {_ilike: $pattern}}) { id } }"
    assert api.ask(query, pattern="a" * 500) == {"project": []}
    assert "500 characters, not 501" in api.error(query, pattern="a" * 501)


def test_mutations_that_come_after_the_time_of_a_request_are_not_carried_out(api: Caller) -> None:
    late = limited(api, seconds=0.0)
    assert "was not carried out" in late.refused("create_project", tenant_id=api.tenant_id(), name="late")
    assert api.count("project") == 0


def test_tools_may_ask_for_the_whole_schema(api: Caller) -> None:
    assert api.ask(graphql.get_introspection_query(descriptions=False))["__schema"]["types"]


def test_more_rows_than_the_limit_are_refused_and_never_left_out(api: Caller) -> None:
    flow_id = api.flow_id()
    for _ in range(4):
        api.flow_run_id(flow_id)
    assert len(limited(api, rows=4).ask("{ flow_run { id } }")["flow_run"]) == 4
    few = limited(api, rows=3)
    assert "more than 3 rows" in few.error("{ flow_run { id } }")
    assert "more than 3 rows" in few.error("{ flow_run(limit: 1000) { id } }")
    assert len(few.ask("{ flow_run(limit: 3) { id } }")["flow_run"]) == 3
    # nothing is handed over to be counted
    assert few.ask("{ flow_run_aggregate { aggregate { count } } }")["flow_run_aggregate"]["aggregate"]["count"] == 4


def test_rows_of_relationships_count_as_often_as_they_are_written(api: Caller) -> None:
    """Each of the runs of a flow has the flow, which has all of the runs: the answer grows by powers."""
    flow_id = api.flow_id()
    for _ in range(10):
        api.flow_run_id(flow_id)
    query = "{ flow { flow_runs { flow { flow_runs { flow { flow_runs { id } } } } } } }"
    written = 1 + 10 * (1 + 1 + 10 * (1 + 1 + 10))
    assert limited(api, rows=written).ask(query)["flow"]
    assert f"more than {written - 1} rows" in limited(api, rows=written - 1).error(query)


@pytest.mark.parametrize("is_ordered", [False, True])
def test_more_terms_than_the_limit_are_refused_and_many_values_are_one(api: Caller, is_ordered: bool) -> None:
    terms = '{_not: {name: {_eq: "a"}}}, ' * 20
    query = f"{{ flow {{ flow_runs(where: {{_or: [{terms}]}}) {{ id }} }} }}"
    if is_ordered:
        query = f"{{ flow_run(order_by: [{'{flow: {name: asc}}, ' * 20}]) {{ id }} }}"
    assert limited(api, terms=20).post(query)[1].keys() == {"data"}
    assert "20 terms in where and order_by, and at most 19" in limited(api, terms=19).error(query)
    values = ", ".join(f'"{uuid.uuid4()}"' for _ in range(1000))
    assert limited(api, terms=1).ask(f"{{ flow_run(where: {{id: {{_in: [{values}]}}}}) {{ id }} }}") == {"flow_run": []}


def test_large_statements_are_not_kept(api: Caller) -> None:
    kept = api.database.store.engine._compiled_cache
    terms = '{name: {_eq: "a"}}, ' * 200
    before = len(kept)
    assert api.ask(f"{{ flow_run(where: {{_or: [{terms}]}}) {{ id }} }}") == {"flow_run": []}
    assert len(kept) == before
    assert api.ask("{ flow_run { id } }") == {"flow_run": []}
    assert len(kept) > before


def test_what_is_being_read_ends_when_the_backend_stops(api: Caller) -> None:
    fill(api, 20_000)
    with ThreadPoolExecutor(1) as thread:
        # for so long that one of the polls sees it, however fast the machine is
        fields = " ".join(f"f{number}: {SLOW_FIELD}" for number in range(25))
        reading = thread.submit(api.post, f"{{ {fields} }}")
        eventually(lambda: api.database.store.engine.pool.checkedout())
        begun = time.monotonic()
        api.database.interrupt()
        message = reading.result(60)[1]["errors"][0]["message"]
        # the second when PostgreSQL has just finished the first of the two fields
        assert "was not read" in message or "the backend is stopping" in message
    assert time.monotonic() - begun < Limits().seconds / 2


def test_a_negative_limit_is_still_refused(api: Caller) -> None:
    assert "cannot be negative" in api.error("{ flow_run(limit: -1) { id } }")


def fill(api: Caller, logs: int) -> None:
    """Logs enough for a query that compares each with all."""
    run_id = api.flow_run_id()
    rows = [{"flow_run_id": run_id, "message": str(number)} for number in range(logs)]
    api.mutate("write_run_logs", "success", logs=rows)


#: Compares each log with each, as no index helps with the pattern
SLOW_FIELD = 'flow_run_state(where: {flow_run: {logs: {_not: {message: {_ilike: "%"}}}}}) { id }'
SLOW = f"{{ {SLOW_FIELD} flow {{ id }} }}"


def test_a_query_that_takes_too_long_is_ended_and_tells_the_limit(api: Caller) -> None:
    fill(api, 20_000)
    hasty = limited(api, seconds=0.001)
    _, answer = hasty.post(SLOW)
    message = answer["errors"][0]["message"]
    assert "within the 0.001 seconds" in message
    assert answer["data"]["flow_run_state"] is None
    # the connection is as good as before
    assert api.ask(SLOW)["flow_run_state"] == []


def test_a_query_in_time_is_not_disturbed_by_one_that_was_not(api: Caller) -> None:
    fill(api, 20_000)
    hasty = limited(api, seconds=0.001)
    for _ in range(20):
        hasty.post(SLOW)
        assert api.ask("{ log_aggregate { aggregate { count } } }") == {
            "log_aggregate": {"aggregate": {"count": 20_000}}
        }


def test_a_mutation_is_not_ended_for_a_query_before_it_that_took_too_long(api: Caller) -> None:
    """On the same connection, and in one statement that takes longer than that query had."""
    fill(api, 20_000)
    [run] = api.ask("{ flow_run { id } }")["flow_run"]
    limited(api, seconds=0.001).post(SLOW)
    assert api.mutate("delete_flow_run", "success", flow_run_id=run["id"])
    assert api.count("log") == 0


def test_documents_that_are_long_because_of_the_ids_in_them_are_not_kept_in_memory(api: Caller) -> None:
    document._kept.cache_clear()
    ids = " ".join(f'"{uuid.uuid4()}"' for _ in range(1000))
    assert api.ask(f"{{ task_run(where: {{id: {{_nin: [{ids}]}}}}) {{ id }} }}") == {"task_run": []}
    assert document._kept.cache_info().currsize == 0
    assert api.ask("{ task_run { id } }") == {"task_run": []}
    assert document._kept.cache_info().currsize == 1


def test_a_larger_answer_than_the_limit_is_refused_before_it_is_built(api: Caller) -> None:
    flow_id = api.flow_id()
    for _ in range(5):
        api.flow_run_id(flow_id, parameters={"a": "x" * 10_000})
    query = "{ flow_run { parameters } }"
    assert len(limited(api, answer=60_000).ask(query)["flow_run"]) == 5
    assert "larger than 40,000 characters" in limited(api, answer=40_000).error(query)
    # what is kept as many objects takes more memory than its text
    api.flow_run_id(flow_id, parameters={"a": [[] for _ in range(10_000)]})
    assert "larger than" in limited(api, answer=100_000).error(query)


def test_all_answers_to_a_request_are_limited_together(api: Caller) -> None:
    api.mutate("create_project", tenant_id=api.tenant_id(), name="p", description="x" * 10_000)
    aliases = "{ " + " ".join(f"a{number}: project {{ description }}" for number in range(4)) + " }"
    few = limited(api, answer=35_000)
    assert "larger than" in few.error(aliases)
    batch = json.dumps([{"query": "{ project { description } }"}] * 5).encode()
    _, answers = few.api.answer(batch)
    assert ["errors" in answer for answer in answers] == [False] * 3 + [True] * 2


def test_what_many_rows_refer_to_counts_as_often_as_it_is_written(api: Caller) -> None:
    flow_id = api.flow_id()
    api.mutate("set_project_description", project_id=api.project_id(), description="x" * 10_000)
    for _ in range(10):
        api.flow_run_id(flow_id)
    query = "{ flow_run { flow { project { description } } } }"
    assert limited(api, answer=110_000).ask(query)
    assert "larger than" in limited(api, answer=90_000).error(query)


@pytest.mark.parametrize("value", ["x" * 5_000_000, ["y" * 1_000_000] * 5], ids=["text", "list"])
@pytest.mark.parametrize("name", ["parameters", "context", "run_config"])
def test_larger_values_of_a_flow_run_than_the_limit_are_refused(api: Caller, name: str, value: Any) -> None:
    message = api.refused("create_flow_run", flow_id=api.flow_id(), **{name: {"a": value}})
    assert f"The {name} of a flow_run has at most 5,000,000 characters as JSON, not 5,000,0" in message
    assert api.count("flow_run") == 0


def test_a_longer_line_of_a_log_than_the_limit_is_refused(api: Caller) -> None:
    """Prefect's client cuts them."""
    logs = [{"flow_run_id": api.flow_run_id(), "message": "x" * 1_000_001}]
    assert "at most 1,000,000 characters, not 1,000,001" in api.refused("write_run_logs", "success", logs=logs)


def test_more_lines_tasks_edges_and_states_than_the_limit_are_refused_at_once(api: Caller) -> None:
    run_id, project_id = api.flow_run_id(), api.project_id()
    logs = [{"flow_run_id": run_id, "message": str(number)} for number in range(20_001)]
    assert "logs is a list of 20,001 objects: at most 20,000" in api.refused("write_run_logs", "success", logs=logs)
    many = [{"slug": str(number)} for number in range(10_001)]
    flow = {"name": "large", "tasks": many}
    assert "10,001 tasks" in api.refused("create_flow", project_id=project_id, serialized_flow=flow)
    flow = {"name": "large", "tasks": many[:1001]}
    assert "at most 1,000 tasks of flow 'large', not 1,001. Send the others with register_tasks" in api.refused(
        "create_flow", project_id=project_id, serialized_flow=flow
    )
    edges = [{"upstream_task": "a", "downstream_task": "b"}] * 1001
    flow = {"name": "large", "tasks": [{"slug": "a"}, {"slug": "b"}], "edges": edges}
    assert "at most 1,000 edges of flow 'large', not 1,001. Send the others with register_edges" in api.refused(
        "create_flow", project_id=project_id, serialized_flow=flow
    )
    states = [{"flow_run_id": run_id, "state": {"type": "Running"}}] * 501
    assert "at most 500 states" in api.refused("set_flow_run_states", "states { id }", states=states)
    assert (api.count("flow"), api.count("log")) == (1, 0)


def lines(run_id: str, count: int) -> Any:
    """Log lines a millisecond apart, as Prefect's client sends them."""
    begin = datetime(2026, 1, 1, tzinfo=timezone.utc)
    return [
        {"flow_run_id": run_id, "message": str(number), "timestamp": instant(begin + timedelta(milliseconds=number))}
        for number in range(count)
    ]


def test_other_callers_write_between_the_lines_of_a_long_log(api: Caller) -> None:
    run_id = api.running()
    input = {"logs": lines(run_id, 1200)}
    steps = api.api.steps(json.dumps({"query": WRITE_LOGS, "variables": {"input": input}}).encode())
    assert [next(steps), next(steps)] == [Step.WRITE, Step.WRITE]
    assert api.count("log") == 500
    # the database has one writer at a time: this would wait for ever
    assert api.set_state(run_id, "Success")
    assert next(steps) is Step.WRITE
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value == (200, {"data": {"write_run_logs": {"success": True}}})
    stored = api.ask("{ log(order_by: {timestamp: asc}) { message } }")["log"]
    assert [each["message"] for each in stored] == [str(number) for number in range(1200)]


def test_log_lines_before_a_refused_one_are_stored_once(api: Caller) -> None:
    logs = lines(api.flow_run_id(), 1200)
    wrong = [*logs[:700], {**logs[700], "message": "x" * 1_000_001}, *logs[701:]]
    assert api.refused("write_run_logs", "success", logs=wrong).endswith(
        "The first 500 logs of write_run_logs were stored."
    )
    assert api.count("log") == 500
    assert api.mutate("write_run_logs", "success", logs=logs)
    assert api.count("log") == 1200


def test_no_lines_of_a_log_are_a_success(api: Caller) -> None:
    assert api.mutate("write_run_logs", "success", logs=[])


def test_a_flow_does_not_grow_beyond_the_limit_in_several_requests(
    api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefect_taskrun_tasks.server.rules.flows.MOST_TASKS", 3)
    flow_id = api.flow_id(tasks=["a", "b"])
    assert api.mutate("register_tasks", "success", flow_id=flow_id, serialized_tasks=[{"slug": "b"}, {"slug": "c"}])
    message = api.refused("register_tasks", "success", flow_id=flow_id, serialized_tasks=[{"slug": "d"}])
    assert "4 tasks: this backend takes 3" in message
    monkeypatch.setattr("prefect_taskrun_tasks.server.rules.flows.MOST_EDGES", 1)
    edges = [{"upstream_task": "a", "downstream_task": slug} for slug in ("b", "c")]
    assert api.mutate("register_edges", "success", flow_id=flow_id, serialized_edges=edges[:1])
    message = api.refused("register_edges", "success", flow_id=flow_id, serialized_edges=edges[1:])
    assert "2 edges: this backend takes 1" in message
