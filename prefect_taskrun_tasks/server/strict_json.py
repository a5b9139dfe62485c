"""JSON without the words for numbers that Python adds to it, which other parsers, and PostgreSQL, refuse."""

import json
import math
from json import decoder
from typing import Any, Union


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

#: Levels of Python's stack that are left to what becomes of a value: it is stored, and answered within others
RESERVE = 150


def loads(text: Union[str, bytes, bytearray]) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: not JSON, more than `MOST_VALUES` values, or NaN, Infinity or a number beyond a float's range in it.
        RecursionError: it is nested so deeply that it could not be answered.
    """
    if not isinstance(text, str):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    _check_values(text)
    return _loads(text, RESERVE)


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


def _loads(text: str, levels: int) -> Any:
    # a parser that begins further down the stack comes to its end earlier
    if levels:
        return _loads(text, levels - 1)
    return json.loads(text, parse_constant=_refuse, parse_float=_finite)
