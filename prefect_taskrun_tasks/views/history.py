"""The states that a run has been in, and when."""

from typing import Any, Dict, Iterable, List, cast

import pendulum
from prefect.engine.state import State


def instant(text: str) -> pendulum.DateTime:
    """A time, as the Prefect API writes it."""
    parsed = pendulum.parse(text)
    assert isinstance(parsed, pendulum.DateTime)
    return parsed


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
    state = cast(TimestampedState, State.deserialize(row["serialized_state"]))
    state.timestamp = instant(row["timestamp"])
    return state
