"""Walks over the tasks of a flow, as the dialogs ask for them that restart a flow run."""

from typing import Any, Dict, Iterator, List

import pytest
from asking import Caller, caller

#: A diamond with a tail, a shortcut past it, and a task that stands alone
EDGES = ["ab", "ac", "bd", "cd", "de", "ae"]


@pytest.fixture
def api(database_url: str) -> Iterator[Caller]:
    with caller(database_url) as api:
        edges = [{"upstream_task": up, "downstream_task": down} for up, down in EDGES]
        api.flow_id(tasks=list("abcdef"), edges=edges)
        yield api


@pytest.fixture
def ids(api: Caller) -> Dict[str, str]:
    return {task["slug"]: task["id"] for task in api.ask("{ task { id slug } }")["task"]}


def walked(api: Caller, direction: str, start: Any, **args: Any) -> Dict[str, int]:
    query = f"""query($start: _uuid, $limit: Int) {{
        utility_{direction}_tasks(args: {{start_task_ids: $start, depth_limit: $limit}}) {{ depth task {{ slug }} }}
    }}"""
    found = api.ask(query, start=start, limit=args.get("limit"))[f"utility_{direction}_tasks"]
    return {row["task"]["slug"]: row["depth"] for row in found}


def literal(ids: List[str]) -> str:
    return "{" + ",".join(ids) + "}"


@pytest.mark.parametrize(
    ("direction", "start", "found"),
    [
        ("downstream", "a", {"a": 0, "b": 1, "c": 1, "d": 2, "e": 3}),
        ("downstream", "bc", {"b": 0, "c": 0, "d": 1, "e": 2}),
        ("downstream", "ab", {"a": 0, "b": 1, "c": 1, "d": 2, "e": 3}),
        ("downstream", "ef", {"e": 0, "f": 0}),
        ("downstream", "", {}),
        ("upstream", "d", {"d": 0, "b": 1, "c": 1, "a": 2}),
        ("upstream", "e", {"e": 0, "d": 1, "b": 2, "c": 2, "a": 3}),
        ("upstream", "a", {"a": 0}),
    ],
)
def test_a_walk_finds_all_tasks_with_their_greatest_distance(
    api: Caller, ids: Dict[str, str], direction: str, start: str, found: Dict[str, int]
) -> None:
    assert walked(api, direction, literal([ids[slug] for slug in start])) == found


@pytest.mark.parametrize(("limit", "found"), [(0, "a"), (1, "abce"), (2, "abcde"), (None, "abcde"), (999, "abcde")])
def test_a_walk_ends_where_it_is_told_to(api: Caller, ids: Dict[str, str], limit: Any, found: str) -> None:
    assert sorted(walked(api, "downstream", literal([ids["a"]]), limit=limit)) == list(found)


def test_tasks_to_begin_at_are_written_in_any_way_that_postgresql_or_json_has(api: Caller, ids: Dict[str, str]) -> None:
    """The page names a task once for each of its mapped children."""
    start, end = ids["d"], ids["e"]
    for written in (literal([start, start, end]), f'{{"{start.upper()}", {end}}}', [start, end]):
        assert walked(api, "downstream", written) == {"d": 0, "e": 1}
    for nothing in (None, [], "{}", "{ }", literal(["00000000-0000-0000-0000-000000000000"])):
        assert walked(api, "downstream", nothing) == {}


@pytest.mark.parametrize("start", ["x", "{x}", "{", 5, "{'}", ["x"]])
def test_what_is_no_array_of_ids_is_refused(api: Caller, start: Any) -> None:
    query = "query($s: _uuid) { utility_downstream_tasks(args: {start_task_ids: $s}) { depth } }"
    status, answer = api.post(query, {"s": start})
    assert (status, list(answer)) == (400, ["errors"])


def test_a_walk_can_be_filtered_ordered_cut_and_counted_like_a_table(api: Caller, ids: Dict[str, str]) -> None:
    run_id = api.flow_run_id(api.ask("{ flow { id } }")["flow"][0]["id"])
    query = """query($run: uuid, $start: _uuid) {
        default: utility_downstream_tasks(args: {start_task_ids: $start}) { __typename depth task_id }
        ordered: utility_downstream_tasks(
            args: {start_task_ids: $start}
            where: {task: {slug: {_neq: "d"}}}
            order_by: [{depth: desc}, {task: {slug: desc}}]
            limit: 2
            offset: 1
        ) { task { slug task_runs(where: {flow_run_id: {_eq: $run}}) { map_index } } }
        first: utility_downstream_tasks(
            args: {start_task_ids: $start} distinct_on: depth order_by: [{depth: asc}, {task: {slug: asc}}]
        ) { task { slug } }
        typed: utility_downstream_tasks(args: {start_task_ids: $start}, limit: 1) { __typename }
        utility_downstream_tasks_aggregate(args: {start_task_ids: $start}, where: {depth: {_gt: 0}}) {
            aggregate { count max { depth } } nodes { depth }
        }
    }"""
    answer = api.ask(query, run=run_id, start=literal([ids["a"]]))
    found = [(row["depth"], row["task_id"]) for row in answer["default"]]
    assert found == sorted(found)
    assert answer["default"][0] == {"__typename": "utility_traversal", "depth": 0, "task_id": ids["a"]}
    once = [{"map_index": -1}]
    assert [row["task"] for row in answer["ordered"]] == [
        {"slug": "c", "task_runs": once},
        {"slug": "b", "task_runs": once},
    ]
    assert [row["task"]["slug"] for row in answer["first"]] == ["a", "b", "d", "e"]
    assert answer["typed"] == [{"__typename": "utility_traversal"}]
    counted = answer["utility_downstream_tasks_aggregate"]
    assert counted["aggregate"] == {"count": 4, "max": {"depth": 3}}
    assert sorted(node["depth"] for node in counted["nodes"]) == [1, 1, 2, 3]


def test_a_walk_goes_at_most_fifty_edges_far_and_ends_in_a_circle(api: Caller) -> None:
    slugs = [f"t{number:02}" for number in range(60)]
    edges = [{"upstream_task": up, "downstream_task": down} for up, down in zip(slugs, slugs[1:])]
    api.flow_id("long", tasks=slugs, edges=edges)
    [first] = api.ask('{ task(where: {slug: {_eq: "t00"}}) { id } }')["task"]
    for limit in (None, 999):
        assert list(walked(api, "downstream", [first["id"]], limit=limit).items())[-1] == ("t50", 50)
    edges = [{"upstream_task": "x", "downstream_task": "y"}, {"upstream_task": "y", "downstream_task": "x"}]
    api.flow_id("circle", tasks=["x", "y"], edges=edges)
    [x] = api.ask('{ task(where: {slug: {_eq: "x"}}) { id } }')["task"]
    assert walked(api, "downstream", [x["id"]]) == {"x": 50, "y": 49}
