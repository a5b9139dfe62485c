"""Which results would be lost if the process of a flow run left it while one of its tasks waits."""

from pathlib import Path
from typing import Any, Iterator, Optional

import pytest
from driven import DrivenRun, NewUrl, mapped, shared_backend
from prefect import Flow, flatten, resource_manager, task, unmapped
from prefect.engine.result import Result
from prefect.engine.results import LocalResult
from prefect.engine.state import Failed, Pending, Retrying, Running, Scheduled, Success, TimedOut
from prefect.executors import DaskExecutor, LocalDaskExecutor, LocalExecutor
from prefect.tasks.secrets import PrefectSecret
from prefect.triggers import all_finished, any_failed, not_all_skipped, some_failed

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
def use(value: Any, other: Any = None) -> Any:
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
    return losses.without_process(run.id, slug, is_mapped)


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


def test_two_edges_between_the_same_tasks_are_two() -> None:
    """Of which the Prefect API keeps one."""
    with Flow("two-edges", result=HERE) as flow:
        produced = in_memory()
        use(produced, upstream_tasks=[produced, wait()])
    assert "what in_memory-1 returns" in str(lost(DrivenRun(flow).enter(Running())))


def test_what_is_only_counted_to_be_mapped_over_is_used() -> None:
    with Flow("counted", result=HERE) as flow:
        use.map([wait()], upstream_tasks=[in_memory()])
    assert "what in_memory-1 returns" in str(lost(DrivenRun(flow).enter(Running())))


@pytest.mark.parametrize("trigger", [all_finished, any_failed, some_failed(at_least=1), not_all_skipped])
def test_what_a_task_raises_is_lost_where_it_is_used(trigger: Any) -> None:
    with Flow(f"raised-{trigger}", result=HERE) as flow:
        waited = wait()
        use.copy(trigger=trigger)([waited, 1], upstream_tasks=[kept()])
        use.copy(trigger=trigger)(kept(), upstream_tasks=[waited])
    run = DrivenRun(flow).enter(Running())
    told = "if kept-2 fails, what it raises is given to a task after the wait"
    for state in (Pending(), Running(), Failed(), TimedOut()):
        run.task_enters("kept-2", state)
        found = lost(run)
        # a task with the other trigger does not run then
        assert (found is None) if trigger is not_all_skipped else (told in str(found))
    run.task_returns("kept-2", "in a file")
    assert lost(run) is None


def test_a_secret_which_each_process_asks_for_again_is_not_lost() -> None:
    with Flow("again", result=HERE) as flow:
        use([wait(), PrefectSecret("SECRET")])
    assert lost(DrivenRun(flow).enter(Running())) is None


def test_what_is_set_up_by_each_process_would_not_be_cleaned_up() -> None:
    @resource_manager
    class Resource:
        def __init__(self, value: Any = None) -> None: ...

        def setup(self) -> int:
            return 1

        def cleanup(self, value: int) -> None: ...

    with Flow("set-up", result=HERE) as flow:
        with Resource() as resource:
            waited = wait()
            use([resource, waited])
        with Resource(waited) as later:
            use(later)
    assert "would set up another resource" in str(lost(DrivenRun(flow).enter(Running())))

    with Flow("set-up-afterwards", result=HERE) as flow:
        waited = wait()
        with Resource(waited) as later:
            use(later, waited)
    assert lost(DrivenRun(flow).enter(Running())) is None


def test_a_flow_run_that_its_own_handler_may_end_is_not_left() -> None:
    """Prefect calls it also when the process leaves tasks behind."""
    with Flow("handled", result=HERE, terminal_state_handler=lambda flow, state, reference: Failed()) as flow:
        wait()
    assert "terminal_state_handler" in str(lost(DrivenRun(flow).enter(Running())))


def test_what_a_state_handler_gives_instead_of_a_failure_is_kept_nowhere() -> None:
    with Flow("instead", result=HERE) as flow:
        use(wait(), kept())
    run = DrivenRun(flow).enter(Running())
    run.task_enters("kept-1", Success("by default", result=Result(100)))
    assert "what kept-1 returns" in str(lost(run))


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
    found = lost(run, "wait-1", is_mapped=True)
    assert (found is None) if checkpoint else ("what wait-1 returns" in str(found))
    # a None, which is not written
    run.task_enters("wait-1", Success(result=HERE), map_index=1)
    run.task_enters("wait-1", mapped(2))
    found = lost(run, "wait-1", is_mapped=True)
    assert (found is None) if checkpoint else ("what wait-1[1] returns" in str(found))


@pytest.mark.parametrize("is_flat", [True, False])
def test_what_comes_after_other_children_of_a_mapped_wait_may_be_there_before(is_flat: bool) -> None:
    with Flow(f"mapped-on-{is_flat}", result=HERE) as flow:
        waits = wait.map([1, 2])
        lost_ones = in_memory_after.map(waits)
        use(use.map(flatten(lost_ones) if is_flat else lost_ones))
        # which only runs after all of them
        use(in_memory_after(use(waits)))
    run = DrivenRun(flow).enter(Running())
    found = lost(run, is_mapped=True)
    # a child is mapped on in the process that has run it
    assert ("would not flatten what in_memory_after-1" in str(found)) if is_flat else (found is None)


def test_what_is_collected_of_what_comes_after_a_mapped_wait_has_to_be_somewhere() -> None:
    with Flow("collected", result=HERE) as flow:
        use(in_memory_after.map(wait.map([1, 2])))
    run = DrivenRun(flow).enter(Running())
    assert "what in_memory_after-1 returns" in str(lost(run, is_mapped=True))
    run.task_enters("in_memory_after-1", Success(result=Result(1)), map_index=1)
    run.task_enters("in_memory_after-1", mapped(2))
    assert "what in_memory_after-1[1] returns" in str(lost(run, is_mapped=True))


def test_a_flow_that_is_not_to_be_loaded_is_not_left() -> None:
    with Flow("gone", result=HERE) as flow:
        use([wait(), kept()])
    run = DrivenRun(flow).enter(Running())
    Path(flow.storage.flows[flow.name]).unlink()
    assert "is not known, as the flow could not be loaded" in str(lost(run))


@pytest.mark.parametrize("is_mapped", [True, False])
def test_what_is_flattened_would_not_be(is_mapped: bool) -> None:
    """Prefect flattens what it has in memory, before it reads what is kept."""
    with Flow(f"flat-{is_mapped}", result=HERE) as flow:
        if is_mapped:
            use.map(flatten(kept()), unmapped(wait()))
        else:
            use(flatten(kept()), upstream_tasks=[wait()])
    run = DrivenRun(flow).enter(Running())
    run.task_returns("kept-1", [[1], [2, 3]])
    assert "would not flatten what kept-1 returns for use-1" in str(lost(run))

    with Flow(f"flat-{is_mapped}-later", result=HERE) as flow:
        use(flatten(wait()))
        use.map(flatten(wait()))
    assert lost(DrivenRun(flow).enter(Running())) is None


def test_other_children_of_a_mapped_wait_would_not_be_flattened() -> None:
    with Flow("flat-children", result=HERE) as flow:
        use.map(flatten(wait.map([1, 2])))
    assert "would not flatten what wait-1 returns for use-1" in str(
        lost(DrivenRun(flow).enter(Running()), is_mapped=True)
    )


@pytest.mark.parametrize(
    ("executor", "is_lost"),
    [
        (None, False),
        (LocalExecutor(), False),
        (LocalDaskExecutor(scheduler="threads"), False),
        (LocalDaskExecutor(scheduler="processes"), True),
        (DaskExecutor(), True),
    ],
    ids=["default", "local", "threads", "processes", "dask"],
)
def test_a_list_that_is_mapped_over_is_not_found_from_other_processes(executor: Any, is_lost: bool) -> None:
    """Where the task runner reads what is kept, and the flow runner counts."""
    with Flow("listed", result=HERE, executor=executor) as flow:
        use.map(kept(), unmapped(wait()))
    found = lost(DrivenRun(flow).enter(Running()))
    assert ("would not find what kept-1 returns for use-1" in str(found)) if is_lost else (found is None)

    with Flow("listed-otherwise", result=HERE, executor=executor) as flow:
        # mapped over what is mapped, over what comes after the wait, and mapped already
        use.map(use.map([1, 2]), unmapped(wait()))
        use.map(use(wait()))
        wait.map(kept())
    run = DrivenRun(flow).enter(Running())
    assert [lost(run, "wait-1"), lost(run, "wait-2"), lost(run, "wait-3", is_mapped=True)] == [None] * 3
