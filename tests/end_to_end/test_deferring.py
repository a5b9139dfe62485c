"""Parents whose waits hold no process: they are left by it, and go on in another one when their child has ended."""

import json
import re
import threading
from pathlib import Path
from typing import Any, List, Optional

import pendulum
import prefect
import pytest
from conftest import eventually
from prefect import Flow
from prefect.engine.state import Scheduled
from processes import ended

from prefect_taskrun_tasks import FlowRunView, FlowView, TaskRunView, api, wait_for_flow_run
from prefect_taskrun_tasks.runner import LocalRunner
from prefect_taskrun_tasks.tasks.deferring import READY
from prefect_taskrun_tasks.timeline import timeline_page
from prefect_taskrun_tasks.views.deferral import Deferral
from prefect_taskrun_tasks.warm import find_processes

#: Seconds until a family of flow runs has come to rest, at most; far more than it takes
PATIENCE = 60

#: A child that goes on until a file exists, and parents that wait for it; each task that is executed is written down
FLOWS = """
import os
import time
from datetime import timedelta
from pathlib import Path
from prefect import Flow, Parameter, task, unmapped
from prefect.engine.results import LocalResult
from prefect.executors import LocalDaskExecutor
from prefect.run_configs import UniversalRun
from prefect_taskrun_tasks import create_flow_run, get_task_run_result, wait_for_flow_run
from prefect_taskrun_tasks.tasks import GetTaskRunResult

def note(folder, name):
    with (Path(folder) / "executed").open("a") as executed:
        executed.write(f"{name} {os.getpid()}\\n")

@task
def until_there_is(folder, name):
    for _ in range(3000):
        if (Path(folder) / name).exists():
            break
        time.sleep(0.1)
    if (Path(folder) / name).read_text() == "fail":
        raise RuntimeError("as the file says")
    return {"name": name}

@task
def executed(folder, name, value=None):
    note(folder, name)
    return value

@task
def parameters_of(folder, name):
    return {"folder": folder, "name": name}

HERE = LocalResult(dir=os.environ["DEFERRED_RESULTS"])

with Flow("deferring-child", result=HERE) as child:
    until_there_is(Parameter("folder"), Parameter("name"))

def begun(folder, name, **options):
    return create_flow_run(flow_name="deferring-child", parameters=parameters_of(folder, name), **options)

with Flow("deferring-parent", result=HERE) as parent:
    folder = Parameter("folder")
    before = executed(folder, "before", {"kept": 1}, task_args={"name": "before"})
    id = begun(folder, "a", upstream_tasks=[before], parent_close_policy="cancel")
    got = get_task_run_result(id, "until_there_is-1", deferrable=True, defer_after=0.3)
    executed(folder, "after", [before, got], task_args={"name": "after"})

with Flow("deferring-several", result=HERE) as several:
    folder = Parameter("folder")
    first, second = begun(folder, "a"), begun(folder, "b")
    one = get_task_run_result(first, "until_there_is-1", deferrable=True, defer_after=0.2)
    two = get_task_run_result(second, "until_there_is-1", deferrable=True, defer_after=0.2)
    executed(folder, "after one", one, task_args={"name": "after_one"})
    executed(folder, "after both", [one, two], task_args={"name": "after_both"})

@task
def each(folder):
    return [{"folder": folder, "name": name} for name in ("a", "b", "c")]

with Flow("deferring-mapped", result=HERE) as mapped:
    folder = Parameter("folder")
    ids = create_flow_run.map(flow_name=unmapped("deferring-child"), parameters=each(folder))
    values = GetTaskRunResult(name="get", deferrable=True, defer_after=0.2).map(ids, unmapped("until_there_is-1"))
    executed(folder, "after", values, task_args={"name": "after"})

@task
def in_capitals(id):
    return id.upper()

with Flow("deferring-watching", result=HERE) as watching:
    folder = Parameter("folder")
    id = begun(folder, "a")
    waited = wait_for_flow_run(
        in_capitals(id), stream_states=True, stream_logs=True, raise_final_state=True, deferrable=True, defer_after=0.3
    )
    executed(folder, "after", task_args={"name": "after"}, upstream_tasks=[waited])

@task
def slow(folder):
    until_there_is.run(folder, "slow")

with Flow("deferring-beside-another", result=HERE, executor=LocalDaskExecutor(scheduler="threads")) as beside:
    folder = Parameter("folder")
    got = get_task_run_result(begun(folder, "a"), "until_there_is-1", deferrable=True, defer_after=0.3)
    executed(folder, "after", got, task_args={"name": "after"}, upstream_tasks=[slow(folder)])

with Flow("deferring-side-by-side", result=HERE, executor=LocalDaskExecutor(scheduler="threads")) as side_by_side:
    folder = Parameter("folder")
    ids = create_flow_run.map(flow_name=unmapped("deferring-child"), parameters=each(folder))
    values = GetTaskRunResult(name="get", deferrable=True, defer_after=0.2).map(ids, unmapped("until_there_is-1"))
    executed(folder, "after", values, task_args={"name": "after"})

DEFAULTS = {
    "PREFECT__PREFECT_TASKRUN_TASKS__DEFERRABLE": "true",
    "PREFECT__PREFECT_TASKRUN_TASKS__DEFER_AFTER": "0.3",
}

with Flow("deferring-by-default", result=HERE, run_config=UniversalRun(env=DEFAULTS)) as by_default:
    folder = Parameter("folder")
    wait_for_flow_run(begun(folder, "a"))

with Flow("deferring-in-time", result=HERE) as in_time:
    folder = Parameter("folder")
    get_task_run_result(begun(folder, "a"), "until_there_is-1", deferrable=True, defer_after=0.3, timeout=4)

@task(max_retries=1, retry_delay=timedelta(0))
def fails_once(folder, id):
    note(folder, "attempt")
    return get_task_run_result.run(id, "until_there_is-1", deferrable=True, defer_after=0.3)

with Flow("deferring-in-a-task", result=HERE) as in_a_task:
    folder = Parameter("folder")
    executed(folder, "after", fails_once(folder, begun(folder, "a")), task_args={"name": "after"})

@task(checkpoint=False)
def in_memory(folder):
    return {"only": "here"}

with Flow("deferring-in-vain", result=HERE) as in_vain:
    folder = Parameter("folder")
    lost = in_memory(folder)
    got = get_task_run_result(begun(folder, "a"), "until_there_is-1", deferrable=True, defer_after=0.3)
    executed(folder, "after", [lost, got], task_args={"name": "after"})
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, results: Path) -> Any:
    """A backend with an agent, where the flows above are registered."""
    file = tmp_path_factory.mktemp("flows") / "deferring.py"
    file.write_text(FLOWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEFERRED_RESULTS", str(results))
        with LocalRunner() as local:
            local.register(file)
            yield local


def _begun(flow_name: str, folder: Path) -> str:
    """Asks for a flow run, and does not wait for it."""
    flow_id = FlowView.from_flow_name(flow_name).flow_id
    flow_run_id: str = prefect.Client().create_flow_run(flow_id=flow_id, parameters={"folder": str(folder)})
    return flow_run_id


def _view(flow_run_id: str) -> FlowRunView:
    return FlowRunView.from_flow_run_id(flow_run_id)


def _state(flow_run_id: str) -> str:
    return type(_view(flow_run_id).state).__name__


def _ended(flow_run_id: str) -> str:
    """The name of the last state of a flow run."""
    return str(eventually(lambda: _view(flow_run_id).state.is_finished() and _state(flow_run_id), PATIENCE))


def _left(flow_run_id: str, deferred: int = 1) -> bool:
    """Whether so many waits of a flow run are deferred, and no process is left of it."""
    rows = api.find("task_run", {"flow_run_id": {"_eq": flow_run_id}}, fields="serialized_state")
    waiting = [row for row in rows if Deferral.of(row["serialized_state"])]
    return len(waiting) == deferred and not find_processes([flow_run_id])


def _executed(folder: Path) -> List[str]:
    file = folder / "executed"
    return [line.rsplit(" ", 1)[0] for line in file.read_text().splitlines()] if file.exists() else []


def _states(flow_run_id: str, slug: str, map_index: Optional[int] = None) -> List[str]:
    task_run = TaskRunView.from_task_slug(slug, flow_run_id, **({} if map_index is None else {"map_index": map_index}))
    return [type(state).__name__ for state in task_run.get_states()]


def test_a_parent_that_waits_holds_no_process_and_goes_on(local: LocalRunner, tmp_path: Path) -> None:
    parent = _begun("deferring-parent", tmp_path)
    eventually(lambda: _left(parent), PATIENCE)
    assert _state(parent) == "Running"
    [child] = _view(parent).get_children()
    wait = TaskRunView.from_task_slug("get_task_run_result-1", parent)
    assert child.flow_run_id in str(wait.state.message)
    assert "since" in str(wait.state.message)
    assert _executed(tmp_path) == ["before"]
    (tmp_path / "a").write_text("")
    assert _ended(parent) == "Success"
    # nothing was run twice, and what was returned before was read again
    assert _executed(tmp_path) == ["before", "after"]
    assert _view(parent).get_task_run("after-1").get_result() == [{"kept": 1}, {"name": "a"}]
    assert len({line.split()[-1] for line in (tmp_path / "executed").read_text().splitlines()}) == 2
    assert len(_view(parent).get_children()) == 1


def test_it_goes_on_before_it_would_look_again_by_itself(local: LocalRunner, tmp_path: Path) -> None:
    parent = _begun("deferring-parent", tmp_path)
    eventually(lambda: _left(parent), PATIENCE)
    asleep = TaskRunView.from_task_slug("get_task_run_result-1", parent).state
    assert isinstance(asleep, Scheduled)
    assert (asleep.start_time - pendulum.now("utc")).total_seconds() > 3000
    (tmp_path / "a").write_text("")
    assert _ended(parent) == "Success"
    states = TaskRunView.from_task_slug("get_task_run_result-1", parent).get_states()
    [child] = _view(parent).get_children()
    woken = next(each for each in states if "has ended" in str(each.message))
    assert (woken.timestamp - child.states[-1].timestamp).total_seconds() < 1
    again = [each for each in states if type(each).__name__ == "Running"]
    # an agent that is told, and the start of a process
    assert (again[-1].timestamp - woken.timestamp).total_seconds() < 20


def test_several_waits_of_a_parent_are_deferred_and_go_on_one_by_one(local: LocalRunner, tmp_path: Path) -> None:
    parent = _begun("deferring-several", tmp_path)
    eventually(lambda: _left(parent, 2), PATIENCE)
    (tmp_path / "a").write_text("")
    eventually(lambda: _executed(tmp_path) == ["after one"], PATIENCE)
    eventually(lambda: _left(parent, 1), PATIENCE)
    (tmp_path / "b").write_text("")
    assert _ended(parent) == "Success"
    assert _executed(tmp_path) == ["after one", "after both"]
    assert _view(parent).get_task_run("after_both-1").get_result() == [{"name": "a"}, {"name": "b"}]


def test_mapped_waits_are_deferred_each(local: LocalRunner, tmp_path: Path) -> None:
    parent = _begun("deferring-mapped", tmp_path)
    (tmp_path / "b").write_text("")
    eventually(lambda: _left(parent, 2), PATIENCE)
    for name in ("a", "c"):
        (tmp_path / name).write_text("")
    assert _ended(parent) == "Success"
    assert _executed(tmp_path) == ["after"]
    assert _view(parent).get_task_run("after-1").get_result() == [{"name": name} for name in ("a", "b", "c")]


def test_waits_side_by_side_are_deferred_together(local: LocalRunner, tmp_path: Path) -> None:
    parent = _begun("deferring-side-by-side", tmp_path)
    eventually(lambda: _left(parent, 3), PATIENCE)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text("")
    assert _ended(parent) == "Success"
    assert _executed(tmp_path) == ["after"]


@pytest.mark.parametrize("first", ["a", "slow"])
def test_a_wait_beside_another_task_that_is_at_work_is_not_deferred(
    local: LocalRunner, tmp_path: Path, first: str
) -> None:
    """The process would be held in any case; and a second one beside it would not run what needs both."""
    parent = _begun("deferring-beside-another", tmp_path)
    eventually(lambda: _states(parent, "get_task_run_result-1")[-1] == "Running", PATIENCE)
    eventually(lambda: _states(parent, "slow-1")[-1] == "Running", PATIENCE)
    # it has tried to be deferred
    eventually(lambda: any(log.message == READY for log in _view(parent).iter_logs()), PATIENCE)
    assert "Scheduled" not in _states(parent, "get_task_run_result-1")
    (tmp_path / first).write_text("")
    if first == "slow":
        eventually(lambda: _left(parent), PATIENCE)
    (tmp_path / "a").write_text("")
    (tmp_path / "slow").write_text("")
    assert _ended(parent) == "Success"
    assert _executed(tmp_path) == ["after"]


def test_what_a_deferred_wait_repeats_is_repeated_once(local: LocalRunner, tmp_path: Path) -> None:
    parent = _begun("deferring-watching", tmp_path)
    eventually(lambda: _left(parent), PATIENCE)
    (tmp_path / "a").write_text("")
    assert _ended(parent) == "Success"
    assert _executed(tmp_path) == ["after"]
    wait = TaskRunView.from_task_slug("wait_for_flow_run-1", parent)

    def repeated() -> List[str]:
        return [log.message for log in wait.iter_logs() if log.message.startswith("Flow ")]

    eventually(lambda: any("<Success>" in each for each in repeated()), 20)
    told = repeated()
    assert len(told) == len(set(told)), told
    for state in ("<Scheduled>", "<Submitted>", "<Running>", "<Success>"):
        assert len([each for each in told if f"Entered state {state}" in each]) == 1, told
    assert any("Finished task run" in each for each in told)


def test_a_child_that_fails_fails_its_deferred_wait_and_is_explained(local: LocalRunner, tmp_path: Path) -> None:
    parent = _begun("deferring-watching", tmp_path)
    eventually(lambda: _left(parent), PATIENCE)
    (tmp_path / "a").write_text("fail")
    assert _ended(parent) == "Failed"
    wait = TaskRunView.from_task_slug("wait_for_flow_run-1", parent)
    assert "as the file says" in str(wait.state.message)
    assert _executed(tmp_path) == []


def test_a_deferred_wait_ends_at_its_limit(local: LocalRunner, tmp_path: Path) -> None:
    parent = _begun("deferring-in-time", tmp_path)
    eventually(lambda: _left(parent), PATIENCE)
    assert _ended(parent) == "Failed"
    wait = TaskRunView.from_task_slug("get_task_run_result-1", parent)
    assert "has not finished within 0:00:04" in str(wait.state.message)
    begun = next(each for each in wait.get_states() if type(each).__name__ == "Running").timestamp
    assert 4 <= (wait.get_states()[-1].timestamp - begun).total_seconds() < 30
    (tmp_path / "a").write_text("")


def test_a_retry_that_is_deferred_is_still_that_retry(local: LocalRunner, tmp_path: Path) -> None:
    parent = _begun("deferring-in-a-task", tmp_path)
    eventually(lambda: _left(parent), PATIENCE)
    (tmp_path / "a").write_text("fail")
    # the child failed, so the task fails, is retried once and fails again
    assert _ended(parent) == "Failed"
    states = _states(parent, "fails_once-1")
    assert states.count("Retrying") == 1
    assert states[-1] == "Failed"


def test_a_result_that_would_be_lost_keeps_the_process(local: LocalRunner, tmp_path: Path) -> None:
    parent = _begun("deferring-in-vain", tmp_path)

    def said() -> List[str]:
        logs = _view(parent).iter_logs()
        return [log.message for log in logs if "holds its process" in log.message]

    eventually(said, PATIENCE)
    assert "in_memory-1" in said()[0]
    assert find_processes([parent])
    (tmp_path / "a").write_text("")
    assert _ended(parent) == "Success"
    assert _executed(tmp_path) == ["after"]
    assert len(said()) == 1
    assert "Scheduled" not in _states(parent, "get_task_run_result-1")


def test_a_parent_without_a_process_is_cancelled_at_once_and_its_child_with_it(
    local: LocalRunner, tmp_path: Path
) -> None:
    parent = _begun("deferring-parent", tmp_path)
    eventually(lambda: _left(parent), PATIENCE)
    [child] = _view(parent).get_children()
    eventually(lambda: _state(child.flow_run_id) == "Running", PATIENCE)
    assert api.cancel_flow_run(parent)
    assert _state(parent) == "Cancelled"
    # its process notices that
    assert _state(child.flow_run_id) in ("Cancelling", "Cancelled")
    (tmp_path / "a").write_text("")
    assert _executed(tmp_path) == ["before"]
    assert not find_processes([parent])


def test_a_plain_run_waits_as_ever(local: LocalRunner, tmp_path: Path) -> None:
    flow_id = FlowView.from_flow_name("deferring-child").flow_id
    parameters = {"folder": str(tmp_path), "name": "a"}
    child = prefect.Client().create_flow_run(flow_id=flow_id, parameters=parameters)
    with Flow("plain") as flow:
        waited = wait_for_flow_run(child, deferrable=True, defer_after=0)
    threading.Timer(1, (tmp_path / "a").write_text, [""]).start()
    state = flow.run()
    assert state.is_successful()
    assert state.result[waited].result.state.is_successful()


def test_all_waits_are_deferrable_if_prefects_config_says_so(local: LocalRunner, tmp_path: Path) -> None:
    parent = _begun("deferring-by-default", tmp_path)
    eventually(lambda: _left(parent), PATIENCE)
    (tmp_path / "a").write_text("")
    assert _ended(parent) == "Success"


def test_people_see_what_is_deferred_and_what_for(local: LocalRunner, tmp_path: Path) -> None:
    parent = _begun("deferring-parent", tmp_path)
    eventually(lambda: _left(parent), PATIENCE)
    [child] = _view(parent).get_children()

    def printed(*arguments: str) -> str:
        return ended("prefect-taskrun", *arguments, env=local.environment).stdout

    assert re.search(r"get_task_run_result-1 +Deferred", printed("list", parent))
    info = printed("info", "--flow-run-id", parent, "--slug", "get_task_run_result-1")
    assert re.search(rf"Waits for +{child.name} \({child.flow_run_id}\) +Running", info)
    [row] = [each for each in json.loads(printed("list", parent, "--json")) if each["waits_for"]]
    assert row["waits_for"] == child.flow_run_id
    assert f"Deferred: waits for {child.name}" in printed("tree", parent)
    assert '"Deferred"' in timeline_page(_view(parent))
    (tmp_path / "a").write_text("")
    assert _ended(parent) == "Success"
