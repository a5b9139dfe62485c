"""Results of task runs, read through views."""

from typing import Any, Iterator, List

import pytest
from driven import DrivenRun, NewUrl, mapped, register, shared_backend
from implementations import both
from prefect import Flow, task
from prefect.engine.result import NoResult
from prefect.engine.results import LocalResult, PrefectResult
from prefect.engine.state import Cached, Failed, Running, Skipped, State, Success, TimedOut, TriggerFailed

import prefect_taskrun_tasks as ours
from prefect_taskrun_tasks import errors
from prefect_taskrun_tasks.server import Backend


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        yield backend


class CompanyResult(LocalResult):
    """A `Result` class that Prefect does not know."""


@task
def inc(x: int) -> int:
    return x + 1


with Flow("child", result=LocalResult()) as child_flow:
    inc.map([0, 1, 2])
    inc(5)


@pytest.fixture(scope="module")
def flow_id(backend: Backend) -> str:
    return register(child_flow)


@pytest.fixture
def run(flow_id: str) -> DrivenRun:
    return DrivenRun(child_flow, flow_id).enter(Running())


def parent(lib: Any, run: DrivenRun) -> Any:
    return lib.TaskRunView.from_task_slug("inc-1", run.id)


@both
@pytest.mark.parametrize(
    ("state", "error"),
    [
        (Success(), TypeError),
        (Success(result=NoResult), TypeError),
        (Success(result=5), ValueError),
        (Success(result=LocalResult()), ValueError),
        (Success(result=LocalResult(location="nowhere")), FileNotFoundError),
        (Failed(), TypeError),
        (Failed(result=KeyError("x")), ValueError),
        (TriggerFailed(), TypeError),
        (TimedOut(), TypeError),
        (Skipped(), TypeError),
        (Running(), ValueError),
    ],
    ids=repr,
)
def test_a_result_that_cannot_be_had_raises_the_same_type_of_error(
    lib: Any, run: DrivenRun, state: State, error: Any
) -> None:
    run.task_enters("inc-2", state)
    with pytest.raises(error):
        lib.TaskRunView.from_task_slug("inc-2", run.id).get_result()


@both
@pytest.mark.parametrize(
    "state",
    [
        lambda: Success(result=LocalResult().write({"a": 1})),
        lambda: Success(result=PrefectResult().write({"a": 1})),
        lambda: Cached(result=LocalResult().write({"a": 1})),
        lambda: Failed(result=LocalResult().write({"a": 1})),
    ],
)
def test_a_result_that_was_kept_is_loaded(lib: Any, run: DrivenRun, state: Any) -> None:
    run.task_enters("inc-2", state())
    assert lib.TaskRunView.from_task_slug("inc-2", run.id).get_result() == {"a": 1}


@both
@pytest.mark.parametrize("value", [None, 0, [1]])
def test_a_result_is_loaded_once(lib: Any, run: DrivenRun, mocker: Any, value: Any) -> None:
    run.task_returns("inc-2", value)
    view = lib.TaskRunView.from_task_slug("inc-2", run.id)
    read = mocker.spy(LocalResult, "read")
    first = view.get_result()
    assert first == value
    assert view.get_result() is first
    assert view.get_latest().get_result() is first
    assert read.call_count == 1


@both
def test_the_result_of_a_mapped_task_run_is_the_list_of_those_of_its_children(lib: Any, run: DrivenRun) -> None:
    run.task_maps("inc-1", [1, 2, 3])
    assert parent(lib, run).get_result() == [1, 2, 3]


@both
def test_a_child_of_a_mapped_task_run_has_its_own_result(lib: Any, run: DrivenRun) -> None:
    run.task_maps("inc-1", [1, 2, 3])
    assert lib.TaskRunView.from_task_slug("inc-1", run.id, 2).get_result() == 3


@both
def test_results_of_many_children_are_in_map_order(lib: Any, run: DrivenRun) -> None:
    for map_index in (11, 2, 10, 0, 1, 9, 3, 8, 4, 7, 5, 6):
        run.task_returns("inc-1", map_index, map_index)
    run.task_enters("inc-1", mapped(12))
    assert parent(lib, run).get_result() == list(range(12))
    assert [child.map_index for child in parent(lib, run).iter_mapped()] == list(range(12))


@both
def test_the_result_of_a_mapped_task_run_is_loaded_once(lib: Any, run: DrivenRun) -> None:
    run.task_maps("inc-1", [1, 2, 3])
    view = parent(lib, run)
    assert view.get_result() is view.get_result()
    assert view.get_latest().get_result() is view.get_result()


@both
def test_children_are_iterated_one_after_the_other(lib: Any, run: DrivenRun) -> None:
    run.task_maps("inc-1", [1, 2, 3])
    children = parent(lib, run).iter_mapped()
    assert next(children).get_result() == 1
    assert [child.get_result() for child in children] == [2, 3]


@both
def test_a_child_that_has_not_finished_is_a_value_error(lib: Any, run: DrivenRun) -> None:
    run.task_maps("inc-1", [1, 2])
    run.task_enters("inc-1", Running(), 2)
    with pytest.raises(ValueError, match=r"inc-1\[2\]"):
        parent(lib, run).get_result()


@both
@pytest.mark.parametrize(
    ("state", "error"),
    [(Failed(), TypeError), (Failed(result=KeyError("x")), ValueError), (Success(result=5), ValueError)],
    ids=repr,
)
def test_a_child_without_a_result_raises_the_same_type_of_error(
    lib: Any, run: DrivenRun, state: State, error: Any
) -> None:
    run.task_maps("inc-1", [1, 2])
    run.task_enters("inc-1", state, 1)
    with pytest.raises(error):
        parent(lib, run).get_result()


@both
def test_a_mapped_task_run_without_its_children_is_a_value_error(lib: Any, run: DrivenRun) -> None:
    run.task_enters("inc-1", mapped(3))
    with pytest.raises(ValueError, match=r"inc-1.*Is the flow run finished"):
        parent(lib, run).get_result()


def test_a_failed_task_run_says_so_instead_of_blaming_its_result_type(run: DrivenRun) -> None:
    run.task_maps("inc-1", [1, 2])
    run.task_enters("inc-1", Failed("Disk full.", result=OSError("x")), 1)
    with pytest.raises(errors.ResultUnavailable, match=r"'inc-1\[1\]' .* it ended in state Failed: Disk full\."):
        parent(ours, run).get_result()


def test_nothing_was_mapped_over_is_an_empty_list(run: DrivenRun) -> None:
    # Prefect raises a ValueError: "No child task runs were found"
    run.task_enters("inc-1", mapped(0))
    assert parent(ours, run).get_result() == []
    assert list(parent(ours, run).iter_mapped()) == []


@pytest.mark.parametrize("there", [[0, 2], [1, 2], [0, 1], [2], [0, 1, 3]])
def test_children_that_are_missing_are_an_error_instead_of_a_shorter_list(run: DrivenRun, there: List[int]) -> None:
    # Prefect leaves them out, so that the others are in the wrong places
    for map_index in there:
        run.task_returns("inc-1", map_index, map_index)
    run.task_enters("inc-1", mapped(3))
    first = min(set(range(3)) - set(there))
    with pytest.raises(errors.IncompleteMap, match=rf"Child(ren)? {first} .*of the 3 of .*inc-1.* cannot be found"):
        parent(ours, run).get_result()
    children = parent(ours, run).iter_mapped()
    assert [next(children).map_index for _ in range(first)] == list(range(first))
    with pytest.raises(errors.IncompleteMap):
        next(children)


def test_views_of_one_state_are_still_equal_when_one_has_loaded_its_result(run: DrivenRun) -> None:
    # Prefect's are not, because its views put the result into the state, by which they compare
    run.task_returns("inc-2", 6)
    loaded, other = [ours.TaskRunView.from_task_slug("inc-2", run.id) for _ in range(2)]
    loaded.get_result()
    assert loaded == other


def test_all_children_are_found_by_one_query(run: DrivenRun, mocker: Any) -> None:
    run.task_maps("inc-1", [1, 2, 3])
    view = parent(ours, run)
    query = mocker.spy(ours.api, "ask")
    view.get_result()
    assert query.call_count == 1
