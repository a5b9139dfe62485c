"""One child flow run for each of several parameter sets."""

import threading
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List

import cloudpickle
import prefect
import pytest
from driven import DrivenRun, NewUrl, register, shared_backend
from prefect import Flow, Parameter, task
from prefect.engine import signals
from prefect.engine.state import Cancelled, Cancelling, Failed, Running, State, Success

from prefect_taskrun_tasks import FlowRunView, MapFlowRun, api, errors, map_flow_run
from prefect_taskrun_tasks.server import Backend


@task
def square(x: int) -> int:
    return x * x


with Flow("square") as child_flow:
    square(Parameter("x"))


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        yield backend


@pytest.fixture
def flow_id(backend: Backend) -> str:
    return register(child_flow)


class Drive:
    """What an agent and its flow runs do: takes children from the queue, and ends them as a test wants it."""

    def __init__(self, flow_id: str, end: Callable[[int], State]) -> None:
        self._flow_id, self._end = flow_id, end
        self._stopped = threading.Event()
        #: parameters in the order in which children were taken
        self.taken: List[int] = []
        #: children that were unfinished at a time, at most
        self.most = 0

    def scheduled(self) -> List[Any]:
        query = (
            "query($where: flow_run_bool_exp) { flow_run(where: $where, order_by: {created: asc}) { id parameters } }"
        )
        where = {"flow_id": {"_eq": self._flow_id}, "state": {"_eq": "Scheduled"}}
        found: List[Any] = prefect.Client().graphql(query, variables={"where": where}).data.flow_run
        return found

    def run(self) -> None:
        while not self._stopped.wait(0.02):
            batch = self.scheduled()
            self.most = max(self.most, len(batch))
            for row in batch:
                x = row.parameters["x"]
                self.taken.append(x)
                child = DrivenRun(child_flow, self._flow_id, row.id).enter(Running())
                state = self._end(x)
                if state.is_successful():
                    child.task_returns("square-1", x * x)
                elif state.is_finished():
                    child.task_enters("square-1", Failed("no square"))
                else:
                    # it goes on; to say so again might come after it was cancelled
                    continue
                child.enter(state)

    @contextmanager
    def driving(self) -> "Iterator[Drive]":
        context = prefect.context.to_dict()

        def run() -> None:
            with prefect.context(context):
                self.run()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            thread.join()


def sets(*values: int) -> List[Dict[str, int]]:
    return [{"x": value} for value in values]


def ends_well(x: int) -> State:
    return Success()


def fails_for(*values: int) -> Callable[[int], State]:
    return lambda x: Failed("Not this one.") if x in values else Success()


def test_results_come_in_the_order_of_the_parameters(flow_id: str) -> None:
    with Drive(flow_id, ends_well).driving() as drive:
        found = map_flow_run.run(
            flow_name="square", parameters=sets(3, 1, 2), task_slug="square-1", limit=2, timeout=60
        )
    assert found == [9, 1, 4]
    assert sorted(drive.taken) == [1, 2, 3]


def test_without_a_task_there_are_views_of_the_children(flow_id: str) -> None:
    with Drive(flow_id, ends_well).driving():
        found = map_flow_run.run(flow_id=flow_id, parameters=sets(1, 2), timeout=60)
    assert all(isinstance(each, FlowRunView) and each.state.is_successful() for each in found)
    assert [each.parameters["x"] for each in found] == [1, 2]


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_than_the_limit_are_unfinished_at_a_time(flow_id: str, limit: int) -> None:
    with Drive(flow_id, ends_well).driving() as drive:
        map_flow_run.run(flow_name="square", parameters=sets(*range(7)), limit=limit, timeout=60)
    assert drive.most <= limit
    assert len(drive.taken) == 7


def test_the_first_failure_ends_it_and_cancels_the_others(flow_id: str) -> None:
    def end(x: int) -> State:
        return {1: Failed("Disk full."), 2: Running("still")}.get(x, Success())

    parameters = sets(2, 1, *range(3, 30))
    with Drive(flow_id, end).driving() as drive, pytest.raises(signals.FAIL) as raised:
        map_flow_run.run(flow_name="square", parameters=parameters, limit=2, timeout=60)
    told = str(raised.value.state.message)
    assert "Child 1 of 29 failed" in told
    assert "Disk full." in told
    assert "square-1 ended in state Failed: no square" in told
    assert "/flow-run/" in told
    # which of those that were created are unfinished is left to none
    assert len(drive.taken) < 29
    query = "query($where: flow_run_bool_exp) { flow_run(where: $where) { state parameters } }"
    where = {"flow_id": {"_eq": flow_id}}
    states = {row.state for row in prefect.Client().graphql(query, variables={"where": where}).data.flow_run}
    assert states <= {"Failed", "Cancelling", "Cancelled"}


def test_no_more_are_created_once_the_flow_run_is_being_cancelled(
    flow_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a backend that does not know of children, so that the waits have to see to it
    monkeypatch.setattr("prefect_taskrun_tasks.server.rules.states._cancel_children", lambda tx, parent: None)
    parent = DrivenRun(child_flow, flow_id, parameters={"x": 0}).enter(Running())

    def end(x: int) -> State:
        parent.enter(Cancelling())
        return Running("until it is cancelled")

    context = {"flow_run_id": parent.id, "task_run_id": "a-cancelled-mapping", "task_run_version": 1}
    with Drive(flow_id, end).driving() as drive, prefect.context(**context), pytest.raises(signals.FAIL) as raised:
        _ending_cancelled(
            parent, flow_name="square", parameters=sets(*range(9)), limit=1, on_failure="collect", timeout=60
        )
    assert "8 of 9 children were not created" in str(raised.value.state.message)
    assert drive.taken == [0]


def _ending_cancelled(parent: DrivenRun, **options: Any) -> None:
    """Runs the children, which end Cancelled some time after they have been asked to."""
    over = threading.Event()
    context = prefect.context.to_dict()

    def end() -> None:
        with prefect.context(context):
            while not over.wait(0.05):
                for child in FlowRunView.from_flow_run_id(parent.id).get_children():
                    if isinstance(child.state, Cancelling):
                        prefect.Client().set_flow_run_state(child.flow_run_id, Cancelled())

    thread = threading.Thread(target=end)
    thread.start()
    try:
        map_flow_run.run(**options)
    finally:
        over.set()
        thread.join()


def test_failures_are_collected_in_their_places(flow_id: str) -> None:
    with Drive(flow_id, fails_for(1)).driving():
        found = map_flow_run.run(
            flow_name="square", parameters=sets(0, 1, 2), on_failure="collect", task_slug="square-1", timeout=60
        )
    assert [found[0], found[2]] == [0, 4]
    assert isinstance(found[1], errors.ChildFailed)
    assert "Not this one." in str(found[1])
    # as the result of a task it is pickled
    again = cloudpickle.loads(cloudpickle.dumps(found[1]))
    assert str(again) == str(found[1])
    assert again.flow_run.flow_run_id == found[1].flow_run.flow_run_id


def test_no_parameters_are_no_children(flow_id: str) -> None:
    assert map_flow_run.run(flow_name="square", parameters=[], task_slug="square-1") == []


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"limit": 0}, errors.InvalidArgument, "`limit` is 0"),
        ({"limit": "many"}, errors.WrongType, "`limit`"),
        ({"on_failure": "cry"}, errors.InvalidArgument, "'fail_fast', 'collect'"),
        ({"parent_close_policy": "cry"}, errors.InvalidArgument, "'abandon', 'cancel'"),
        ({"on_parent_restart": "cry"}, errors.InvalidArgument, "'rerun_failed', 'reuse'"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: Any, error: Any, told: str) -> None:
    with pytest.raises(error, match=told):
        MapFlowRun(**given)
    with pytest.raises(error, match=told):
        map_flow_run.run(flow_name="square", parameters=[], **given)


def test_parameters_that_one_child_does_not_know_are_refused_before_there_is_any(flow_id: str) -> None:
    with pytest.raises(errors.WrongParameters, match="'y'"):
        map_flow_run.run(flow_name="square", parameters=[{"x": 1}, {"y": 1}])
    assert Drive(flow_id, ends_well).scheduled() == []


def test_each_call_and_each_round_of_a_loop_has_children_of_its_own(flow_id: str) -> None:
    parent = DrivenRun(child_flow, flow_id, parameters={"x": 0}).enter(Running())
    context = {"task_run_id": "maps-often", "task_run_version": 1, "flow_run_id": parent.id}
    with Drive(flow_id, ends_well).driving(), prefect.context(context):
        for numbers in ((1, 2), (3, 4)):
            squares = map_flow_run.run(flow_name="square", parameters=sets(*numbers), task_slug="square-1", timeout=60)
            assert squares == [number * number for number in numbers]
        [first] = map_flow_run.run(flow_name="square", parameters=sets(7), timeout=60)
        with prefect.context(task_loop_count=2):
            [second] = map_flow_run.run(flow_name="square", parameters=sets(7), timeout=60)
    assert first.flow_run_id != second.flow_run_id


def test_children_that_take_too_long_go_on_and_a_retry_finds_them(flow_id: str) -> None:
    context = {"flow_run_id": DrivenRun(child_flow, flow_id, parameters={"x": 0}).enter(Running()).id}
    with prefect.context(task_run_id="a-mapping", task_run_version=1, **context):
        with pytest.raises(errors.WaitTimeout):
            map_flow_run.run(flow_name="square", parameters=sets(1, 2), timeout=0.5)
        with Drive(flow_id, ends_well).driving() as drive, prefect.context(task_run_count=2):
            found = map_flow_run.run(flow_name="square", parameters=sets(1, 2), timeout=60)
    assert sorted(drive.taken) == [1, 2]
    for index, child in enumerate(found):
        [row] = api.find("flow_run", {"id": {"_eq": child.flow_run_id}}, fields="idempotency_key")
        assert row["idempotency_key"].startswith(f"a-mapping-{index}-")
    assert all(child.lineage.parent_close_policy == "cancel" for child in found)


def test_it_reads_in_a_flow_as_creating_does(flow_id: str) -> None:
    with Flow("fan-out") as flow:
        squares = map_flow_run(flow_name="square", parameters=sets(1, 2, 3), task_slug="square-1", limit=2)
    with Drive(flow_id, ends_well).driving():
        state = flow.run()
    assert state.result[squares].result == [1, 4, 9]
