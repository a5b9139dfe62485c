"""PostgreSQL's questions to JSON columns: in its own words, and in SQLite's."""

import json
import re
from typing import Any, Callable, List, Tuple

from sqlalchemy import (
    ColumnElement,
    String,
    Text,
    and_,
    bindparam,
    case,
    cast,
    false,
    func,
    literal,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, array

from .in_both import InBoth
from .tables import Words

Condition = ColumnElement[bool]


def contains(document: Any, wanted: Any) -> Condition:
    """Whether a JSON column holds `wanted`, as PostgreSQL's ``@>`` has it.

    Objects hold those with some of their items, arrays those with some of their elements, in any order and number. At
    the top, and only there, an array also holds a scalar that is one of its elements.
    """
    found = _contains(document, (), wanted)
    if not isinstance(wanted, (dict, list)):
        found = or_(found, _has_element(document, (), wanted))
    return InBoth(found, type_coerce(document, JSONB).contains(literal(wanted, JSONB)))


def has_keys_any(document: Any, names: List[str]) -> Condition:
    """Whether a JSON column is an object with one of these keys, or has one of them as a string, as ``?|`` has it."""
    each = func.json_each(document).table_valued("key", "type", "atom")
    wanted = [literal(name, Words) for name in names]
    is_object = func.json_type(document) == "object"
    found = case((is_object, each.c.key.in_(wanted)), else_=and_(each.c.type == "text", each.c.atom.in_(wanted)))
    exists = select(literal(1)).select_from(each).where(found).exists()
    return InBoth(exists, type_coerce(document, JSONB).has_any(cast(array(wanted), ARRAY(Text))))


def _contains(document: Any, path: Tuple[str, ...], wanted: Any) -> Condition:
    place = _place(path)
    kind = func.json_type(document, place)
    if isinstance(wanted, dict):
        return and_(_is(kind, "object"), *[_has_item(document, path, key, value) for key, value in wanted.items()])
    if isinstance(wanted, list):
        return and_(_is(kind, "array"), *[_has_element(document, path, each) for each in wanted])
    return _equals(kind, func.json_extract(document, place), wanted)


def _place(path: Tuple[str, ...]) -> Any:
    # words as part of the statement, or no index on what is there could serve it; anything else is a parameter
    are_words = all(re.fullmatch(r"\w+", key, re.ASCII) for key in path)
    steps = "$" + "".join(f'."{key}"' for key in path)
    return bindparam(None, steps, String, unique=True, literal_execute=are_words)


def _equals(kind: Any, scalar: Any, wanted: Any) -> Condition:
    if wanted is None or isinstance(wanted, bool):
        # null, true and false are types of SQLite's JSON
        return _is(kind, json.dumps(wanted))
    if isinstance(wanted, str):
        return and_(_is(kind, "text"), scalar == literal(wanted, Words))
    if isinstance(wanted, int) and not -(2**63) <= wanted < 2**63:
        # larger than SQLite's integers
        return false()
    # as a value, true would be 1
    return and_(or_(_is(kind, "integer"), _is(kind, "real")), scalar == literal(wanted))


def _is(kind: Any, name: str) -> Condition:
    # where there is nothing the kind is null; compared with `=` that would be neither true nor, denied, false
    same: Condition = kind.is_not_distinct_from(name)
    return same


def _has_item(document: Any, path: Tuple[str, ...], key: str, wanted: Any) -> Condition:
    if key.isascii() and key.isprintable() and not {'"', "\\"} & set(key):
        return _contains(document, (*path, key), wanted)
    # a key that is stored with escapes, which SQLite does not look through when it follows a path
    return _has(document, path, wanted, lambda each: each.c.key == literal(key, Words))


def _has_element(document: Any, path: Tuple[str, ...], wanted: Any) -> Condition:
    return _has(document, path, wanted, lambda each: func.json_type(document, _place(path)) == "array")


def _has(document: Any, path: Tuple[str, ...], wanted: Any, where: Callable[[Any], Any]) -> Condition:
    """Whether `wanted` is held by one of those that are directly in a place, and for which `where` is true."""
    each = func.json_each(document, _place(path)).table_valued("key", "value", "type", "atom")
    if isinstance(wanted, (dict, list)):
        # a scalar is not JSON there, and asked for a place in it SQLite would fail
        part = case((each.c.type.in_(["object", "array"]), each.c.value), else_="null")
        found = _contains(part, (), wanted)
    else:
        found = _equals(each.c.type, each.c.atom, wanted)
    return select(literal(1)).select_from(each).where(where(each), found).exists()
