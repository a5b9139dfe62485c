"""What lookups are called with."""

from typing import Any, Dict, Iterable, List

from prefect.engine import state as prefect_states

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


def check_kind(kind: type, **arguments: Any) -> None:
    """Refuses arguments that are neither None nor of a kind.

    Raises:
        WrongType: of another kind (a `TypeError`).
    """
    for name, value in arguments.items():
        if value is not None and not isinstance(value, kind):
            raise WrongType(f"Unexpected type {type(value)!r} for `{name}`, expected {kind.__name__!r}.")


def check_choice(choices: Iterable[str], **arguments: Any) -> None:
    """Refuses what is not one of the names that there are.

    Raises:
        InvalidArgument: (a `ValueError`).
    """
    for name, value in arguments.items():
        if value not in tuple(choices):
            raise InvalidArgument(f"`{name}` is {value!r}. It must be one of: {', '.join(map(repr, choices))}.")


def check_count(**arguments: Any) -> None:
    """Refuses what does not count anything.

    Raises:
        WrongType: not an integer (a `TypeError`).
        InvalidArgument: none, or fewer (a `ValueError`).
    """
    for name, value in arguments.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise WrongType(f"Unexpected type {type(value)!r} for `{name}`, expected 'int'.")
        if value < 1:
            raise InvalidArgument(f"`{name}` is {value}: at least one is needed.")


def state_names(state: Any) -> List[str]:
    """The names of states that were given as one, or as several.

    Raises:
        WrongType: not a string, and not an iterable of strings (a `TypeError`).
        InvalidArgument: Prefect has no state of that name (a `ValueError`).
    """
    try:
        names = [state] if isinstance(state, str) else list(state)
    except TypeError as error:
        raise WrongType(f"Unexpected type {type(state)!r} for `state`, expected 'str' or several of them.") from error
    for name in names:
        check_text(state=name)
        if name not in STATES:
            raise InvalidArgument(f"There is no state {name!r}. There are {', '.join(sorted(STATES))}.")
    return names


#: name -> class of Prefect's states
STATES: Dict[str, type] = {
    name: it
    for name, it in vars(prefect_states).items()
    if isinstance(it, type) and issubclass(it, prefect_states.State)
}


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
