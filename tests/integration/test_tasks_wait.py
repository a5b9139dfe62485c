"""Waiting for flow runs, and getting the results of their tasks."""

import logging
from contextlib import contextmanager
from datetime import timedelta
from threading import Thread
from typing import Any, Callable, Iterator

import pendulum
import prefect
import pytest
from conftest import eventually
from driven import DrivenRun, NewUrl, register, shared_backend
from implementations import both
from prefect import Flow, task, unmapped
from prefect.engine import signals
from prefect.engine.results import LocalResult
from prefect.engine.state import Cancelled, Failed, Running, State, Success, TimedOut, TriggerFailed

import prefect_taskrun_tasks as ours
from prefect_taskrun_tasks import errors
from prefect_taskrun_tasks.server import Backend
from prefect_taskrun_tasks.waiting import last_lines

NOBODY = "4f6b3c1e-0000-4000-8000-000000000000"


@task
def create_some_data() -> Any:
    return list(range(5))


@task
def inc(x: int) -> int:
    return x + 1


with Flow("child", result=LocalResult()) as child_flow:
    inc.map([0, 1, 2])
    create_some_data()


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        yield backend


@pytest.fixture(scope="module")
def flow_id(backend: Backend) -> str:
    return register(child_flow)


@pytest.fixture
def run(flow_id: str) -> DrivenRun:
    run = DrivenRun(child_flow, flow_id).enter(Running())
    run.task_maps("inc-1", [1, 2, 3])
    run.task_returns("create_some_data-1", [0, 1, 2, 3, 4])
    return run


@pytest.fixture(autouse=True)
def no_last_logs(monkeypatch: Any) -> None:
    """Nobody uploads logs after the end here."""
    monkeypatch.setattr(last_lines, "QUIET", 0.0)


@contextmanager
def meanwhile(condition: Callable[[], Any], action: Callable[[], Any]) -> Iterator[None]:
    """Does something from another thread, as soon as something else has happened."""

    def act() -> None:
        eventually(condition)
        action()

    thread = Thread(target=act)
    thread.start()
    yield
    thread.join()


@both
def test_the_result_of_a_task_of_a_finished_flow_run_is_returned(lib: Any, run: DrivenRun) -> None:
    run.enter(Success())
    assert lib.get_task_run_result.run(run.id, "create_some_data-1") == [0, 1, 2, 3, 4]
    assert lib.get_task_run_result.run(flow_run_id=run.id, task_slug="inc-1") == [1, 2, 3]
    assert lib.get_task_run_result.run(run.id, "inc-1", 2) == 3
    assert lib.get_task_run_result.run(run.id, "inc-1", 2, 60) == 3
    assert lib.get_task_run_result.run(run.id, "inc-1", map_index=0, poll_time=60) == 1


@both
@pytest.mark.parametrize("state", [Failed(), Cancelled()], ids=repr)
def test_tasks_of_a_flow_run_that_failed_may_have_results_all_the_same(lib: Any, run: DrivenRun, state: State) -> None:
    run.enter(state)
    assert lib.get_task_run_result.run(run.id, "create_some_data-1") == [0, 1, 2, 3, 4]


@both
@pytest.mark.parametrize("given", [(NOBODY, "inc-1"), (None, "nothing-1"), (None, "inc-1", 9)])
def test_a_task_run_that_is_not_there_is_a_value_error(lib: Any, run: DrivenRun, given: Any) -> None:
    run.enter(Success())
    with pytest.raises(ValueError, match=NOBODY if given[0] else given[1]):
        lib.get_task_run_result.run(given[0] or run.id, *given[1:])


@both
def test_results_are_got_within_a_flow(lib: Any, run: DrivenRun) -> None:
    run.enter(Success())
    with Flow("parent") as parent_flow:
        whole = lib.get_task_run_result(run.id, "inc-1")
        one = lib.get_task_run_result(run.id, "inc-1", map_index=1)
        several = lib.get_task_run_result.map([run.id, run.id], task_slug=unmapped("create_some_data-1"))
        added = inc.map(whole)
    state = parent_flow.run()
    assert state.is_successful(), state
    assert [state.result[each].result for each in (whole, one, added)] == [[1, 2, 3], 2, [2, 3, 4]]
    assert state.result[several].result == [[0, 1, 2, 3, 4]] * 2


def test_the_result_is_awaited_until_the_flow_run_has_finished(run: DrivenRun, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG, "prefect")
    with meanwhile(lambda: f"Waiting for flow run {run.id}" in caplog.text, lambda: run.enter(Success())):
        found = ours.get_task_run_result.run(run.id, "create_some_data-1", poll_time=0.01)
    assert found == [0, 1, 2, 3, 4]


def test_what_a_task_run_became_before_the_end_is_what_counts(run: DrivenRun, caplog: Any) -> None:
    def finish() -> None:
        run.task_returns("create_some_data-1", "the last word")
        run.enter(Success())

    caplog.set_level(logging.DEBUG, "prefect")
    with meanwhile(lambda: "Waiting for flow run" in caplog.text, finish):
        found = ours.get_task_run_result.run(run.id, "create_some_data-1", poll_time=0.01)
    assert found == "the last word"


def test_a_result_is_not_awaited_for_longer_than_was_asked_for(run: DrivenRun) -> None:
    # Prefect's task waits for ever
    with pytest.raises(errors.WaitTimeout, match=f"{run.id}.*has not finished within 0:00:00 .*state <Running"):
        ours.get_task_run_result.run(run.id, "create_some_data-1", max_duration=timedelta(0))
    assert issubclass(errors.WaitTimeout, RuntimeError)


@pytest.mark.parametrize("limit", [timedelta(0), pendulum.duration()], ids=["timedelta", "Duration"])
def test_what_was_given_to_the_constructor_holds_until_a_call_overrides_it(run: DrivenRun, limit: timedelta) -> None:
    get, wait = ours.GetTaskRunResult(map_index=1, max_duration=limit), ours.WaitForFlowRun(max_duration=limit)
    with pytest.raises(RuntimeError):
        get.run(run.id, "inc-1")
    with pytest.raises(RuntimeError):
        wait.run(run.id)
    run.enter(Success())
    assert get.run(run.id, "inc-1") == 2
    assert get.run(run.id, "inc-1", map_index=-1) == [1, 2, 3]
    assert get.run(run.id, "inc-1", 0) == 1
    assert wait.run(run.id).state.is_successful()


@both
@pytest.mark.parametrize("state", [Success("Done."), Failed("Not done."), Cancelled("Never mind.")], ids=repr)
def test_the_end_of_a_flow_run_is_a_view_of_it(lib: Any, run: DrivenRun, state: State) -> None:
    run.enter(state)
    view = lib.wait_for_flow_run.run(run.id)
    assert isinstance(view, lib.FlowRunView)
    assert (view.flow_run_id, view.state, view.state.message) == (run.id, state, state.message)


@both
@pytest.mark.parametrize(
    ("state", "signal"),
    [(Success(), signals.SUCCESS), (Failed(), signals.FAIL), (TriggerFailed(), signals.TRIGGERFAIL)],
    ids=repr,
)
def test_the_final_state_is_raised_when_that_is_asked_for(lib: Any, run: DrivenRun, state: State, signal: Any) -> None:
    run.enter(state)
    with pytest.raises(signal, match=f"{run.id} finished in state <{type(state).__name__}") as raised:
        lib.wait_for_flow_run.run(run.id, True, False, True)
    assert type(raised.value.state) is type(state)
    assert isinstance(raised.value.state.result, lib.FlowRunView)
    assert raised.value.state.result.flow_run_id == run.id


@pytest.mark.parametrize("state", [Cancelled("Never mind."), TimedOut("Too slow.")], ids=repr)
def test_a_final_state_without_a_signal_of_its_own_is_a_failure(run: DrivenRun, state: State) -> None:
    # Prefect's raises a ValueError: "No signal matches the provided state"
    run.enter(state)
    with pytest.raises(signals.FAIL, match=f"{run.id} finished in state <{type(state).__name__}") as raised:
        ours.wait_for_flow_run.run(run.id, raise_final_state=True)
    assert raised.value.state.result.state == state


@both
def test_a_task_ends_as_the_flow_run_did_when_that_is_asked_for(lib: Any, run: DrivenRun) -> None:
    run.enter(Failed("Disk full."))
    with Flow("parent") as parent_flow:
        as_it_ended = lib.wait_for_flow_run(run.id, raise_final_state=True)
        anyway = lib.wait_for_flow_run(run.id)
    state = parent_flow.run()
    assert state.result[as_it_ended].is_failed()
    assert "Disk full." in state.result[as_it_ended].message
    assert state.result[anyway].is_successful()
    assert state.result[anyway].result.state.is_failed()


@both
def test_a_flow_run_that_is_not_there_is_a_value_error(lib: Any) -> None:
    with pytest.raises(ValueError, match=NOBODY):
        lib.wait_for_flow_run.run(NOBODY)


@both
def test_the_states_of_a_finished_flow_run_are_summed_up_in_the_log(lib: Any, run: DrivenRun, caplog: Any) -> None:
    run.enter(Success())
    caplog.set_level(logging.INFO, "prefect")
    name = lib.wait_for_flow_run.run(run.id).name
    assert f"Flow {name!r}: Your flow run finished" in caplog.text
    caplog.clear()
    lib.wait_for_flow_run.run(run.id, stream_states=False)
    assert "finished" not in caplog.text


def test_states_and_logs_are_repeated_in_the_log_as_they_come(run: DrivenRun, caplog: Any) -> None:
    run.log("Careful!", level="WARNING")
    caplog.set_level(logging.INFO, "prefect")
    with meanwhile(lambda: "Careful!" in caplog.text, lambda: run.enter(Success("Done."))):
        view = ours.wait_for_flow_run.run(run.id, stream_logs=True)
    assert view.state.is_successful()
    name = view.name
    of_child = [(each.levelname, each.message) for each in caplog.records if each.message.startswith("Flow ")]
    assert ("WARNING", f"Flow {name!r}: Careful!") in of_child
    assert ("INFO", f"Flow {name!r}: Entered state <Running>: None") in of_child
    assert of_child[-1] == ("INFO", f"Flow {name!r}: Entered state <Success>: Done.")


@pytest.mark.parametrize(("states", "logs"), [(True, False), (False, True), (False, False)])
def test_only_what_was_asked_for_is_repeated(run: DrivenRun, caplog: Any, states: bool, logs: bool) -> None:
    run.log("Careful!")
    caplog.set_level(logging.INFO, "prefect")
    with meanwhile(lambda: True, lambda: run.enter(Success())):
        ours.wait_for_flow_run.run(run.id, stream_states=states, stream_logs=logs)
    assert ("Entered state" in caplog.text or "finished" in caplog.text) == states
    if not logs:
        assert "Careful!" not in caplog.text


def test_a_wait_is_not_longer_than_was_asked_for(run: DrivenRun) -> None:
    with pytest.raises(errors.WaitTimeout, match=f"{run.id}.*has not finished within 0:00:00"):
        ours.wait_for_flow_run.run(run.id, max_duration=timedelta(0))


def test_a_flow_run_does_not_wait_for_itself(run: DrivenRun) -> None:
    # Prefect's wait_for_flow_run does, for 12 hours
    with prefect.context(flow_run_id=run.id):
        with pytest.raises(ValueError, match=r"`wait_for_flow_run` waits .* belongs to"):
            ours.wait_for_flow_run.run(run.id)
        with pytest.raises(ValueError, match=r"`get_task_run_result` waits .* belongs to"):
            ours.get_task_run_result.run(run.id, "inc-1")


def test_what_is_told_of_a_failure_is_not_longer_than_people_read(run: DrivenRun) -> None:
    run.enter(Failed("x" * 50_000))
    with pytest.raises(signals.FAIL) as raised:
        ours.wait_for_flow_run.run(run.id, raise_final_state=True)
    assert len(raised.value.state.message) < 2_500
    assert run.id in raised.value.state.message
