"""Parents and children, and which of them are cancelled together."""

from typing import Any, Dict, Iterator, List, Optional

import prefect
import pytest
from conftest import eventually
from driven import DrivenRun, NewUrl, register, shared_backend
from prefect import Flow, Parameter, task, unmapped
from prefect.engine.state import Cancelled, Cancelling, Failed, Running, Scheduled, Success
from prefect.run_configs import UniversalRun

from prefect_taskrun_tasks import FlowRunView, Lineage, api, create_flow_run, errors, wait_for_flow_run
from prefect_taskrun_tasks.results import threads_as_this
from prefect_taskrun_tasks.server import Backend
from prefect_taskrun_tasks.tasks.child import rerun_of
from prefect_taskrun_tasks.waiting import cancelling


@task
def inc(x: int) -> int:
    return x + 1


with Flow("lineage-child") as child_flow:
    inc(Parameter("x", default=1))


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        register(child_flow)
        yield backend


@pytest.fixture
def parent() -> DrivenRun:
    return DrivenRun(child_flow, register(child_flow)).enter(Running())


def child_of(parent_run_id: str, key: str = "a-task-run", **options: Any) -> str:
    """A child flow run, as a task of the parent creates it."""
    with prefect.context(flow_run_id=parent_run_id, task_run_id=f"{parent_run_id}-{key}", task_run_version=1):
        flow_run_id: str = create_flow_run.run(flow_name="lineage-child", **options)
    return flow_run_id


def state_of(flow_run_id: str) -> str:
    return type(FlowRunView.from_flow_run_id(flow_run_id).state).__name__


def test_a_child_knows_its_parent_and_the_parent_its_children(parent: DrivenRun) -> None:
    first, second = child_of(parent.id, "1"), child_of(parent.id, "2", parent_close_policy="cancel")
    view = FlowRunView.from_flow_run_id(parent.id)
    assert [child.flow_run_id for child in view.get_children()] == [first, second]
    child = FlowRunView.from_flow_run_id(second)
    assert child.lineage == Lineage(parent.id, f"{parent.id}-2", None, "cancel", "rerun_failed")
    found = child.get_parent()
    assert found is not None
    assert found.flow_run_id == parent.id


def test_a_mapped_child_knows_its_map_index() -> None:
    with Flow("lineage-parent") as flow:
        create_flow_run.map(flow_name=unmapped("lineage-child"), parameters=[{"x": 1}, {"x": 2}])
    run = DrivenRun(flow)
    assert run.execute().is_successful()
    children = FlowRunView.from_flow_run_id(run.id).get_children()
    assert sorted(child.lineage.parent_map_index for child in children if child.lineage) == [0, 1]  # type: ignore[type-var]
    expected = {run.task_run_id("create_flow_run-1", index) for index in (0, 1)}
    assert {child.lineage.parent_task_run_id for child in children if child.lineage} == expected


def test_a_flow_run_that_no_flow_run_has_created_has_no_parent(parent: DrivenRun) -> None:
    view = FlowRunView.from_flow_run_id(parent.id)
    assert (view.lineage, view.get_parent(), view.get_children()) == (None, None, [])


@pytest.mark.parametrize(
    "context", [{}, {"prefect_taskrun_tasks": 5}, {"prefect_taskrun_tasks": {"parent_flow_run_id": 5}}, {"other": {}}]
)
def test_a_context_that_says_nothing_of_a_parent_is_none(context: Dict[str, Any]) -> None:
    assert Lineage.of(context) is None


def test_what_a_later_version_adds_to_the_lineage_is_passed_over() -> None:
    lineage = Lineage.of({"prefect_taskrun_tasks": {"parent_flow_run_id": "id", "parent_mood": "good"}})
    assert lineage == Lineage("id")


def test_the_users_context_is_kept_beside_the_lineage(parent: DrivenRun) -> None:
    child = FlowRunView.from_flow_run_id(child_of(parent.id, context={"mine": [1]}))
    assert child.context["mine"] == [1]
    assert child.lineage


def test_a_parent_that_was_deleted_is_none(parent: DrivenRun) -> None:
    child = FlowRunView.from_flow_run_id(child_of(parent.id))
    mutation = "mutation($input: delete_flow_run_input!) { delete_flow_run(input: $input) { success } }"
    prefect.Client().graphql(mutation, variables={"input": {"flow_run_id": parent.id}})
    assert child.get_parent() is None


def test_children_of_many_flow_runs_are_looked_up_together() -> None:
    flow_id = register(child_flow)
    parents = [DrivenRun(child_flow, flow_id).id for _ in range(120)]
    children = {parent: child_of(parent) for parent in parents[::30]}
    found = FlowRunView.children_of(parents)
    assert list(found) == parents
    assert {parent: each[0].flow_run_id for parent, each in found.items() if each} == children


@pytest.mark.parametrize("name", ["parent_close_policy", "on_parent_restart"])
def test_an_unknown_policy_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=f"`{name}` is 'explode'.*'(cancel|reuse)'"):
        create_flow_run.run(flow_name="lineage-child", **{name: "explode"})
    with pytest.raises(errors.InvalidArgument, match=name):
        type(create_flow_run)(**{name: "explode"})


@pytest.mark.parametrize(
    ("given", "told"),
    [({"y": 1}, "no parameter 'y'. It has: x"), ({"x": 1, "y": 1, "z": 1}, "no parameter 'y', 'z'")],
)
def test_a_parameter_that_the_child_does_not_know_is_refused(given: Dict[str, Any], told: str) -> None:
    with pytest.raises(errors.WrongParameters, match=told) as raised:
        create_flow_run.run(flow_name="lineage-child", parameters=given)
    assert isinstance(raised.value, ValueError)


def test_a_parameter_that_the_flow_group_has_a_value_for_is_not_missing() -> None:
    with Flow("demanding") as flow:
        inc(Parameter("x"))
    flow_id = register(flow)
    with pytest.raises(errors.WrongParameters, match="needs the parameter 'x'"):
        create_flow_run.run(flow_name="demanding")
    [row] = prefect.Client().graphql(f'{{ flow(where: {{id: {{_eq: "{flow_id}"}}}}) {{ flow_group_id }} }}').data.flow
    prefect.Client().graphql(
        "mutation($input: set_flow_group_default_parameters_input!) "
        "{ set_flow_group_default_parameters(input: $input) { success } }",
        variables={"input": {"flow_group_id": row.flow_group_id, "parameters": {"x": 1}}},
    )
    assert create_flow_run.run(flow_name="demanding")


def test_an_archived_version_is_refused_with_what_to_do() -> None:
    first = register(child_flow)
    register(child_flow)
    with pytest.raises(errors.InvalidArgument, match=r"archived version of 'lineage-child'.*flow's name"):
        create_flow_run.run(flow_id=first)


def test_a_retry_finds_its_child_although_the_flow_was_registered_anew(parent: DrivenRun) -> None:
    child = child_of(parent.id)
    register(child_flow)
    with prefect.context(task_run_count=2):
        assert child_of(parent.id) == child


def cancel(run_id: str) -> None:
    prefect.Client().cancel_flow_run(run_id)


def family(parent_run_id: str, policy: Optional[str]) -> List[str]:
    """A child, a grandchild that is running, and one more that is scheduled."""
    options = {"parent_close_policy": policy} if policy else {}
    child = child_of(parent_run_id, f"with policy {policy}", **options)
    prefect.Client().set_flow_run_state(child, Running())
    grandchild = child_of(child, "1", **options)
    prefect.Client().set_flow_run_state(grandchild, Running())
    return [child, grandchild, child_of(child, "2", **options)]


@pytest.mark.parametrize("is_running", [True, False])
def test_the_backend_cancels_children_with_their_parent_and_theirs(is_running: bool) -> None:
    parent = DrivenRun(child_flow, register(child_flow))
    if is_running:
        parent.enter(Running())
    others = family(parent.id, "abandon") + family(parent.id, None)
    ids = family(parent.id, "cancel")
    cancel(parent.id)
    assert [state_of(each) for each in ids] == ["Cancelling", "Cancelling", "Cancelled"]
    assert [state_of(each) for each in others] == ["Running", "Running", "Scheduled"] * 2


@pytest.mark.parametrize("state", [Failed(), Success()], ids=repr)
def test_children_of_a_parent_that_ends_by_itself_go_on(parent: DrivenRun, state: Any) -> None:
    ids = family(parent.id, "cancel")
    parent.enter(state)
    assert [state_of(each) for each in ids] == ["Running", "Running", "Scheduled"]


def test_a_child_that_comes_after_its_parent_was_cancelled_is_cancelled_too(parent: DrivenRun) -> None:
    parent.enter(Cancelling())
    assert state_of(child_of(parent.id, "1", parent_close_policy="cancel")) == "Cancelled"
    assert state_of(child_of(parent.id, "2")) == "Scheduled"


def test_flow_runs_that_are_each_others_children_are_cancelled_all_the_same() -> None:
    flow_id = register(child_flow)
    parent = DrivenRun(child_flow, flow_id)
    child = child_of(parent.id, parent_close_policy="cancel")
    lineage = Lineage(child, parent_close_policy="cancel")
    other = DrivenRun(child_flow, flow_id, context=lineage.as_context())
    with_itself = DrivenRun(child_flow, flow_id, context=Lineage(other.id, parent_close_policy="cancel").as_context())
    cancel(parent.id)
    assert {state_of(each) for each in (parent.id, child, other.id, with_itself.id)} == {"Cancelled"}


@pytest.fixture
def leaving_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that does not know of children, such as Prefect Server."""
    monkeypatch.setattr("prefect_taskrun_tasks.server.rules.states._cancel_children", lambda tx, parent: None)
    monkeypatch.setattr("prefect_taskrun_tasks.server.rules.children.is_orphaned", lambda tx, context: False)


@pytest.mark.usefixtures("leaving_children")
def test_whoever_waits_cancels_children_and_theirs_where_the_backend_does_not(parent: DrivenRun) -> None:
    others, ids = family(parent.id, "abandon"), family(parent.id, "cancel")
    assert cancelling.cancel_children(parent.id) == []
    cancel(parent.id)
    assert sorted(cancelling.cancel_children(parent.id, ids[0])) == sorted(ids)
    assert [state_of(each) for each in ids] == ["Cancelling", "Cancelling", "Cancelled"]
    assert [state_of(each) for each in others] == ["Running", "Running", "Scheduled"]
    # once, however many wait for them; and what is created until its process sees that it is being cancelled
    assert cancelling.cancel_children(parent.id, ids[0]) == []
    late = child_of(parent.id, "late", parent_close_policy="cancel")
    assert late in cancelling.cancel_children(parent.id, late)
    assert cancelling.cancel_children(parent.id, late) == []


@pytest.mark.usefixtures("leaving_children")
def test_children_that_have_finished_stay_as_they_are(parent: DrivenRun) -> None:
    child = child_of(parent.id, parent_close_policy="cancel")
    prefect.Client().set_flow_run_state(child, Success())
    parent.enter(Cancelled())
    assert cancelling.cancel_children(parent.id) == []
    assert state_of(child) == "Success"


@pytest.mark.usefixtures("leaving_children")
def test_children_are_cancelled_again_when_their_parent_is(parent: DrivenRun) -> None:
    for key in ("1", "2"):
        parent.enter(Running())
        child = child_of(parent.id, key, parent_close_policy="cancel")
        parent.enter(Cancelling())
        assert cancelling.cancel_children(parent.id) == [child]


@pytest.mark.parametrize("own", [{}, {"labels": "mine", "run_config": UniversalRun(env={"OF": "its own"})}])
def test_a_child_runs_anew_as_its_flow_is_now_but_for_what_it_was_given(parent: DrivenRun, own: Any) -> None:
    child = child_of(parent.id, **own)
    DrivenRun(child_flow, parent.flow_id, child).enter(Failed())
    for state in (Failed(), Scheduled(), Running()):
        parent.enter(state)
    child_flow.run_config = UniversalRun(env={"OF": "the flow"}, labels=["mended"])
    try:
        register(child_flow)
    finally:
        child_flow.run_config = None
    with prefect.context(flow_run_id=parent.id, task_run_version=5):
        rerun = FlowRunView.from_flow_run_id(str(rerun_of(FlowRunView.from_flow_run_id(child))))
    assert ("mended" in rerun.labels, "mine" in rerun.labels) == (not own, bool(own))
    assert rerun.run_config.env == {"OF": "its own" if own else "the flow"}


def test_a_run_without_a_backend_leaves_its_children_alone(backend: Backend) -> None:
    """It has an id that no backend knows."""
    with Flow("local-parent") as local:
        wait_for_flow_run(create_flow_run(flow_name="lineage-child"), timeout=60)
    where = {"flow": {"name": {"_eq": "lineage-child"}}}
    known = {row["id"] for row in api.find("flow_run", where, fields="id")}

    def fail() -> str:
        [child] = eventually(lambda: {row["id"] for row in api.find("flow_run", where, fields="id")} - known)
        prefect.Client().set_flow_run_state(child, Failed())
        return str(child)

    with threads_as_this(1, "fails") as thread:
        failing = thread.submit(fail)
        assert local.run().is_successful()
    assert FlowRunView.from_flow_run_id(failing.result()).lineage is None


def test_a_retry_finds_a_child_of_the_same_flow_only(parent: DrivenRun) -> None:
    with Flow("lineage-other") as other:
        inc(Parameter("x", default=1))
    register(other)

    def create_both() -> List[str]:
        with prefect.context(flow_run_id=parent.id, task_run_id="creates-two", task_run_version=1):
            return [create_flow_run.run(flow_name=name) for name in ("lineage-child", "lineage-other")]

    first = create_both()
    with prefect.context(task_run_count=2):
        assert create_both() == first
    assert len(set(first)) == 2
