"""Comparisons of JSON columns, as PostgreSQL makes them: with its own operators, and with SQLite's functions."""

import json
import re
from typing import Any, Callable, Dict, List, Tuple

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
    not_,
    or_,
    select,
    true,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, array

from .in_both import InBoth
from .sqlite_functions import CANONICAL_JSON, canonical_json
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


def contained_in(document: Any, wanted: Any) -> Condition:
    """Whether `wanted` holds a JSON column, as PostgreSQL's ``<@`` has it: `contains` with the sides exchanged."""
    kind, scalar = func.json_type(document), func.json_extract(document, "$")
    found = _contained_in(kind, scalar, document, wanted)
    if isinstance(wanted, list):
        # a scalar is contained in an array of it, at the top only
        found = or_(found, *[_equals(kind, scalar, each) for each in wanted if not isinstance(each, (dict, list))])
    return InBoth(found, type_coerce(document, JSONB).contained_by(literal(wanted, JSONB)))


def equals(document: Any, wanted: Any) -> Condition:
    """Whether a JSON column is `wanted`, in whatever order its keys are and however its numbers are written."""
    return is_one_of(document, [wanted])


def is_one_of(document: Any, wanted: List[Any]) -> Condition:
    """Whether a JSON column equals one of several values."""
    canonical = getattr(func, CANONICAL_JSON)(document, type_=Words)
    found = canonical.in_([canonical_json(json.dumps(each)) for each in wanted])
    return InBoth(found, type_coerce(document, JSONB).in_([literal(each, JSONB) for each in wanted]))


def has_keys_any(document: Any, names: List[str]) -> Condition:
    """Whether a JSON column is an object with one of these keys, or has one of them as a string, as ``?|`` has it."""
    return InBoth(_count_keys(document, names) > 0, type_coerce(document, JSONB).has_any(_texts(names)))


def has_keys_all(document: Any, names: List[str]) -> Condition:
    """Whether a JSON column has each of these keys, as ``?&`` has it."""
    found = _count_keys(document, names) == len(set(names))
    return InBoth(found, type_coerce(document, JSONB).has_all(_texts(names)))


def _texts(names: List[str]) -> Any:
    return cast(array([literal(name, Words) for name in names]), ARRAY(Text))


def _count_keys(document: Any, names: List[str]) -> Any:
    """How many of `names` are keys of an object, strings in an array, or a string itself; null of null."""
    each = func.json_each(document).table_valued("key", "type", "atom")
    wanted = [literal(name, Words) for name in names]
    is_object = func.json_type(document) == "object"
    found = case((is_object, each.c.key.in_(wanted)), else_=and_(each.c.type == "text", each.c.atom.in_(wanted)))
    name = case((is_object, each.c.key), else_=each.c.atom)
    count = select(func.count(name.distinct())).select_from(each).where(found).scalar_subquery()
    return case((document.is_not(None), count))


#: Comparison operators by name; each is called with a column and the value compared with
COMPARISONS: Dict[str, Callable[[Any, Any], Condition]] = {
    "_eq": equals,
    "_neq": lambda document, wanted: not_(equals(document, wanted)),
    "_in": is_one_of,
    "_nin": lambda document, wanted: not_(is_one_of(document, wanted)),
    "_contains": contains,
    "_contained_in": contained_in,
    "_has_key": lambda document, name: has_keys_any(document, [name]),
    "_has_keys_any": has_keys_any,
    "_has_keys_all": has_keys_all,
    "_is_null": lambda document, null: document.is_(None) if null else document.is_not(None),
}


def _contains(document: Any, path: Tuple[str, ...], wanted: Any) -> Condition:
    place = _place(path)
    kind = func.json_type(document, place)
    if isinstance(wanted, dict):
        return and_(_is(kind, "object"), *[_has_item(document, path, key, value) for key, value in wanted.items()])
    if isinstance(wanted, list):
        return and_(_is(kind, "array"), *[_has_element(document, path, each) for each in wanted])
    return _equals(kind, func.json_extract(document, place), wanted)


def _contained_in(kind: Any, scalar: Any, part: Any, wanted: Any) -> Condition:
    """Whether `wanted` holds a part of a document: its type is `kind`, and its value `scalar` if it has no parts."""
    if not isinstance(wanted, (dict, list)):
        return _equals(kind, scalar, wanted)
    each = func.json_each(part).table_valued("key", "value", "type", "atom")
    below = [
        and_(true() if key is None else each.c.key == literal(key, Words), fits)
        for key, value in (wanted.items() if isinstance(wanted, dict) else ((None, value) for value in wanted))
        for fits in [_contained_in(each.c.type, each.c.atom, _as_json(each), value)]
    ]
    stranger = select(literal(1)).select_from(each).where(not_(or_(false(), *below))).exists()
    return and_(_is(kind, "object" if isinstance(wanted, dict) else "array"), not_(stranger))


def _as_json(each: Any) -> Any:
    # a scalar is not JSON there, and asked for a place in it SQLite would fail
    return case((each.c.type.in_(["object", "array"]), each.c.value), else_="null")


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
        found = _contains(_as_json(each), (), wanted)
    else:
        found = _equals(each.c.type, each.c.atom, wanted)
    return select(literal(1)).select_from(each).where(where(each), found).exists()
