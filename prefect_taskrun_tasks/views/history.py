"""The states that a run has been in, and when."""

from typing import Any, Dict, Iterable, List, cast

import pendulum
from prefect.engine.state import State

from .. import api


def instant(text: str) -> pendulum.DateTime:
    """Return a time, as the Prefect API writes it.

    Raises:
        BadAnswer: it is none (a `ValueError`).
    """
    with api.reading("a time", text):
        parsed = pendulum.parse(text)
        assert isinstance(parsed, pendulum.DateTime)
    return parsed


def loaded_state(serialized: Any) -> State:
    """Return a state that the Prefect API has serialized.

    Raises:
        BadAnswer: it is none of Prefect's (a `ValueError`).
    """
    with api.reading("a state", serialized):
        state = State.deserialize(serialized)
        assert isinstance(state, State)
    return state


class TimestampedState(State):
    """For type checkers: the states of a run's history, of whatever type, have a time."""

    timestamp: pendulum.DateTime


def history(rows: Iterable[Dict[str, Any]]) -> List[TimestampedState]:
    """The states of a run, oldest first.

    Args:
        rows: each with a `timestamp` and a `serialized_state`.
    """
    return sorted(map(_state, rows), key=lambda state: state.timestamp)


def _state(row: Dict[str, Any]) -> TimestampedState:
    with api.reading("a state", row):
        state = cast(TimestampedState, loaded_state(row["serialized_state"]))
        state.timestamp = instant(row["timestamp"])
    return state
