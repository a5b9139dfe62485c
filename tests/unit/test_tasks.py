"""Tasks as parts of a flow, without a backend."""

import inspect
import pickle
from datetime import timedelta
from typing import Any, Dict, List, Optional

import cloudpickle
import prefect
import pytest
from implementations import PREFECT, both
from prefect import Flow, Task, task, unmapped
from prefect.engine.state import Success

import prefect_taskrun_tasks as ours
from prefect_taskrun_tasks.tasks.defaults import defaults_from_constructor

TASKS = ["create_flow_run", "get_task_run_result", "wait_for_flow_run"]


def slugs(flow: Flow) -> List[str]:
    return sorted(flow.slugs.values())


class Greet(Task):
    def __init__(self, name: str = "you", mark: Optional[str] = None, **kwargs: Any) -> None:
        # `name` is the task's own in Prefect
        self.greeted = name
        self.mark = mark
        super().__init__(**kwargs)

    @defaults_from_constructor
    def run(self, greeted: str = "nobody", mark: Optional[str] = "?") -> str:
        """Greets."""
        return f"Hello {greeted}{mark or ''}"


@pytest.mark.parametrize("name", TASKS)
def test_a_task_takes_the_arguments_of_prefects(name: str) -> None:
    theirs, mine = [
        [(each.name, each.kind, each.default) for each in inspect.signature(getattr(lib, name).run).parameters.values()]
        for lib in (PREFECT, ours)
    ]
    assert mine[: len(theirs)] == theirs


def test_waiting_takes_more() -> None:
    extra = {
        name: sorted(
            set(inspect.signature(getattr(ours, name).run).parameters)
            - set(inspect.signature(getattr(PREFECT, name).run).parameters)
        )
        for name in TASKS
    }
    assert extra == {
        "create_flow_run": ["on_parent_restart", "parent_close_policy"],
        "get_task_run_result": ["defer_after", "deferrable", "max_duration", "result", "serializer", "timeout"],
        "wait_for_flow_run": ["defer_after", "deferrable", "timeout"],
    }


@pytest.mark.parametrize("of", [lambda it: it, lambda it: it.run])
def test_cancelling_takes_the_arguments_of_prefects(of: Any) -> None:
    assert list(inspect.signature(of(ours.CancelFlowRun)).parameters) == list(
        inspect.signature(of(PREFECT.CancelFlowRun)).parameters
    )


@both
@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_the_name_that_it_is_imported_by(lib: Any, name: str) -> None:
    ready_made = getattr(lib, name)
    assert isinstance(ready_made, Task)
    assert ready_made.name == name
    assert ready_made.slug is None


@pytest.mark.parametrize(
    "attribute",
    [
        "max_retries",
        "retry_delay",
        "timeout",
        "trigger",
        "skip_on_upstream_skip",
        "cache_for",
        "cache_validator",
        "cache_key",
        "checkpoint",
        "result",
        "target",
        "state_handlers",
        "log_stdout",
        "task_run_name",
        "nout",
        "tags",
    ],
)
@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_set_up_as_prefects(name: str, attribute: str) -> None:
    assert getattr(getattr(ours, name), attribute) == getattr(getattr(PREFECT, name), attribute)


@both
def test_tasks_get_the_slugs_that_callers_know(lib: Any) -> None:
    with Flow("parent") as flow:
        child = lib.create_flow_run(flow_name="child")
        lib.create_flow_run(flow_name="other")
        lib.wait_for_flow_run(child)
        lib.get_task_run_result(child, "inc-1")
    assert [slug for slug in slugs(flow) if not slug.startswith("Constant")] == [
        "create_flow_run-1",
        "create_flow_run-2",
        "get_task_run_result-1",
        "wait_for_flow_run-1",
    ]


@both
def test_a_task_made_of_another_tasks_run_has_the_names_of_prefects(lib: Any) -> None:
    """Flows make tasks so to give them retries of their own."""
    with Flow("f") as flow:
        for name in TASKS:
            task(getattr(lib, name).run, max_retries=3, retry_delay=timedelta(seconds=1))("x", "y")
    assert slugs(flow) == sorted(f"{name}-1" for name in TASKS)
    assert set(TASKS) <= {each.name for each in flow.tasks}


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
@pytest.mark.parametrize("name", [*TASKS, "cancel_flow_run", "map_flow_run"])
def test_the_run_of_a_task_survives_pickling(name: str, dumps: Any) -> None:
    run = pickle.loads(dumps(getattr(ours, name).run))
    assert run.__func__ is getattr(ours, name).run.__func__


@both
def test_a_flow_is_built_the_same(lib: Any) -> None:
    with Flow("parent") as flow:
        first = lib.create_flow_run(
            "flow id", task_args={"name": "first", "max_retries": 2, "retry_delay": timedelta(1)}
        )
        second = lib.create_flow_run(flow_name="child", upstream_tasks=[first])
        lib.wait_for_flow_run(second, raise_final_state=True)
        lib.get_task_run_result(second, task_slug="inc-1", map_index=2)
        many = lib.create_flow_run.map(flow_name=unmapped("child"), parameters=[{"x": 1}, {"x": 2}])
        lib.get_task_run_result.map(many, unmapped("inc-1"))
        lib.wait_for_flow_run.map(many, upstream_tasks=[unmapped(second)])
    flow.validate()
    edges = {
        (edge.upstream_task.name, edge.downstream_task.name, edge.key, edge.mapped)
        for edge in flow.edges
        if edge.key != "parameters"
    }
    assert edges == {
        ("first", "create_flow_run", None, False),
        ("create_flow_run", "wait_for_flow_run", "flow_run_id", False),
        ("create_flow_run", "get_task_run_result", "flow_run_id", False),
        ("create_flow_run", "get_task_run_result", "flow_run_id", True),
        ("create_flow_run", "wait_for_flow_run", "flow_run_id", True),
        ("create_flow_run", "wait_for_flow_run", None, False),
    }
    assert flow.get_tasks(name="first")[0].max_retries == 2
    constants = {
        (flow_task.name, key): value for flow_task, kept in flow.constants.items() for key, value in kept.items()
    }
    assert constants[("first", "flow_id")] == "flow id"
    assert constants[("get_task_run_result", "map_index")] == 2


@both
@pytest.mark.parametrize("name", TASKS)
def test_a_task_outside_of_a_flow_says_how_it_is_run(lib: Any, name: str) -> None:
    with pytest.raises(ValueError, match=r"\.run\(\.\.\.\)"):
        getattr(lib, name)("id", "slug")


@both
@pytest.mark.parametrize("name", ["get_task_run_result", "wait_for_flow_run"])
def test_a_flow_cannot_leave_out_what_is_required(lib: Any, name: str) -> None:
    with Flow("parent"), pytest.raises(TypeError, match="flow_run_id"):
        getattr(lib, name)()


@both
def test_a_flow_survives_cloudpickle(lib: Any) -> None:
    with Flow("parent") as flow:
        child = lib.create_flow_run(flow_name="child")
        lib.wait_for_flow_run(child)
        lib.get_task_run_result(child, "inc-1")
        lib.CancelFlowRun(flow_run_id="id")(upstream_tasks=[child])
    copied = cloudpickle.loads(cloudpickle.dumps(flow))
    assert slugs(copied) == slugs(flow)
    assert [each.flow_run_id for each in copied.get_tasks(name="CancelFlowRun")] == ["id"]


@pytest.mark.parametrize("name", TASKS)
def test_the_backend_is_told_of_the_same_inputs(name: str) -> None:
    ours_only = (
        "defer_after",
        "deferrable",
        "max_duration",
        "on_parent_restart",
        "parent_close_policy",
        "result",
        "serializer",
        "timeout",
    )

    def inputs(lib: Any) -> Dict[str, bool]:
        with Flow("parent") as flow:
            getattr(lib, name)(
                **{key: "x" for key in ("flow_run_id", "task_slug") if key in getattr(lib, name).inputs()}
            )
        [registered] = [each for each in flow.serialize()["tasks"] if each["slug"] == f"{name}-1"]
        return {key: it["required"] for key, it in registered["inputs"].items() if key not in ours_only}

    assert inputs(ours)
    assert inputs(ours) == inputs(PREFECT)


@both
def test_cancelling_is_named_after_its_class(lib: Any) -> None:
    assert lib.CancelFlowRun().name == "CancelFlowRun"
    assert lib.CancelFlowRun("id", name="stop").name == "stop"


def test_there_is_a_ready_made_task_for_cancelling() -> None:
    assert ours.cancel_flow_run.name == "cancel_flow_run"
    assert ours.cancel_flow_run.flow_run_id is None


@pytest.mark.parametrize("kind", [ours.CreateFlowRun, ours.GetTaskRunResult, ours.WaitForFlowRun, ours.CancelFlowRun])
def test_a_class_passes_other_arguments_on_to_prefects_task(kind: Any) -> None:
    made = kind(name="mine", max_retries=3, retry_delay=timedelta(seconds=1), tags=["a"])
    assert (made.name, made.max_retries, made.tags) == ("mine", 3, {"a"})


@pytest.mark.parametrize("kind", [ours.CreateFlowRun, ours.GetTaskRunResult, ours.WaitForFlowRun, ours.CancelFlowRun])
def test_the_defaults_of_a_class_are_those_of_its_run(kind: Any) -> None:
    of_class, of_run = inspect.signature(kind).parameters, inspect.signature(kind.run).parameters
    optional = {name: it.default for name, it in of_run.items() if it.default is not inspect.Parameter.empty}
    # to the constructor, `result` is where Prefect keeps what the task itself returns
    optional.pop("result", None)
    # and `timeout` its limit for any task
    optional.pop("timeout", None)
    assert {name: of_class[name].default for name in optional} == optional


@both
@pytest.mark.parametrize("given", [{}, {"flow_id": ""}, {"flow_name": ""}, {"flow_id": None, "flow_name": None}])
def test_a_new_flow_run_needs_to_know_of_which_flow(lib: Any, given: Any) -> None:
    with pytest.raises(ValueError, match="Both `flow_id` and `flow_name` are null"):
        lib.create_flow_run.run(**given)


@both
def test_a_new_flow_run_is_of_one_flow_only(lib: Any) -> None:
    with pytest.raises(ValueError, match="Received both"):
        lib.create_flow_run.run("id", "name")


@both
@pytest.mark.parametrize("task_slug", [None, ""])
def test_a_task_slug_is_needed(lib: Any, task_slug: Any) -> None:
    with pytest.raises(ValueError, match="`task_slug` is empty"):
        lib.get_task_run_result.run("id", task_slug)


@both
def test_the_result_of_the_current_flow_run_cannot_be_awaited(lib: Any) -> None:
    with prefect.context(flow_run_id="id"), pytest.raises(ValueError, match="same as the currently running flow"):
        lib.get_task_run_result.run("id", "inc-1")


def test_the_end_of_the_current_flow_run_cannot_be_awaited() -> None:
    # Prefect's would wait for 12 hours
    with prefect.context(flow_run_id="id"), pytest.raises(ValueError, match="same as the currently running flow: id"):
        ours.wait_for_flow_run.run("id")


@pytest.mark.parametrize("run", [ours.wait_for_flow_run.run, lambda id: ours.get_task_run_result.run(id, "inc-1")])
@pytest.mark.parametrize("context", [{}, {"flow_run_id": "id"}])
def test_no_flow_run_at_all_is_not_taken_for_the_current_one(run: Any, context: Any) -> None:
    with prefect.context(context), pytest.raises(
        ValueError, match="Unexpected type <class 'NoneType'> for `flow_run_id`"
    ):
        run(None)


@both
def test_cancelling_needs_a_flow_run(lib: Any) -> None:
    with pytest.raises(ValueError, match="Can't cancel a flow run without flow run ID"):
        lib.CancelFlowRun().run()


def test_an_argument_that_is_left_out_is_that_of_the_constructor() -> None:
    assert Greet().run() == "Hello you"
    assert Greet("Ada", mark="!").run() == "Hello Ada!"


def test_an_argument_that_is_given_goes_before_that_of_the_constructor() -> None:
    made = Greet("Ada", mark="!")
    assert made.run("Bob") == "Hello Bob!"
    assert made.run(greeted="Bob", mark="?") == "Hello Bob?"
    assert made.run("Bob", "?") == "Hello Bob?"
    assert made.run(mark=None) == "Hello Ada"


@pytest.mark.parametrize(
    "call", [lambda it: it.run(1, 2, 3), lambda it: it.run(other=1), lambda it: it.run(1, greeted=2)]
)
def test_wrong_arguments_are_still_refused(call: Any) -> None:
    with pytest.raises(TypeError):
        call(Greet())


def test_a_decorated_run_keeps_its_signature_and_its_documentation() -> None:
    assert str(inspect.signature(Greet().run)).startswith("(greeted: str = 'nobody'")
    assert Greet.run.__doc__ == "Greets."


def test_constructor_arguments_hold_in_a_flow_until_a_call_overrides_them() -> None:
    greet = Greet("Ada", mark="!")
    with Flow("greetings") as flow:
        as_made, overridden = greet(), greet("Bob")
        many = greet.map(["Cy", "Di"], unmapped("?"))
    state = flow.run()
    assert isinstance(state, Success)
    assert [state.result[each].result for each in (as_made, overridden, many)] == [
        "Hello Ada!",
        "Hello Bob!",
        ["Hello Cy?", "Hello Di?"],
    ]


def test_changing_a_copy_of_a_task_leaves_the_original_alone() -> None:
    changed = ours.get_task_run_result.copy(poll_time=60)
    assert (changed.poll_time, ours.get_task_run_result.poll_time) == (60, 5)


@both
def test_a_flow_that_was_skipped_over_runs_to_its_end(lib: Any) -> None:
    @task
    def skip() -> None:
        raise prefect.engine.signals.SKIP("not today")

    with Flow("parent") as flow:
        child = lib.create_flow_run(flow_name="child", upstream_tasks=[skip()])
        result = lib.get_task_run_result(child, "inc-1")
    state = flow.run()
    assert state.is_successful()
    assert state.result[result].is_skipped()
