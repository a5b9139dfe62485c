"""Task runs that wait for approval, and get it."""

from typing import Iterator, List

import pendulum
import pytest
from driven import DrivenRun, NewUrl, mapped, register, shared_backend
from prefect import Flow, task
from prefect.engine.state import Cancelled, Paused, Resume, Running, Scheduled
from prefect.triggers import manual_only

from prefect_taskrun_tasks import TaskRunView, approve, awaiting_approval
from prefect_taskrun_tasks.errors import InvalidArgument
from prefect_taskrun_tasks.server import Backend


@task
def one() -> int:
    return 1


@task(trigger=manual_only)
def deploy(x: int) -> int:
    return x + 1


with Flow("approval") as flow:
    deploy(one())


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


def _slugs(task_runs: List[TaskRunView]) -> List[str]:
    return [task_run.task_slug for task_run in task_runs]


def test_a_task_run_that_is_approved_goes_on(run: DrivenRun) -> None:
    # the runner that agents start
    assert run.execute().is_running()
    [waiting] = awaiting_approval(run.id)
    assert waiting.task_slug == "deploy-1"
    approve(waiting)
    assert awaiting_approval(run.id) == []
    assert run.execute().is_successful()


def test_what_waits_for_something_else_is_not_approved(run: DrivenRun) -> None:
    run.enter(Running())
    later = pendulum.now("utc").add(hours=1)
    run.task_enters("deploy-1", Paused(start_time=later))
    run.task_enters("one-1", Scheduled(start_time=later))
    assert awaiting_approval(run.id) == []


def test_a_flow_run_that_has_finished_waits_for_no_approval(run: DrivenRun) -> None:
    run.enter(Running())
    run.task_enters("deploy-1", Paused())
    assert _slugs(awaiting_approval(run.id)) == ["deploy-1"]
    run.enter(Cancelled())
    assert awaiting_approval(run.id) == []


def test_a_task_run_that_does_not_wait_any_more_is_not_approved(run: DrivenRun) -> None:
    run.enter(Running())
    run.task_enters("deploy-1", Paused())
    [waiting] = awaiting_approval(run.id)
    run.task_enters("deploy-1", Running())
    with pytest.raises(InvalidArgument, match=r"'deploy-1'.* does not wait for approval"):
        approve(waiting)
    assert TaskRunView.from_task_run_id(waiting.task_run_id).state.is_running()


def test_each_child_of_a_mapped_task_waits_by_itself(run: DrivenRun) -> None:
    run.enter(Running())
    for index in range(3):
        run.task_enters("deploy-1", Paused(), index)
    run.task_enters("deploy-1", mapped(3))
    waiting = sorted(awaiting_approval(run.id), key=lambda task_run: task_run.map_index)
    assert [task_run.map_index for task_run in waiting] == [0, 1, 2]
    approve(waiting[1])
    assert sorted(task_run.map_index for task_run in awaiting_approval(run.id)) == [0, 2]
    assert isinstance(TaskRunView.from_task_run_id(waiting[1].task_run_id).state, Resume)
