"""Comparisons of text columns with patterns, as PostgreSQL makes them."""

import re
from typing import Any, Callable, Dict

from sqlalchemy import ColumnElement, collate, false, func, literal, not_

from .errors import Refused
from .in_both import InBoth
from .sqlite_functions import MATCHES

Condition = ColumnElement[bool]

#: Characters of a pattern. SQLite compares a text with a whole pattern at once, which no time limit ends.
LONGEST_PATTERN = 500


def _checked(pattern: str) -> str:
    if len(pattern) > LONGEST_PATTERN:
        raise Refused(f"A pattern has at most {LONGEST_PATTERN} characters, not {len(pattern)}. Use a shorter one.")
    return pattern


def _in_any_case(column: Any, pattern: str) -> Any:
    """Both sides, for PostgreSQL: under the collation of our columns it knows only the capitals of English."""
    return collate(column, "default"), collate(literal(pattern, column.type), "default")


def _has_lone_escape(pattern: str) -> bool:
    """Whether an escape has nothing behind it: PostgreSQL refuses such a pattern of LIKE."""
    return bool(re.search(r"(?<!\\)(\\\\)*\\$", pattern))


def _like(column: Any, pattern: str) -> Any:
    if _has_lone_escape(_checked(pattern)):
        return false()
    # SQLite's LIKE ignores case, its GLOB does not
    glob = re.sub(r"\\(.)|.", _glob_part, pattern, flags=re.DOTALL)
    return InBoth(column.op("GLOB")(literal(glob, column.type)), column.like(pattern, escape="\\"))


def _glob_part(found: "re.Match[str]") -> str:
    character = found.group(1) or found.group()
    if found.group() in ("%", "_"):
        return "*" if character == "%" else "?"
    return f"[{character}]" if character in "*?[" else character


def _ilike(column: Any, pattern: str) -> Any:
    if _has_lone_escape(_checked(pattern)):
        return false()
    wide, wanted = _in_any_case(column, pattern)
    return InBoth(column.ilike(pattern, escape="\\"), wide.ilike(wanted, escape="\\"))


def _regex(column: Any, pattern: str) -> Any:
    return InBoth(_matches(column, pattern), column.op("~")(literal(_checked(pattern), column.type)))


def _iregex(column: Any, pattern: str) -> Any:
    wide, wanted = _in_any_case(column, _checked(pattern))
    return InBoth(_matches(column, pattern, "i"), wide.op("~*")(wanted))


def _similar(column: Any, pattern: str) -> Any:
    as_regex = re.sub(r"\\(.)|\[[^\]]*\]|.", _similar_part, _checked(pattern), flags=re.DOTALL)
    similar = column.op("SIMILAR TO")(literal(pattern, column.type))
    return InBoth(_matches(column, rf"\A(?:{as_regex})\Z"), similar)


def _similar_part(found: "re.Match[str]") -> str:
    if found.group(1):
        return re.escape(found.group(1))
    return {"%": ".*", "_": ".", ".": r"\.", "^": r"\^", "$": r"\$"}.get(found.group(), found.group())


def _matches(column: Any, pattern: str, flags: str = "") -> Any:
    # a function of our own returns 0 or 1
    return getattr(func, MATCHES)(literal(pattern, column.type), flags, column) == 1


def _denied(compare: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    return lambda column, pattern: not_(compare(column, pattern))


_NAMED = {"like": _like, "ilike": _ilike, "regex": _regex, "iregex": _iregex, "similar": _similar}

#: Comparison operators by name, those of Hasura; each is called with a column and a pattern
COMPARISONS: Dict[str, Callable[[Any, str], Condition]] = {
    **{f"_{name}": compare for name, compare in _NAMED.items()},
    **{f"_n{name}": _denied(compare) for name, compare in _NAMED.items()},
}
