"""Prefect's documentation of task runs, sentence by sentence, for both implementations."""

import logging
from threading import Thread
from typing import Any, List

import prefect
import pytest
from conftest import eventually
from driven import DrivenRun
from implementations import both
from prefect import Flow, task
from prefect.engine.results import LocalResult
from prefect.engine.state import Failed, Running, Success

import prefect_taskrun_tasks as ours
from prefect_taskrun_tasks.server import Backend

pytestmark = pytest.mark.usefixtures("backend")


def executed(flow: Flow) -> str:
    """UUID of a flow run that Prefect's runner has brought to its end."""
    run = DrivenRun(flow)
    assert run.execute().is_successful()
    return run.id


@pytest.fixture
def foo_run(backend: Backend) -> str:
    @task
    def foo() -> str:
        return "foobar!"

    with Flow("foo", result=LocalResult()) as flow:
        foo()
    return executed(flow)


@pytest.fixture
def mapped_run(backend: Backend) -> str:
    @task
    def inc(x: int) -> int:
        return x + 1

    with Flow("example-mapped", result=LocalResult()) as flow:
        inc.map([0, 1, 2, 3, 4, 5])
    return executed(flow)


@both
def test_a_task_run_is_created_for_each_task_in_your_flow_during_a_flow_run(lib: Any, foo_run: str) -> None:
    [task_run] = lib.FlowRunView.from_flow_run_id(foo_run).get_all_task_runs()
    assert (task_run.task_slug, task_run.flow_run_id) == ("foo-1", foo_run)


@both
def test_task_run_provides_a_get_result_method_which_will_load_the_return_value_of_your_task(
    lib: Any, foo_run: str
) -> None:
    task_run = lib.TaskRunView.from_task_slug("foo-1", flow_run_id=foo_run)
    assert task_run.get_result() == "foobar!"


@both
def test_you_can_use_the_task_slug_or_the_task_run_id_to_look_up_the_data(lib: Any, foo_run: str) -> None:
    by_slug = lib.TaskRunView.from_task_slug("foo-1", flow_run_id=foo_run)
    by_id = lib.TaskRunView.from_task_run_id(by_slug.task_run_id)
    assert by_id == by_slug


@both
def test_a_flow_run_view_will_cache_views_of_finished_tasks_and_pass_the_flow_run_id_for_you(
    lib: Any, foo_run: str
) -> None:
    flow_run = lib.FlowRunView.from_flow_run_id(foo_run)
    task_run = flow_run.get_task_run("foo-1")
    assert task_run.flow_run_id == foo_run
    assert flow_run.get_task_run("foo-1") is task_run


@both
def test_views_will_not_retrieve_the_newest_information_each_time_you_access_their_properties(
    lib: Any, foo_run: str
) -> None:
    old = lib.TaskRunView.from_task_slug("foo-1", flow_run_id=foo_run)
    prefect.Client().set_task_run_state(old.task_run_id, Failed("again"))
    assert old.state.is_successful()
    new = old.get_latest()
    assert new is not old
    assert new.state.is_failed()


@both
def test_when_a_result_is_retrieved_it_will_be_cached_in_the_task_run_view(lib: Any, foo_run: str, mocker: Any) -> None:
    task_run = lib.TaskRunView.from_task_slug("foo-1", flow_run_id=foo_run)
    read = mocker.spy(LocalResult, "read")
    assert [task_run.get_result(), task_run.get_result()] == ["foobar!", "foobar!"]
    assert read.call_count == 1


@both
def test_when_you_use_get_latest_the_cached_result_is_preserved(lib: Any, foo_run: str) -> None:
    task_run = lib.TaskRunView.from_task_slug("foo-1", flow_run_id=foo_run)
    result = task_run.get_result()
    assert task_run.get_latest().get_result() is result


@both
def test_you_can_retrieve_all_of_the_mapped_results_or_a_single_result(lib: Any, mapped_run: str) -> None:
    inc_parent = lib.TaskRunView.from_task_slug("inc-1", flow_run_id=mapped_run)
    assert inc_parent.get_result() == [1, 2, 3, 4, 5, 6]
    inc_child = lib.TaskRunView.from_task_slug("inc-1", flow_run_id=mapped_run, map_index=2)
    assert inc_child.get_result() == 3


@both
def test_if_your_mapped_task_has_many_children_you_can_iterate_through_the_children_one_at_a_time(
    lib: Any, mapped_run: str
) -> None:
    inc_parent = lib.TaskRunView.from_task_slug("inc-1", flow_run_id=mapped_run)
    results: List[Any] = []
    for child_task_run in inc_parent.iter_mapped():
        results.append(child_task_run.get_result())
    assert results == [1, 2, 3, 4, 5, 6]


@both
def test_we_can_create_a_parent_flow_that_runs_the_child_flow_and_retrieves_the_results(
    lib: Any,
) -> None:
    @task
    def create_some_data() -> List[int]:
        return list(range(5))

    with Flow("child", result=LocalResult()) as child_flow:
        create_some_data()
    child = DrivenRun(child_flow)

    @task
    def agent(flow_run_id: str) -> str:
        """Does what an agent would do between the two."""
        assert DrivenRun(child_flow, child.flow_id, flow_run_id).execute().is_successful()
        return flow_run_id

    with Flow("parent") as parent_flow:
        child_run_id = agent(lib.create_flow_run(flow_name="child"))
        child_data = lib.get_task_run_result(child_run_id, "create_some_data-1")
    state = parent_flow.run()
    assert state.result[child_data].result == [0, 1, 2, 3, 4]


def test_get_task_run_result_will_block_until_all_the_tasks_in_the_child_flow_run_are_finished(caplog: Any) -> None:
    @task
    def create_some_data() -> None:
        pass

    @task
    def other_work() -> None:
        pass

    with Flow("child") as child_flow:
        create_some_data()
        other_work()
    child = DrivenRun(child_flow).enter(Running())
    child.task_returns("create_some_data-1", [0, 1])
    child.task_enters("other_work-1", Running())
    caplog.set_level(logging.DEBUG, "prefect")
    found: List[Any] = []
    waiting = Thread(
        target=lambda: found.append(ours.get_task_run_result.run(child.id, "create_some_data-1", poll_time=0.01))
    )
    waiting.start()
    eventually(lambda: "Waiting for flow run" in caplog.text)
    assert found == []
    child.task_enters("other_work-1", Success())
    child.enter(Success())
    waiting.join()
    assert found == [[0, 1]]


def test_prefect_does_not_store_the_results_of_your_task_runs(foo_run: str) -> None:
    answer = prefect.Client().graphql("{ task_run { serialized_state } }")
    assert "foobar!" not in str(answer)
