"""Strategies of Hypothesis for what callers may send to the API: what fits its schema, and what does not."""

import json
from typing import Any, Dict, List, Sequence

import graphql
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    get_named_type,
)
from hypothesis import strategies as st

from prefect_taskrun_tasks.server import schema
from prefect_taskrun_tasks.server.rules.states import KNOWN

SCHEMA = schema.build()

#: Keys of what Prefect sends as JSON, and of what the rules look for in it
_WORDS = """
    type message start_time _result context cached_inputs tasks slug name schedule clocks interval cron start_date
    labels storage run_config parameters required default edges upstream_task downstream_task key environment url
    filters timezone dt tz parameter_defaults run_count map_index n_map_states location headers to token
"""
WORDS = _WORDS.split()
TEXTS = [
    *WORDS,
    *KNOWN,
    "",
    "0",
    "id",
    "%",
    "_",
    "\\",
    "'",
    '"',
    "\0",
    "\ud800",
    "{}",
    "* * * * *",
    "{a,b}",
    "IntervalClock",
]
TIMES = ["2020-02-30T00:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2024-01-01", "now"]
NUMBERS = [0, 1, -1, 2**31 - 1, -(2**31), 2**31, 2**63, -(2**63) - 1, 10**30, 0.5, -0.0, 1e308]

texts = st.sampled_from(TEXTS) | st.text(max_size=20)
scalars = st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.integers() | texts | st.sampled_from(TIMES)
#: Whatever can be written as JSON, in words that mean something to the backend
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | texts, inner, max_size=5),
    max_leaves=12,
)


class Asked:
    """Draws requests.

    Args:
        ids: of things that are there.
        bodies: what a serialized flow, a schedule and the like look like.
    """

    def __init__(self, ids: Sequence[str], bodies: Sequence[Any]) -> None:
        self._ids = st.sampled_from(list(ids))
        states = st.fixed_dictionaries(
            {"type": st.sampled_from(KNOWN)}, optional={name: values for name in ("message", "start_time", "_result")}
        )
        jsons = states | st.sampled_from(list(bodies)) | st.sampled_from(list(bodies)).flatmap(_spoiled) | values
        numbers = st.integers(-3, 30) | st.integers(-(2**31), 2**31 - 1)
        moments = st.datetimes().map(lambda time: time.isoformat())
        times = st.sampled_from(TIMES[1:4]) | moments
        self._scalars = {
            "UUID": self._ids | st.uuids().map(str),
            "DateTime": times,
            "JSON": jsons,
            "String": texts | self._ids,
            "ID": texts,
            "Int": numbers,
            "Float": numbers | st.floats(allow_nan=False, allow_infinity=False),
            "Boolean": st.booleans(),
            "interval": st.sampled_from(["00:00:01", "1 day", ""]) | texts,
            "_uuid": st.lists(self._ids, max_size=3) | st.just("{}"),
        }
        self._scalars.update(uuid=self._scalars["UUID"], timestamptz=times, jsonb=jsons)

    def bodies(self) -> "st.SearchStrategy[bytes]":
        """Of requests, most of which fit the schema."""
        request = self.requests().map(_written)
        batch = st.lists(self.requests(), min_size=1, max_size=4).map(_written)
        others = [batch, request.flatmap(_cut), values.map(_written), st.binary()]
        return st.sampled_from([request] * 16 + others).flatmap(lambda chosen: chosen)

    def requests(self) -> "st.SearchStrategy[Any]":
        return st.composite(self._request)()

    def _request(self, draw: Any) -> Any:
        is_mutation = draw(st.booleans())
        root = SCHEMA.mutation_type if is_mutation else SCHEMA.query_type
        assert root is not None
        is_inline = draw(st.booleans())
        declared: List[str] = []
        variables: Dict[str, Any] = {}

        def arguments(field: Any, depth: int) -> str:
            written = []
            for name, argument in field.args.items():
                is_needed = isinstance(argument.type, GraphQLNonNull)
                if not is_needed and draw(st.integers(0, 3)):
                    continue
                value = self._value(draw, argument.type, depth)
                if is_inline:
                    written.append(f"{name}: {_literal(argument.type, value)}")
                else:
                    variable = f"v{len(declared)}"
                    declared.append(f"${variable}: {argument.type}")
                    variables[variable] = draw(values) if _once_in(draw, 20) else value
                    written.append(f"{name}: ${variable}")
            return f"({', '.join(written)})" if written else ""

        def selections(parent: GraphQLObjectType, depth: int) -> str:
            fields = {
                name: field
                for name, field in parent.fields.items()
                if depth or not isinstance(get_named_type(field.type), GraphQLObjectType)
            }
            if not fields:
                return "{ __typename }"
            names = draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=3, unique=True))
            written = []
            for index, name in enumerate(names):
                kind = get_named_type(fields[name].type)
                below = selections(kind, depth - 1) if isinstance(kind, GraphQLObjectType) else ""
                alias = f"a{index}: " if draw(st.integers(0, 4)) == 0 else ""
                written.append(f"{alias}{name}{arguments(fields[name], 2)} {below}")
            return "{ " + " ".join(written) + " }"

        tree = selections(root, 3)
        kind = "mutation" if is_mutation else "query"
        document = f"{kind} {'(' + ', '.join(declared) + ')' if declared else ''} {tree}"
        if _once_in(draw, 20):
            document = draw(_cut(document.encode(errors="replace"))).decode(errors="replace")
        request: Dict[str, Any] = {"query": document, "variables": variables}
        if draw(st.booleans()):
            request["variables"] = json.dumps(variables)
        if _once_in(draw, 30):
            request[draw(st.sampled_from(["query", "variables", "operationName"]))] = draw(values)
        return request

    def _value(self, draw: Any, kind: Any, depth: int) -> Any:
        if isinstance(kind, GraphQLNonNull):
            return self._value(draw, kind.of_type, depth)
        if depth == 2 and _once_in(draw, 30):
            return None
        if isinstance(kind, GraphQLList):
            count = draw(st.integers(0, 3 if depth else 0))
            return [self._value(draw, kind.of_type, depth) for _ in range(count)]
        if isinstance(kind, GraphQLEnumType):
            return draw(st.sampled_from(sorted(kind.values)))
        if isinstance(kind, GraphQLInputObjectType):
            needed = [name for name, field in kind.fields.items() if isinstance(field.type, GraphQLNonNull)]
            others = sorted(set(kind.fields) - set(needed))
            chosen = draw(st.lists(st.sampled_from(others), max_size=3, unique=True)) if others and depth else []
            return {name: self._value(draw, kind.fields[name].type, depth - 1) for name in [*needed, *chosen]}
        return draw(self._scalars[kind.name])


def _written(value: Any) -> bytes:
    return json.dumps(value).encode()


def _once_in(draw: Any, times: int) -> bool:
    # not the bounds, which Hypothesis draws more often
    return bool(draw(st.integers(0, times - 1)) == times // 2)


def _literal(kind: Any, value: Any) -> str:
    """A value as it is written in a document."""
    if value is None:
        return "null"
    if isinstance(kind, GraphQLNonNull):
        return _literal(kind.of_type, value)
    if isinstance(kind, GraphQLList) and isinstance(value, list):
        return f"[{', '.join(_literal(kind.of_type, each) for each in value)}]"
    if isinstance(kind, GraphQLEnumType):
        return str(value)
    if isinstance(kind, GraphQLInputObjectType):
        return f"{{{', '.join(f'{name}: {_literal(kind.fields[name].type, each)}' for name, each in value.items())}}}"
    if kind.name in ("JSON", "jsonb"):
        return graphql.language.print_string.print_string(json.dumps(value))
    return json.dumps(value)


def _spoiled(body: Any) -> "st.SearchStrategy[Any]":
    """Like `body`, but for one value somewhere in it."""
    if isinstance(body, dict) and body:
        return st.sampled_from(sorted(body)).flatmap(
            lambda key: st.one_of(values, _spoiled(body[key])).map(lambda value: {**body, key: value})
        )
    if isinstance(body, list) and body:
        return st.one_of(values, _spoiled(body[0])).map(lambda value: [value, *body[1:]])
    return values


def _cut(text: bytes) -> "st.SearchStrategy[bytes]":
    """Like `text`, with something else for a part of it."""
    place = st.integers(0, len(text))
    return st.tuples(place, st.integers(0, 5), st.binary(max_size=3)).map(
        lambda cut: text[: cut[0]] + cut[2] + text[cut[0] + cut[1] :]
    )
