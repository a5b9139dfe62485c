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


def loads(text: Union[str, bytes]) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: not JSON, or NaN, Infinity or a number beyond a float's range in it.
    """
    return json.loads(text, parse_constant=_refuse, parse_float=_finite)
