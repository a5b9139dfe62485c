"""From a state to the value that a task returned."""

from pathlib import Path
from typing import Any, Type

import pendulum
import prefect
import pytest
from prefect.engine.result import NoResult
from prefect.engine.results import LocalResult, PrefectResult
from prefect.engine.serializers import DateTimeSerializer, JSONSerializer
from prefect.engine.state import Cached, Cancelled, Failed, Finished, Skipped, State, Success, TimedOut, TriggerFailed

from prefect_taskrun_tasks import api, errors
from prefect_taskrun_tasks.results import Loader, Stored, in_order


class CompanyResult(LocalResult):
    """A `Result` class that Prefect does not know."""


def load(state: State, task_run: str) -> Any:
    """The value of a task run in this state, whose flow is not known."""
    value = Loader().load(Stored.from_state(state, task_run))
    # the two ways to the same
    assert Loader().load(Stored.from_serialized(state.serialize(), task_run)) == value
    return value


def from_the_backend(state: State) -> State:
    """The state as it is when it has been to the backend and back."""
    return State.deserialize(state.serialize())


def test_a_prefect_result_may_have_a_serializer_of_its_own_which_the_state_does_not_name() -> None:
    """That of a `DateTimeParameter` has."""
    noon, task_result = pendulum.datetime(2021, 5, 12, 12), PrefectResult(serializer=DateTimeSerializer())
    stored = Stored.from_serialized(Success(result=task_result.write(noon)).serialize(), "a task run")
    assert Loader(task_result=lambda: task_result).load(stored) == noon
    assert Loader(serializer=DateTimeSerializer()).load(stored) == noon
    with pytest.raises(errors.UnknownResultType, match="cannot be decoded with JSONSerializer"):
        Loader().load(stored)


def test_threads_that_read_have_the_context_of_the_one_that_asked() -> None:
    """Such as a worker of Dask has it from its flow run: it has not been told of any Prefect API itself."""
    context = {"config": {"cloud": {"api": "http://there"}}, "secrets": {"password": "known"}}

    def seen(number: int) -> Any:
        return prefect.context.config.cloud.api, prefect.context.secrets["password"], api.patience_now()

    with prefect.context(context), api.patience(3):
        assert set(in_order(seen, range(9), workers=2)) == {("http://there", "known", 3)}


@pytest.mark.parametrize("value", [None, 0, "", [], "foobar!", {"a": [1, 2]}])
def test_a_value_that_was_kept_is_read_back(value: Any) -> None:
    state = from_the_backend(Success(result=LocalResult().write(value)))
    assert load(state, "a task run") == value


@pytest.mark.parametrize("value", [None, False, 5, {"a": [1, 2]}])
def test_a_prefect_result_carries_its_value_in_its_location(value: Any) -> None:
    assert load(from_the_backend(Success(result=PrefectResult().write(value))), "a task run") == value


@pytest.mark.parametrize("kind", [Cached, Finished, Failed, Skipped, TimedOut])
def test_a_value_that_was_kept_is_read_back_from_any_finished_state(kind: Type[State]) -> None:
    state = from_the_backend(kind(result=LocalResult().write([1])))
    assert load(state, "a task run") == [1]


def test_the_state_does_not_change_when_its_result_is_loaded() -> None:
    written = Success(result=LocalResult().write([1]))
    state, other = from_the_backend(written), from_the_backend(written)
    load(state, "a task run")
    assert state.result is None
    assert state == other


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (Success(), errors.NoResult),
        (Success(result=NoResult), errors.NoResult),
        (Success(result=5), errors.NoLocation),
        (Success(result=LocalResult()), errors.NoLocation),
        (Success(result=CompanyResult(location="somewhere")), errors.UnknownResultType),
        (Skipped(), errors.NoResult),
        (Failed(), errors.NoResult),
        (TriggerFailed(), errors.NoResult),
        (Cancelled(), errors.NoResult),
        # an exception is kept as a result, without a location; Prefect raises a ValueError for it
        (Failed(result=KeyError("x")), errors.NoLocation),
        (Failed(result=LocalResult()), errors.NoLocation),
    ],
    ids=repr,
)
def test_a_result_that_cannot_be_loaded_is_an_error(state: State, error: Type[Exception]) -> None:
    with pytest.raises(error, match="task run 'foo-1'"):
        load(from_the_backend(state), "task run 'foo-1'")


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (Failed("Disk full."), "it ended in state Failed: Disk full."),
        (Failed("Disk full.", result=OSError("full")), "it ended in state Failed: Disk full."),
        (TriggerFailed("Upstream failed."), "it ended in state TriggerFailed: Upstream failed."),
        (Failed(), r"it ended in state Failed\."),
        (Success("Task run succeeded."), "Set `result=` on the task or its flow"),
        (Success(result=LocalResult()), "returned None, which Prefect keeps nowhere, or `checkpoint` was off"),
        (Success(result=CompanyResult(location="somewhere")), "not one of Prefect's"),
    ],
)
def test_the_error_says_why_there_is_no_result(state: State, told: str) -> None:
    with pytest.raises(errors.ResultUnavailable, match=told):
        load(from_the_backend(state), "a task run")


def test_what_a_result_raises_when_it_cannot_be_read_is_left_as_it_is(tmp_path: Path) -> None:
    state = from_the_backend(Success(result=LocalResult(location=str(tmp_path / "gone"))))
    with pytest.raises(FileNotFoundError, match="gone"):
        load(state, "a task run")


def test_a_serializer_that_is_not_known_is_an_error_that_says_what_helps() -> None:
    # prefect.serialization.result keeps the location only
    state = from_the_backend(Success(result=LocalResult(serializer=JSONSerializer()).write({"a": 1})))
    with pytest.raises(errors.UnknownResultType, match=r"PickleSerializer.*Pass `result=` or `serializer=`"):
        load(state, "a task run")
