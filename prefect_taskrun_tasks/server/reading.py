"""
Reading: from a tree of selections on a table to SQL, and from rows to the answer.

Everything follows the table metadata. A request costs one statement for its root and one for each relationship
that it selects, however many rows there are.
"""

import operator
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Float,
    FromClause,
    Select,
    Table,
    Text,
    and_,
    cast,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
)

from . import jsonb, patterns, tables
from .document import Selection
from .errors import Refused
from .room import KEY, ROW, VALUE, Room

Shaped = Dict[str, Any]

#: Keys of an answer, from ``aggregate`` inwards
Keys = Tuple[str, ...]

#: What was computed of all rows, by where it is in the answer
Measured = Dict[Keys, Any]

#: Keys in one ``IN (...)``; SQLite takes 32,766 parameters in a statement
KEYS = 10_000

#: Rows that PostgreSQL sends at a time; each may have some megabytes
PART = 20


class Relationship(NamedTuple):
    """How rows of one table find rows of another: `local` here equals `remote` there."""

    local: str
    table: Table
    remote: str
    #: a list of rows, with arguments and an aggregate; else one row or null
    is_many: bool


def _relationships() -> Dict[str, Dict[str, Relationship]]:
    found: Dict[str, Dict[str, Relationship]] = {name: {} for name in tables.readable}
    for table in tables.readable.values():
        for key in table.foreign_keys:
            column, other = key.parent, key.column.table
            assert isinstance(other, Table)
            if column.info["name"]:
                found[table.name][column.info["name"]] = Relationship(column.name, other, "id", False)
            if column.info["reverse"]:
                found[other.name][column.info["reverse"]] = Relationship("id", table, column.name, True)
    return found


#: table name -> relationship name -> relationship
RELATIONSHIPS = _relationships()


def _by_order(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    # SQLAlchemy compares with `True` and `False` as such for equality only
    return lambda column, value: compare(column, literal(value, column.type))


#: Comparison operators of all columns but those of JSON; each is called with a column and the value compared with
COMPARISONS: Dict[str, Callable[[Any, Any], Any]] = {
    "_eq": operator.eq,
    "_neq": operator.ne,
    "_gt": _by_order(operator.gt),
    "_gte": _by_order(operator.ge),
    "_lt": _by_order(operator.lt),
    "_lte": _by_order(operator.le),
    "_in": lambda column, values: column.in_(values),
    "_nin": lambda column, values: column.not_in(values),
    "_is_null": lambda column, null: column.is_(None) if null else column.is_not(None),
    **patterns.COMPARISONS,
}

#: What can be computed of a column, besides how often it is there
AGGREGATES: Dict[str, Callable[[Any], Any]] = {
    "max": func.max,
    "min": func.min,
    "sum": func.sum,
    "avg": lambda column: cast(func.avg(column), Float),
}


def condition(source: FromClause, table: Table, where: Optional[Shaped]) -> "ColumnElement[bool]":
    """The SQL of a `where`; nulls and empty objects in it restrict nothing, as in Hasura with null collapse."""
    terms: List[ColumnElement[bool]] = []
    for name, value in (where or {}).items():
        if value is None:
            continue
        if name in ("_and", "_or"):
            inner = [condition(source, table, each) for each in value]
            terms.append(and_(true(), *inner) if name == "_and" else or_(false(), *inner))
        elif name == "_not":
            terms.append(not_(condition(source, table, value)))
        elif name in RELATIONSHIPS[table.name]:
            terms.append(_has(source, RELATIONSHIPS[table.name][name], value))
        else:
            column = source.c[name]
            known = jsonb.COMPARISONS if isinstance(column.type, JSON) else COMPARISONS
            terms += [known[operation](column, operand) for operation, operand in value.items() if operand is not None]
    return and_(true(), *terms)


def _has(source: FromClause, relationship: Relationship, where: Shaped) -> "ColumnElement[bool]":
    """Whether rows are related to one that a `where` of the other table fits."""
    other = relationship.table.alias()
    here, there = source.c[relationship.local], other.c[relationship.remote]
    fits = condition(other, relationship.table, where)
    # the same, unless there are nulls to deny; but SQLite looks for `exists` anew for each row here, and so in all rows
    if _names_ids(relationship.table, where) and not (here.nullable or there.nullable):
        return here.in_(select(there).where(fits))
    return select(1).where(there == here, fits).exists()


def _names_ids(table: Table, where: Shaped) -> bool:
    """Whether a `where` leaves only rows whose ids it names, or that are related to those."""
    for name, value in where.items():
        if value is None:
            continue
        if name == "id" and any(value.get(operation) is not None for operation in ("_eq", "_in")):
            return True
        related = RELATIONSHIPS[table.name].get(name)
        if related and _names_ids(related.table, value):
            return True
        if name == "_and" and any(_names_ids(table, each) for each in value):
            return True
    return False


def ordering(source: FromClause, table: Table, order_by: Sequence[Shaped]) -> "List[ColumnElement[Any]]":
    """The SQL of an `order_by`; ascending puts nulls last and descending first, as in PostgreSQL."""
    ordered: List[ColumnElement[Any]] = []
    for path, direction in _order_paths(order_by):
        column = _ordered_column(source, table, path)
        word, _, nulls = direction.partition("_nulls_")
        by = column.desc() if word == "desc" else column.asc()
        if len(path) > 1 or table.c[path[0]].nullable:
            first = nulls == "first" if nulls else word == "desc"
            by = by.nulls_first() if first else by.nulls_last()
        ordered.append(by)
    return ordered


def _order_paths(order_by: Sequence[Shaped]) -> Iterator[Tuple[List[str], str]]:
    for each in order_by:
        for name, value in each.items():
            if isinstance(value, dict):
                for path, direction in _order_paths([value]):
                    yield [name, *path], direction
            elif value is not None:
                yield [name], value


def _ordered_column(source: FromClause, table: Table, path: List[str]) -> "ColumnElement[Any]":
    if len(path) == 1:
        return source.c[path[0]]
    related = RELATIONSHIPS[table.name][path[0]]
    other = related.table.alias()
    column = _ordered_column(other, related.table, path[1:])
    return select(column).where(other.c[related.remote] == source.c[related.local]).scalar_subquery()


class _Among(NamedTuple):
    """Rows are wanted for many parents at once: those whose `column` is one of `keys`, per key."""

    column: str
    keys: List[Any]


def _selected(
    table: Table, arguments: Shaped, among: Optional[_Among], computed: Optional[FromClause]
) -> "Tuple[FromClause, List[ColumnElement[bool]], List[ColumnElement[Any]], Optional[int], Optional[int]]":
    """What `where`, `distinct_on`, `limit` and `offset` leave, as (source, conditions, order, limit, offset)."""
    order_by = arguments.get("order_by") or []
    limit, offset = arguments.get("limit"), arguments.get("offset")
    if (limit or 0) < 0 or (offset or 0) < 0:
        raise Refused(f"limit ({limit}) and offset ({offset}) cannot be negative.")
    source = table.alias() if computed is None else computed
    conditions: List[ColumnElement[bool]] = [condition(source, table, arguments.get("where"))]
    if among:
        conditions.append(source.c[among.column].in_(among.keys))

    def ranked(label: str, partition: List[str]) -> FromClause:
        order = ordering(source, table, order_by) or [next(iter(source.c))]
        rank = func.row_number().over(partition_by=[source.c[name] for name in partition], order_by=order)
        return select(source, rank.label(label)).where(*conditions).subquery()

    per_parent = [among.column] if among else []
    if arguments.get("distinct_on"):
        source = ranked("distinct_rank", per_parent + arguments["distinct_on"])
        conditions = [source.c.distinct_rank == 1]
    if among and (limit is not None or offset):
        source = ranked("parent_rank", per_parent)
        conditions = [source.c.parent_rank > (offset or 0)]
        if limit is not None:
            conditions.append(source.c.parent_rank <= (offset or 0) + limit)
        limit = offset = None
    return source, conditions, ordering(source, table, order_by), limit, offset


def rows(
    connection: Connection,
    table: Table,
    fields: List[Selection],
    arguments: Shaped,
    computed: Optional[FromClause] = None,
) -> List[Shaped]:
    """The rows of `table` that `arguments` (where, order_by, limit, offset, distinct_on) ask for, as `fields`.

    They are those that `computed` selects, if it is given.
    """
    return [row for _, row in _rows(connection, table, fields, arguments, None, computed)]


def _rows(
    connection: Connection,
    table: Table,
    fields: List[Selection],
    arguments: Shaped,
    among: Optional[_Among],
    computed: Optional[FromClause] = None,
) -> List[Tuple[Any, Shaped]]:
    """Pairs of the parent's key (None at the root) and a shaped row."""
    source, conditions, order, limit, offset = _selected(table, arguments, among, computed)
    related = RELATIONSHIPS[table.name]
    names = {each.name for each in fields if each.name in table.c}
    names |= {related[_relationship_name(each.name)].local for each in fields if each.is_object}
    if among:
        names.add(among.column)
    columns = sorted(names) or [next(iter(table.c)).name]
    # as text, of which it can be said how much memory it will take
    texts = [name for name in columns if isinstance(table.c[name].type, JSON)]
    selected = [cast(source.c[name], Text).label(name) if name in texts else source.c[name] for name in columns]
    statement = select(*selected).where(*conditions).order_by(*order).limit(limit).offset(offset)
    found = _found(connection, statement, texts, len(fields), is_small=among is not None and len(among.keys) <= PART)

    shaped: List[Shaped] = [{} for _ in found]
    for each in fields:
        if each.is_object:
            relationship = related[_relationship_name(each.name)]
            keys = [row[relationship.local] for row in found]
            values = _related(connection, relationship, each, keys)
            for row, key in zip(shaped, keys):
                row[each.key] = values(key)
        elif each.name == "__typename":
            for row in shaped:
                row[each.key] = each.parent
        else:
            for row, stored in zip(shaped, found):
                row[each.key] = stored[each.name]
    return [(row[among.column] if among else None, shape) for row, shape in zip(found, shaped)]


def _found(
    connection: Connection, statement: "Select[Any]", texts: List[str], fields: int, is_small: bool
) -> List[Shaped]:
    """The rows of a statement, with their JSON read; as many as the answer has room for.

    Args:
        connection: with the option `room`.
        statement: what is to be read.
        texts: the columns of JSON.
        fields: how many are answered of each row.
        is_small: most likely it has few rows.
    """
    room: Room = connection.get_execution_options().get("room") or Room()
    rows: List[Shaped] = []
    # PostgreSQL's client library would hold all rows, before the first of them is seen
    options = {} if is_small else {"stream_results": True, "max_row_buffer": PART}
    result = connection.execute(statement, execution_options=options)
    for row in result.mappings():
        values = sum([VALUE + len(value) if isinstance(value, str) else VALUE for value in row.values()])
        room.take(ROW + fields * KEY + values)
        rows.append({**row, **{name: room.loads(row[name]) for name in texts}} if texts else dict(row))
    return rows


def _relationship_name(field: str) -> str:
    return field[: -len("_aggregate")] if field.endswith("_aggregate") else field


def _related(
    connection: Connection, relationship: Relationship, field: Selection, keys: List[Any]
) -> Callable[[Any], Any]:
    """What `field` is for each parent key."""
    distinct = list(dict.fromkeys(key for key in keys if key is not None))
    chunks = [_Among(relationship.remote, distinct[i : i + KEYS]) for i in range(0, len(distinct), KEYS)]
    found: Dict[Any, Any] = {}
    if field.name.endswith("_aggregate"):
        for among in chunks:
            found.update(_aggregates(connection, relationship.table, field, among))
        return lambda key: found.get(key) or _aggregate_of(field, [], {})
    for among in chunks:
        for key, row in _rows(connection, relationship.table, field.fields, field.arguments, among):
            found.setdefault(key, []).append(row)
    if relationship.is_many:
        return lambda key: found.get(key, [])
    return lambda key: found[key][0] if key in found else None


def aggregate(connection: Connection, table: Table, field: Selection, computed: Optional[FromClause] = None) -> Shaped:
    """``{aggregate: {count, max: {...}, ...}, nodes: [...]}`` of the rows that the field's arguments ask for."""
    return _aggregates(connection, table, field, None, computed)[None]


def _aggregates(
    connection: Connection,
    table: Table,
    field: Selection,
    among: Optional[_Among],
    computed: Optional[FromClause] = None,
) -> Dict[Any, Shaped]:
    nodes: Dict[Any, List[Shaped]] = {}
    for each in field.fields:
        if each.name == "nodes":
            for key, row in _rows(connection, table, each.fields, field.arguments, among, computed):
                nodes.setdefault(key, []).append(row)

    source, conditions, order, limit, offset = _selected(table, field.arguments, among, computed)
    limited = select(source).where(*conditions).order_by(*order).limit(limit).offset(offset).subquery()
    measures = dict(_measures(limited, field))
    grouped = [limited.c[among.column]] if among else []
    values: Dict[Any, Measured] = {}
    if measures:
        statement = select(*grouped, *measures.values()).select_from(limited).group_by(*grouped)
        for found in connection.execute(statement):
            key, measured = (found[0], found[1:]) if among else (None, found)
            values[key] = dict(zip(measures, measured))
    return {
        key: _aggregate_of(field, nodes.get(key, []), values.get(key, {})) for key in (among.keys if among else [None])
    }


def _measures(source: FromClause, field: Selection) -> "Iterator[Tuple[Keys, ColumnElement[Any]]]":
    """What is to be computed of all rows, by where it is in the answer."""
    for each in field.fields:
        for measure in each.fields if each.name == "aggregate" else ():
            if measure.name == "count":
                yield (each.key, measure.key), _count(source, measure.arguments)
            for column in measure.fields:
                if column.name != "__typename":
                    compute = AGGREGATES[measure.name]
                    yield (each.key, measure.key, column.key), compute(source.c[column.name])


def _count(source: FromClause, arguments: Shaped) -> "ColumnElement[int]":
    columns = [source.c[name] for name in arguments.get("columns") or ()]
    if not columns:
        return func.count()
    # PostgreSQL counts rows in which none of the columns is null; so does this, joined by a character that
    # cannot be in them
    value: Any = columns[0] if len(columns) == 1 else cast(columns[0], Text)
    for column in columns[1:]:
        value = value.concat("\x1f").concat(cast(column, Text))
    return func.count(value.distinct() if arguments.get("distinct") else value)


def _aggregate_of(field: Selection, nodes: List[Shaped], values: Measured) -> Shaped:
    def inner(each: Selection, path: Keys) -> Any:
        if each.name == "__typename":
            return each.parent
        if each.name == "nodes":
            return nodes
        if each.is_object:
            return {below.key: inner(below, (*path, below.key)) for below in each.fields}
        return values.get(path, 0 if each.name == "count" else None)

    return {each.key: inner(each, (each.key,)) for each in field.fields}
