"""Lookups that return many rows: how many requests they take, and that nothing is left out."""

import math
import os
import threading
from typing import Any, Callable, Iterator, List

import pytest
import requests
import urllib3
from conftest import eventually
from driven import DrivenRun, NewUrl, register, shared_backend
from many import finish_all_task_runs, insert_children, insert_logs, map_over_many
from prefect import Flow, task
from prefect.engine.state import Failed, Running, Skipped, Success, TriggerFailed

from prefect_taskrun_tasks import FlowRunView, FlowView, TaskRunView, api, errors
from prefect_taskrun_tasks.server import Backend, reading

#: more than Prefect's own views take, and than a page holds
MANY = 1_200

#: rows in an answer of a backend that limits them
CAP = 100


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


@pytest.fixture(scope="module")
def large_run(backend: Backend, flow_id: str) -> DrivenRun:
    """A run with many children and logs, which tests leave as it is."""
    large_run = DrivenRun(mapped_flow, flow_id).enter(Running())
    unsuccessful = {7: Failed("x"), 1_100: TriggerFailed("x"), 600: Skipped("x")}
    map_over_many(backend, large_run, "inc-1", MANY, unsuccessful)
    insert_logs(backend, large_run, [str(number) for number in range(MANY)])
    return large_run.enter(Success())


@pytest.fixture
def _capped(mocker: Any) -> None:
    """The backend gives at most so many rows, whatever it is asked for."""
    rows = reading.rows

    def capped(connection: Any, table: Any, fields: Any, arguments: Any, computed: Any = None) -> Any:
        limit = min(arguments.get("limit") or CAP, CAP)
        return rows(connection, table, fields, {**arguments, "limit": limit}, computed)

    mocker.patch.object(reading, "rows", capped)


def parent(run: DrivenRun) -> TaskRunView:
    return TaskRunView.from_task_slug("inc-1", run.id)


@pytest.fixture
def others() -> List[threading.Thread]:
    """Threads that were there before: pytest keeps what failed on purpose in other tests, iterations included."""
    return threading.enumerate()


def own_threads(others: List[threading.Thread]) -> List[str]:
    started = [it for it in threading.enumerate() if it not in others]
    return [it.name for it in started if it.name.startswith(("page", "result"))]


@pytest.mark.parametrize("children", [0, 1, 499, 500, 501, 1_000, 1_001])
def test_children_take_a_request_for_each_500_of_them(
    backend: Backend, run: DrivenRun, mocker: Any, children: int
) -> None:
    map_over_many(backend, run, "inc-1", children)
    send = mocker.spy(requests.adapters.HTTPAdapter, "send")
    found = [child.map_index for child in parent(run).iter_mapped()]
    assert found == list(range(children))
    # one is for the parent
    assert send.call_count == 1 + max(1, math.ceil(children / 500))


def test_results_of_children_take_no_requests_of_their_own(backend: Backend, run: DrivenRun, mocker: Any) -> None:
    map_over_many(backend, run, "inc-1", 600)
    send = mocker.spy(requests.adapters.HTTPAdapter, "send")
    assert parent(run).get_result() == list(range(600))
    assert send.call_count == 3


def test_the_first_child_is_there_before_the_last_ones_are_looked_up(
    backend: Backend, run: DrivenRun, mocker: Any
) -> None:
    map_over_many(backend, run, "inc-1", 1_600)
    view = parent(run)
    asked = mocker.spy(api, "ask")
    children = view.iter_mapped()
    assert asked.call_count == 0
    assert next(children).map_index == 0
    # the next page is fetched while this one is used, and no more
    eventually(lambda: asked.call_count == 2)
    assert [next(children).map_index for _ in range(400)][-1] == 400
    assert asked.call_count == 2
    assert len(list(children)) == 1_199
    assert asked.call_count == 4


def test_the_first_result_is_there_before_the_last_children_are_looked_up(
    backend: Backend, run: DrivenRun, mocker: Any
) -> None:
    map_over_many(backend, run, "inc-1", 1_600)
    view = parent(run)
    asked = mocker.spy(api, "ask")
    values = view.iter_results(workers=2)
    assert asked.call_count == 0
    assert next(values) == 0
    assert asked.call_count <= 2
    assert list(values) == list(range(1, 1_600))
    assert asked.call_count == 4


@pytest.mark.parametrize("iterate", [TaskRunView.iter_mapped, TaskRunView.iter_results])
@pytest.mark.parametrize("taken", [1, 501])
def test_an_iteration_that_is_given_up_leaves_no_thread(
    backend: Backend,
    run: DrivenRun,
    iterate: Callable[..., Iterator[Any]],
    taken: int,
    others: List[threading.Thread],
) -> None:
    map_over_many(backend, run, "inc-1", 1_600)
    for count, _ in enumerate(iterate(parent(run)), 1):
        if count == taken:
            break
    assert own_threads(others) == []


@pytest.mark.parametrize("iterate", [TaskRunView.iter_mapped, TaskRunView.iter_results])
def test_an_iteration_that_fails_leaves_no_thread(
    backend: Backend, run: DrivenRun, iterate: Callable[..., Iterator[Any]], others: List[threading.Thread]
) -> None:
    map_over_many(backend, run, "inc-1", 600, missing=[3])
    with pytest.raises(errors.IncompleteMap):
        list(iterate(parent(run)))
    assert own_threads(others) == []


def test_children_that_are_never_looked_at_are_not_looked_up(
    large_run: DrivenRun, mocker: Any, others: List[threading.Thread]
) -> None:
    view = parent(large_run)
    asked = mocker.spy(api, "ask")
    view.iter_mapped()
    view.iter_results()
    assert asked.call_count == 0
    assert own_threads(others) == []


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ([0], "Child 0 "),
        ([700], "Child 700 "),
        ([499, 500, 501], "Children 499 to 501 "),
        ([999], "Child 999 "),
        (range(400, 1_000), "Children 400 to 999 "),
        ([3, 900], "Child 3 "),
        (range(1_000), "Children 0 to 999 "),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("iterate", "index"), [(TaskRunView.iter_mapped, "map_index"), (TaskRunView.iter_results, "real")]
)
def test_missing_children_are_told_when_their_turn_has_come(
    backend: Backend, run: DrivenRun, missing: Any, told: str, iterate: Callable[..., Iterator[Any]], index: str
) -> None:
    map_over_many(backend, run, "inc-1", 1_000, missing=missing)
    children = iterate(parent(run))
    assert [getattr(next(children), index) for _ in range(min(missing))] == list(range(min(missing)))
    with pytest.raises(errors.IncompleteMap, match=rf"^{told}of the 1000 of task run 'inc-1' .* cannot be found"):
        next(children)


def test_all_task_runs_are_found_however_many_there_are(large_run: DrivenRun) -> None:
    found = FlowRunView.from_flow_run_id(large_run.id).get_all_task_runs()
    assert sorted((each.task_slug, each.map_index) for each in found) == [
        ("Constant[list]-1", -1),
        *[("inc-1", index) for index in range(-1, MANY)],
        ("inc-2", -1),
    ]
    assert len({each.task_run_id for each in found}) == MANY + 3


def test_all_ids_of_task_runs_are_found_however_many_there_are(large_run: DrivenRun) -> None:
    view = FlowRunView.from_flow_run_id(large_run.id)
    ids = view.get_task_run_ids()
    assert len(ids) == MANY + 3
    assert set(ids) == {each.task_run_id for each in view.get_all_task_runs()}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"task_slug": "inc-2"}, [-1]),
        ({"task_slug": "inc-1", "state": "Failed"}, [7]),
        ({"state": "TriggerFailed"}, [1_100]),
        ({"state": ["TriggerFailed", "Failed", "Skipped"]}, [7, 600, 1_100]),
        ({"state": []}, []),
        ({"task_slug": "inc-2", "state": "Failed"}, []),
        ({"task_slug": "inc-7"}, []),
        ({"task_slug": "inc-1", "state": ("Mapped", "Skipped")}, [-1, 600]),
    ],
    ids=str,
)
def test_task_runs_are_filtered_by_slug_and_by_state(large_run: DrivenRun, wanted: Any, found: List[int]) -> None:
    view = FlowRunView.from_flow_run_id(large_run.id)
    assert sorted(each.map_index for each in view.get_all_task_runs(**wanted)) == found


def test_states_to_filter_by_can_come_from_an_iterator(large_run: DrivenRun) -> None:
    view = FlowRunView.from_flow_run_id(large_run.id)
    assert [each.map_index for each in view.get_all_task_runs(state=iter(["Failed"]))] == [7]


def test_more_than_a_page_is_left_by_a_filter(large_run: DrivenRun) -> None:
    view = FlowRunView.from_flow_run_id(large_run.id)
    assert len(view.get_all_task_runs(task_slug="inc-1", state="Success")) == MANY - 3


def test_all_task_runs_take_a_request_for_each_500_of_them(large_run: DrivenRun, mocker: Any) -> None:
    view = FlowRunView.from_flow_run_id(large_run.id)
    send = mocker.spy(requests.adapters.HTTPAdapter, "send")
    view.get_all_task_runs()
    assert send.call_count == 3


def test_all_logs_are_found_in_order(large_run: DrivenRun) -> None:
    logs = FlowRunView.from_flow_run_id(large_run.id).get_logs()
    assert [log.message for log in logs] == [str(number) for number in range(MANY)]


LOOKUPS = {
    "children": lambda run: [child.map_index for child in parent(run).iter_mapped()],
    "values": lambda run: parent(run).get_result(if_failed="failed", if_skipped="skipped"),
    "task runs": lambda run: FlowRunView.from_flow_run_id(run.id).get_all_task_runs(),
    "ids": lambda run: FlowRunView.from_flow_run_id(run.id).get_task_run_ids(),
    "logs": lambda run: FlowRunView.from_flow_run_id(run.id).get_logs(),
}


@pytest.mark.parametrize("look_up", LOOKUPS.values(), ids=LOOKUPS)
def test_a_backend_that_limits_the_rows_of_an_answer_leaves_nothing_out(
    large_run: DrivenRun, look_up: Callable[..., Any], request: pytest.FixtureRequest
) -> None:
    all_of_them = look_up(large_run)
    request.getfixturevalue("_capped")
    assert look_up(large_run) == all_of_them


@pytest.mark.usefixtures("_capped")
def test_static_tasks_are_all_loaded_from_a_backend_that_limits_the_rows_of_an_answer(backend: Backend) -> None:
    with Flow("wide") as flow:
        for number in range(CAP + 20):
            flow.add_task(task(lambda: None, name=f"task {number}"))
    run = DrivenRun(flow)
    finish_all_task_runs(backend, run)
    assert len(FlowRunView.from_flow_run_id(run.id, load_static_tasks=True)._task_runs) == CAP + 20


def test_task_runs_that_are_created_meanwhile_do_not_displace_others(
    backend: Backend, run: DrivenRun, mocker: Any
) -> None:
    insert_children(backend, run, "inc-1", range(997))
    view = FlowRunView.from_flow_run_id(run.id)
    before = set(view.get_task_run_ids())
    assert len(before) == 1_000
    ask = api.ask

    def ask_and_then_grow(*args: Any) -> Any:
        answer = ask(*args)
        if asked.call_count == 1:
            insert_children(backend, run, "inc-1", range(1_000, 1_600))
        return answer

    asked = mocker.patch.object(api, "ask", side_effect=ask_and_then_grow)
    assert before <= set(view.get_task_run_ids())


def test_an_old_flow_with_many_versions_sends_only_the_newest(mocker: Any) -> None:
    ids = [register(Flow("versions")) for _ in range(3)]
    group = api.find("flow", {"id": {"_eq": ids[0]}}, fields="flow_group_id")[0]["flow_group_id"]
    asked = mocker.spy(api, "ask")
    assert FlowView.from_flow_group_id(group).flow_id == ids[-1]
    assert len(asked.spy_return["flow"]) == 1


def in_a_new_thread(work: Callable[[], Any]) -> Any:
    values: List[Any] = []
    thread = threading.Thread(target=lambda: values.append(work()))
    thread.start()
    thread.join()
    return values[0]


def test_lookups_of_a_thread_share_a_connection(large_run: DrivenRun, mocker: Any) -> None:
    connections = mocker.spy(urllib3.HTTPConnectionPool, "_new_conn")
    in_a_new_thread(lambda: [parent(large_run) for _ in range(5)])
    assert connections.call_count == 1


def test_a_process_that_was_forked_by_a_thread_does_not_use_its_connection(large_run: DrivenRun) -> None:
    def kept_by_a_fork() -> int:
        parent(large_run)
        assert hasattr(api._connections, "session")
        child = os.fork()
        if not child:
            os._exit(hasattr(api._connections, "session"))
        return os.WEXITSTATUS(os.waitpid(child, 0)[1])

    assert in_a_new_thread(kept_by_a_fork) == 0
