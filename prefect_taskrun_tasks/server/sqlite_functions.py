"""Functions that SQLite lacks and this package registers on each of its connections."""

import json
import sqlite3
import threading
from functools import lru_cache
from typing import Any, Optional

from sqlalchemy.exc import OperationalError

from .errors import Refused

#: Names of functions in SQL: a JSON text in its canonical form, and whether a regular expression is found in a text
CANONICAL_JSON, MATCHES = "canonical_json", "matches"

#: Seconds that one text is searched for a regular expression. Some expressions take exponential time, and only the
#: `regex` package can end a search.
LONGEST_MATCH = 0.5

#: How SQLite names the exception of a function, of which it keeps nothing
_RAISED = "user-defined function raised exception"

#: What the function that failed last in this thread has to say to the caller
_last = threading.local()


def register(connection: sqlite3.Connection) -> None:
    """Gives a connection these functions, and a `lower` for all letters: SQLite's own knows those of English only."""
    for name, arguments, function in (
        ("lower", 1, _lower),
        (CANONICAL_JSON, 1, canonical_json),
        (MATCHES, 3, _matches),
    ):
        connection.create_function(name, arguments, function, deterministic=True)


def raise_refusal(error: OperationalError) -> None:
    """Raises what the function refused that made a statement fail in this thread; returns if it failed otherwise.

    Raises:
        Refused: see there.
    """
    refusal, _last.refusal = getattr(_last, "refusal", None), None
    if refusal and str(error.orig) == _RAISED:
        raise refusal from error


def canonical_json(text: Optional[str]) -> Optional[str]:
    """A JSON text such that equal values have equal texts: keys are sorted, whole numbers have no fraction."""
    if text is None:
        return None
    return json.dumps(json.loads(text, parse_float=_number), sort_keys=True)


def _number(digits: str) -> Any:
    number = float(digits)
    return int(number) if number.is_integer() else number


def _lower(text: Any) -> Optional[str]:
    return None if text is None else str(text).lower()


def _matches(pattern: str, flags: str, text: Optional[str]) -> Optional[bool]:
    if text is None:
        return None
    try:
        # others run meanwhile: without `concurrent`, a search holds Python's lock
        return _compiled(pattern, flags).search(text, timeout=LONGEST_MATCH, concurrent=True) is not None
    except TimeoutError:
        _last.refusal = Refused(
            f"The pattern {pattern!r} was not found or missed within {LONGEST_MATCH:g} seconds in one text of "
            f"{len(text)} characters. Use a pattern without repetitions of repetitions, or _ilike."
        )
    except Refused as refused:
        _last.refusal = refused
    raise _last.refusal


@lru_cache(maxsize=16)
def _compiled(pattern: str, flags: str) -> Any:
    # only here: most backends are never asked for one
    import regex

    try:
        # `.` finds ends of lines too, as in PostgreSQL
        return regex.compile(f"(?s{flags}){pattern}")
    except (regex.error, RecursionError) as error:
        raise Refused(f"invalid regular expression {pattern!r}: {error}") from error
