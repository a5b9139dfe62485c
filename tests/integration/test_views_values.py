"""Views are values: they do not change, can be compared, and travel between threads and processes."""

import copy
import dataclasses
import os
import pickle
import threading
from pathlib import Path
from typing import Any, Callable, Iterator, List

import cloudpickle
import pytest
from driven import DrivenRun, NewUrl, register, shared_backend
from prefect import Flow, task
from prefect.engine.results import LocalResult
from prefect.engine.state import Failed, Running, State, Success
from prefect.executors import DaskExecutor, LocalDaskExecutor

from prefect_taskrun_tasks import FlowRunView, FlowView, TaskRunView
from prefect_taskrun_tasks.server import Backend
from prefect_taskrun_tasks.views.task_run import NotLoaded

#: seconds after which a test that waits for another thread gives up
GIVE_UP = 20


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        yield backend


@task
def inc(x: int) -> int:
    return x + 1


with Flow("mapped", result=LocalResult()) as mapped_flow:
    inc.map([0, 1, 2])
    inc(5)


@pytest.fixture(scope="module")
def flow_id(backend: Backend) -> str:
    return register(mapped_flow)


def finished(flow_id: str) -> DrivenRun:
    run = DrivenRun(mapped_flow, flow_id).enter(Running())
    run.task_maps("inc-1", [1, 2, 3])
    run.task_returns("inc-2", {"a": [6]})
    return run


@pytest.fixture(scope="module")
def run(flow_id: str) -> DrivenRun:
    """One that tests leave as it is."""
    return finished(flow_id)


@pytest.fixture
def own_run(flow_id: str) -> DrivenRun:
    """One that belongs to a test, which may change it."""
    return finished(flow_id)


def task_run(run: DrivenRun) -> TaskRunView:
    return TaskRunView.from_task_slug("inc-2", run.id)


def parent(run: DrivenRun) -> TaskRunView:
    return TaskRunView.from_task_slug("inc-1", run.id)


VIEWS = {
    "task run": task_run,
    "mapped task run": parent,
    "child": lambda run: next(parent(run).iter_mapped()),
    "flow run": lambda run: FlowRunView.from_flow_run_id(run.id, load_static_tasks=True),
    "flow": lambda run: FlowView.from_flow_id(run.flow_id),
}
views = pytest.mark.parametrize("look_up", VIEWS.values(), ids=VIEWS)
#: what may have happened to a view of a task run
USED = {
    "untouched": lambda view: view,
    "its state was looked at": lambda view: view.state,
    "its result was loaded": lambda view: view.get_result(),
    "both": lambda view: (view.state, view.get_result()),
}
used = pytest.mark.parametrize("use", USED.values(), ids=USED)
COPIES = {
    "copied": copy.copy,
    "copied deeply": copy.deepcopy,
    "pickled": lambda view: pickle.loads(pickle.dumps(view)),
    "cloudpickled": lambda view: pickle.loads(cloudpickle.dumps(view)),
}
copies = pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)


@views
def test_no_attribute_of_a_view_can_be_assigned_added_or_deleted(run: DrivenRun, look_up: Any) -> None:
    view = look_up(run)
    for name in [*(field.name for field in dataclasses.fields(view)), "get_latest", "something_new"]:
        with pytest.raises(dataclasses.FrozenInstanceError, match=name):
            setattr(view, name, None)
        with pytest.raises(dataclasses.FrozenInstanceError, match=name):
            delattr(view, name)


def test_no_attribute_of_a_log_can_be_assigned(own_run: DrivenRun) -> None:
    own_run.log("hello", timestamp="2021-05-12T12:00:00+00:00")
    [log] = FlowRunView.from_flow_run_id(own_run.id).get_logs()
    with pytest.raises(AttributeError):
        log.message = "bye"  # type: ignore[misc]


@views
def test_two_looks_at_the_same_are_equal(run: DrivenRun, look_up: Any) -> None:
    first, second = look_up(run), look_up(run)
    assert first is not second
    assert first == second
    assert hash(first) == hash(second)
    assert {first: "found"}[second] == "found"
    assert len({first, second}) == 1


@pytest.mark.parametrize("look_up", [task_run, VIEWS["flow run"]], ids=["task run", "flow run"])
def test_looks_at_different_states_are_not_equal(own_run: DrivenRun, look_up: Any) -> None:
    before = look_up(own_run)
    own_run.task_enters("inc-2", Failed("x"))
    own_run.enter(Failed("x"))
    after = look_up(own_run)
    assert before != after
    # one of a set is found again when it has changed
    assert hash(before) == hash(after)


def test_views_of_different_kinds_are_not_equal(run: DrivenRun) -> None:
    of_all_kinds = [look_up(run) for look_up in VIEWS.values()]
    assert len(set(of_all_kinds)) == len(VIEWS)


@used
def test_a_used_view_equals_one_that_is_not(run: DrivenRun, use: Callable[[Any], Any]) -> None:
    view = task_run(run)
    use(view)
    assert view == task_run(run)
    assert task_run(run) == view
    assert hash(view) == hash(task_run(run))


@copies
@used
def test_a_copy_shows_the_same(run: DrivenRun, use: Callable[[Any], Any], copied: Callable[[Any], Any]) -> None:
    view = task_run(run)
    use(view)
    other = copied(view)
    assert (other._result is NotLoaded) == (view._result is NotLoaded)
    assert other == view
    assert hash(other) == hash(view)
    assert repr(other) == repr(view)
    assert other.get_result() == {"a": [6]}
    with pytest.raises(dataclasses.FrozenInstanceError):
        other.state = None


@copies
@views
def test_a_copy_equals_the_original(run: DrivenRun, look_up: Any, copied: Callable[[Any], Any]) -> None:
    view = look_up(run)
    other = copied(view)
    assert repr(other) == repr(view)
    assert other == view


@copies
def test_a_loaded_result_is_copied_with_its_view(own_run: DrivenRun, copied: Callable[[Any], Any]) -> None:
    view = task_run(own_run)
    view.get_result()
    Path(view.state._result.location).unlink()
    assert copied(view).get_result() == {"a": [6]}
    assert copied(view).get_latest().get_result() == {"a": [6]}


@copies
def test_a_flow_run_is_copied_with_the_task_runs_it_keeps(run: DrivenRun, copied: Callable[[Any], Any]) -> None:
    view = FlowRunView.from_flow_run_id(run.id)
    kept = view.get_task_run("inc-2")
    kept.get_result()
    other = copied(view)
    assert other.get_task_run("inc-2") == kept
    assert other.get_task_run("inc-2")._result == {"a": [6]}


def in_threads(work: Callable[[], Any], threads: int = 8) -> List[Any]:
    """What `work` returns in each of several threads that begin together."""
    barrier = threading.Barrier(threads, timeout=GIVE_UP)
    values: List[Any] = []

    def run() -> None:
        barrier.wait()
        values.append(work())

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert len(values) == threads
    return values


def test_threads_that_share_a_view_see_one_state(run: DrivenRun, mocker: Any) -> None:
    view = task_run(run)
    deserialize = State.deserialize
    both_are_at_it = threading.Barrier(2, timeout=GIVE_UP)

    def slowly(serialized: Any) -> State:
        both_are_at_it.wait()
        return deserialize(serialized)

    mocker.patch.object(State, "deserialize", slowly)
    one, other = in_threads(lambda: view.state, 2)
    assert one is other is view.state


@pytest.mark.parametrize(
    ("look_up", "value"), [(task_run, {"a": [6]}), (parent, [1, 2, 3])], ids=["task run", "mapped task run"]
)
def test_threads_that_share_a_view_get_the_result(run: DrivenRun, look_up: Any, value: Any) -> None:
    view = look_up(run)
    assert in_threads(view.get_result) == [value] * 8
    assert view.get_result() == value


def test_threads_that_share_a_flow_run_see_the_same_task_runs(run: DrivenRun) -> None:
    view = FlowRunView.from_flow_run_id(run.id)
    # Constant[list]-1 has not finished, and is looked up again each time
    found = in_threads(lambda: [view.get_task_run(slug) for slug in ("inc-1", "inc-2", "Constant[list]-1")])
    assert len({each for seen in found for each in seen}) == 3
    assert len(view._task_runs) == 2


@pytest.mark.parametrize(
    "executor",
    [
        LocalDaskExecutor(scheduler="processes", num_workers=1),
        DaskExecutor(cluster_kwargs={"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}),
    ],
    ids=lambda it: type(it).__name__,
)
def test_a_view_travels_through_a_flow_of_several_processes(own_run: DrivenRun, executor: Any) -> None:
    @task
    def use(view: TaskRunView) -> Any:
        return os.getpid(), repr(view), view.get_result(), view

    fresh, loaded = task_run(own_run), TaskRunView.from_task_slug("inc-1", own_run.id, 2)
    loaded.get_result()
    # from here on its result is in the view only
    Path(loaded.state._result.location).unlink()
    with Flow("travelling", executor=executor) as flow:
        used = use.map([fresh, loaded])
    state = flow.run()
    assert state.is_successful()
    for view, value, (pid, seen, got, came_back) in zip([fresh, loaded], [{"a": [6]}, 3], state.result[used].result):
        assert pid != os.getpid()
        assert (seen, got) == (repr(view), value)
        assert came_back == view
        # and brings home what was loaded on its way
        assert came_back._result == value
    assert fresh._result is NotLoaded


@pytest.mark.parametrize("value", [None, 0, {"a": 1}])
def test_the_latest_view_keeps_a_loaded_result(own_run: DrivenRun, value: Any, mocker: Any) -> None:
    own_run.task_enters("inc-2", Running())
    own_run.task_returns("inc-2", value)
    view = task_run(own_run)
    loaded = view.get_result()
    read = mocker.spy(LocalResult, "read")
    latest = view.get_latest()
    assert latest is not view
    assert latest.get_result() is loaded
    assert latest.get_latest().get_result() is loaded
    assert read.call_count == 0


def test_the_latest_view_of_a_mapped_task_run_keeps_a_loaded_result(run: DrivenRun) -> None:
    view = parent(run)
    loaded = view.get_result()
    assert view.get_latest().get_result() is loaded


def test_the_latest_view_of_a_copy_keeps_a_loaded_result(run: DrivenRun) -> None:
    view = task_run(run)
    view.get_result()
    assert pickle.loads(cloudpickle.dumps(view)).get_latest()._result == {"a": [6]}


@pytest.mark.parametrize("states", [[], [Running()], [Failed(), Running()]], ids=str)
def test_the_latest_view_drops_the_result_when_the_task_has_run_again(own_run: DrivenRun, states: List[State]) -> None:
    view = task_run(own_run)
    view.get_result()
    for state in states:
        own_run.task_enters("inc-2", state)
    own_run.task_returns("inc-2", "new")
    assert view.get_latest().get_result() == "new"
    assert view.get_result() == {"a": [6]}


def test_the_latest_view_drops_the_result_when_the_task_runs_again(own_run: DrivenRun) -> None:
    view = task_run(own_run)
    view.get_result()
    own_run.task_enters("inc-2", Running())
    with pytest.raises(ValueError, match="not finished"):
        view.get_latest().get_result()


def test_the_latest_view_of_a_view_that_was_made_by_hand_loads_the_result(run: DrivenRun) -> None:
    seen = task_run(run)
    by_hand = TaskRunView(seen.task_run_id, seen.task_id, "inc-2", None, Success(result=LocalResult()), -1, run.id)
    assert by_hand.get_latest().get_result() == {"a": [6]}
