"""Results of mapped task runs, read on several threads."""

import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import prefect
import pytest
from driven import DrivenRun, NewUrl, register, shared_backend
from many import map_over_many, returned
from prefect import Flow, task
from prefect.engine.result import Result
from prefect.engine.results import LocalResult
from prefect.engine.state import Cancelled, Failed, Running, Skipped, State, Success, TimedOut, TriggerFailed

from prefect_taskrun_tasks import TaskRunView, errors, results
from prefect_taskrun_tasks.server import Backend

#: seconds after which a test that waits for another thread gives up
GIVE_UP = 20


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        yield backend


@task
def inc(x: int) -> int:
    return x + 1


with Flow("mapped") as mapped_flow:
    inc.map([0, 1, 2])
    inc(5)


@pytest.fixture(scope="module")
def flow_id(backend: Backend) -> str:
    return register(mapped_flow)


@pytest.fixture
def run(flow_id: str) -> DrivenRun:
    return DrivenRun(mapped_flow, flow_id).enter(Running())


def parent(run: DrivenRun) -> TaskRunView:
    return TaskRunView.from_task_slug("inc-1", run.id)


class Store(Result):
    """A store in which each location holds its own number, and that counts how many read from it at once."""

    def __init__(self, before_reading: Callable[[int], Any] = lambda number: None) -> None:
        super().__init__()
        self.before_reading = before_reading
        self.read_numbers: List[int] = []
        self.at_once = 0
        self.most_at_once = 0
        self.lock = threading.Lock()

    def read(self, location: str) -> Result:
        with self.lock:
            self.read_numbers.append(int(location))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.before_reading(int(location))
        finally:
            with self.lock:
                self.at_once -= 1
        return Result(int(location))


@pytest.mark.parametrize(("workers", "children"), [(1, 7), (2, 640), (4, 20), (16, 64)])
def test_as_many_results_are_read_at_once_as_there_are_workers(
    backend: Backend, run: DrivenRun, workers: int, children: int
) -> None:
    map_over_many(backend, run, "inc-1", children)
    # nobody passes before all workers are there
    barrier = threading.Barrier(workers, timeout=GIVE_UP)
    store = Store(lambda number: barrier.wait())
    assert parent(run).get_result(result=store, workers=workers) == list(range(children))
    assert store.most_at_once == workers


def test_16_results_are_read_at_once_by_default(backend: Backend, run: DrivenRun) -> None:
    map_over_many(backend, run, "inc-1", 48)
    barrier = threading.Barrier(16, timeout=GIVE_UP)
    store = Store(lambda number: barrier.wait())
    assert list(parent(run).iter_results(result=store)) == list(range(48))
    assert store.most_at_once == results.WORKERS == 16


def test_values_are_at_their_map_index_whichever_is_read_first(backend: Backend, run: DrivenRun) -> None:
    map_over_many(backend, run, "inc-1", 8)
    is_read = [threading.Event() for _ in range(9)]
    is_read[8].set()

    def last_first(number: int) -> None:
        assert is_read[number + 1].wait(GIVE_UP)
        is_read[number].set()

    assert parent(run).get_result(result=Store(last_first), workers=8) == list(range(8))


def test_each_result_is_read_once(backend: Backend, run: DrivenRun) -> None:
    map_over_many(backend, run, "inc-1", 700)
    store = Store()
    parent(run).get_result(result=store)
    assert sorted(store.read_numbers) == list(range(700))


def test_a_value_is_there_while_later_ones_are_still_being_read(backend: Backend, run: DrivenRun) -> None:
    map_over_many(backend, run, "inc-1", 12)
    may_go_on = threading.Event()

    def stuck_from_five(number: int) -> None:
        assert number < 5 or may_go_on.wait(GIVE_UP)

    values = parent(run).iter_results(result=Store(stuck_from_five), workers=2)
    assert [next(values) for _ in range(5)] == [0, 1, 2, 3, 4]
    may_go_on.set()
    assert list(values) == [5, 6, 7, 8, 9, 10, 11]


def test_results_are_not_read_much_ahead_of_use(backend: Backend, run: DrivenRun) -> None:
    map_over_many(backend, run, "inc-1", 1_600)
    store = Store()
    values = parent(run).iter_results(result=store, workers=2)
    assert next(values) == 0
    del values
    assert len(store.read_numbers) <= 2 * 2 * results.LARGEST_CHUNK


@pytest.mark.parametrize("children", [10, 600])
def test_values_before_a_failure_are_had_and_then_the_failure(
    backend: Backend, run: DrivenRun, tmp_path: Path, children: int
) -> None:
    bad = children // 2 + 3
    gone = Success(result=LocalResult(dir=str(tmp_path), location="gone"))
    map_over_many(backend, run, "inc-1", children, {bad: gone})
    values = parent(run).iter_results(workers=2)
    assert [next(values) for _ in range(bad)] == list(range(bad))
    with pytest.raises(errors.ResultMissing, match=rf"inc-1\[{bad}\]"):
        next(values)


def test_the_first_failure_in_map_order_is_reported_whichever_came_first(backend: Backend, run: DrivenRun) -> None:
    map_over_many(backend, run, "inc-1", 8)
    has_failed = threading.Event()

    def fails(number: int) -> None:
        if number == 5:
            has_failed.set()
            raise OSError("later")
        if number == 2:
            assert has_failed.wait(GIVE_UP)
            raise OSError("earlier")

    with pytest.raises(errors.ResultUnreadable, match=r"inc-1\[2\]") as raised:
        parent(run).get_result(result=Store(fails), workers=8)
    assert str(raised.value.__cause__) == "earlier"


@pytest.mark.parametrize("then", [Running(), None], ids=["unfinished", "missing"])
def test_a_failure_is_reported_rather_than_a_later_child_that_is_not_there(
    backend: Backend, run: DrivenRun, then: Any
) -> None:
    map_over_many(backend, run, "inc-1", 8, {3: Failed("x"), 5: then}, missing=[] if then else [5])
    with pytest.raises(errors.NoResult, match=r"inc-1\[3\]"):
        parent(run).get_result()


def test_a_child_that_has_not_finished_is_reported_when_its_turn_has_come(backend: Backend, run: DrivenRun) -> None:
    map_over_many(backend, run, "inc-1", 8, {5: Running()})
    values = parent(run).iter_results(if_failed=None, if_skipped=None)
    assert [next(values) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(errors.NotFinished, match=r"inc-1\[5\].*Running"):
        next(values)


def broken_file(directory: Path) -> State:
    state = returned([1], LocalResult(dir=str(directory), location="broken"))
    (directory / "broken").write_bytes(b"")
    return state


@pytest.mark.parametrize(
    ("state", "error", "location"),
    [
        (
            lambda directory: Success(result=LocalResult(dir=str(directory), location="gone")),
            errors.ResultMissing,
            "gone",
        ),
        (broken_file, errors.ResultCorrupt, "broken"),
    ],
)
def test_a_failure_names_slug_map_index_result_type_and_location(
    backend: Backend, run: DrivenRun, tmp_path: Path, state: Any, error: Any, location: str
) -> None:
    map_over_many(backend, run, "inc-1", 3, {1: state(tmp_path)})
    with pytest.raises(error, match=rf"task run 'inc-1\[1\]' of flow run {run.id}.* LocalResult .*{location}'"):
        parent(run).get_result()


UNSUCCESSFUL = [Failed("x"), Failed("x", result=KeyError("x")), TriggerFailed("x"), TimedOut("x"), Cancelled("x")]


@pytest.mark.parametrize("state", UNSUCCESSFUL, ids=repr)
@pytest.mark.parametrize("value", [None, "a value", KeyError])
def test_failed_children_have_the_value_that_the_caller_wants(
    backend: Backend, run: DrivenRun, state: State, value: Any
) -> None:
    map_over_many(backend, run, "inc-1", 3, {1: state})
    assert parent(run).get_result(if_failed=value) == [0, value, 2]
    assert list(parent(run).iter_results(if_failed=value)) == [0, value, 2]


@pytest.mark.parametrize("value", [None, "a value"])
def test_skipped_children_have_the_value_that_the_caller_wants(backend: Backend, run: DrivenRun, value: Any) -> None:
    map_over_many(backend, run, "inc-1", 3, {1: Skipped("x")})
    assert parent(run).get_result(if_skipped=value) == [0, value, 2]
    assert list(parent(run).iter_results(if_skipped=value)) == [0, value, 2]


def test_failed_and_skipped_children_can_be_told_apart(backend: Backend, run: DrivenRun) -> None:
    map_over_many(backend, run, "inc-1", 4, {0: Skipped("x"), 2: Failed("x")})
    assert parent(run).get_result(if_failed="failed", if_skipped="skipped") == ["skipped", 1, "failed", 3]


@pytest.mark.parametrize(
    ("state", "given"),
    [
        (Failed("Disk full."), {}),
        (Failed("Disk full."), {"if_skipped": None}),
        (Skipped("Disk full."), {}),
        (Skipped("Disk full."), {"if_failed": None}),
        (Skipped("Disk full."), {"if_failed": None, "if_skipped": results.RAISE}),
    ],
    ids=str,
)
def test_children_without_a_value_are_an_error_unless_the_caller_has_one_for_them(
    backend: Backend, run: DrivenRun, state: State, given: Dict[str, Any]
) -> None:
    map_over_many(backend, run, "inc-1", 3, {1: state})
    with pytest.raises(errors.NoResult, match=r"inc-1\[1\].*Disk full"):
        parent(run).get_result(**given)


def test_a_result_that_cannot_be_read_is_an_error_whatever_failed_children_are(
    backend: Backend, run: DrivenRun, tmp_path: Path
) -> None:
    gone = Success(result=LocalResult(dir=str(tmp_path), location="gone"))
    map_over_many(backend, run, "inc-1", 3, {1: gone})
    with pytest.raises(errors.ResultMissing):
        parent(run).get_result(if_failed=None, if_skipped=None)


def test_values_for_failed_children_are_not_kept(backend: Backend, run: DrivenRun) -> None:
    map_over_many(backend, run, "inc-1", 3, {1: Failed("x")})
    view = parent(run)
    assert view.get_result(if_failed=7) == [0, 7, 2]
    assert view.get_result(if_failed=8) == [0, 8, 2]
    with pytest.raises(errors.NoResult):
        view.get_result()


def test_results_are_read_with_the_secrets_of_the_caller(backend: Backend, run: DrivenRun) -> None:
    map_over_many(backend, run, "inc-1", 3)
    seen: List[Any] = []
    with prefect.context(secrets={"PASSWORD": "open sesame"}):
        parent(run).get_result(result=Store(lambda number: seen.append(prefect.context.secrets["PASSWORD"])))
    assert seen == ["open sesame"] * 3


CALLS = {"get_result": TaskRunView.get_result, "iter_results": TaskRunView.iter_results}
calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@calls
@pytest.mark.parametrize("workers", [0, -1])
def test_at_least_one_worker_is_needed(backend: Backend, run: DrivenRun, call: Any, workers: int) -> None:
    map_over_many(backend, run, "inc-1", 3)
    with pytest.raises(errors.InvalidArgument, match=f"`workers` is {workers}"):
        call(parent(run), workers=workers)


@calls
@pytest.mark.parametrize("given", [{"workers": "3"}, {"workers": 1.5}, {"workers": True}, {"workers": None}])
def test_workers_are_a_number(backend: Backend, run: DrivenRun, call: Any, given: Any) -> None:
    map_over_many(backend, run, "inc-1", 3)
    with pytest.raises(errors.WrongType, match="`workers`"):
        call(parent(run), **given)


@pytest.mark.parametrize("iterate", [TaskRunView.iter_results, TaskRunView.iter_mapped])
def test_only_a_mapped_task_run_has_children_to_iterate(run: DrivenRun, iterate: Any) -> None:
    run.task_returns("inc-2", 6)
    with pytest.raises(errors.NotMapped, match=r"inc-2.* is not a mapped task"):
        iterate(TaskRunView.from_task_slug("inc-2", run.id))
