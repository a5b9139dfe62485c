"""Views of the same backend, by Prefect and by this package."""

import logging
import pickle
from typing import Any, Iterator, List

import cloudpickle
import pendulum
import prefect
import pytest
from driven import DrivenRun, NewUrl, register, shared_backend
from implementations import PREFECT, both
from prefect import Flow, Parameter, task
from prefect.engine.state import Failed, Running, Scheduled, Success
from prefect.exceptions import ClientError
from prefect.run_configs import UniversalRun
from pytest_mock import MockerFixture

import prefect_taskrun_tasks as ours
from prefect_taskrun_tasks.server import Backend, tables

NOBODY = "4f6b3c1e-0000-4000-8000-000000000000"


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        yield backend


@task
def inc(x: int) -> int:
    return x + 1


with Flow("child", run_config=UniversalRun(labels=["here"], env={"A": "1"})) as child_flow:
    inc(Parameter("x", default=1))
    inc(2)
    inc.map([1, 2])


def named(name: str) -> Flow:
    with Flow(name) as flow:
        inc(1)
    return flow


@pytest.fixture(scope="module")
def flow_id(backend: Backend) -> str:
    return register(child_flow)


@pytest.fixture
def run(flow_id: str) -> DrivenRun:
    options = {"parameters": {"x": 5}, "context": {"c": [1]}, "run_name": "a-run", "labels": ["there"]}
    return DrivenRun(child_flow, flow_id, **options).enter(Running("Off we go."))


def group_of(flow_id: str) -> str:
    query = "query($id: uuid!) { flow_by_pk(id: $id) { flow_group_id } }"
    group: str = prefect.Client().graphql(query, variables={"id": flow_id}).data.flow_by_pk.flow_group_id
    return group


def is_archived(flow_id: str) -> bool:
    archived: bool = ours.FlowView.from_flow_id(flow_id).archived
    return archived


def test_flow_views_hold_the_same(run: DrivenRun) -> None:
    theirs, mine = [lib.FlowView.from_flow_id(run.flow_id) for lib in (PREFECT, ours)]
    for name in ("flow_id", "name", "project_name", "archived", "core_version"):
        assert getattr(mine, name) == getattr(theirs, name)
    for name in ("settings", "serialized_flow", "flow_group_labels"):
        assert getattr(mine, name) == getattr(theirs, name)
    assert mine.run_config.serialize() == theirs.run_config.serialize()
    assert mine.storage.serialize() == theirs.storage.serialize()
    assert repr(mine) == repr(theirs)
    assert {each.name for each in mine.flow.tasks} == {each.name for each in theirs.flow.tasks}


def test_flow_run_views_hold_the_same(run: DrivenRun) -> None:
    theirs, mine = [lib.FlowRunView.from_flow_run_id(run.id) for lib in (PREFECT, ours)]
    for name in ["flow_run_id", "name", "flow_id", "labels", "parameters", "context", "state", "updated_at"]:
        assert getattr(mine, name) == getattr(theirs, name)
        assert type(getattr(mine, name)) is type(getattr(theirs, name))
    assert mine.states == theirs.states
    assert [each.timestamp for each in mine.states] == [each.timestamp for each in theirs.states]
    assert mine.run_config.serialize() == theirs.run_config.serialize()
    assert repr(mine) == repr(theirs)


def test_a_flow_run_view_holds_what_the_flow_run_was_created_with(run: DrivenRun) -> None:
    view = ours.FlowRunView.from_flow_run_id(run.id)
    assert (view.name, view.flow_id, view.labels) == ("a-run", run.flow_id, ["there"])
    assert (view.parameters, view.context) == ({"x": 5}, {"c": [1]})
    assert [str(type(each).__name__) for each in view.states] == ["Scheduled", "Running"]
    assert view.state.message == "Off we go."


@both
def test_a_run_config_of_the_flow_run_itself_is_shown(lib: Any, run: DrivenRun) -> None:
    other = DrivenRun(run.flow, run.flow_id, run_config=UniversalRun(env={"B": "2"}))
    assert lib.FlowRunView.from_flow_run_id(other.id).run_config.env == {"B": "2"}


@pytest.mark.parametrize(("slug", "map_index"), [("inc-1", -1), ("inc-2", -1), ("inc-3", 1), ("x", -1)])
def test_task_run_views_hold_the_same(run: DrivenRun, slug: str, map_index: int) -> None:
    run.task_returns(slug, 6, None if map_index == -1 else map_index)
    theirs, mine = [lib.TaskRunView.from_task_slug(slug, run.id, map_index) for lib in (PREFECT, ours)]
    for name in ["task_run_id", "task_id", "task_slug", "name", "state", "map_index", "flow_run_id"]:
        assert getattr(mine, name) == getattr(theirs, name)
    assert (mine.task_slug, mine.map_index, mine.flow_run_id) == (slug, map_index, run.id)
    assert repr(mine) == repr(theirs)
    assert mine.get_result() == theirs.get_result() == 6
    assert repr(mine).endswith("result=6)")


@both
def test_a_task_run_is_found_by_its_id(lib: Any, run: DrivenRun) -> None:
    task_run_id = run.task_returns("inc-1", 6)
    view = lib.TaskRunView.from_task_run_id(task_run_id)
    assert view.task_run_id == task_run_id
    assert view == lib.TaskRunView.from_task_slug("inc-1", flow_run_id=run.id)


@both
def test_a_flow_is_found_by_its_id_and_by_that_of_its_group(lib: Any, flow_id: str) -> None:
    group = group_of(flow_id)
    for found in (
        lib.FlowView.from_id(flow_id),
        lib.FlowView.from_id(group),
        lib.FlowView.from_flow_id(flow_id),
        lib.FlowView.from_flow_group_id(group),
        lib.FlowView.from_flow_name("child"),
        lib.FlowView.from_flow_name("child", project_name="tests"),
    ):
        assert (found.flow_id, found.project_name) == (flow_id, "tests")


@both
def test_the_newest_version_of_a_flow_is_found_by_name_and_by_group(lib: Any) -> None:
    oldest, newest = register(named("changing")), register(named("changing"))
    assert is_archived(oldest)
    assert lib.FlowView.from_flow_name("changing").flow_id == newest
    assert lib.FlowView.from_flow_group_id(group_of(oldest)).flow_id == newest
    assert lib.FlowView.from_id(oldest).flow_id == oldest


@both
def test_a_name_in_two_projects_has_to_be_told_apart(lib: Any) -> None:
    here, elsewhere = register(named("twin"), "here"), register(named("twin"), "elsewhere")
    with pytest.raises(ValueError, match=r"Found multiple flows .* Provide a `project_name`"):
        lib.FlowView.from_flow_name("twin")
    assert lib.FlowView.from_flow_name("twin", "here").flow_id == here
    assert lib.FlowView.from_flow_name("twin", "elsewhere").flow_id == elsewhere
    assert lib.FlowView.from_flow_name("twin", last_updated=True).flow_id == elsewhere


def test_an_ambiguous_name_is_told_with_the_projects_that_have_it() -> None:
    register(named("pair"), "here")
    register(named("pair"), "elsewhere")
    with pytest.raises(ValueError, match=r"\['elsewhere', 'here'\]"):
        ours.FlowView.from_flow_name("pair")


LOOKUPS = {
    "flow": lambda lib, id: lib.FlowView.from_flow_id(id),
    "flow group": lambda lib, id: lib.FlowView.from_flow_group_id(id),
    "flow or flow group": lambda lib, id: lib.FlowView.from_id(id),
    "flow name": lambda lib, id: lib.FlowView.from_flow_name(id),
    "flow run": lambda lib, id: lib.FlowRunView.from_flow_run_id(id),
    "task run": lambda lib, id: lib.TaskRunView.from_task_run_id(id),
    "task slug": lambda lib, id: lib.TaskRunView.from_task_slug(id, NOBODY),
    "task slug in flow run": lambda lib, id: lib.TaskRunView.from_task_slug("inc-1", id),
}
lookups = pytest.mark.parametrize("look_up", LOOKUPS.values(), ids=LOOKUPS)


@both
@lookups
def test_what_is_not_there_is_a_value_error_that_names_it(lib: Any, look_up: Any) -> None:
    with pytest.raises(ValueError, match=NOBODY):
        look_up(lib, NOBODY)


@lookups
def test_none_finds_nothing(run: DrivenRun, look_up: Any) -> None:
    # Prefect takes it for any flow, flow run or task run, if there is but one
    with pytest.raises((ValueError, TypeError), match="None"):
        look_up(ours, None)


@both
@pytest.mark.parametrize("kind", ["flow", "flow group", "flow or flow group", "task run"])
@pytest.mark.parametrize("id", [None, 3, {}])
def test_an_id_that_is_no_text_is_a_type_error(lib: Any, kind: str, id: Any) -> None:
    with pytest.raises(TypeError, match="expected 'str'"):
        LOOKUPS[kind](lib, id)


@both
@pytest.mark.parametrize("kind", ["flow", "flow group", "flow or flow group", "flow run", "task run"])
def test_an_id_that_is_no_uuid_is_refused_by_the_backend(lib: Any, kind: str) -> None:
    with pytest.raises(ClientError, match="nonsense"):
        LOOKUPS[kind](lib, "nonsense")


@both
def test_a_value_is_looked_for_as_it_is(lib: Any) -> None:
    name = 'it\'s "quoted" \\ {braces} \n $x ä'
    flow_id = register(named(name))
    assert lib.FlowView.from_flow_name(name).flow_id == flow_id


@both
def test_finished_task_runs_are_kept(lib: Any, run: DrivenRun) -> None:
    run.task_returns("inc-1", 6)
    view = lib.FlowRunView.from_flow_run_id(run.id)
    assert view.get_task_run("inc-1") is view.get_task_run(task_slug="inc-1")
    assert view.get_task_run("inc-2") is not view.get_task_run("inc-2")
    assert "cached_task_runs=1" in repr(view)


@both
def test_a_kept_task_run_is_found_by_either_identifier(lib: Any, run: DrivenRun) -> None:
    task_run_id = run.task_returns("inc-1", 6)
    view = lib.FlowRunView.from_flow_run_id(run.id)
    found = view.get_task_run(task_run_id=task_run_id)
    assert view.get_task_run("inc-1") is found
    assert view.get_task_run("inc-1", task_run_id, -1) is found


@both
def test_children_of_a_mapped_task_run_are_kept_apart(lib: Any, run: DrivenRun) -> None:
    run.task_maps("inc-3", [2, 3])
    view = lib.FlowRunView.from_flow_run_id(run.id)
    found = [view.get_task_run("inc-3", map_index=map_index) for map_index in (-1, 0, 1)]
    assert [each.map_index for each in found] == [-1, 0, 1]
    assert [each.get_result() for each in found] == [[2, 3], 2, 3]
    assert view.get_task_run("inc-3", map_index=1) is found[2]


@both
def test_the_next_view_keeps_what_the_last_one_kept(lib: Any, run: DrivenRun) -> None:
    run.task_returns("inc-1", 6)
    view = lib.FlowRunView.from_flow_run_id(run.id)
    found = view.get_task_run("inc-1")
    run.enter(Success())
    latest = view.get_latest()
    assert latest.get_task_run("inc-1") is found
    assert latest.state.is_successful()
    assert view.state.is_running()


@both
def test_static_tasks_can_be_loaded_together_with_the_flow_run(lib: Any, run: DrivenRun) -> None:
    run.task_returns("inc-1", 6)
    run.task_maps("inc-3", [2, 3])
    view = lib.FlowRunView.from_flow_run_id(run.id, load_static_tasks=True)
    assert "cached_task_runs=2" in repr(view)
    run.task_returns("inc-2", 7)
    assert "cached_task_runs=2" in repr(view.get_latest())
    latest = view.get_latest(load_static_tasks=True)
    assert "cached_task_runs=3" in repr(latest)
    assert latest.get_task_run("inc-1") is view.get_task_run("inc-1")


@both
@pytest.mark.parametrize(("given", "told"), [({"task_slug": "inc-2"}, "inc-2"), ({"map_index": 3}, "3")])
def test_identifiers_of_a_task_run_must_not_contradict_each_other(
    lib: Any, run: DrivenRun, given: Any, told: str
) -> None:
    task_run_id = run.task_returns("inc-1", 6)
    with pytest.raises(ValueError, match=f"Both .*{told}"):
        lib.FlowRunView.from_flow_run_id(run.id).get_task_run(task_run_id=task_run_id, **given)


@both
@pytest.mark.parametrize("given", [{}, {"map_index": 1}])
def test_a_task_run_needs_an_identifier(lib: Any, run: DrivenRun, given: Any) -> None:
    with pytest.raises(ValueError, match="must be provided"):
        lib.FlowRunView.from_flow_run_id(run.id).get_task_run(**given)


@both
@pytest.mark.parametrize("given", [{"task_slug": "nothing-1"}, {"task_slug": "inc-1", "map_index": 7}])
def test_a_task_run_that_is_not_there_is_a_value_error(lib: Any, run: DrivenRun, given: Any) -> None:
    with pytest.raises(ValueError, match=given["task_slug"]):
        lib.FlowRunView.from_flow_run_id(run.id).get_task_run(**given)


@both
def test_all_task_runs_are_found_the_kept_ones_included(lib: Any, run: DrivenRun) -> None:
    run.task_returns("inc-1", 6)
    run.task_maps("inc-3", [2, 3])
    view = lib.FlowRunView.from_flow_run_id(run.id)
    kept = view.get_task_run("inc-1")
    found = view.get_all_task_runs()
    assert sorted(each.task_run_id for each in found) == sorted(view.get_task_run_ids())
    assert len(found) == len(run.flow.tasks) + 2
    assert any(each is kept for each in found)
    assert "cached_task_runs=4" in repr(view)
    assert {each.flow_run_id for each in found} == {run.id}


@both
def test_ids_of_task_runs_are_looked_up_once_if_the_flow_run_has_finished(
    lib: Any, run: DrivenRun, mocker: MockerFixture
) -> None:
    running = lib.FlowRunView.from_flow_run_id(run.id)
    ids = running.get_task_run_ids()
    run.enter(Success())
    finished = running.get_latest()
    assert sorted(finished.get_task_run_ids()) == sorted(ids)
    posted = mocker.spy(prefect.Client, "post")
    assert sorted(finished.get_task_run_ids()) == sorted(ids)
    assert posted.call_count == 0


def test_the_list_of_ids_is_the_callers_own(run: DrivenRun) -> None:
    """Prefect's view gives away its own list, which a caller's `append` changes."""
    finished = ours.FlowRunView.from_flow_run_id(run.enter(Success()).id)
    finished.get_task_run_ids().append("mine")
    assert "mine" not in finished.get_task_run_ids()


def test_a_loaded_result_is_not_kept_for_another_state_of_the_same_version(backend: Backend, run: DrivenRun) -> None:
    """Prefect Server gives two states the same version if two writers read the same one."""
    view = ours.TaskRunView.from_task_run_id(run.task_returns("inc-1", 6))
    assert view.get_result() == 6
    of_run = ours.FlowRunView.from_flow_run_id(run.id)
    assert of_run.get_task_run(task_run_id=view.task_run_id).get_result() == 6
    run.task_returns("inc-1", 7)
    runs = tables.task_run
    with backend._database.write() as tx:
        tx.update(runs, runs.c.id == view.task_run_id, version=view._version)
    assert view.get_latest().get_result() == 7
    [found] = of_run.get_all_task_runs(task_slug="inc-1")
    assert found.get_result() == 7


@both
def test_the_flow_of_a_flow_run_is_looked_up_once(lib: Any, run: DrivenRun) -> None:
    view = lib.FlowRunView.from_flow_run_id(run.id)
    flow = view.get_flow_metadata()
    assert isinstance(flow, lib.FlowView)
    assert flow.flow_id == run.flow_id
    assert view.get_flow_metadata() is flow
    assert view.get_flow_metadata(no_cache=True) is not flow


def logged(run: DrivenRun, second: int, message: str, level: str = "INFO") -> pendulum.DateTime:
    at = pendulum.now("utc").start_of("hour").subtract(hours=1).add(seconds=second)
    run.log(message, level=level, timestamp=at.isoformat())
    return at


def test_logs_are_the_same(run: DrivenRun) -> None:
    for second, level in enumerate(["DEBUG", "WARNING", "ERROR"]):
        logged(run, second, f"message {second}", level)
    theirs, mine = [lib.FlowRunView.from_flow_run_id(run.id).get_logs() for lib in (PREFECT, ours)]
    assert mine == theirs
    assert [log.message for log in mine] == ["message 0", "message 1", "message 2"]
    assert [log.level for log in mine] == [logging.DEBUG, logging.WARNING, logging.ERROR]


@both
def test_logs_are_those_after_the_start_and_up_to_the_end(lib: Any, run: DrivenRun) -> None:
    times = [logged(run, second, str(second)) for second in (3, 0, 1, 2)]
    view = lib.FlowRunView.from_flow_run_id(run.id)

    def messages(**window: Any) -> List[str]:
        return [log.message for log in view.get_logs(**window)]

    assert messages() == ["0", "1", "2", "3"]
    assert messages(start_time=times[1]) == ["1", "2", "3"]
    assert messages(end_time=times[3]) == ["0", "1", "2"]
    assert messages(start_time=times[1], end_time=times[3]) == ["1", "2"]


@both
def test_logs_that_are_later_than_the_view_are_not_shown_by_default(lib: Any, run: DrivenRun) -> None:
    view = lib.FlowRunView.from_flow_run_id(run.id)
    run.log("later", timestamp=view.updated_at.add(minutes=1).isoformat())
    assert view.get_logs() == []
    assert [log.message for log in view.get_logs(end_time=view.updated_at.add(minutes=2))] == ["later"]


def test_logs_of_other_flow_runs_are_not_shown(run: DrivenRun) -> None:
    logged(DrivenRun(run.flow, run.flow_id), 0, "of another")
    assert ours.FlowRunView.from_flow_run_id(run.id).get_logs() == []


@both
def test_a_view_does_not_change_with_the_backend(lib: Any, run: DrivenRun) -> None:
    task_run_id = run.task_run_id("inc-1")
    flow_run, task_run = lib.FlowRunView.from_flow_run_id(run.id), lib.TaskRunView.from_task_run_id(task_run_id)
    run.task_enters("inc-1", Failed())
    run.enter(Failed())
    assert flow_run.state.is_running()
    assert not task_run.state.is_finished()
    assert task_run.get_latest().state.is_failed()
    assert not task_run.state.is_finished()
    assert flow_run.get_latest().state.is_failed()


@both
def test_views_survive_cloudpickle(lib: Any, run: DrivenRun) -> None:
    run.task_returns("inc-1", [6])
    view = lib.FlowRunView.from_flow_run_id(run.id)
    view.get_task_run("inc-1").get_result()
    view.get_flow_metadata()
    copied = pickle.loads(cloudpickle.dumps(view))
    assert repr(copied) == repr(view)
    assert repr(copied.get_task_run("inc-1")) == repr(view.get_task_run("inc-1"))
    assert copied.get_latest().get_task_run("inc-1").get_result() == [6]


@both
def test_a_flow_run_that_waits_for_its_time_says_when(lib: Any, run: DrivenRun) -> None:
    later = pendulum.now("utc").add(hours=1)
    scheduled = DrivenRun(run.flow, run.flow_id, scheduled_start_time=later)
    state = lib.FlowRunView.from_flow_run_id(scheduled.id).state
    assert isinstance(state, Scheduled)
    assert state.start_time == later
