"""Filters on JSON and on text, as Hasura reads them and PostgreSQL compares, on every database."""

import time
from typing import Any, Iterator

import pytest
from asking import Caller, caller

DOCUMENT = {"x": "a", "n": 1, "list": [1, "b", [2]], "deep": {"k": None, "ok": True}}


@pytest.fixture
def api(database_url: str) -> Iterator[Caller]:
    with caller(database_url) as api:
        yield api


def found(api: Caller, where: str) -> int:
    return len(api.ask(f"{{ flow_run(where: {where}) {{ id }} }}")["flow_run"])


@pytest.mark.parametrize(
    ("where", "is_found"),
    [
        ('{parameters: {_contains: {x: "a"}}}', True),
        ("{parameters: {_contains: {list: [[2]], deep: {ok: true, k: null}}}}", True),
        ("{parameters: {_contains: {n: 1.0}}}", True),
        ('{parameters: {_contains: {n: "1"}}}', False),
        ("{parameters: {_contains: {x: a}}}", True),
        ('{labels: {_contains: ["vm"]}}', True),
        ('{labels: {_contains: "vm"}}', True),
        # a text is a text, whatever it looks like
        ('{labels: {_contains: "[\\"vm\\"]"}}', False),
        ('{labels: {_contains: "null"}}', False),
    ],
)
def test_json_in_a_filter_is_written_as_it_is(api: Caller, where: str, is_found: bool) -> None:
    api.flow_run_id(parameters=DOCUMENT, labels=["vm"])
    assert found(api, where) == is_found


def test_variables_may_stand_inside_json_in_a_filter(api: Caller) -> None:
    api.flow_run_id(parameters=DOCUMENT)
    query = "query($x: String, $n: Int) { flow_run(where: {parameters: {_contains: {x: $x, list: [$n]}}}) { id } }"
    assert len(api.ask(query, x="a", n=1)["flow_run"]) == 1
    assert not api.ask(query, x="a", n=3)["flow_run"]


def test_json_in_a_mutation_is_text_that_holds_it(api: Caller) -> None:
    """The part of Prefect Server that carries out mutations reads it so."""
    flow_id = api.flow_id()
    mutation = 'mutation {{ create_flow_run(input: {{flow_id: "{}", parameters: {}}}) {{ id }} }}'
    id = api.ask(mutation.format(flow_id, '"{\\"x\\": 1}"'))["create_flow_run"]["id"]
    assert api.flow_run(id, "parameters") == {"parameters": {"x": 1}}
    assert "a string that holds it" in api.error(mutation.format(flow_id, "{x: 1}"))


@pytest.mark.parametrize(
    ("comparison", "wanted", "is_found"),
    [
        ("_eq", DOCUMENT, True),
        ("_eq", dict(reversed(list(DOCUMENT.items()))), True),
        ("_eq", {**DOCUMENT, "n": 1.0}, True),
        ("_eq", {**DOCUMENT, "n": True}, False),
        ("_eq", {**DOCUMENT, "more": 1}, False),
        ("_eq", {**DOCUMENT, "list": [1, [2], "b"]}, False),
        ("_eq", {"x": "a"}, False),
        ("_eq", [], False),
        ("_eq", "a", False),
        ("_neq", DOCUMENT, False),
        ("_neq", {"x": "a"}, True),
        ("_in", [{"x": "a"}, DOCUMENT], True),
        ("_in", [{"x": "a"}, [1], 1, "a", True], False),
        ("_in", [], False),
        ("_nin", [DOCUMENT], False),
        ("_nin", [{"x": "a"}], True),
        ("_nin", [], True),
        ("_contained_in", DOCUMENT, True),
        ("_contained_in", {**DOCUMENT, "list": [[0, 2], 3, "b", 1], "more": 1}, True),
        ("_contained_in", {**DOCUMENT, "deep": {"k": None, "ok": True, "ö": []}}, True),
        ("_contained_in", {**DOCUMENT, "deep": {"ok": True}}, False),
        ("_contained_in", {**DOCUMENT, "deep": {"k": 0, "ok": True}}, False),
        ("_contained_in", {**DOCUMENT, "list": [1, "b"]}, False),
        ("_contained_in", {**DOCUMENT, "n": 2}, False),
        ("_contained_in", {"x": "a"}, False),
        ("_contained_in", {}, False),
        ("_contained_in", [DOCUMENT], False),
        ("_contained_in", "a", False),
        ("_has_key", "x", True),
        ("_has_key", "y", False),
        ("_has_key", "a", False),
        ("_has_keys_any", ["y", "x"], True),
        ("_has_keys_all", ["x", "n", "x"], True),
        ("_has_keys_all", ["x", "y"], False),
        ("_has_keys_all", [], True),
    ],
)
def test_json_is_compared_as_postgresql_compares_it(api: Caller, comparison: str, wanted: Any, is_found: bool) -> None:
    api.flow_run_id(parameters=DOCUMENT)
    many = comparison in ("_in", "_nin")
    kind = "[jsonb!]" if many else "jsonb"
    if comparison.startswith("_has"):
        kind = "String" if comparison == "_has_key" else "[String!]"
    query = f"query($w: {kind}) {{ flow_run(where: {{parameters: {{{comparison}: $w}}}}) {{ id }} }}"
    assert len(api.ask(query, w=wanted)["flow_run"]) == is_found


@pytest.mark.parametrize(
    ("comparison", "wanted", "is_found"),
    [
        ("_contained_in", ["vm", "b", "a"], True),
        ("_contained_in", ["a"], False),
        ("_has_key", "vm", True),
        ("_has_keys_all", ["vm", "a"], True),
        ("_has_keys_all", ["vm", "b"], False),
        ("_eq", ["a", "vm"], True),
        ("_eq", ["vm", "a"], False),
    ],
)
def test_lists_are_compared_as_postgresql_compares_them(
    api: Caller, comparison: str, wanted: Any, is_found: bool
) -> None:
    api.flow_run_id(labels=["vm", "a"])
    kind = {"_has_key": "String", "_has_keys_all": "[String!]"}.get(comparison, "jsonb")
    query = f"query($w: {kind}) {{ flow_run(where: {{labels: {{{comparison}: $w}}}}) {{ id }} }}"
    assert len(api.ask(query, w=wanted)["flow_run"]) == is_found


@pytest.mark.parametrize("comparison", ["_eq: [1]", "_neq: [1]", "_in: [[1]]", "_nin: [[1]]", '_has_key: "x"'])
def test_where_there_is_no_json_no_comparison_is_true(api: Caller, comparison: str) -> None:
    api.flow_run_id()
    assert found(api, f"{{run_config: {{{comparison}}}}}") == 0


@pytest.mark.parametrize(
    ("comparison", "pattern", "is_found"),
    [
        ("_like", "Äpfel%", True),
        ("_like", "äpfel%", False),
        ("_like", "%[50\\%]*?_\n%", True),
        ("_like", "%50\\_]%", False),
        ("_like", "%\\", False),
        ("_ilike", "äPFEL%", True),
        ("_regex", "^Äpf", True),
        ("_regex", "^äpf", False),
        ("_regex", "^pf", False),
        ("_regex", "[0-9]{2}%", True),
        ("_regex", "x.Ende$", True),
        ("_iregex", "^äPF", True),
        ("_iregex", "^x", False),
        ("_similar", "(Ä|B)pfel%", True),
        ("_similar", "(ä|B)pfel%", False),
        ("_similar", "(Ä|B)pfel", False),
        ("_similar", "Äpfel \\[[0-9]+\\%\\]\\*\\?x_Ende", True),
        ("_similar", "Äpfel.%", False),
    ],
)
def test_text_is_compared_with_patterns_as_postgresql_compares_it(
    api: Caller, comparison: str, pattern: str, is_found: bool
) -> None:
    api.flow_run_id(flow_run_name="Äpfel [50%]*?x\nEnde")
    query = "query($p: String) {{ flow_run(where: {{name: {{{}: $p}}}}) {{ id }} }}"
    assert len(api.ask(query.format(comparison), p=pattern)["flow_run"]) == is_found
    assert len(api.ask(query.format(f"_n{comparison[1:]}"), p=pattern)["flow_run"]) == (not is_found)


@pytest.mark.parametrize("comparison", ["_regex", "_iregex", "_nregex"])
def test_a_pattern_that_cannot_be_read_is_refused(api: Caller, comparison: str) -> None:
    api.flow_run_id()
    query = f'{{ flow_run(where: {{name: {{{comparison}: "a(b"}}}}) {{ id }} }}'
    assert "invalid regular expression" in api.error(query)
    assert api.count("flow_run") == 1


@pytest.mark.parametrize("pattern", ["(a|aa)+$", "(.*?,){25}P", r"(a+)\1\1\1\1b"])
def test_a_pattern_that_takes_for_ever_is_ended(api: Caller, pattern: str) -> None:
    """PostgreSQL ends what takes longer than a request has, and knows these to be quick."""
    api.flow_run_id(flow_run_name="a" * 1500 + "1," * 200)
    begun = time.monotonic()
    api.post("query($p: String) { flow_run(where: {name: {_regex: $p}}) { id } }", {"p": pattern})
    assert time.monotonic() - begun < 25
    assert api.count("flow_run") == 1


@pytest.mark.parametrize("where", ['{id: {_eq: "x y"}}', '{id: {_in: ["x y"]}}', '{flow: {id: {_eq: "x y"}}}'])
def test_what_is_no_uuid_is_refused_in_the_words_that_the_web_ui_knows(api: Caller, where: str) -> None:
    assert 'invalid input syntax for type uuid: "x y"' in api.error(f"{{ flow_run(where: {where}) {{ id }} }}")
