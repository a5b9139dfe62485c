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
#: characters. Prefect's client sends 10,000 lines of logs at once, of 7 values each (utilities/logging.py).
MOST_VALUES = 150_000

#: Characters of a text that is not all ASCII. Python takes four bytes for each if one needs them. Prefect's client
#: writes requests in ASCII.
MOST_WIDE = 8 * 1024 * 1024

#: Characters that are searched at once: other threads wait meanwhile
SLICE = 1024 * 1024

#: Maximum levels of arrays and objects within each other. Such a value can be stored, and returned within others, on
#: the 1,000 calls of Python's stack. From Python 3.12 on the parser itself has no such limit.
MAX_LEVELS = 810


def loads(text: Union[str, bytes, bytearray]) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: not JSON, more than `MOST_VALUES` values, or NaN, Infinity or a number beyond a float's range in it.
        RecursionError: it is nested so deeply that it could not be answered.
    """
    _check_width(text)
    if not isinstance(text, str):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
        _check_width(text)
    begun = _count("[", text) + _count("{", text)
    # strings hold these marks too; most texts are so short that it does not matter
    if begun + _count(",", text) > MOST_VALUES:
        _check_values(text)
    value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    if begun > MAX_LEVELS:
        _check_levels(value)
    return value


def _check_width(text: Union[str, bytes, bytearray]) -> None:
    if len(text) > MOST_WIDE and not text.isascii():
        raise ValueError(
            f"it has more than {MOST_WIDE:,} characters, and some are not ASCII. Write those as \\uXXXX, or send it in "
            "several requests."
        )


def _count(mark: str, text: str) -> int:
    return sum(text.count(mark, begun, begun + SLICE) for begun in range(0, len(text), SLICE))


def _check_values(text: str) -> None:
    """Refuses a text with too many values, before memory is taken for them."""
    found, at = 0, 0
    while True:
        quote = text.find('"', at)
        end = len(text) if quote < 0 else quote
        # what begins an array or an object, or separates two values
        found += sum(text.count(mark, at, end) for mark in ",[{")
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
