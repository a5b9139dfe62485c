"""Lookups by what people call a run, and what they want to know of it."""

from typing import Any, Iterator, List
from uuid import uuid4

import pendulum
import pytest
from driven import DrivenRun, NewUrl, register, shared_backend
from many import insert_logs, map_over_many
from prefect import Flow, Parameter, task
from prefect.engine.results import LocalResult
from prefect.engine.state import Failed, Retrying, Running, Success

from prefect_taskrun_tasks import FlowRunView, TaskRunView, errors
from prefect_taskrun_tasks.server import Backend, tables
from prefect_taskrun_tasks.server.clock import now


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        yield backend


@task
def load() -> List[int]:
    return [1, 2]


@task
def inc(x: int) -> int:
    return x + 1


with Flow("looking") as flow:
    inc.map(load())
    inc(Parameter("x", default=1))


@pytest.fixture(scope="module")
def flow_id(backend: Backend) -> str:
    return register(flow)


@pytest.fixture
def run(flow_id: str) -> DrivenRun:
    return DrivenRun(flow, flow_id).enter(Running())


def named(flow_id: str, name: str) -> str:
    """A flow run of that name."""
    return DrivenRun(flow, flow_id, run_name=name).id


def child_of(parent: str, flow_id: str, name: str) -> str:
    context = {"prefect_taskrun_tasks": {"parent_flow_run_id": parent}}
    return DrivenRun(flow, flow_id, run_name=name, context=context).id


#: What puts off the checking of references
UNCHECKED = {"sqlite": "PRAGMA defer_foreign_keys = ON", "postgresql": "SET LOCAL session_replication_role = replica"}


def set_id(backend: Backend, table: Any, old: str, new: str) -> None:
    with backend._database.write() as tx:
        tx.connection.exec_driver_sql(UNCHECKED[tx.connection.dialect.name])
        for child in tables.metadata.tables.values():
            for key in child.foreign_keys:
                if key.column.table is table:
                    tx.connection.execute(child.update().where(key.parent == old).values({key.parent.name: new}))
        tx.connection.execute(table.update().where(table.c.id == old).values(id=new))


def test_a_flow_run_is_found_by_id_name_or_the_beginning_of_either(flow_id: str) -> None:
    id = named(flow_id, "curious-Ocelot")
    for text in (id, id.upper(), id[:13], "curious-Ocelot", "curious-O", "CURIOUS-o"):
        assert FlowRunView.find(text).flow_run_id == id
    assert FlowRunView.find(id[:13], by=["id"]).flow_run_id == id
    assert FlowRunView.find("curious", by=["name"]).flow_run_id == id


def test_a_name_that_fits_goes_before_those_that_begin_so(flow_id: str) -> None:
    ids = [named(flow_id, name) for name in ("brave-fox", "brave-fox-child", "brave-fox-child-2")]
    assert FlowRunView.find("brave-fox").flow_run_id == ids[0]
    with pytest.raises(errors.Ambiguous) as raised:
        FlowRunView.find("brave-fox-")
    assert "'brave-fox-' may mean several flow runs" in str(raised.value)
    for id in ids[1:]:
        assert id in str(raised.value)
    assert ids[0] not in str(raised.value)


def test_the_beginning_of_a_parents_name_means_the_parent_and_not_its_children(flow_id: str) -> None:
    parent = named(flow_id, "wise-owl")
    children = [child_of(parent, flow_id, f"wise-owl-child-{number}") for number in range(2)]
    assert FlowRunView.find("wise").flow_run_id == parent
    assert FlowRunView.find("wise-owl-child-1").flow_run_id == children[1]
    with pytest.raises(errors.Ambiguous):
        FlowRunView.find("wise-owl-")


def test_an_id_goes_before_a_name_that_looks_like_it(flow_id: str) -> None:
    id = named(flow_id, "any")
    impostor = named(flow_id, id)
    assert FlowRunView.find(id).flow_run_id == id
    assert FlowRunView.find(id, by=["name"]).flow_run_id == impostor


def test_the_newest_with_a_task_has_that_task_and_not_one_that_looks_like_it(flow_id: str) -> None:
    with Flow("looking-alike") as alike:
        task(load.run, name="load_data")()
    with Flow("looking-alike-too") as other:
        task(load.run, name="load data")()
    meant = DrivenRun(alike).id
    DrivenRun(other)
    for slug in ("load_data-1", "load_data", "load_"):
        assert FlowRunView.newest(slug).flow_run_id == meant


def test_task_runs_that_start_while_they_are_looked_up_are_not_left_out(run: DrivenRun) -> None:
    run.task_enters("load-1", Running())
    task_runs = FlowRunView.from_flow_run_id(run.id).iter_task_runs()
    assert next(task_runs).task_slug == "load-1"
    run.task_enters("inc-2", Running())
    assert {each.task_slug for each in task_runs} == {"inc-1", "inc-2", "x"}


def test_a_name_that_several_flow_runs_have_is_ambiguous_and_no_more_than_ten_are_listed(flow_id: str) -> None:
    ids = [named(flow_id, "twelve-times") for _ in range(12)]
    with pytest.raises(errors.Ambiguous) as raised:
        FlowRunView.find("twelve-times")
    listed = [id for id in ids if id in str(raised.value)]
    assert listed == ids[2:], "the newest"
    assert str(raised.value).endswith("...")


def test_the_beginning_of_an_id_that_several_flow_runs_have_is_ambiguous(backend: Backend, flow_id: str) -> None:
    ids = ["beef0000-0000-4000-8000-00000000000a", "beef0000-0000-4000-8000-00000000000b"]
    for id in ids:
        set_id(backend, tables.flow_run, named(flow_id, "any"), id)
    assert FlowRunView.find(ids[0]).flow_run_id == ids[0]
    assert FlowRunView.find(ids[1][:-1] + "B").flow_run_id == ids[1]
    with pytest.raises(errors.Ambiguous, match="beef0000-0000-4000-8000-00000000000a"):
        FlowRunView.find("beef0000-0000")


@pytest.mark.parametrize(
    "text", ["nobody", "8e4", "8e445d74-0000-4000-8000-000000000000", "8e44-5d74", "100%", "curious_ocelot", "\\", "é"]
)
def test_a_flow_run_that_is_not_there_is_not_found(text: str) -> None:
    with pytest.raises(errors.NotFound, match="No flow run has the id or the name"):
        FlowRunView.find(text)


@pytest.mark.parametrize("name", ["100%_done", "back\\slash", "[red]x[/red]", "naïve 名前"])
def test_the_beginning_of_a_name_is_taken_as_it_is(flow_id: str, name: str) -> None:
    id = named(flow_id, f"{name}-abc")
    named(flow_id, "100xxdone-abc")
    assert FlowRunView.find(name).flow_run_id == id


@pytest.mark.parametrize(("text", "error"), [("", errors.InvalidArgument), (None, errors.WrongType)])
def test_what_is_no_text_is_refused(text: Any, error: type) -> None:
    for find in (FlowRunView.find, TaskRunView.find):
        with pytest.raises(error):
            find(text)


def test_the_newest_flow_run_is_the_one_created_last_unless_it_is_only_planned(backend: Backend, flow_id: str) -> None:
    newest = named(flow_id, "newest")
    assert FlowRunView.newest().flow_run_id == newest
    with Flow("looking-other") as other:
        load()
    planned = DrivenRun(other)
    with backend._database.write() as tx:
        tx.update(tables.flow_run, tables.flow_run.c.id == planned.id, auto_scheduled=True)
    assert FlowRunView.newest().flow_run_id == newest
    planned.enter(Running())
    assert FlowRunView.newest().flow_run_id == planned.id
    assert FlowRunView.newest("inc-1").flow_run_id == FlowRunView.newest("inc").flow_run_id == newest
    child = child_of(planned.id, flow_id, "newest-child")
    assert FlowRunView.newest().flow_run_id == planned.id
    assert FlowRunView.newest("inc-1").flow_run_id == child
    with pytest.raises(errors.NotFound, match="no flow run of a flow with a task 'nothing'"):
        FlowRunView.newest("nothing")


def test_a_task_run_is_found_by_the_beginning_of_its_id(backend: Backend, run: DrivenRun) -> None:
    id = run.task_run_id("load-1")
    assert TaskRunView.find(id).task_run_id == TaskRunView.find(id[:18]).task_run_id == id
    alike = ["feed0000-0000-4000-8000-00000000000a", "feed0000-0000-4000-8000-00000000000b"]
    for slug, new in zip(("load-1", "inc-2"), alike):
        set_id(backend, tables.task_run, run.task_run_id(slug), new)
    with pytest.raises(errors.Ambiguous, match="feed0000-0000-4000-8000-00000000000b  task run 'inc-2' of flow run"):
        TaskRunView.find("feed0000")
    for text in ("abc", "not-an-id", "abababab"):
        with pytest.raises(errors.NotFound, match="No task run has the id"):
            TaskRunView.find(text)


def test_a_task_run_is_found_by_the_beginning_of_its_slug(run: DrivenRun) -> None:
    run.task_maps("inc-1", [1, 2])
    view = FlowRunView.from_flow_run_id(run.id)
    assert view.find_task_run("load").task_slug == "load-1"
    assert view.find_task_run("inc-2").task_slug == "inc-2"
    assert view.find_task_run("inc-1", 1).map_index == 1
    with pytest.raises(errors.Ambiguous, match=r"several tasks. Give more of it, or an id:\n  inc-1\n  inc-2"):
        view.find_task_run("inc")
    with pytest.raises(errors.NotFound, match="It has 4 tasks, among them: inc-1, inc-2"):
        view.find_task_run("ink-1")


def test_task_runs_come_in_the_order_in_which_they_started_and_the_others_last(run: DrivenRun) -> None:
    for slug in ("inc-2", "load-1", "x"):
        run.task_enters(slug, Running())
    run.task_enters("inc-2", Failed("no"))
    run.task_enters("inc-1", Running(), 1)
    run.task_enters("inc-1", Running(), 0)
    view = FlowRunView.from_flow_run_id(run.id)

    def shown(**only: Any) -> List[Any]:
        return [(each.task_slug, each.map_index) for each in view.iter_task_runs(**only)]

    assert shown() == [("inc-2", -1), ("load-1", -1), ("x", -1), ("inc-1", 1), ("inc-1", 0), ("inc-1", -1)]
    assert shown(mapped=True) == [("inc-1", 1), ("inc-1", 0)]
    assert shown(mapped=False, state="Running") == [("load-1", -1), ("x", -1)]
    assert shown(state=["Failed", "Pending"]) == [("inc-2", -1), ("inc-1", -1)]
    assert shown(task_slug="inc-1", mapped=False) == [("inc-1", -1)]
    with pytest.raises(errors.InvalidArgument, match="There is no state 'Sucess'"):
        view.iter_task_runs(state="Sucess")


def test_task_runs_that_started_at_one_instant_are_neither_lost_nor_repeated(backend: Backend, run: DrivenRun) -> None:
    map_over_many(backend, run, "inc-1", 1_100)
    first, second = (f"2026-01-01T12:00:0{second}.000000+00:00" for second in (0, 1))
    with backend._database.write() as tx:
        runs = tables.task_run.c
        children = (runs.flow_run_id == run.id) & (runs.map_index >= 0)
        tx.update(tables.task_run, children, start_time=first)
        tx.update(tables.task_run, children & (runs.map_index >= 900), start_time=second)
        tx.update(tables.task_run, children & (runs.map_index >= 1_000), start_time=None)
    found = list(FlowRunView.from_flow_run_id(run.id).iter_task_runs(mapped=True))
    assert len({each.task_run_id for each in found}) == len(found) == 1_100
    assert {each.map_index for each in found[:900]} == set(range(900))
    assert {each.map_index for each in found[900:1_000]} == set(range(900, 1_000))


def test_lines_of_one_instant_are_neither_lost_nor_repeated(backend: Backend, run: DrivenRun) -> None:
    lines = [str(number) for number in range(1_100)]
    insert_logs(backend, run, lines)
    with backend._database.write() as tx:
        tx.update(tables.log, tables.log.c.flow_run_id == run.id, timestamp=pendulum.now("utc").isoformat())
    assert sorted(log.message for log in FlowRunView.from_flow_run_id(run.id).iter_logs()) == sorted(lines)


def test_a_task_run_has_lines_of_its_own(run: DrivenRun) -> None:
    own = run.task_run_id("load-1")
    noon = pendulum.datetime(2026, 1, 1, 12)
    run.log("of the flow run", timestamp=noon.isoformat())
    run.log("second", task_run_id=own, timestamp=noon.add(seconds=2).isoformat())
    run.log("first", task_run_id=own, timestamp=noon.add(seconds=1).isoformat())
    view = TaskRunView.from_task_run_id(own)
    assert [log.message for log in view.iter_logs()] == ["first", "second"]
    assert [log.message for log in view.iter_logs(start_time=noon.add(seconds=1))] == ["second"]
    assert [log.message for log in view.iter_logs(end_time=noon.add(seconds=1))] == ["first"]
    with pytest.raises(errors.WrongType):
        view.iter_logs(start_time="noon")  # type: ignore[arg-type]


def test_a_task_run_knows_its_states_times_and_what_it_depends_on(run: DrivenRun) -> None:
    run.task_returns("load-1", [1, 2])
    for state in (Running(), Failed("once"), Retrying("again", run_count=2)):
        run.task_enters("inc-1", state, 0)
    before = FlowRunView.from_flow_run_id(run.id).get_task_run("inc-1", map_index=0)
    assert (before.state_name, before.state_message, before.end_time) == ("Retrying", "again", None)
    assert isinstance(before.start_time, pendulum.DateTime)
    run.task_enters("inc-1", Running(), 0)
    run.task_returns("inc-1", 2, 0)
    view = before.get_latest()
    names = [type(state).__name__ for state in view.get_states()]
    assert names == ["Pending", "Running", "Failed", "Retrying", "Running", "Success"]
    assert [state.timestamp for state in view.get_states()] == sorted(state.timestamp for state in view.get_states())
    assert view.start_time == before.start_time
    assert view.end_time == view.get_states()[-1].timestamp
    assert [each.task_slug for each in view.get_upstream()] == ["load-1"]
    assert view.get_upstream()[0].get_result() == [1, 2]


def test_a_task_run_knows_what_keeps_its_result_and_where(run: DrivenRun) -> None:
    kept = LocalResult().write(5)
    run.task_enters("load-1", Success(result=kept))
    view = TaskRunView.from_task_slug("load-1", run.id)
    assert (view.result_type, view.result_location) == ("LocalResult", kept.location)
    run.task_enters("inc-2", Failed("no", result=ValueError("no")))
    view = TaskRunView.from_task_slug("inc-2", run.id)
    assert (view.result_type, view.result_location) == (None, None)
    made = TaskRunView("1", "task", "inc-1", None, Success(result=kept), -1, "flow run")
    assert (made.result_type, made.result_location) == ("LocalResult", kept.location)
    assert (made.state_name, made.start_time, made.end_time) == ("Success", None, None)


def test_a_flow_run_knows_its_times_and_the_name_of_its_flow(flow_id: str) -> None:
    run = DrivenRun(flow, flow_id)
    view = FlowRunView.from_flow_run_id(run.id)
    assert (view.start_time, view.end_time, view.flow_name) == (None, None, "looking")
    run.enter(Running()).enter(Success())
    view = view.get_latest()
    running, success = view.states[-2:]
    assert (view.start_time, view.end_time) == (running.timestamp, success.timestamp)


def test_task_runs_of_many_flow_runs_are_counted_by_state(backend: Backend, flow_id: str) -> None:
    first, second = DrivenRun(flow, flow_id), DrivenRun(flow, flow_id)
    map_over_many(backend, first, "inc-1", 10, {3: Failed("no")})
    counts = FlowRunView.count_task_runs([first.id, second.id, str(uuid4())])
    assert counts == {
        first.id: {"Success": 9, "Failed": 1, "Mapped": 1, "Pending": 3},
        second.id: {"Pending": 4},
    }


def test_descendants_come_generation_by_generation(run: DrivenRun) -> None:
    children = [child_of(run.id, run.flow_id, f"child {number}") for number in range(2)]
    grandchild = child_of(children[0], run.flow_id, "grandchild")
    last = child_of(grandchild, run.flow_id, "last")
    family = list(FlowRunView.from_flow_run_id(run.id).iter_descendants())
    assert [each.flow_run_id for each in family] == [*children, grandchild, last]
    assert [each.flow_run_id for each in FlowRunView.from_flow_run_id(last).iter_descendants()] == []


def test_a_flow_run_that_is_its_own_ancestor_is_not_looked_for_for_ever(backend: Backend, run: DrivenRun) -> None:
    context = {"prefect_taskrun_tasks": {"parent_flow_run_id": run.id}}
    child = DrivenRun(flow, run.flow_id, context=context).id
    with backend._database.write() as tx:
        own = {"prefect_taskrun_tasks": {"parent_flow_run_id": child}}
        tx.update(tables.flow_run, tables.flow_run.c.id == run.id, context=own)
        # children are not looked for among older flow runs
        tx.update(tables.flow_run, tables.flow_run.c.id.in_([run.id, child]), created=now())
    assert [each.flow_run_id for each in FlowRunView.from_flow_run_id(run.id).iter_descendants()] == [child]
