"""Which waits are deferred, and what the next process makes of what the last one has left."""

from typing import Any, Iterator, List

import pendulum
import prefect
import pytest
from conftest import eventually
from driven import DrivenRun, NewUrl, shared_backend
from prefect import Flow, flatten, task, unmapped
from prefect.engine.results import LocalResult
from prefect.engine.signals import LOOP
from prefect.engine.state import Resume, Running, Scheduled, Submitted, Success
from prefect.exceptions import ClientError
from prefect.storage import Local
from prefect.triggers import manual_only
from prefect.utilities.configuration import set_temporary_config

from prefect_taskrun_tasks import TaskRunView, WaitForFlowRun, api, wait_for_flow_run
from prefect_taskrun_tasks.server import Backend
from prefect_taskrun_tasks.tasks import deferring

HERE = LocalResult()

#: Waits that are deferred at once
AT_ONCE = {"defer_after": 0, "timeout": 60}

#: Waits that are not deferred, and end soon
NOT_AT_ALL = {"defer_after": 0, "timeout": 1}


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        yield backend


@pytest.fixture(scope="module")
def child(backend: Backend) -> DrivenRun:
    """A flow run that goes on."""
    return DrivenRun(Flow("child")).enter(Running())


@task
def lists() -> List[List[int]]:
    return [[1], [2, 3]]


def states(run: DrivenRun, slug: str) -> List[str]:
    """The names of all states of a task run, in their order."""
    where = {"id": {"_eq": run.task_run_id(slug)}}
    [row] = api.find("task_run", where, fields="states(order_by: {timestamp: asc}) { state }")
    return [state["state"] for state in row["states"]]


def last_state(flow: Flow, slug: str = "wait-1") -> str:
    """What a task run has come to when the process of its flow run has ended."""
    run = DrivenRun(flow)
    run.execute()
    return states(run, slug)[-1]


def test_a_wait_is_deferred(child: DrivenRun) -> None:
    with Flow("deferred", result=HERE) as flow:
        WaitForFlowRun(name="wait")(child.id, deferrable=True, **AT_ONCE)
    assert last_state(flow) == "Scheduled"


@pytest.mark.parametrize(("end", "told"), [("Success", "succeeded"), (None, "was left in state <Running>")])
def test_a_wait_that_goes_on_when_its_time_is_over_looks_once_more(end: Any, told: str) -> None:
    child = DrivenRun(Flow("child-in-time")).enter(Running())
    with Flow("late", result=HERE) as flow:
        WaitForFlowRun(name="wait")(child.id, deferrable=True, defer_after=0, timeout=3)
    run = DrivenRun(flow)
    assert run.execute().is_running()
    if end:
        child.enter(Success())
    wait = TaskRunView.from_task_slug("wait-1", run.id)
    eventually(lambda: wait.state.start_time < pendulum.now("utc"))
    run.execute()
    assert told in str(wait.get_latest().state.message)


def test_what_is_mapped_after_a_wait_is_given_what_was_returned_before_it() -> None:
    seen: List[Any] = []

    @task
    def use(each: Any, waited: Any) -> None:
        seen.append(each)

    child = DrivenRun(Flow("child-mapped-over")).enter(Running())
    with Flow("mapped-over", result=HERE) as flow:
        waited = wait_for_flow_run(child.id, deferrable=True, defer_after=0)
        use.map(lists(), unmapped(waited))
        use.map([4, 5], unmapped(waited))
        use(lists(), waited)
    run = DrivenRun(flow)
    assert run.execute().is_running()
    child.enter(Success())
    assert run.execute().is_successful()
    assert sorted(map(str, seen)) == ["4", "5", "[1]", "[2, 3]", "[[1], [2, 3]]"]
    assert states(run, "wait_for_flow_run-1").count("Scheduled") > 1


def test_a_wait_is_not_deferred_before_what_is_flattened(child: DrivenRun) -> None:
    """Prefect would not flatten what the next process finds."""
    with Flow("flattened", result=HERE) as flow:
        waited = WaitForFlowRun(name="wait")(child.id, deferrable=True, **NOT_AT_ALL)
        task(lambda each, waited: each, name="use").map(flatten(lists()), unmapped(waited))
    assert last_state(flow) == "Failed"


@pytest.mark.parametrize("deferrable", [None, True])
def test_a_task_that_waits_itself_is_deferred_only_where_it_says_so(child: DrivenRun, deferrable: Any) -> None:
    """As it begins anew in the next process; what is on for all waits does not mean that."""

    @task
    def own() -> None:
        wait_for_flow_run.run(child.id, deferrable=deferrable, **(AT_ONCE if deferrable else NOT_AT_ALL))

    with Flow(f"own-{deferrable}", result=HERE) as flow:
        own()
        WaitForFlowRun(name="wait")(child.id, deferrable=deferrable, **AT_ONCE)
    with set_temporary_config({"prefect_taskrun_tasks.deferrable": True}):
        run = DrivenRun(flow)
        run.execute()
    assert states(run, "wait-1")[-1] == "Scheduled"
    assert states(run, "own-1")[-1] == ("Scheduled" if deferrable else "Failed")


def test_the_second_wait_of_a_task_has_its_own_time(child: DrivenRun) -> None:
    first = DrivenRun(Flow("child-that-is-first")).enter(Running())

    @task
    def waits() -> None:
        for each in (first, child):
            # the first one is deferred when half of its time is over
            wait_for_flow_run.run(each.id, deferrable=True, defer_after=0, timeout=3)

    with Flow("two-waits", result=HERE) as flow:
        waits()
    run = DrivenRun(flow)
    assert run.execute().is_running()
    first.enter(Success())
    view = TaskRunView.from_task_slug("waits-1", run.id)
    begun = next(iter(view.get_states())).timestamp
    eventually(lambda: begun.add(seconds=4) < pendulum.now("utc"))
    run.task_enters("waits-1", Scheduled())
    assert run.execute().is_running()
    assert states(run, "waits-1")[-1] == "Scheduled"


def test_a_class_made_from_a_wait_is_deferred_only_where_it_says_so(child: DrivenRun) -> None:
    """Its own code would run again in each process."""

    class Mine(WaitForFlowRun):
        pass

    with set_temporary_config({"prefect_taskrun_tasks.deferrable": True}):
        with Flow("made-from-a-wait", result=HERE) as flow:
            Mine(name="wait")(child.id, **NOT_AT_ALL)
        assert last_state(flow) == "Failed"


def test_a_loop_is_not_deferred(child: DrivenRun) -> None:
    """It would begin anew."""

    @task
    def loop() -> None:
        if prefect.context.get("task_loop_count", 1) == 1:
            raise LOOP(result=1)
        wait_for_flow_run.run(child.id, deferrable=True, **NOT_AT_ALL)

    with Flow("loop", result=HERE) as flow:
        loop()
    assert last_state(flow, "loop-1") == "Failed"


def test_a_wait_with_prefects_own_limit_is_not_deferred(child: DrivenRun) -> None:
    """That would begin anew."""
    with Flow("limited", result=HERE) as flow:
        WaitForFlowRun(name="wait", timeout=1)(child.id, deferrable=True, defer_after=0)
    assert last_state(flow) == "TimedOut"


def test_a_wait_that_somebody_has_let_run_is_not_deferred(child: DrivenRun) -> None:
    """They would be asked again."""
    with Flow("let-run", result=HERE) as flow:
        WaitForFlowRun(name="wait", trigger=manual_only)(child.id, deferrable=True, **NOT_AT_ALL)
    run = DrivenRun(flow).enter(Running())
    run.task_enters("wait-1", Resume())
    run.execute()
    assert states(run, "wait-1")[-1] == "Failed"


def test_two_waits_that_are_due_together_are_both_deferred(child: DrivenRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent has submitted both, and the process begins one when the other has left it."""
    monkeypatch.setattr(deferring, "BRIEFLY", 1.0)
    with Flow("together", result=HERE) as flow:
        for name in ("wait", "other"):
            WaitForFlowRun(name=name)(child.id, deferrable=True, defer_after=0, timeout=30)
    run = DrivenRun(flow).enter(Running())
    for slug in ("wait-1", "other-1"):
        run.task_enters(slug, Submitted(state=Scheduled()))
    assert run.execute().is_running()
    assert [states(run, slug)[-1] for slug in ("wait-1", "other-1")] == ["Scheduled"] * 2


def test_a_wait_is_deferred_as_soon_as_nothing_speaks_against_it(
    child: DrivenRun, mocker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as a storage that is away for a while. Why it is not is said once."""
    with Flow("away", result=HERE) as flow:
        WaitForFlowRun(name="wait")(child.id, deferrable=True, defer_after=0, timeout=30)
    run = DrivenRun(flow)
    load = Local.get_flow
    answers = iter([ConnectionError("away"), ConnectionError("away")])

    def get_flow(storage: Local, name: str) -> Flow:
        for error in answers:
            raise error
        return load(storage, name)

    mocker.patch.object(Local, "get_flow", get_flow)
    with set_temporary_config({"prefect_taskrun_tasks.recheck": 0.1}):
        assert run.execute().is_running()
    assert states(run, "wait-1")[-1] == "Scheduled"
    assert caplog.text.count("holds its process") == 1


def test_a_flow_run_that_is_gone_when_its_wait_is_to_be_deferred_is_left_to_the_next_look(
    child: DrivenRun, mocker: Any
) -> None:
    find = api.find

    def without_its_name(*asked: Any, **more: Any) -> Any:
        return [] if more.get("fields") == "id name" else find(*asked, **more)

    mocker.patch.object(api, "find", without_its_name)
    with Flow("gone", result=HERE) as flow:
        WaitForFlowRun(name="wait")(child.id, deferrable=True, **NOT_AT_ALL)
    run = DrivenRun(flow)
    run.execute()
    assert "has not finished within" in str(run.client.get_task_run_state(run.task_run_id("wait-1")).message)


def test_logs_that_were_not_written_are_an_error_of_the_api(mocker: Any) -> None:
    mocker.patch("prefect.Client.write_run_logs", side_effect=ValueError("Writing logs failed."))
    with pytest.raises(ClientError, match="Writing logs failed"):
        api.write_logs([])
