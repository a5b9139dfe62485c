"""What is done with a flow run whose process has ended, and what is left alone."""

from collections import Counter
from datetime import timedelta
from typing import Iterator, Optional

import pendulum
import pytest
from driven import DrivenRun, NewUrl, register, shared_backend
from prefect import Flow, task
from prefect.engine.state import (
    Cancelling,
    Failed,
    Paused,
    Resume,
    Retrying,
    Running,
    Scheduled,
    State,
    Submitted,
    Success,
)

from prefect_taskrun_tasks import FlowRunView
from prefect_taskrun_tasks.agent.process_end import RESTARTS, LostFlowRun
from prefect_taskrun_tasks.server import Backend

REASON = "The process was killed."


@task
def once() -> None:
    pass


@task(max_retries=2, retry_delay=timedelta(minutes=30))
def thrice() -> None:
    pass


with Flow("process-end") as flow:
    once()
    thrice()


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        yield backend


@pytest.fixture(scope="module")
def flow_id(backend: Backend) -> str:
    return register(flow)


@pytest.fixture
def run(flow_id: str) -> DrivenRun:
    return DrivenRun(flow, flow_id)


def _settle(run: DrivenRun, restarts: "Optional[Counter[str]]" = None) -> str:
    lost = LostFlowRun.find(run.id, "an agent")
    assert lost is not None
    return lost.settle(REASON, Counter() if restarts is None else restarts)


def _state(run: DrivenRun, slug: Optional[str] = None) -> State:
    flow_run = FlowRunView.from_flow_run_id(run.id)
    state: State = flow_run.get_task_run(slug).state if slug else flow_run.state
    return state


def test_a_task_that_was_running_fails_with_the_reason_and_its_flow_run_is_started_again(run: DrivenRun) -> None:
    run.enter(Running())
    run.task_enters("once-1", Running())
    done = _settle(run)
    assert _state(run, "once-1") == Failed(REASON)
    assert _state(run, "once-1").message == REASON
    assert isinstance(_state(run), Scheduled)
    assert "1 failed" in done
    assert "started again" in done


def test_a_task_with_retries_left_is_retried_after_its_delay(run: DrivenRun) -> None:
    run.enter(Running())
    run.task_enters("thrice-1", Retrying(run_count=1))
    run.task_enters("thrice-1", Running())
    before = pendulum.now("utc")
    done = _settle(run)
    state = _state(run, "thrice-1")
    assert isinstance(state, Retrying)
    assert state.run_count == 2
    assert timedelta(minutes=30) <= state.start_time - before < timedelta(minutes=31)
    # it brings its flow run back
    assert isinstance(_state(run), Running)
    assert "1 will be retried" in done


def test_a_task_without_a_retry_delay_is_due_at_once() -> None:
    with Flow("process-end-at-once") as at_once:
        task(lambda: None, name="again", max_retries=1, retry_delay=timedelta(0))()
    run = DrivenRun(at_once).enter(Running())
    run.task_enters("again-1", Running())
    _settle(run)
    # long enough ago for Prefect's agents to take it up
    assert _state(run, "again-1").start_time < pendulum.now("utc").subtract(seconds=3)


def test_a_task_without_retries_left_fails(run: DrivenRun) -> None:
    run.enter(Running())
    for count in (1, 2):
        run.task_enters("thrice-1", Retrying(run_count=count))
    run.task_enters("thrice-1", Running())
    _settle(run)
    assert isinstance(_state(run, "thrice-1"), Failed)


@pytest.mark.parametrize("state", [Submitted(), Running()], ids=["before its tasks", "between two tasks"])
def test_a_flow_run_without_a_running_task_is_started_again_three_times(run: DrivenRun, state: State) -> None:
    restarts: Counter[str] = Counter()
    for attempt in range(1, RESTARTS + 1):
        run.enter(state)
        assert f"attempt {attempt} of 3" in _settle(run, restarts)
        assert isinstance(_state(run), Scheduled)
    run.enter(state)
    _settle(run, restarts)
    assert _state(run).message == f"{REASON} It was started again 3 times."
    assert isinstance(_state(run), Failed)


def test_a_flow_run_that_must_not_be_started_again_fails(run: DrivenRun) -> None:
    change = (
        "mutation($input: disable_flow_lazarus_process_input!) {disable_flow_lazarus_process(input: $input) {success}}"
    )
    run.client.graphql(change, variables={"input": {"flow_id": run.flow_id}})
    try:
        run.enter(Running())
        _settle(run)
    finally:
        run.client.graphql(change.replace("disable", "enable"), variables={"input": {"flow_id": run.flow_id}})
    assert isinstance(_state(run), Failed)
    assert _state(run).message == REASON


def test_a_task_that_the_process_was_about_to_execute_again_is_not_forgotten(run: DrivenRun) -> None:
    run.enter(Running())
    run.task_enters("once-1", Submitted(state=Scheduled()))
    run.task_enters("thrice-1", Paused())
    _settle(run)
    assert isinstance(_state(run), Scheduled)


def test_a_flow_run_that_was_being_cancelled_is_cancelled(run: DrivenRun) -> None:
    run.enter(Running())
    run.task_enters("once-1", Running())
    run.enter(Cancelling())
    _settle(run)
    assert type(_state(run)).__name__ == type(_state(run, "once-1")).__name__ == "Cancelled"


@pytest.mark.parametrize("waiting", [Paused(), Resume(), Retrying(), Scheduled()], ids=lambda it: type(it).__name__)
def test_a_flow_run_that_waits_without_a_process_is_left_alone(run: DrivenRun, waiting: State) -> None:
    run.enter(Running())
    run.task_enters("once-1", waiting)
    assert LostFlowRun.find(run.id, "an agent") is None


@pytest.mark.parametrize("state", [Success(), Failed(), Scheduled()], ids=lambda it: type(it).__name__)
def test_a_flow_run_that_has_finished_or_is_scheduled_is_left_alone(run: DrivenRun, state: State) -> None:
    run.enter(Running())
    run.enter(state)
    assert LostFlowRun.find(run.id, "an agent") is None


def test_a_flow_run_that_another_agent_has_taken_is_left_alone(run: DrivenRun) -> None:
    other = run.client.register_agent("LocalAgent", "other", [])
    run.client.attach_headers({"X-PREFECT-AGENT-ID": other})
    run.enter(Submitted())
    run.enter(Running())
    assert LostFlowRun.find(run.id, "an agent") is None
    assert LostFlowRun.find(run.id, other) is not None
