"""Reads, as Hasura answers them: operators, nulls, order, paging, relationships, aggregates."""

from typing import Any, Dict, Iterator, List

import pytest
from asking import Caller, caller, statements


@pytest.fixture
def api(database_url: str) -> Iterator[Caller]:
    with caller(database_url) as api:
        yield api


@pytest.fixture
def maps(api: Caller) -> Caller:
    """With task runs of the map indexes -1, 0, 1, 2 and 3; 0 is named zero and 1 one, the others are not."""
    run_id = api.running(api.flow_id(tasks=["a"]))
    [task] = api.ask("{ task { id } }")["task"]
    for index in (2, 0, 3, 1):
        api.mutate("get_or_create_task_run_info", flow_run_id=run_id, task_id=task["id"], map_index=index)
    for index, name in ((0, "zero"), (1, "one")):
        [run] = api.ask("query($i: Int) { task_run(where: {map_index: {_eq: $i}}) { id } }", i=index)["task_run"]
        api.mutate("set_task_run_name", "success", task_run_id=run["id"], name=name)
    return api


def indexes(api: Caller, where: Any) -> List[int]:
    query = "query($where: task_run_bool_exp) { task_run(where: $where, order_by: {map_index: asc}) { map_index } }"
    return [run["map_index"] for run in api.ask(query, where=where)["task_run"]]


ALL = [-1, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("comparison", "found"),
    [
        ({"_eq": 1}, [1]),
        ({"_neq": -1}, [0, 1, 2, 3]),
        ({"_in": [0, 3, 9]}, [0, 3]),
        ({"_in": 2}, [2]),
        ({"_nin": [0, 3]}, [-1, 1, 2]),
        ({"_gt": 1}, [2, 3]),
        ({"_gte": 1}, [1, 2, 3]),
        ({"_lt": 1}, [-1, 0]),
        ({"_lte": 1}, [-1, 0, 1]),
        ({"_gte": 0, "_lte": 2, "_neq": 1}, [0, 2]),
        ({"_is_null": False}, ALL),
        ({"_is_null": True}, []),
        ({"_in": []}, []),
        ({"_nin": []}, ALL),
        ({}, ALL),
    ],
)
def test_a_comparison_finds_the_rows_for_which_it_holds(maps: Caller, comparison: Any, found: Any) -> None:
    assert indexes(maps, {"map_index": comparison}) == found


@pytest.mark.parametrize(
    ("comparison", "is_found"),
    [("_gt: false", False), ("_gte: false", True), ("_lt: true", True), ("_lte: true", True)],
)
def test_truth_values_have_an_order(maps: Caller, comparison: str, is_found: bool) -> None:
    """False comes before true, as in PostgreSQL."""
    [flow] = maps.ask("{ flow { archived } }")["flow"]
    assert flow["archived"] is False
    assert bool(maps.ask(f"{{ flow(where: {{archived: {{{comparison}}}}}) {{ id }} }}")["flow"]) is is_found


@pytest.mark.parametrize(
    "where",
    [
        None,
        {},
        {"map_index": None},
        {"map_index": {"_eq": None, "_neq": None, "_in": None, "_nin": None, "_gt": None, "_is_null": None}},
        {"_and": None},
        {"_or": None},
        {"_not": None},
        {"_and": []},
        {"_and": [{}, {"map_index": {"_eq": None}}]},
        {"_and": {"map_index": {"_eq": None}}},
        {"_or": [{}]},
        {"task": None},
        {"task": {}},
        {"task": {"slug": {"_eq": None}}},
        {"flow_run": {"flow": {"project": {"name": {"_eq": None}}}}},
    ],
)
def test_a_null_comparison_restricts_nothing(maps: Caller, where: Any) -> None:
    """T8: `prefect get` compares with null where no option was given."""
    assert indexes(maps, where) == ALL


@pytest.mark.parametrize(
    ("comparison", "found"),
    [
        ({"_eq": "one"}, [1]),
        ({"_neq": "one"}, [0]),
        ({"_nin": ["one"]}, [0]),
        ({"_is_null": True}, [-1, 2, 3]),
        ({"_is_null": False}, [0, 1]),
        ({"_ilike": "%NE"}, [1]),
    ],
)
def test_a_column_that_is_null_equals_nothing_and_differs_from_nothing(
    maps: Caller, comparison: Any, found: Any
) -> None:
    assert indexes(maps, {"name": comparison}) == found


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({"map_index": {"_gt": 0}, "name": {"_eq": "one"}}, [1]),
        ({"_and": [{"map_index": {"_gt": 0}}, {"map_index": {"_lt": 3}}]}, [1, 2]),
        ({"_and": {"map_index": {"_gt": 2}}}, [3]),
        ({"_or": [{"map_index": {"_eq": 0}}, {"name": {"_eq": "one"}}]}, [0, 1]),
        ({"_or": []}, []),
        ({"_or": [{"map_index": {"_eq": 0}}], "map_index": {"_eq": 1}}, []),
        ({"_not": {"map_index": {"_gt": 0}}}, [-1, 0]),
        ({"_not": {}}, []),
    ],
)
def test_conditions_can_be_joined(maps: Caller, where: Any, found: Any) -> None:
    assert indexes(maps, where) == found


def names(api: Caller, root: str, **arguments: Any) -> List[str]:
    kinds = {"where": f"{root}_bool_exp", "order_by": f"[{root}_order_by!]", "limit": "Int", "offset": "Int"}
    kinds["distinct_on"] = f"[{root}_select_column!]"
    declared = ", ".join(f"${name}: {kinds[name]}" for name in arguments)
    given = ", ".join(f"{name}: ${name}" for name in arguments)
    return [row["name"] for row in api.ask(f"query({declared}) {{ {root}({given}) {{ name }} }}", **arguments)[root]]


def test_a_related_row_must_match(api: Caller) -> None:
    api.flow_id("f", project="one")
    api.flow_id("g", project="two")
    assert names(api, "flow", where={"project": {"name": {"_eq": "two"}}}) == ["g"]
    assert names(api, "flow", where={"project": {"name": {"_eq": "three"}}}) == []


def test_one_of_many_related_rows_must_match_all_of_it(api: Caller) -> None:
    api.flow_id("f", tasks=["x", "y"])
    api.flow_id("g", tasks=["y"])
    assert names(api, "flow", where={"tasks": {"slug": {"_eq": "x"}}}) == ["f"]
    both = {"slug": {"_eq": "x"}, "name": {"_eq": "y"}}
    assert names(api, "flow", where={"tasks": both}) == []
    assert names(api, "flow", where={"_not": {"tasks": {"slug": {"_eq": "x"}}}}) == ["g"]


def test_rows_are_found_by_the_ids_of_those_that_they_are_related_to(api: Caller) -> None:
    flow_ids = {name: api.flow_id(name, tasks=[f"{name}-1", f"{name}-2"]) for name in ("f", "g")}
    run_id = api.flow_run_id(flow_ids["f"])
    of_run = {"flow_runs": {"id": {"_eq": run_id}}}
    assert names(api, "flow", where=of_run) == ["f"]
    assert names(api, "flow", where={"_not": of_run}) == ["g"]
    assert sorted(names(api, "task", where={"flow": of_run})) == ["f-1", "f-2"]
    assert names(api, "flow", where={"flow_runs": {"id": {"_in": [run_id]}, "state": {"_eq": "Running"}}}) == []
    assert names(api, "flow", where={"flow_runs": {"_and": [{"id": {"_in": [run_id]}}]}}) == ["f"]
    # a null restricts nothing
    assert names(api, "flow", where={"flow_runs": {"id": {"_eq": None}}}) == ["f"]


def test_a_row_that_is_related_to_none_is_not_related_to_one_with_an_id(api: Caller) -> None:
    """As a flow run that no agent has taken."""
    run_id = api.flow_run_id(flow_run_name="waits")
    no_agent = {"agent": {"id": {"_eq": run_id}}}
    assert names(api, "flow_run", where=no_agent) == []
    assert names(api, "flow_run", where={"_not": no_agent}) == ["waits"]


def test_a_table_related_to_itself_is_told_apart(api: Caller) -> None:
    edge = {"upstream_task": "a", "downstream_task": "b"}
    api.flow_id(edges=[edge])
    query = "query($s: String) { task(where: {upstream_edges: {upstream_task: {slug: {_eq: $s}}}}) { slug } }"
    assert api.ask(query, s="a")["task"] == [{"slug": "b"}]


@pytest.mark.parametrize(
    ("pattern", "is_found"),
    [
        ("%ÜBER%", True),
        ("%straße_", True),
        ("über 50\\% straßeN", True),
        ("über 5\\% %", False),
        ("über", False),
        ("\\", False),
        ("", False),
        ("%", True),
        ("%caf\udce9%", False),
    ],
)
def test_text_is_searched_without_regard_to_case_as_postgresql_does(api: Caller, pattern: str, is_found: bool) -> None:
    api.flow_run_id(flow_run_name="Über 50% Straßen")
    assert names(api, "flow_run", where={"name": {"_ilike": pattern}}) == ["Über 50% Straßen"] * is_found


@pytest.fixture
def flows(api: Caller) -> Caller:
    """With the flows b in version 1 and 2, a, and c in two projects."""
    for name, project in (("b", "one"), ("a", "one"), ("b", "one"), ("c", "two"), ("c", "one")):
        api.flow_id(name, project=project, tasks=[])
    return api


@pytest.mark.parametrize(
    ("order_by", "found"),
    [
        ({"name": "asc", "version": "desc"}, ["a1", "b2", "b1", "c1", "c1"]),
        ([{"name": "desc"}, {"version": "asc"}], ["c1", "c1", "b1", "b2", "a1"]),
        ({"version": "desc", "name": "desc"}, ["b2", "c1", "c1", "b1", "a1"]),
        ({"archived": "asc", "name": "asc"}, ["a1", "b2", "c1", "c1", "b1"]),
        ({"version": "desc", "archived": None, "name": "desc"}, ["b2", "c1", "c1", "b1", "a1"]),
    ],
)
@pytest.mark.parametrize("place", ["document", "variable", "default"])
def test_the_first_key_of_an_order_sorts_first(flows: Caller, order_by: Any, found: Any, place: str) -> None:
    """Wherever it is written."""
    text = str(order_by).replace("'", "").replace("None", "null")
    if place == "document":
        answer = flows.ask(f"{{ flow(order_by: {text}) {{ name version }} }}")
    elif place == "variable":
        answer = flows.ask("query($o: [flow_order_by!]) { flow(order_by: $o) { name version } }", o=order_by)
    else:
        answer = flows.ask(f"query($o: [flow_order_by!] = {text}) {{ flow(order_by: $o) {{ name version }} }}")
    assert [f"{row['name']}{row['version']}" for row in answer["flow"]] == found


def test_an_order_may_come_from_a_variable_within_it(flows: Caller) -> None:
    query = "query($d: order_by) { flow(order_by: {version: $d, name: asc}) { name version } }"
    assert flows.ask(query, d="desc")["flow"][0] == {"name": "b", "version": 2}
    assert flows.ask(query)["flow"][0]["name"] == "a"


def test_rows_can_be_ordered_by_a_related_row(flows: Caller) -> None:
    order = [{"project": {"name": "desc"}}, {"name": "asc"}, {"version": "asc"}]
    assert names(flows, "flow", order_by=order) == ["c", "a", "b", "b", "c"]


@pytest.mark.parametrize(
    ("direction", "found"),
    [
        ("asc", ["one", "zero", None, None, None]),
        ("desc", [None, None, None, "zero", "one"]),
        ("asc_nulls_first", [None, None, None, "one", "zero"]),
        ("asc_nulls_last", ["one", "zero", None, None, None]),
        ("desc_nulls_first", [None, None, None, "zero", "one"]),
        ("desc_nulls_last", ["zero", "one", None, None, None]),
    ],
)
def test_nulls_come_where_postgresql_puts_them(maps: Caller, direction: str, found: Any) -> None:
    """T17: SQLite by itself puts them at the other end."""
    assert names(maps, "task_run", order_by={"name": direction}) == found


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ({"limit": 2}, ["a", "b"]),
        ({"limit": 2, "offset": 3}, ["c", "c"]),
        ({"offset": 4}, ["c"]),
        ({"offset": 9}, []),
        ({"limit": 0}, []),
        ({"limit": None, "offset": None, "where": None, "distinct_on": None}, ["a", "b", "b", "c", "c"]),
    ],
)
def test_an_answer_can_be_cut_into_pages(flows: Caller, page: Any, found: Any) -> None:
    assert names(flows, "flow", order_by={"name": "asc"}, **page) == found


@pytest.mark.parametrize("distinct_on", ["name", ["name"]])
def test_distinct_keeps_the_first_row_of_each_value(flows: Caller, distinct_on: Any) -> None:
    query = """query($d: [flow_select_column!]) {
        flow(distinct_on: $d, order_by: {name: asc, version: desc}, limit: 2) { name version }
    }"""
    assert flows.ask(query, d=distinct_on)["flow"] == [{"name": "a", "version": 1}, {"name": "b", "version": 2}]


def test_arguments_of_a_relationship_hold_for_each_parent(flows: Caller) -> None:
    query = """{ project(order_by: {name: asc}) {
        name
        newest: flows(order_by: {created: desc}, limit: 2) { name version }
        second: flows(order_by: {created: asc}, limit: 1, offset: 1) { name }
        distinct: flows(distinct_on: name, order_by: {name: asc, version: desc}) { name version }
        flows_aggregate(distinct_on: name) { aggregate { count } }
        old: flows_aggregate(where: {archived: {_eq: true}}) { aggregate { count } nodes { name version } }
    } }"""
    one, two = flows.ask(query)["project"]
    assert one == {
        "name": "one",
        "newest": [{"name": "c", "version": 1}, {"name": "b", "version": 2}],
        "second": [{"name": "a"}],
        "distinct": [{"name": "a", "version": 1}, {"name": "b", "version": 2}, {"name": "c", "version": 1}],
        "flows_aggregate": {"aggregate": {"count": 3}},
        "old": {"aggregate": {"count": 1}, "nodes": [{"name": "b", "version": 1}]},
    }
    assert two["newest"] == two["distinct"] == [{"name": "c", "version": 1}]
    assert two["second"] == []
    assert two["old"] == {"aggregate": {"count": 0}, "nodes": []}


def test_an_aggregate_counts_what_its_arguments_leave(flows: Caller) -> None:
    query = """{
        all: flow_aggregate { aggregate { count } }
        some: flow_aggregate(where: {name: {_neq: "a"}}, limit: 3) { aggregate { count } nodes { name } }
        names: flow_aggregate(distinct_on: name) { aggregate { count } }
        values: flow_aggregate { one: aggregate { count } two: aggregate { count(columns: [name], distinct: true) } }
        unset: flow_aggregate { aggregate { count(columns: [description]) } }
    }"""
    answer = flows.ask(query)
    assert answer["all"] == {"aggregate": {"count": 5}}
    assert answer["some"]["aggregate"] == {"count": 3}
    assert len(answer["some"]["nodes"]) == 3
    assert answer["names"] == {"aggregate": {"count": 3}}
    assert answer["values"] == {"one": {"count": 5}, "two": {"count": 3}}
    assert answer["unset"] == {"aggregate": {"count": 0}}


def test_an_aggregate_computes_what_columns_have(flows: Caller) -> None:
    flows.mutate("set_project_description", project_id=flows.project_id("two"), description="about")
    query = """{
        flow_aggregate {
            __typename
            aggregate {
                __typename max { __typename version name } min { version last: created } sum { version } avg { version }
            }
            again: aggregate { max { newest: created } count }
        }
        project_aggregate { aggregate { max { description } } }
        some: flow_aggregate(where: {name: {_eq: "b"}}, order_by: {version: desc}, limit: 1) {
            aggregate { min { version } }
        }
        none: flow_aggregate(where: {name: {_eq: "z"}}) {
            aggregate { count max { version } sum { version } } nodes { id }
        }
        project(order_by: {name: asc}) {
            flows_aggregate(where: {name: {_neq: "c"}}) { aggregate { max { version name } avg { version } } }
        }
    }"""
    answer = flows.ask(query)
    created = sorted(flow["created"] for flow in flows.ask("{ flow { created } }")["flow"])
    assert answer["flow_aggregate"] == {
        "__typename": "flow_aggregate",
        "aggregate": {
            "__typename": "flow_aggregate_fields",
            "max": {"__typename": "flow_max_fields", "version": 2, "name": "c"},
            "min": {"version": 1, "last": created[0]},
            "sum": {"version": 6},
            "avg": {"version": 1.2},
        },
        "again": {"max": {"newest": created[-1]}, "count": 5},
    }
    assert answer["project_aggregate"]["aggregate"]["max"] == {"description": "about"}
    assert answer["some"]["aggregate"]["min"] == {"version": 2}
    nothing = {"aggregate": {"count": 0, "max": {"version": None}, "sum": {"version": None}}, "nodes": []}
    assert answer["none"] == nothing
    assert [each["flows_aggregate"]["aggregate"] for each in answer["project"]] == [
        {"max": {"version": 2, "name": "b"}, "avg": {"version": 4 / 3}},
        {"max": {"version": None, "name": None}, "avg": {"version": None}},
    ]


@pytest.mark.parametrize("what", ["max { archived }", "min { parameters }", "sum { name }", "avg { created }"])
def test_a_column_has_only_the_aggregates_that_its_type_has(api: Caller, what: str) -> None:
    assert "Cannot query field" in api.error(f"{{ flow_aggregate {{ aggregate {{ {what} }} }} }}")


def test_a_row_is_answered_with_exactly_the_fields_that_were_asked_for(maps: Caller) -> None:
    """T3: the client passes rows on as keyword arguments."""
    query = "{ task_run(limit: 1) { id map_index task { slug } flow_run { flow { name } } } }"
    [row] = maps.ask(query)["task_run"]
    assert list(row) == ["id", "map_index", "task", "flow_run"]
    assert (row["task"], row["flow_run"]) == ({"slug": "a"}, {"flow": {"name": "flow"}})


def test_an_object_of_which_all_fields_are_left_out_is_empty(maps: Caller) -> None:
    """Not all that there is of it."""
    query = """
        mutation($input: create_project_input!, $all: Boolean!) {
            create_project(input: $input) { id @include(if: $all) }
        }
    """
    project = {"tenant_id": maps.tenant_id(), "name": "other"}
    assert maps.ask(query, input=project, all=False) == {"create_project": {}}
    query = """query($all: Boolean!) {
        api { version @include(if: $all) }
        flow_run { flow { id @include(if: $all) } states { id @include(if: $all) } }
        flow_run_aggregate { aggregate { count @include(if: $all) } }
    }"""
    assert maps.ask(query, all=False) == {
        "api": {},
        "flow_run": [{"flow": {}, "states": [{}, {}]}],
        "flow_run_aggregate": {"aggregate": {}},
    }


def test_aliases_fragments_and_type_names_are_answered(maps: Caller) -> None:
    """T4: the page of Prefect asks for them everywhere."""
    query = """
        query Named($with: Boolean!, $without: Boolean!) {
            __typename
            runs: flow_run { ...run ... on flow_run { __typename name @include(if: $without) } }
            flow_run_aggregate { __typename aggregate { __typename count } nodes { __typename } }
        }
        fragment run on flow_run {
            key: id @skip(if: $without) flow { __typename } states { state @include(if: $with) }
        }
    """
    answer = maps.ask(query, **{"with": True, "without": False})
    [run] = answer["runs"]
    assert sorted(run) == ["__typename", "flow", "key", "states"]
    assert (answer["__typename"], run["__typename"], run["flow"]) == ("Query", "flow_run", {"__typename": "flow"})
    assert run["states"] == [{"state": "Scheduled"}, {"state": "Running"}]
    assert answer["flow_run_aggregate"] == {
        "__typename": "flow_run_aggregate",
        "aggregate": {"__typename": "flow_run_aggregate_fields", "count": 1},
        "nodes": [{"__typename": "flow_run"}],
    }


def test_the_same_field_asked_for_twice_is_one_with_the_fields_of_both(maps: Caller) -> None:
    assert maps.ask("{ flow { name } flow { version project { name } project { description } } }")["flow"] == [
        {"name": "flow", "version": 1, "project": {"name": "project", "description": None}}
    ]


def test_a_single_row_is_found_by_its_id_or_null(maps: Caller) -> None:
    [flow] = maps.ask("{ flow { id } }")["flow"]
    query = "query($id: uuid!) { flow_by_pk(id: $id) { name } }"
    for spelled in (flow["id"], flow["id"].upper(), flow["id"].replace("-", "")):
        assert maps.ask(query, id=spelled)["flow_by_pk"] == {"name": "flow"}
    assert maps.ask(query, id="00000000-0000-0000-0000-000000000000")["flow_by_pk"] is None


def test_values_have_the_types_of_their_columns(maps: Caller) -> None:
    """T6: JSON comes back as values, and T17: truth as truth."""
    config = {"type": "LocalRun", "labels": ["x"], "deep": [{"a": None, "b": 1.5}]}
    maps.flow_run_id(parameters={"n": [1, "ü", None, True]}, context={}, run_config=config, flow_run_name="typed")
    query = """{ flow_run(where: {name: {_eq: "typed"}}) {
        parameters context labels run_config auto_scheduled version heartbeat serialized_state
        flow { archived settings }
    } }"""
    [run] = maps.ask(query)["flow_run"]
    assert run["parameters"] == {"n": [1, "ü", None, True]}
    assert (run["context"], run["labels"], run["run_config"]) == ({}, ["x"], config)
    assert (run["auto_scheduled"], run["version"], run["heartbeat"]) == (False, 1, None)
    assert run["serialized_state"]["type"] == "Scheduled"
    assert run["flow"] == {"archived": False, "settings": {}}


def test_all_instants_are_utc_with_six_digits(maps: Caller) -> None:
    """T13."""
    maps.flow_run_id(scheduled_start_time="2031-01-01T00:00:00Z")
    query = "{ flow_run { created updated scheduled_start_time state_timestamp states { timestamp } start_time } }"
    for run in maps.ask(query)["flow_run"]:
        instants = [*(run[name] for name in run if name != "states"), *(each["timestamp"] for each in run["states"])]
        for instant in filter(None, instants):
            assert len(instant) == len("2031-01-01T00:00:00.000000+00:00")
            assert instant.endswith("+00:00")


@pytest.mark.parametrize("text", ["2031-01-01T00:00:00Z", "2031-01-01T00:00:00.000", "2031-01-01T01:00:00+01:00"])
def test_instants_are_compared_as_instants_however_they_are_written(api: Caller, text: str) -> None:
    """T14."""
    api.flow_run_id(scheduled_start_time="2031-01-01T00:00:00+00:00")
    query = "query($t: timestamptz) { flow_run(where: {scheduled_start_time: {%s: $t}}) { id } }"
    assert len(api.ask(query % "_eq", t=text)["flow_run"]) == 1
    assert len(api.ask(query % "_lte", t=text)["flow_run"]) == 1
    assert api.ask(query % "_gt", t=text)["flow_run"] == []


def test_an_agent_without_a_config_has_null_there(api: Caller) -> None:
    api.mutate("register_agent", type="LocalAgent", tenant_id=api.tenant_id())
    query = "{ agent { agent_config { settings } flow_runs { id } } agent_config { settings } }"
    assert api.ask(query) == {"agent": [{"agent_config": None, "flow_runs": []}], "agent_config": []}


def test_a_number_of_rows_beyond_the_limits_of_a_statement_can_be_asked_for(api: Caller) -> None:
    ids = [f"00000000-0000-0000-0000-{number:012}" for number in range(33_000)]
    assert api.ask("query($i: [uuid!]) { flow(where: {id: {_in: $i}}) { id } }", i=ids) == {"flow": []}


AGENT = """query($ids: [uuid!], $now: timestamptz) {
    flow_run(where: {id: {_in: $ids}, _or: [
        {state: {_eq: "Scheduled"}},
        {state: {_eq: "Running"}, task_runs: {state_start_time: {_lte: $now}}}
    ]}) {
        id version state serialized_state parameters scheduled_start_time run_config name
        flow { id name environment storage version core_version }
        task_runs(where: {state_start_time: {_lte: $now}}) { id version task_id serialized_state }
    }
}"""
INFO = """query($id: uuid!) { flow_run_by_pk(id: $id) {
    id name flow_id parameters context version scheduled_start_time serialized_state
    task_runs(where: {map_index: {_eq: -1}}) { id version serialized_state task { id slug } }
    flow { project { id name } }
} }"""
VIEW = """query($id: uuid!) { flow_run(where: {id: {_eq: $id}}) {
    id name states { timestamp serialized_state } labels logs(order_by: {timestamp: asc}) { message }
} }"""
AGGREGATES = "{ flow_run { task_runs_aggregate { aggregate { count } } } }"


@pytest.mark.parametrize(
    ("query", "bound"),
    [
        (AGENT, 3),
        (INFO, 5),
        (VIEW, 3),
        (AGGREGATES, 2),
        ("{ task_run { task { slug } flow_run { flow { project { name } } } } }", 5),
    ],
)
def test_a_read_costs_one_statement_for_each_relationship_however_many_rows_there_are(
    api: Caller, query: str, bound: int
) -> None:
    flow_id = api.flow_id(tasks=[f"t{number}" for number in range(10)])
    ids = [api.flow_run_id(flow_id) for _ in range(10)]
    variables: Dict[str, Any] = {"ids": ids, "now": "2031-01-01T00:00:00Z", "id": ids[0]}
    used = {name: value for name, value in variables.items() if f"${name}:" in query}
    with statements(api.database) as sent:
        api.ask(query, **used)
    assert len(sent) <= bound, sent


def test_a_poll_of_the_queue_costs_few_statements_however_many_runs_wait(api: Caller) -> None:
    """T36."""
    flow_id = api.flow_id(tasks=[])
    for _ in range(40):
        api.flow_run_id(flow_id)
    api.headers["x-prefect-agent-id"] = api.mutate("register_agent", type="LocalAgent", tenant_id=api.tenant_id())
    tenant_id = api.tenant_id()
    with statements(api.database) as sent:
        assert len(api.mutate("get_runs_in_queue", "flow_run_ids", tenant_id=tenant_id)) == 25
    assert len(sent) <= 2, sent


def test_a_flow_run_of_many_tasks_is_created_with_few_statements(api: Caller) -> None:
    flow_id = api.flow_id(tasks=[f"t{number}" for number in range(300)])
    with statements(api.database) as sent:
        api.flow_run_id(flow_id)
    assert len(sent) <= 12, sent


def test_a_state_costs_few_statements(api: Caller) -> None:
    run_id = api.flow_run_id()
    with statements(api.database) as sent:
        api.set_state(run_id, "Running")
    assert len(sent) <= 4, sent
    [task_run_id, _] = [run["id"] for run in api.ask("{ task_run { id } }")["task_run"]]
    with statements(api.database) as sent:
        api.set_task_state(task_run_id, "Running")
    assert len(sent) <= 4, sent


def test_a_batch_of_logs_costs_few_statements(api: Caller) -> None:
    run_id = api.flow_run_id()
    logs = [{"flow_run_id": run_id, "message": "m"}] * 500
    with statements(api.database) as sent:
        api.mutate("write_run_logs", "success", logs=logs)
    assert len(sent) <= 3, sent


CONTEXT = {
    "who": {"id": "a", "n": 5, "ok": True, "no": None},
    "list": [1, "x", True, {"id": "b", "more": [[2]]}, [3, 4]],
    'q"uote': {"t\tab": 1.5, "deep": ["y"]},
    "ü\\": {"ö": "ä"},
}


@pytest.mark.parametrize(
    ("wanted", "is_found"),
    [
        ({}, True),
        ({"who": {"id": "a"}}, True),
        ({"who": {"id": "a", "n": 5, "ok": True, "no": None}}, True),
        ({"who": {"id": "b"}}, False),
        ({"who": {"id": "a", "n": 6}}, False),
        ({"who": {"n": 5.0}}, True),
        ({"who": {"n": "5"}}, False),
        ({"who": {"ok": False}}, False),
        ({"who": {"ok": 1}}, False),
        ({"who": {"n": None}}, False),
        ({"who": {"missing": "a"}}, False),
        ({"who": "a"}, False),
        ({"who": '{"id":"a","n":5,"ok":true,"no":null}'}, False),
        ({"list": [[3, 4]]}, True),
        ({"list": ["[3,4]"]}, False),
        ({"who": {"it's ?": "a"}}, False),
        ({"who": {"n": 10**30}}, False),
        ({"who": {"id": "caf\udce9"}}, False),
        ({"who": {}}, True),
        ({"missing": {}}, False),
        ({"list": {}}, False),
        ({"list": []}, True),
        ({"list": [1]}, True),
        ({"list": ["x", 1, 1]}, True),
        ({"list": [2]}, False),
        ({"list": [1, 2]}, False),
        ({"list": 1}, False),
        ({"list": ["x", {"id": "b"}]}, True),
        ({"list": [{"id": "b", "more": [[2]]}]}, True),
        ({"list": [{"id": "b", "more": [2]}]}, False),
        ({"list": [{"id": "a"}]}, False),
        ({"list": [[4]]}, True),
        ({"list": [[4, 5]]}, False),
        ({"list": [True]}, True),
        ({"list": [False]}, False),
        ({"who": []}, False),
        ({'q"uote': {"t\tab": 1.5}}, True),
        ({'q"uote': {"t\tab": 2}}, False),
        ({'q"uote': {"deep": ["y"]}}, True),
        ({'q"uote': {"deep": ["z"]}}, False),
        ({"ü\\": {"ö": "ä"}}, True),
        ({"ü\\": {"ö": "a"}}, False),
        ([], False),
        (["who"], False),
        ("who", False),
        (5, False),
    ],
)
def test_rows_are_found_by_what_their_json_contains(api: Caller, wanted: Any, is_found: bool) -> None:
    id = api.flow_run_id(context=CONTEXT)
    query = "query($c: jsonb) { flow_run(where: {context: {_contains: $c}}) { id } }"
    assert api.ask(query, c=wanted)["flow_run"] == ([{"id": id}] if is_found else [])


@pytest.mark.parametrize(
    ("wanted", "is_found"),
    [(["a"], True), (["b", "a"], True), ([], True), ("a", True), ("c", False), (["a", "c"], False), ({}, False)],
)
def test_rows_are_found_by_some_of_their_labels(api: Caller, wanted: Any, is_found: bool) -> None:
    api.flow_run_id(labels=["a", "b"])
    query = "query($l: jsonb) { flow_run(where: {labels: {_contains: $l}}) { labels } }"
    assert api.ask(query, l=wanted)["flow_run"] == ([{"labels": ["a", "b"]}] if is_found else [])


@pytest.mark.parametrize(
    ("column", "names", "is_found"),
    [
        ("labels", ["x", "b"], True),
        ("labels", "a", True),
        ("labels", ["x"], False),
        ("labels", [], False),
        ("labels", ["caf\udce9"], False),
        ("parameters", ["x", "n"], True),
        ("parameters", ["1"], False),
        ("run_config", ["type"], False),
    ],
)
def test_rows_are_found_by_one_of_several_keys(api: Caller, column: str, names: Any, is_found: bool) -> None:
    id = api.flow_run_id(labels=["a", "b"], parameters={"n": "1", "1n": 2})
    query = f"query($n: [String!]) {{ flow_run(where: {{{column}: {{_has_keys_any: $n}}}}) {{ id }} }}"
    assert api.ask(query, n=names)["flow_run"] == ([{"id": id}] if is_found else [])
