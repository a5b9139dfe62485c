"""The GraphQL schema: reads made from the tables' metadata, mutations from `mutations.graphql` and the rules."""

import uuid
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from graphql import (
    FloatValueNode,
    GraphQLArgument,
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLField,
    GraphQLFloat,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
    IntValueNode,
    ListValueNode,
    ObjectValueNode,
    StringValueNode,
    VariableNode,
    extend_schema,
    parse,
    value_from_ast_untyped,
)
from sqlalchemy import JSON, Boolean, Column, Integer, Table

from . import clock, jsonb, patterns, reading, strict_json, tables, traversal

Fields = Dict[str, Any]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a string was expected, not {value!r}")
    return value


def _uuid(value: Any) -> str:
    try:
        return str(uuid.UUID(_text(value)))
    except ValueError:
        # PostgreSQL's words: the web UI shows "we weren't able to find this run" when it reads them
        raise ValueError(f'invalid input syntax for type uuid: "{value}"') from None


def _uuids(value: Any) -> List[str]:
    """Of a list of UUIDs, or of an array as PostgreSQL writes it."""
    if isinstance(value, str) and value.startswith("{") and value.endswith("}"):
        value = [each.strip().strip('"') for each in value[1:-1].split(",")] if value[1:-1].strip() else []
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is not an array of UUIDs")
    return list(dict.fromkeys(_uuid(each) for each in value))


def _instant(value: Any) -> str:
    try:
        return clock.normal(_text(value))
    except ValueError:
        raise ValueError(f"{value!r} is not an ISO 8601 time of the years 1 to 9999 in UTC") from None


def _quoted_json(node: Any, variables: Any = None) -> Any:
    # as the part of Prefect Server that carries out mutations takes JSON in a document
    if not isinstance(node, StringValueNode):
        raise ValueError("in a mutation's document, JSON is written as a string that holds it")
    return strict_json.loads(node.value)


def _json_value(node: Any, variables: Any = None) -> Any:
    """The JSON value that a document holds, as Hasura reads it: a text is that text, and is not parsed."""
    if isinstance(node, VariableNode):
        return (variables or {}).get(node.name.value)
    if isinstance(node, ListValueNode):
        return [_json_value(each, variables) for each in node.values]
    if isinstance(node, ObjectValueNode):
        return {each.name.value: _json_value(each.value, variables) for each in node.fields}
    if isinstance(node, (IntValueNode, FloatValueNode)):
        return strict_json.loads(node.value)
    return value_from_ast_untyped(node)


def _scalar(name: str, parse_value: Callable[[Any], Any]) -> GraphQLScalarType:
    return GraphQLScalarType(name, parse_value=parse_value)


def _json_scalar(name: str, parse_literal: Callable[..., Any]) -> GraphQLScalarType:
    return GraphQLScalarType(name, parse_value=lambda value: value, parse_literal=parse_literal)


UUID = _scalar("uuid", _uuid)
UUIDS = _scalar("_uuid", _uuids)
TIMESTAMP = _scalar("timestamptz", _instant)
JSONB = _json_scalar("jsonb", _json_value)
INTERVAL = _scalar("interval", _text)

#: The same under the names that mutations use
INPUT_SCALARS = [
    _scalar("UUID", _uuid),
    _scalar("DateTime", _instant),
    _json_scalar("JSON", _quoted_json),
]

ORDER = GraphQLEnumType(
    "order_by",
    {word + nulls: word + nulls for word in ("asc", "desc") for nulls in ("", "_nulls_first", "_nulls_last")},
)


def _scalar_of(column: "Column[Any]") -> GraphQLScalarType:
    kinds = [
        (tables.Uuid, UUID),
        (tables.Timestamp, TIMESTAMP),
        (tables.Interval, INTERVAL),
        (JSON, JSONB),
        (Boolean, GraphQLBoolean),
        (Integer, GraphQLInt),
    ]
    return next((scalar for kind, scalar in kinds if isinstance(column.type, kind)), GraphQLString)


def _measured(aggregate: str, column: "Column[Any]") -> Optional[GraphQLScalarType]:
    """What an aggregate of a column is, or None if there is none, as in PostgreSQL."""
    scalar = _scalar_of(column)
    if aggregate in ("max", "min"):
        return None if scalar in (JSONB, GraphQLBoolean, INTERVAL) else scalar
    if scalar is not GraphQLInt:
        return None
    return GraphQLFloat if aggregate == "avg" else GraphQLInt


def _many(kind: Any) -> Any:
    return GraphQLList(GraphQLNonNull(kind))


def _comparison(scalar: GraphQLScalarType) -> GraphQLInputObjectType:
    names = set(jsonb.COMPARISONS if scalar is JSONB else reading.COMPARISONS)
    if scalar is not GraphQLString:
        names -= set(patterns.COMPARISONS)
    kinds = {
        "_is_null": GraphQLBoolean,
        "_in": _many(scalar),
        "_nin": _many(scalar),
        "_has_key": GraphQLString,
        "_has_keys_any": _many(GraphQLString),
        "_has_keys_all": _many(GraphQLString),
    }
    fields = {name: kinds.get(name, scalar) for name in sorted(names)}
    return GraphQLInputObjectType(
        f"{scalar.name}_comparison_exp", {name: GraphQLInputField(kind) for name, kind in fields.items()}
    )


class _TableTypes:
    """The GraphQL types of one table."""

    def __init__(self, table: Table, schema: "_ReadSchema") -> None:
        self.table, self.schema, name = table, schema, table.name
        self.relationships = reading.RELATIONSHIPS[name]
        self.columns = GraphQLEnumType(f"{name}_select_column", {column.name: column.name for column in table.c})
        # fields are made when first needed, because the types of related tables refer to each other
        self.where = GraphQLInputObjectType(f"{name}_bool_exp", self._where_fields)
        self.order = GraphQLInputObjectType(f"{name}_order_by", self._order_fields)
        self.row = GraphQLObjectType(name, self._row_fields)
        self.aggregate = GraphQLObjectType(f"{name}_aggregate", self._aggregate_fields)
        self.arguments = {
            "where": GraphQLArgument(self.where),
            "order_by": GraphQLArgument(_many(self.order)),
            "distinct_on": GraphQLArgument(_many(self.columns)),
            "limit": GraphQLArgument(GraphQLInt),
            "offset": GraphQLArgument(GraphQLInt),
        }

    def _related(self, name: str) -> "_TableTypes":
        return self.schema.types[self.relationships[name].table.name]

    def _where_fields(self) -> Fields:
        fields: Fields = {column.name: self.schema.comparison(column) for column in self.table.c}
        fields.update({name: self._related(name).where for name in self.relationships})
        fields.update(_and=_many(self.where), _or=_many(self.where), _not=self.where)
        return {name: GraphQLInputField(kind) for name, kind in fields.items()}

    def _order_fields(self) -> Fields:
        fields: Fields = {column.name: ORDER for column in self.table.c}
        for name, relationship in self.relationships.items():
            if not relationship.is_many:
                fields[name] = self._related(name).order
        return {name: GraphQLInputField(kind) for name, kind in fields.items()}

    def _row_fields(self) -> Fields:
        fields = {column.name: GraphQLField(_scalar_of(column)) for column in self.table.c}
        for name, relationship in self.relationships.items():
            other = self._related(name)
            if relationship.is_many:
                fields[name] = GraphQLField(_many(other.row), other.arguments)
                fields[f"{name}_aggregate"] = GraphQLField(other.aggregate, other.arguments)
            else:
                fields[name] = GraphQLField(other.row)
        return fields

    def _aggregate_fields(self) -> Fields:
        count = GraphQLField(
            GraphQLInt,
            {"columns": GraphQLArgument(_many(self.columns)), "distinct": GraphQLArgument(GraphQLBoolean)},
        )
        measures = {"count": count}
        for name in reading.AGGREGATES:
            fields = {column.name: GraphQLField(kind) for column in self.table.c if (kind := _measured(name, column))}
            if fields:
                measures[name] = GraphQLField(GraphQLObjectType(f"{self.table.name}_{name}_fields", fields))
        return {
            "aggregate": GraphQLField(GraphQLObjectType(f"{self.table.name}_aggregate_fields", measures)),
            "nodes": GraphQLField(_many(self.row)),
        }


class _ReadSchema:
    """The types of all tables, and the root fields that read them."""

    def __init__(self) -> None:
        self._comparisons: Dict[str, GraphQLInputObjectType] = {}
        self.types = {table.name: _TableTypes(table, self) for table in tables.readable.values()}

    def comparison(self, column: "Column[Any]") -> GraphQLInputObjectType:
        scalar = _scalar_of(column)
        if scalar.name not in self._comparisons:
            self._comparisons[scalar.name] = _comparison(scalar)
        return self._comparisons[scalar.name]

    def query(self) -> GraphQLObjectType:
        fields: Fields = {}
        for name in tables.metadata.tables:
            types = self.types[name]
            fields[name] = GraphQLField(_many(types.row), types.arguments)
            fields[f"{name}_by_pk"] = GraphQLField(types.row, {"id": GraphQLArgument(GraphQLNonNull(UUID))})
            fields[f"{name}_aggregate"] = GraphQLField(types.aggregate, types.arguments)
        types = self.types[tables.utility_traversal.name]
        for name in traversal.WALKS:
            given = {"start_task_ids": GraphQLInputField(UUIDS), "depth_limit": GraphQLInputField(GraphQLInt)}
            args = GraphQLNonNull(GraphQLInputObjectType(f"{name}_args", given))
            arguments = {"args": GraphQLArgument(args), **types.arguments}
            fields[name] = GraphQLField(_many(types.row), arguments)
            fields[f"{name}_aggregate"] = GraphQLField(types.aggregate, arguments)
        return GraphQLObjectType("Query", fields)


@lru_cache(maxsize=None)
def build() -> GraphQLSchema:
    """The whole schema, which is the same for every database. It says what may be asked; `api` answers."""
    read_only = GraphQLSchema(_ReadSchema().query(), types=INPUT_SCALARS)
    mutations = Path(__file__).with_name("mutations.graphql").read_text(encoding="utf-8")
    return extend_schema(read_only, parse(mutations))
