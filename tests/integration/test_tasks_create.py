"""Creating and cancelling flow runs."""

import logging
from datetime import date, datetime, timedelta, timezone
from typing import Any, Dict, Iterator, Optional

import pendulum
import prefect
import pytest
from driven import DrivenRun, NewUrl, register, shared_backend
from implementations import PREFECT, both
from prefect import Flow, Parameter, task, unmapped
from prefect.engine.state import Running, Success
from prefect.exceptions import ClientError
from prefect.run_configs import UniversalRun

import prefect_taskrun_tasks as ours
from prefect_taskrun_tasks.errors import InvalidArgument
from prefect_taskrun_tasks.server import Backend

NOBODY = "4f6b3c1e-0000-4000-8000-000000000000"


@task
def inc(x: int) -> int:
    return x + 1


def taking_x(name: str) -> Flow:
    with Flow(name) as flow:
        inc(Parameter("x"))
    return flow


with Flow("child", run_config=UniversalRun(labels=["here"])) as child_flow:
    inc(Parameter("x", default=1))


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        yield backend


@pytest.fixture(scope="module", autouse=True)
def flow_id(backend: Backend) -> str:
    return register(child_flow)


def created(flow_run_id: str) -> Dict[str, Any]:
    """What the backend knows of a flow run that was created just now."""
    assert isinstance(flow_run_id, str)
    fields = "name labels parameters context run_config scheduled_start_time idempotency_key flow_id"
    query = f"query($id: uuid!) {{ flow_run_by_pk(id: $id) {{ {fields} flow {{ flow_group_id }} }} }}"
    row: Dict[str, Any] = prefect.Client().graphql(query, variables={"id": flow_run_id}).data.flow_run_by_pk
    return row


@both
@pytest.mark.parametrize(
    ("given", "known"),
    [
        ({"parameters": {"x": 5}}, {"parameters": {"x": 5}}),
        ({"context": {"a": [1]}}, {"context": {"a": [1]}}),
        ({"labels": ["there"]}, {"labels": ["there"]}),
        ({"labels": "there"}, {"labels": ["there"]}),
        ({"labels": []}, {"labels": []}),
        ({}, {"parameters": {"x": 1}, "context": {}}),
        ({"run_name": "Bob"}, {"name": "Bob"}),
        ({"project_name": "tests"}, {}),
    ],
    ids=repr,
)
def test_a_flow_run_is_created_as_was_asked_for(lib: Any, flow_id: str, given: Any, known: Any) -> None:
    found = created(lib.create_flow_run.run(flow_name="child", **given))
    assert found["flow_id"] == flow_id
    assert {name: found[name] for name in known} == known


@both
def test_a_flow_run_has_the_labels_of_its_flow_unless_it_is_given_others(lib: Any, flow_id: str) -> None:
    # the flow has one more: where its storage is
    labels = created(lib.create_flow_run.run(flow_id))["labels"]
    assert "here" in labels
    assert created(lib.create_flow_run.run(flow_id, labels=["there"]))["labels"] == ["there"]


@both
def test_arguments_go_by_position_in_prefects_order(lib: Any, flow_id: str) -> None:
    config, at = UniversalRun(env={"A": "1"}), pendulum.datetime(2100, 1, 1)
    found = created(
        lib.create_flow_run.run(flow_id, None, "", {"x": 7}, {"c": 1}, ["l"], "by-position", config, at, f"key-{lib}")
    )
    assert found["name"] == "by-position"
    assert found["labels"] == ["l"]
    assert (found["parameters"], found["context"]) == ({"x": 7}, {"c": 1})
    assert found["run_config"]["env"] == {"A": "1"}
    assert pendulum.parse(found["scheduled_start_time"]) == at
    assert found["idempotency_key"] == f"key-{lib}"


@both
def test_a_flow_is_named_by_its_id_or_by_that_of_its_group(lib: Any, flow_id: str) -> None:
    by_id = created(lib.create_flow_run.run(flow_id=flow_id))
    by_group = created(lib.create_flow_run.run(flow_id=by_id["flow"]["flow_group_id"]))
    assert by_id["flow_id"] == by_group["flow_id"] == flow_id


@pytest.mark.parametrize("labels", [("b",), {"b"}, (label for label in "b")], ids=["tuple", "set", "generator"])
def test_labels_are_any_iterable(labels: Any) -> None:
    # Prefect says so too, but cannot write the last two as JSON
    assert created(ours.create_flow_run.run(flow_name="child", labels=labels))["labels"] == ["b"]


@both
@pytest.mark.parametrize(
    "start",
    [
        pendulum.datetime(2100, 1, 1, 12),
        pendulum.datetime(2100, 1, 1, 12, tz="Europe/Berlin"),
        datetime(2100, 1, 1, 12, tzinfo=timezone.utc),
        datetime(2100, 1, 1, 12, tzinfo=timezone(timedelta(hours=-5))),
    ],
    ids=str,
)
def test_a_flow_run_starts_at_the_time_that_was_given(lib: Any, start: datetime) -> None:
    found = created(lib.create_flow_run.run(flow_name="child", scheduled_start_time=start))
    assert pendulum.parse(found["scheduled_start_time"]) == start


@both
@pytest.mark.parametrize("delay", [timedelta(hours=3), pendulum.duration(hours=3)], ids=["timedelta", "Duration"])
def test_a_flow_run_starts_after_the_delay_that_was_given(lib: Any, delay: timedelta) -> None:
    earliest = pendulum.now("utc") + delay
    found = created(lib.create_flow_run.run(flow_name="child", scheduled_start_time=delay))
    assert earliest <= pendulum.parse(found["scheduled_start_time"]) <= pendulum.now("utc") + delay


@both
def test_a_child_run_is_named_after_its_parent(lib: Any) -> None:
    with prefect.context(flow_run_name="parent-run"):
        assert created(lib.create_flow_run.run(flow_name="child"))["name"] == "parent-run-child"
        assert created(lib.create_flow_run.run(flow_name="child", run_name="Bob"))["name"] == "Bob"


@both
def test_without_a_parent_the_backend_makes_up_a_name(lib: Any) -> None:
    first, second = [created(lib.create_flow_run.run(flow_name="child"))["name"] for _ in range(2)]
    assert first
    assert first != second


@both
def test_a_retry_of_the_task_finds_the_flow_run_that_is_there_already(lib: Any) -> None:
    with prefect.context(task_run_id=f"task-run-of-{lib}"):
        first, second = [lib.create_flow_run.run(flow_name="child") for _ in range(2)]
        assert first == second
        assert created(first)["idempotency_key"] == f"task-run-of-{lib}"


@both
def test_children_of_a_mapped_task_create_a_flow_run_each(lib: Any) -> None:
    with prefect.context(task_run_id=f"mapped-task-run-of-{lib}"):
        ids = []
        for map_index in (0, 1, 0):
            with prefect.context(map_index=map_index):
                ids.append(lib.create_flow_run.run(flow_name="child"))
    assert ids[0] == ids[2] != ids[1]
    assert created(ids[1])["idempotency_key"] == f"mapped-task-run-of-{lib}-1"


def test_a_second_call_in_a_task_run_with_other_arguments_needs_a_key() -> None:
    """Prefect's returns the first flow run."""
    with prefect.context(task_run_id="several", task_run_version=2):
        parameters = {"x": 0}
        first = ours.create_flow_run.run(flow_name="child", parameters=parameters)
        assert ours.create_flow_run.run(flow_name="child", parameters={"x": 0}) == first
        # as Prefect, and this package, take the context along into other threads
        assert prefect.context.to_dict()["task_run_id"] == "several"
        parameters["x"] = 1
        for given in ({"parameters": parameters}, {"parameters": {"x": 0}, "run_name": "another"}):
            with pytest.raises(InvalidArgument, match=f"{first}.*idempotency_key"):
                ours.create_flow_run.run(flow_name="child", **given)
        keys = [f"{prefect.context.task_run_id}-{number}" for number in (1, 2)]
        others = [ours.create_flow_run.run(flow_name="child", parameters={"x": 1}, idempotency_key=k) for k in keys]
        assert len({first, *others}) == 3
    # a retry may have other parameters, and finds the flow run that there is; its second call does not
    with prefect.context(task_run_id="several", task_run_count=2, task_run_version=4):
        assert ours.create_flow_run.run(flow_name="child", parameters={"x": 7}) == first
        with pytest.raises(InvalidArgument, match="idempotency_key"):
            ours.create_flow_run.run(flow_name="child", parameters={"x": 8})


def test_each_round_of_a_loop_creates_a_flow_run_once() -> None:
    def round_of_loop(number: Optional[int], x: int) -> str:
        # Prefect leaves it out in the first
        loop = {"task_loop_count": number} if number else {}
        with prefect.context(task_run_id="loops", task_run_version=2, **loop):
            flow_run_id: str = ours.create_flow_run.run(flow_name="child", parameters={"x": x})
        return flow_run_id

    rounds = [round_of_loop(None, 1), round_of_loop(2, 2), round_of_loop(3, 3)]
    assert [created(flow_run_id)["parameters"] for flow_run_id in rounds] == [{"x": 1}, {"x": 2}, {"x": 3}]
    assert round_of_loop(2, 2) == rounds[1]


@both
def test_an_idempotency_key_that_is_given_goes_before_the_task_runs(lib: Any) -> None:
    with prefect.context(task_run_id="a-task-run", map_index=1):
        first, second = [lib.create_flow_run.run(flow_name="child", idempotency_key=f"my-{lib}") for _ in range(2)]
    assert first == second
    assert created(first)["idempotency_key"] == f"my-{lib}"


@both
def test_an_empty_idempotency_key_creates_a_flow_run_each_time(lib: Any) -> None:
    with prefect.context(task_run_id="another-task-run"):
        first, second = [lib.create_flow_run.run(flow_name="child", idempotency_key="") for _ in range(2)]
    assert first != second


@both
@pytest.mark.parametrize("given", [{"flow_name": "nothing"}, {"flow_name": "child", "project_name": "nothing"}])
def test_a_flow_that_is_not_there_is_a_value_error(lib: Any, given: Any) -> None:
    with pytest.raises(ValueError, match="nothing"):
        lib.create_flow_run.run(**given)


@both
def test_a_name_in_two_projects_needs_the_project(lib: Any) -> None:
    here, elsewhere = register(taking_x("twin"), "here"), register(taking_x("twin"), "elsewhere")
    with pytest.raises(ValueError, match="project_name"):
        lib.create_flow_run.run(flow_name="twin", parameters={"x": 1})
    for project_name, expected in (("here", here), ("elsewhere", elsewhere)):
        found = created(lib.create_flow_run.run(flow_name="twin", project_name=project_name, parameters={"x": 1}))
        assert found["flow_id"] == expected


@both
def test_a_missing_parameter_is_a_client_error(lib: Any) -> None:
    register(taking_x("demanding"))
    with pytest.raises(ClientError, match="x"):
        lib.create_flow_run.run(flow_name="demanding")


@both
def test_a_new_flow_run_is_logged_with_its_address(lib: Any, caplog: Any) -> None:
    with caplog.at_level(logging.INFO, "prefect"):
        flow_run_id = lib.create_flow_run.run(flow_name="child", run_name="Bob")
    assert f"/flow-run/{flow_run_id}" in caplog.text
    assert "Created flow run 'Bob'" in caplog.text


@both
def test_flow_runs_are_created_within_a_flow(lib: Any) -> None:
    with Flow("parent") as parent_flow:
        one = lib.create_flow_run(flow_name="child", parameters={"x": 9})
        many = lib.create_flow_run.map(flow_name=unmapped("child"), parameters=[{"x": 1}, {"x": 2}, {"x": 3}])
        none = lib.create_flow_run.map(flow_name=unmapped("child"), parameters=[])
    state = parent_flow.run()
    assert state.is_successful(), state
    assert created(state.result[one].result)["parameters"] == {"x": 9}
    assert [created(each)["parameters"]["x"] for each in state.result[many].result] == [1, 2, 3]
    assert state.result[none].result == []


@both
def test_a_mapped_run_on_the_backend_creates_each_flow_run_once(lib: Any) -> None:
    with Flow(f"fan-out of {lib.FlowView.__module__}") as parent_flow:
        lib.create_flow_run.map(flow_name=unmapped("child"), parameters=[{"x": 1}, {"x": 2}])
    run = DrivenRun(parent_flow)
    assert run.execute().is_successful()
    rows = prefect.Client().graphql(
        "query($where: flow_run_bool_exp) { flow_run(where: $where) { idempotency_key name } }",
        variables={"where": {"name": {"_eq": f"{name_of(run)}-child"}}},
    )
    task_run_id = run.task_run_id("create_flow_run-1")
    children = [run.task_run_id("create_flow_run-1", map_index) for map_index in (0, 1)]
    assert sorted(row.idempotency_key for row in rows.data.flow_run) == sorted(
        f"{each}-{map_index}" for map_index, each in enumerate(children)
    )
    assert task_run_id not in children


def name_of(run: DrivenRun) -> str:
    name: str = ours.FlowRunView.from_flow_run_id(run.id).name
    return name


def test_what_was_given_to_the_constructor_holds_until_a_call_overrides_it(flow_id: str) -> None:
    create = ours.CreateFlowRun(
        flow_name="child",
        project_name="tests",
        parameters={"x": 2},
        context={"c": 1},
        labels=["made"],
        run_name="made",
        run_config=UniversalRun(env={"A": "1"}),
        scheduled_start_time=timedelta(days=1),
    )
    as_made = created(create.run())
    assert (as_made["flow_id"], as_made["name"], as_made["labels"]) == (flow_id, "made", ["made"])
    assert (as_made["parameters"], as_made["context"]) == ({"x": 2}, {"c": 1})
    assert as_made["run_config"]["env"] == {"A": "1"}
    assert pendulum.parse(as_made["scheduled_start_time"]) > pendulum.now().add(hours=23)
    overridden = created(create.run(parameters={"x": 3}, run_name="called", scheduled_start_time=None))
    assert (overridden["parameters"], overridden["name"], overridden["labels"]) == ({"x": 3}, "called", ["made"])
    assert pendulum.parse(overridden["scheduled_start_time"]) < pendulum.now().add(hours=23)


def test_constructor_arguments_hold_in_a_flow() -> None:
    create = ours.CreateFlowRun(flow_name="child", labels=["made"])
    with Flow("parent") as parent_flow:
        as_made, overridden = create(), create(labels=["called"])
    state = parent_flow.run()
    assert created(state.result[as_made].result)["labels"] == ["made"]
    assert created(state.result[overridden].result)["labels"] == ["called"]


@both
@pytest.mark.parametrize("how", ["constructor", "keyword", "context"])
def test_a_flow_run_is_cancelled(lib: Any, flow_id: str, how: str) -> None:
    run = DrivenRun(child_flow, flow_id).enter(Running())
    if how == "constructor":
        answer = lib.CancelFlowRun(run.id).run()
    elif how == "keyword":
        answer = lib.CancelFlowRun(NOBODY).run(flow_run_id=run.id)
    else:
        with prefect.context(flow_run_id=run.id):
            answer = lib.CancelFlowRun().run()
    assert answer
    assert type(run.client.get_flow_run_state(run.id)).__name__ == "Cancelling"


def test_a_flow_run_to_cancel_is_given_by_position_too(flow_id: str) -> None:
    # Prefect's task raises a TypeError: "multiple values for argument"
    run = DrivenRun(child_flow, flow_id)
    with pytest.raises(TypeError, match="multiple values"):
        PREFECT.CancelFlowRun().run(run.id)
    assert ours.cancel_flow_run.run(run.id) is True


@both
def test_a_finished_flow_run_stays_as_it_is_when_it_is_cancelled(lib: Any, flow_id: str) -> None:
    run = DrivenRun(child_flow, flow_id).enter(Running()).enter(Success())
    lib.CancelFlowRun().run(flow_run_id=run.id)
    assert run.client.get_flow_run_state(run.id).is_successful()


@both
def test_cancelling_what_is_not_there_is_a_client_error(lib: Any) -> None:
    with pytest.raises(ClientError, match=NOBODY):
        lib.CancelFlowRun().run(flow_run_id=NOBODY)


@both
def test_a_flow_run_is_cancelled_within_a_flow(lib: Any) -> None:
    with Flow("parent") as parent_flow:
        child = lib.create_flow_run(flow_name="child")
        lib.CancelFlowRun()(child)
    state = parent_flow.run()
    assert state.is_successful(), state
    found = prefect.Client().get_flow_run_state(state.result[child].result)
    assert type(found).__name__ in ("Cancelling", "Cancelled")


@pytest.mark.parametrize("value", [datetime(2026, 11, 29), date(2026, 11, 29), {1}, b"x", {"deep": [{2}]}], ids=str)
@pytest.mark.parametrize(("kind", "named"), [("parameters", "parameter 'x'"), ("context", "context variable 'x'")])
def test_what_is_not_json_is_refused_by_name_and_with_what_to_pass(kind: str, named: str, value: Any) -> None:
    """Prefect's task raises the words of the JSON module, which name no parameter."""
    with pytest.raises(TypeError, match=f"The {named} of 'child' cannot be sent as JSON: .* Pass text"):
        ours.create_flow_run.run(flow_name="child", **{kind: {"x": value}})
