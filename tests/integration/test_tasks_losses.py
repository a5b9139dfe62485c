"""Which results would be lost if the process of a flow run left it while one of its tasks waits."""

from pathlib import Path
from typing import Any, Iterator, Optional

import pytest
from driven import DrivenRun, NewUrl, mapped, shared_backend
from prefect import Flow, task
from prefect.engine.result import Result
from prefect.engine.results import LocalResult
from prefect.engine.state import Failed, Retrying, Running, Scheduled, Success

from prefect_taskrun_tasks.server import Backend
from prefect_taskrun_tasks.tasks import losses

HERE = LocalResult()


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        yield backend


@task
def wait(value: Any = None) -> Any:
    return value


@task
def use(value: Any) -> Any:
    return value


@task(checkpoint=False)
def in_memory() -> str:
    return "only here"


@task(checkpoint=False)
def in_memory_after(value: Any) -> Any:
    return value


@task(result=Result())
def nowhere() -> str:
    return "only here"


@task
def kept() -> str:
    return "in a file"


def lost(run: DrivenRun, slug: str = "wait-1", is_mapped: bool = False) -> Optional[str]:
    """What would be lost while a task waits."""
    task_runs = run.client.graphql(
        "query($where: task_run_bool_exp) { task_run(where: $where) { task_id } }",
        variables={"where": {"flow_run_id": {"_eq": run.id}, "task": {"slug": {"_eq": slug}}}},
    )
    return losses.without_process(run.flow_id, run.id, task_runs.data.task_run[0].task_id, is_mapped)


@pytest.mark.parametrize("produce", [in_memory, nowhere])
def test_what_is_needed_after_the_wait_has_to_be_somewhere(produce: Any) -> None:
    with Flow(f"needed-{produce.name}", result=HERE) as flow:
        use(use(wait()), upstream_tasks=[use([produce(), 1])])
    # the list, which nothing keeps, is made of it before the wait is over
    run = DrivenRun(flow).enter(Running())
    assert lost(run) is None

    with Flow(f"needed-after-{produce.name}", result=HERE) as flow:
        use([wait(), produce()])
    slug = f"{produce.name}-1"
    run = DrivenRun(flow).enter(Running())
    nowhere = f"what {slug} returns is in no place"
    # that runs in the same process, or in the next one, before the wait is over
    assert nowhere in str(lost(run))
    # or again
    for state in (Running(), Success(result=Result("only here")), Failed(), Scheduled(), Retrying()):
        run.task_enters(slug, state)
        assert (nowhere in str(lost(run))) != isinstance(state, Failed)


def test_what_is_kept_is_not_lost() -> None:
    with Flow("kept", result=HERE) as flow:
        use([wait(), kept()])
    run = DrivenRun(flow).enter(Running())
    assert lost(run) is None
    run.task_returns("kept-1", "in a file")
    assert lost(run) is None
    # which is None
    run.task_enters("kept-1", Success(result=HERE.from_value(None)))
    assert lost(run) is None


def test_what_the_wait_itself_has_been_given_is_read_again() -> None:
    with Flow("given", result=HERE) as flow:
        wait(in_memory())
    run = DrivenRun(flow).enter(Running())
    run.task_enters("in_memory-1", Success(result=Result("only here")))
    assert "what in_memory-1 returns" in str(lost(run))


def test_what_only_runs_after_the_wait_is_not_lost() -> None:
    with Flow("afterwards", result=HERE) as flow:
        use(in_memory_after(wait()))
    assert lost(DrivenRun(flow).enter(Running())) is None


def test_what_is_needed_long_after_the_wait_counts() -> None:
    with Flow("long-after", result=HERE) as flow:
        last = use(use(use(wait())))
        in_memory_after.copy().bind(in_memory(), upstream_tasks=[last])
    assert "what in_memory-1 returns" in str(lost(DrivenRun(flow).enter(Running())))


def test_what_is_only_done_before_is_not_needed() -> None:
    with Flow("only-before", result=HERE) as flow:
        use(wait(), upstream_tasks=[in_memory()])
        wait(upstream_tasks=[in_memory()])
    assert lost(DrivenRun(flow).enter(Running())) is None


@pytest.mark.parametrize("checkpoint", [True, False])
def test_what_other_children_of_a_mapped_wait_return_has_to_be_somewhere(checkpoint: bool) -> None:
    with Flow(f"mapped-{checkpoint}", result=HERE) as flow:
        use(wait.copy(checkpoint=checkpoint).map([1, 2]))
        wait.copy(checkpoint=False).map([1, 2])
    run = DrivenRun(flow).enter(Running())
    found = lost(run, "wait-1", is_mapped=True)
    assert (found is None) if checkpoint else ("what wait-1 returns" in str(found))
    # which nothing uses
    assert lost(run, "wait-2", is_mapped=True) is None
    run.task_returns("wait-1", 1, map_index=0)
    run.task_enters("wait-1", Success(result=Result(2)), map_index=1)
    run.task_enters("wait-1", mapped(2))
    found = lost(run, "wait-1", is_mapped=True)
    assert (found is None) if checkpoint else ("what wait-1[1] returns" in str(found))


def test_a_flow_that_is_not_to_be_loaded_is_not_left() -> None:
    with Flow("gone", result=HERE) as flow:
        use([wait(), kept()])
    run = DrivenRun(flow).enter(Running())
    Path(flow.storage.flows[flow.name]).unlink()
    assert "what kept-1 returns is not known" in str(lost(run))
    run.task_returns("kept-1", "in a file")
    assert lost(run) is None
