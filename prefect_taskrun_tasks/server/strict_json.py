"""JSON without the words for numbers that Python adds to it, which other parsers, and PostgreSQL, refuse."""

import json
import math
from typing import Any, Union


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not a number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        # would be answered as the word Infinity
        _refuse(digits)
    return number


#: Levels of Python's stack that are left to what becomes of a value: it is stored, and answered within others
RESERVE = 150


def loads(text: Union[str, bytes]) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: not JSON, or NaN, Infinity or a number beyond a float's range in it.
        RecursionError: it is nested so deeply that it could not be answered.
    """
    return _loads(text, RESERVE)


def _loads(text: Union[str, bytes], levels: int) -> Any:
    # a parser that begins further down the stack comes to its end earlier
    if levels:
        return _loads(text, levels - 1)
    return json.loads(text, parse_constant=_refuse, parse_float=_finite)
