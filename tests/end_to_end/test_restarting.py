"""A parent flow run that is begun again, by hand or because its process was lost, and what becomes of its children."""

from pathlib import Path
from typing import Any, Dict, List

import prefect
import pytest
from conftest import eventually
from prefect.engine.state import Pending, Scheduled

from prefect_taskrun_tasks import FlowRunView, FlowView, api
from prefect_taskrun_tasks.runner import LocalRunner
from prefect_taskrun_tasks.views.lineage import KEY

#: A child that fails until a file exists, and says in another one each time that it is executed; and its parents
FLOWS = """
import os
import signal
from datetime import timedelta
from pathlib import Path
from prefect import Flow, Parameter, task, unmapped
from prefect_taskrun_tasks import create_flow_run, get_task_run_result, map_flow_run, wait_for_flow_run

@task
def work(folder, name):
    with (Path(folder) / "executed").open("a") as executed:
        executed.write(f"{name}\\n")
    if name == "bad" and not (Path(folder) / "mended").exists():
        raise RuntimeError("not mended")
    return name

with Flow("restarting-child") as child:
    work(Parameter("folder"), Parameter("name"))

@task
def parameters_of(folder, name):
    return {"folder": folder, "name": name}

with Flow("restarting-parent") as parent:
    folder, policy = Parameter("folder"), Parameter("policy", default="rerun_failed")
    good = create_flow_run(
        flow_name="restarting-child", parameters=parameters_of(folder, "good"), on_parent_restart=policy
    )
    bad = create_flow_run(
        flow_name="restarting-child", parameters=parameters_of(folder, "bad"), on_parent_restart=policy
    )
    wait_for_flow_run(bad, raise_final_state=True)
    get_task_run_result(bad, "work-1")
    get_task_run_result(good, "work-1")

with Flow("restarting-other") as other:
    work(Parameter("folder"), Parameter("name"))

with Flow("restarting-parent-of-two-flows") as of_two_flows:
    folder = Parameter("folder")
    for flow_name in ("restarting-child", "restarting-other"):
        ran = create_flow_run(
            flow_name=flow_name, parameters=parameters_of(folder, "bad"), idempotency_key=folder
        )
        wait_for_flow_run(ran, raise_final_state=True)

@task
def all_parameters(folder):
    return [{"folder": folder, "name": name} for name in ("good", "bad")]

with Flow("restarting-parent-mapped") as mapped:
    ids = create_flow_run.map(
        flow_name=unmapped("restarting-child"), parameters=all_parameters(Parameter("folder"))
    )
    get_task_run_result.map(ids, unmapped("work-1"))

with Flow("restarting-parent-of-a-map") as of_a_map:
    # one after the other, so that the first one has succeeded when the second one fails
    map_flow_run(
        flow_name="restarting-child",
        parameters=all_parameters(Parameter("folder")),
        limit=1,
        on_failure="fail_fast",
        task_slug="work-1",
    )

@task
def need_all(results):
    failed = [result for result in results if isinstance(result, Exception)]
    if failed:
        raise failed[0]
    return results

with Flow("restarting-parent-that-collects") as collects:
    results = map_flow_run(
        flow_name="restarting-child",
        parameters=all_parameters(Parameter("folder")),
        on_failure="collect",
        task_slug="work-1",
    )
    need_all(results)

def lose_process(folder):
    # once
    lost = Path(folder) / "lost"
    if not lost.exists():
        lost.touch()
        os.kill(os.getpid(), signal.SIGKILL)

def create_child(folder):
    return create_flow_run.run(flow_name="restarting-child", parameters={"folder": folder, "name": "good"})

@task(max_retries=1, retry_delay=timedelta(0))
def create_and_get_lost(folder):
    child_run_id = create_child(folder)
    lose_process(folder)
    return child_run_id

with Flow("restarting-parent-lost-while-it-creates") as lost_while:
    folder = Parameter("folder")
    get_task_run_result(create_and_get_lost(folder), "work-1")

@task
def get_lost(folder, child_run_id):
    lose_process(folder)
    return child_run_id

with Flow("restarting-parent-lost-afterwards") as lost_afterwards:
    folder = Parameter("folder")
    created = create_flow_run(flow_name="restarting-child", parameters=parameters_of(folder, "good"))
    get_task_run_result(get_lost(folder, created), "work-1")
"""


@pytest.fixture(scope="module")
def flows(local_runner: LocalRunner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the flows above, which are registered."""
    file = tmp_path_factory.mktemp("flows") / "restarting.py"
    file.write_text(FLOWS)
    local_runner.register(file)
    return file


@pytest.fixture(autouse=True)
def registered(flows: Path) -> None:
    """The flows above are registered."""


def _view(flow_run_id: str) -> FlowRunView:
    return FlowRunView.from_flow_run_id(flow_run_id)


def _state(flow_run_id: str) -> str:
    return type(_view(flow_run_id).state).__name__


FIELDS = "id name idempotency_key parameters state flow { name }"


def _children(flow_run_id: str) -> List[Dict[str, Any]]:
    """The children of a flow run, oldest first."""
    where = {"context": {"_contains": {KEY: {"parent_flow_run_id": flow_run_id}}}}
    rows = api.find("flow_run", where, order_by={"created": "asc"}, fields=FIELDS)
    return [dict(row) for row in rows]


def _children_named(flow_run_id: str, name: str) -> List[Dict[str, Any]]:
    return [child for child in _children(flow_run_id) if child["parameters"]["name"] == name]


def _executed(folder: Path) -> List[str]:
    """Which children have been executed, in order."""
    return (folder / "executed").read_text().split()


def _restart(flow_run_id: str, *more_slugs: str) -> str:
    """Restarts a flow run as Prefect's UI does, and blocks until it has finished: the state that it ends in.

    Args:
        flow_run_id: of a flow run that has finished.
        more_slugs: tasks that are begun again although they have succeeded, as in the dialog of one task.
    """
    client, view = prefect.Client(), _view(flow_run_id)
    # the parent of mapped task runs is Mapped, whatever has become of them, and is left alone
    failed = view.get_all_task_runs(state=["Failed", "Cancelled", "TimedOut", "TriggerFailed"])
    for task_run in [*failed, *(view.get_task_run(slug) for slug in more_slugs)]:
        client.set_task_run_state(task_run.task_run_id, state=Pending("Restarted by a test."))
    count = len(view.states)
    client.set_flow_run_state(flow_run_id, state=Scheduled("Restarted by a test."))
    eventually(lambda: len(_view(flow_run_id).states) > count + 1 and _view(flow_run_id).state.is_finished())
    return _state(flow_run_id)


def _failed(local_runner: LocalRunner, flow_name: str, **parameters: Any) -> str:
    """Runs a parent that fails."""
    parent_run = local_runner.run(flow_name, parameters)
    assert parent_run.state.is_failed()
    return parent_run.flow_run_id


def test_a_parent_that_is_restarted_succeeds_with_one_rerun_of_the_child_that_failed(
    local_runner: LocalRunner, tmp_path: Path
) -> None:
    parent = _failed(local_runner, "restarting-parent", folder=str(tmp_path))
    assert sorted(_executed(tmp_path)) == ["bad", "good"]
    (tmp_path / "mended").touch()
    assert _restart(parent) == "Success"
    # two tasks wait for the child that failed, and share its rerun
    assert sorted(_executed(tmp_path)) == ["bad", "bad", "good"]
    assert len(_children_named(parent, "good")) == 1
    first, rerun = _children_named(parent, "bad")
    assert rerun["idempotency_key"] == f"{first['id']}-rerun-1"
    assert (rerun["name"], rerun["parameters"]) == (first["name"], first["parameters"])
    assert (first["state"], rerun["state"]) == ("Failed", "Success")
    results = [_view(parent).get_task_run(f"get_task_run_result-{number}").get_result() for number in (1, 2)]
    assert sorted(results) == ["bad", "good"]


def test_with_the_policy_reuse_a_parent_that_is_restarted_fails_again_and_creates_nothing(
    local_runner: LocalRunner, tmp_path: Path
) -> None:
    parent = _failed(local_runner, "restarting-parent", folder=str(tmp_path), policy="reuse")
    (tmp_path / "mended").touch()
    assert _restart(parent) == "Failed"
    assert sorted(_executed(tmp_path)) == ["bad", "good"]
    assert len(_children(parent)) == 2


def test_each_restart_of_a_parent_has_a_rerun_of_its_own(local_runner: LocalRunner, tmp_path: Path) -> None:
    parent = _failed(local_runner, "restarting-parent", folder=str(tmp_path))
    assert _restart(parent) == "Failed"
    (tmp_path / "mended").touch()
    assert _restart(parent) == "Success"
    assert sorted(_executed(tmp_path)) == ["bad", "bad", "bad", "good"]
    first, *reruns = _children_named(parent, "bad")
    assert [rerun["idempotency_key"] for rerun in reruns] == [f"{first['id']}-rerun-{number}" for number in (1, 2)]


def test_of_mapped_children_only_the_one_that_failed_runs_anew(local_runner: LocalRunner, tmp_path: Path) -> None:
    parent = _failed(local_runner, "restarting-parent-mapped", folder=str(tmp_path))
    (tmp_path / "mended").touch()
    assert _restart(parent) == "Success"
    assert sorted(_executed(tmp_path)) == ["bad", "bad", "good"]
    assert _view(parent).get_task_run("get_task_run_result-1").get_result() == ["good", "bad"]


@pytest.mark.parametrize(
    ("flow_name", "more_slugs"),
    # the task that collects has succeeded, so only the dialog of that task begins it again
    [("restarting-parent-of-a-map", []), ("restarting-parent-that-collects", ["map_flow_run-1"])],
    ids=["fail_fast", "collect"],
)
def test_map_flow_run_that_is_begun_again_runs_only_the_children_anew_that_failed(
    local_runner: LocalRunner, tmp_path: Path, flow_name: str, more_slugs: List[str]
) -> None:
    parent = _failed(local_runner, flow_name, folder=str(tmp_path))
    (tmp_path / "mended").touch()
    assert _restart(parent, *more_slugs) == "Success"
    assert sorted(_executed(tmp_path)) == ["bad", "bad", "good"]
    assert _view(parent).get_task_run("map_flow_run-1").get_result() == ["good", "bad"]
    first, rerun = _children_named(parent, "bad")
    assert rerun["idempotency_key"] == f"{first['id']}-rerun-1"


def test_children_of_two_flows_that_share_a_key_each_run_anew(local_runner: LocalRunner, tmp_path: Path) -> None:
    parent = _failed(local_runner, "restarting-parent-of-two-flows", folder=str(tmp_path))
    (tmp_path / "mended").touch()
    assert _restart(parent) == "Success"
    assert _executed(tmp_path) == ["bad"] * 4
    assert sorted(child["flow"]["name"] for child in _children(parent)) == sorted(
        ["restarting-child", "restarting-other"] * 2
    )


def test_a_child_that_was_mended_and_registered_anew_runs_only_where_it_had_failed(
    local_runner: LocalRunner, flows: Path, tmp_path: Path
) -> None:
    parent = _failed(local_runner, "restarting-parent-of-a-map", folder=str(tmp_path))
    (tmp_path / "mended").touch()
    before = FlowView.from_flow_name("restarting-child").flow_id
    local_runner.register(flows)
    assert FlowView.from_flow_name("restarting-child").flow_id != before
    assert _restart(parent) == "Success"
    assert sorted(_executed(tmp_path)) == ["bad", "bad", "good"]


def _lost(flow_name: str, folder: Path) -> str:
    """Begins a parent that loses its process when it has created its child, and blocks until both have finished."""
    flow_id = FlowView.from_flow_name(flow_name).flow_id
    parent: str = prefect.Client().create_flow_run(flow_id=flow_id, parameters={"folder": str(folder)})
    eventually(lambda: _view(parent).state.is_finished())
    assert (folder / "lost").exists()
    eventually(lambda: [child["state"] for child in _children(parent)] == ["Success"])
    return parent


def test_a_task_that_is_retried_because_its_process_was_lost_finds_the_child_that_it_has_created(
    tmp_path: Path,
) -> None:
    parent = _lost("restarting-parent-lost-while-it-creates", tmp_path)
    assert _state(parent) == "Success"
    assert len(_children(parent)) == 1
    assert _executed(tmp_path) == ["good"]


def test_a_parent_whose_process_was_lost_creates_no_second_child_when_it_is_begun_again(tmp_path: Path) -> None:
    parent = _lost("restarting-parent-lost-afterwards", tmp_path)
    # without retries, what was running has failed
    assert _state(parent) == "Failed"
    assert _restart(parent) == "Success"
    assert len(_children(parent)) == 1
    assert _executed(tmp_path) == ["good"]
