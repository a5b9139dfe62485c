"""JSON without the words for numbers that Python adds to it, which other parsers, and PostgreSQL, refuse."""

import json
import math
from json import decoder
from typing import Any, Iterable, Union


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not a number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        # would be answered as the word Infinity
        _refuse(digits)
    return number


#: Values of one text. Python's parser holds all threads up while it works, and makes 64 bytes of memory of two
#: characters. Prefect registers a flow of 10,000 tasks with half as many.
MOST_VALUES = 1_000_000

#: What begins an array or an object, or separates two values
_MARKS = ",[{"

#: Maximum levels of arrays and objects within each other. Such a value can be stored, and returned within others, on
#: the 1,000 calls of Python's stack. From Python 3.12 on the parser itself has no such limit.
MAX_LEVELS = 810


def loads(text: Union[str, bytes, bytearray]) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: not JSON, more than `MOST_VALUES` values, or NaN, Infinity or a number beyond a float's range in it.
        RecursionError: it is nested so deeply that it could not be answered.
    """
    if not isinstance(text, str):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    _check_values(text)
    value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    if text.count("[") + text.count("{") > MAX_LEVELS:
        _check_levels(value)
    return value


def _check_values(text: str) -> None:
    """Refuses a text with too many values, before memory is taken for them."""
    # strings hold marks too; most texts are so short that it does not matter
    if sum(map(text.count, _MARKS)) <= MOST_VALUES:
        return
    found, at = 0, 0
    while True:
        quote = text.find('"', at)
        end = len(text) if quote < 0 else quote
        found += sum(text.count(mark, at, end) for mark in _MARKS)
        if found > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_VALUES:,} values. Send it in several requests.")
        if quote < 0:
            return
        _, at = decoder.scanstring(text, quote + 1, False)  # type: ignore[attr-defined]


def _check_levels(value: Any) -> None:
    level = [value]
    for _ in range(MAX_LEVELS + 1):
        level = [each for container in level for each in _items(container)]
        if not level:
            return
    raise RecursionError(f"more than {MAX_LEVELS} levels of JSON")


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
