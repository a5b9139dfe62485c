"""What lookups are called with."""

from typing import Any

from ..errors import InvalidArgument, WrongType


def check_text(**arguments: Any) -> None:
    """Refuses arguments that are not texts, or empty.

    Raises:
        WrongType: not a string (a `TypeError`).
        InvalidArgument: empty (a `ValueError`).
    """
    for name, value in arguments.items():
        if not isinstance(value, str):
            raise WrongType(f"Unexpected type {type(value)!r} for `{name}`, expected 'str'.")
        if not value.strip():
            raise InvalidArgument(f"`{name}` is empty.")


def check_map_index(map_index: Any) -> None:
    """Refuses what is not -1 (the task run itself) or a position among the children of a mapped task.

    Raises:
        WrongType: not an integer (a `TypeError`).
        InvalidArgument: below -1 (a `ValueError`).
    """
    if not isinstance(map_index, int) or isinstance(map_index, bool):
        raise WrongType(f"Unexpected type {type(map_index)!r} for `map_index`, expected 'int'.")
    if map_index < -1:
        raise InvalidArgument(
            f"`map_index` is {map_index}: give -1 for the task run itself, or the index of a child, from 0."
        )
