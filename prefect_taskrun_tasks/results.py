"""From a task run's state to the value that the task returned."""

from typing import Any

from prefect.engine.result import NoResultType, Result
from prefect.engine.state import State

from .errors import NoLocation, NoResult, UnknownResultType


def load(state: State, task_run: str) -> Any:
    """Reads the value of a finished, unmapped task run from where its `Result` keeps it.

    Args:
        state: the task run's final state.
        task_run: how to call the task run in an error.

    Raises:
        ResultUnavailable: one of `NoResult`, `NoLocation`, `UnknownResultType`.
        Exception: whatever the `Result` raises when it cannot read its location.
    """
    result = state._result
    if not result or isinstance(result, NoResultType):
        if not state.is_successful():
            raise NoResult(f"There is no result of {task_run}: it ended in {_described(state)}.")
        raise NoResult(
            f"There is no result of {task_run}: the task has no `Result` type. Set `result=` on the task or its "
            "flow, so that return values are kept."
        )
    if not result.location:
        if not state.is_successful():
            raise NoLocation(f"There is no result of {task_run}: it ended in {_described(state)}.")
        raise NoLocation(
            f"The result of {task_run} has no `location`, so it cannot be loaded. Was `result=` configured on the "
            "task or its flow, and `checkpoint` left on?"
        )
    if type(result) is Result:
        # what Prefect makes of a class that it does not know, in prefect.serialization.result.CustomResultSchema
        raise UnknownResultType(
            f"The result of {task_run} was kept by a custom `Result` type and cannot be loaded. Only Prefect's own "
            "`Result` types are supported."
        )
    # the state is left as it was: views share it, and compare by it
    return result.read(result.location).value


def _described(state: State) -> str:
    name = type(state).__name__
    return f"state {name}: {state.message}" if state.message else f"state {name}"
