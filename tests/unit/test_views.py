"""Views as objects, without a backend."""

import copy
import dataclasses
import inspect
import logging
import pickle
from typing import Any, Dict

import cloudpickle
import pendulum
import pytest
from implementations import PREFECT, both
from prefect.engine.state import Failed, Mapped, Pending, Retrying, Running, Scheduled, Success
from prefect.run_configs import UniversalRun
from prefect.storage import Local

import prefect_taskrun_tasks as ours
from prefect_taskrun_tasks.views.task_run import NotLoaded

TASK_RUN = ("task run id", "task id", "inc-1", "name", Success(), -1, "flow run id")
NOON = pendulum.datetime(2021, 5, 12, 12)
FLOW_RUN: Dict[str, Any] = {
    "flow_run_id": "flow run id",
    "name": "name",
    "flow_id": "flow id",
    "labels": ["label"],
    "parameters": {"x": 1},
    "context": {},
    "state": Running(),
    "states": [],
    "updated_at": NOON,
    "run_config": None,
}
FLOW: Dict[str, Any] = {
    "flow_id": "flow id",
    "settings": {},
    "run_config": UniversalRun(),
    "serialized_flow": {},
    "archived": False,
    "project_name": "project",
    "core_version": "1.4.1",
    "storage": Local(),
    "name": "name",
    "flow_group_labels": None,
}


@pytest.mark.parametrize("view", ["FlowView", "FlowRunView", "TaskRunView", "FlowRunLog"])
def test_a_view_is_constructed_as_prefects(view: str) -> None:
    parameters = [
        [(each.name, each.kind, each.default) for each in inspect.signature(getattr(lib, view)).parameters.values()]
        for lib in (PREFECT, ours)
    ]
    assert parameters[0] == parameters[1]


@pytest.mark.parametrize(
    ("view", "method"),
    [
        ("FlowView", "from_id"),
        ("FlowView", "from_flow_id"),
        ("FlowView", "from_flow_group_id"),
        ("FlowView", "from_flow_name"),
        ("FlowRunView", "from_flow_run_id"),
        ("FlowRunView", "get_latest"),
        ("FlowRunView", "get_logs"),
        ("FlowRunView", "get_flow_metadata"),
        ("FlowRunView", "get_task_run"),
        ("FlowRunView", "get_all_task_runs"),
        ("FlowRunView", "get_task_run_ids"),
        ("FlowRunLog", "from_dict"),
        ("TaskRunView", "get_result"),
        ("TaskRunView", "iter_mapped"),
        ("TaskRunView", "get_latest"),
        ("TaskRunView", "from_task_slug"),
    ],
)
def test_a_method_is_called_as_prefects(view: str, method: str) -> None:
    theirs, mine = [
        [
            (each.name, each.kind, each.default)
            for each in inspect.signature(getattr(getattr(lib, view), method)).parameters.values()
        ]
        for lib in (PREFECT, ours)
    ]
    # what is added can only be given by name
    assert mine[: len(theirs)] == theirs
    assert {kind for _, kind, _ in mine[len(theirs) :]} <= {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("view", ["FlowView", "FlowRunView", "TaskRunView", "FlowRunLog"])
def test_a_view_has_the_public_names_of_prefects(view: str) -> None:
    public = {name for name in dir(getattr(PREFECT, view)) if not name.startswith("_")}
    assert public <= set(dir(getattr(ours, view)))


@both
def test_a_task_run_view_holds_what_it_was_given_by_position(lib: Any) -> None:
    view = lib.TaskRunView(*TASK_RUN)
    names = ("task_run_id", "task_id", "task_slug", "name", "state", "map_index", "flow_run_id")
    assert tuple(getattr(view, name) for name in names) == TASK_RUN


@both
def test_a_flow_run_view_holds_what_it_was_given(lib: Any) -> None:
    by_name, by_position = lib.FlowRunView(**FLOW_RUN), lib.FlowRunView(*FLOW_RUN.values())
    for name, value in FLOW_RUN.items():
        assert getattr(by_name, name) is value
        assert getattr(by_position, name) is value


@both
def test_a_flow_view_holds_what_it_was_given(lib: Any) -> None:
    view = lib.FlowView(*FLOW.values())
    for name, value in FLOW.items():
        assert getattr(view, name) is value


@pytest.mark.parametrize(
    ("view", "given"), [("TaskRunView", TASK_RUN), ("FlowRunView", FLOW_RUN.values()), ("FlowView", FLOW.values())]
)
def test_a_view_prints_as_prefects(view: str, given: Any) -> None:
    assert repr(getattr(ours, view)(*given)) == repr(getattr(PREFECT, view)(*given))


@pytest.mark.parametrize(
    ("view", "name"),
    [
        (ours.TaskRunView(*TASK_RUN), "state"),
        (ours.FlowRunView(**FLOW_RUN), "state"),
        (ours.FlowView(**FLOW), "archived"),
    ],
    ids=["task run", "flow run", "flow"],
)
def test_a_view_cannot_be_changed(view: Any, name: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(view, name, None)


@both
def test_task_run_views_are_equal_if_task_run_and_state_are(lib: Any) -> None:
    def view(task_run_id: str = "1", state: Any = None, name: str = "name") -> Any:
        return lib.TaskRunView(task_run_id, "task", "inc-1", name, state or Success(), -1, "flow run")

    assert view() == view()
    assert view(name="x") == view(name="y")
    assert view("1") != view("2")
    assert view() != view(state=Failed())
    assert view() != "1"


def test_flow_run_views_are_equal_if_flow_run_and_states_are() -> None:
    # Prefect's are equal only to themselves
    view = ours.FlowRunView(**FLOW_RUN)
    assert view == ours.FlowRunView(**{**FLOW_RUN, "name": "x"})
    assert view != ours.FlowRunView(**{**FLOW_RUN, "flow_run_id": "other"})
    assert view != ours.FlowRunView(**{**FLOW_RUN, "states": [Success()]})
    assert view != "1"
    assert len({view, ours.FlowRunView(**FLOW_RUN)}) == 1


@both
def test_flow_views_are_equal_if_all_they_hold_is(lib: Any) -> None:
    assert lib.FlowView(**FLOW) == lib.FlowView(**FLOW)
    assert lib.FlowView(**FLOW) != lib.FlowView(**{**FLOW, "archived": True})


def test_task_run_views_and_flow_views_go_into_sets() -> None:
    # Prefect's cannot
    assert len({ours.TaskRunView(*TASK_RUN), ours.TaskRunView(*TASK_RUN)}) == 1
    assert len({ours.FlowView(**FLOW), ours.FlowView(**FLOW)}) == 1


@both
def test_a_flow_run_view_keeps_the_finished_ones_of_the_task_runs_it_is_given(lib: Any) -> None:
    finished = lib.TaskRunView("1", "task", "inc-1", "name", Success(), -1, "flow run id")
    running = lib.TaskRunView("2", "task", "inc-1", "name", Running(), 0, "flow run id")
    view = lib.FlowRunView(*FLOW_RUN.values(), iter([finished, running]))
    assert "cached_task_runs=1" in repr(view)
    assert view.get_task_run("inc-1") is finished
    assert view.get_task_run(task_run_id="1") is finished


def test_flow_run_views_do_not_share_the_task_runs_they_keep() -> None:
    ours.FlowRunView(**FLOW_RUN, task_runs=[ours.TaskRunView(*TASK_RUN)])
    assert "cached_task_runs=0" in repr(ours.FlowRunView(**FLOW_RUN))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda it: pickle.loads(cloudpickle.dumps(it))])
@pytest.mark.parametrize(
    "view",
    [
        ours.TaskRunView(*TASK_RUN),
        ours.FlowRunView(**FLOW_RUN, task_runs=[ours.TaskRunView(*TASK_RUN)]),
        ours.FlowView(**FLOW),
        ours.FlowRunLog(NOON, logging.INFO, "hello"),
    ],
    ids=["task run", "flow run", "flow", "log"],
)
def test_a_copy_of_a_view_shows_the_same(view: Any, copied: Any) -> None:
    assert repr(copied(view)) == repr(view)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda it: pickle.loads(cloudpickle.dumps(it))])
def test_a_result_that_is_not_loaded_is_still_not_loaded_in_a_copy(copied: Any) -> None:
    assert copied(NotLoaded) is NotLoaded
    assert copied(ours.TaskRunView(*TASK_RUN))._result is NotLoaded


@both
@pytest.mark.parametrize("state", [Pending(), Scheduled(), Running(), Retrying()], ids=repr)
def test_the_result_of_an_unfinished_task_run_is_a_value_error(lib: Any, state: Any) -> None:
    view = lib.TaskRunView("1", "task", "inc-1", "name", state, -1, "flow run")
    with pytest.raises(ValueError, match="not finished"):
        view.get_result()


@both
@pytest.mark.parametrize("state", [Success(), Failed(), Running()], ids=repr)
def test_only_a_mapped_task_run_can_be_iterated(lib: Any, state: Any) -> None:
    view = lib.TaskRunView("1", "task", "inc-1", "name", state, -1, "flow run")
    with pytest.raises(TypeError, match=r"inc-1.* is not a mapped task"):
        next(view.iter_mapped())


@both
@pytest.mark.parametrize(
    ("state", "error"),
    [
        (Success(), TypeError),
        (Success(result=5), ValueError),
        (Failed(), TypeError),
        (Failed(result=KeyError("x")), ValueError),
    ],
    ids=repr,
)
def test_a_result_that_cannot_be_loaded_raises_the_type_of_error_that_prefect_raises(
    lib: Any, state: Any, error: Any
) -> None:
    with pytest.raises(error):
        lib.TaskRunView("1", "task", "inc-1", "name", state, -1, "flow run").get_result()


@both
@pytest.mark.parametrize("value", [None, 5, ["a"]])
def test_a_not_yet_created_child_counts_as_scheduled(lib: Any, value: Any) -> None:
    row = {
        "id": "1",
        "name": None,
        "task": {"id": "task", "slug": "inc-1"},
        "map_index": 0,
        "serialized_state": None,
        "flow_run_id": "flow run",
    }
    if lib is ours:
        row.update(version=0, start_time=None, state_timestamp=None)
    view = lib.TaskRunView._from_task_run_data(row)
    assert view.state.is_scheduled()


def test_an_error_names_the_child_of_a_mapped_task_run() -> None:
    view = ours.TaskRunView("1", "task", "inc-1", None, Failed("Disk full."), 3, "flow run")
    with pytest.raises(
        TypeError, match=r"task run 'inc-1\[3\]' of flow run flow run: it ended in state Failed: Disk full."
    ):
        view.get_result()


@both
def test_a_view_of_a_mapped_task_run_tells_that_it_is_mapped(lib: Any) -> None:
    assert lib.TaskRunView("1", "task", "inc-1", "name", Mapped(), -1, "flow run").state.is_mapped()


@both
def test_states_are_sorted_by_time(lib: Any) -> None:
    def entered(state: Any, second: int) -> Dict[str, Any]:
        return {"serialized_state": state.serialize(), "timestamp": NOON.add(seconds=second).isoformat()}

    row = {
        "id": "flow run id",
        "name": "name",
        "flow_id": "flow id",
        "labels": [],
        "parameters": {},
        "context": {},
        "serialized_state": None,
        "states": [entered(Success(), 2), entered(Scheduled(), 0), entered(Running(), 1)],
        "updated": NOON.isoformat(),
        "run_config": None,
    }
    if lib is ours:
        row["flow"] = {"name": "flow name"}
    view = lib.FlowRunView._from_flow_run_data(row)
    assert [type(state).__name__ for state in view.states] == ["Scheduled", "Running", "Success"]
    assert [state.timestamp.second for state in view.states] == [0, 1, 2]
    # a new flow run may not have its first state yet
    assert isinstance(view.state, Pending)


@both
@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
def test_a_log_from_the_backend_has_its_time_its_level_as_a_number_and_its_message(lib: Any, level: str) -> None:
    log = lib.FlowRunLog.from_dict({"timestamp": "2021-05-12T12:00:00+00:00", "level": level, "message": "hello"})
    assert log == (NOON, getattr(logging, level), "hello")


def test_a_level_that_this_process_does_not_know_counts_as_info() -> None:
    # Prefect's is then a text, which neither sorts nor logs
    log = ours.FlowRunLog.from_dict({"timestamp": "2021-05-12T12:00:00+00:00", "level": "LOUD", "message": "hello"})
    assert log.level == logging.INFO


@both
def test_logs_sort_by_time(lib: Any) -> None:
    logs = [lib.FlowRunLog(NOON.add(seconds=second), logging.INFO, "") for second in (2, 0, 1)]
    assert [log.timestamp.second for log in sorted(logs)] == [0, 1, 2]
