"""What the agent of a `LocalRunner` takes, and what becomes of flow runs whose process ends before them."""

from pathlib import Path
from typing import List

import prefect
import psutil
import pytest
from conftest import eventually
from processes import assert_gone

from prefect_taskrun_tasks import FlowRunView
from prefect_taskrun_tasks.runner import LocalRunner

FLOWS = """
import multiprocessing
import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from prefect import Flow, Parameter, task
from prefect.run_configs import KubernetesRun, LocalRun, UniversalRun
from prefect.storage import Docker, Local
from prefect_taskrun_tasks import create_flow_run, wait_for_flow_run

@task
def one():
    return 1

with Flow("agent-no-labels", storage=Local(add_default_labels=False)) as no_labels:
    one()

with Flow("agent-own-label", run_config=UniversalRun(labels=["prod"])) as own_label:
    one()

with Flow("agent-parent") as parent:
    wait_for_flow_run(create_flow_run(flow_name="agent-own-label"), raise_final_state=True)

with Flow("agent-kubernetes", run_config=KubernetesRun()) as kubernetes:
    one()

with Flow("agent-nowhere", run_config=LocalRun(working_dir="/no/such/folder")) as nowhere:
    one()

@task(max_retries=1, retry_delay=timedelta(0))
def dies_once(folder):
    attempts = Path(folder) / "attempts"
    attempts.open("a").write("x")
    if len(attempts.read_text()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"

with Flow("agent-dies-once") as dies_once_flow:
    dies_once(Parameter("folder"))

@task
def exits(folder):
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    worker.start()
    (Path(folder) / "worker").write_text(str(worker.pid))
    os._exit(0)

@task
def another():
    return "ran"

with Flow("agent-exits") as exits_flow:
    exits(Parameter("folder"))
    another()
"""


@pytest.fixture(scope="module", autouse=True)
def flows(local_runner: LocalRunner, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("flows") / "agent_flows.py"
    file.write_text(FLOWS)
    local_runner.register(str(file))


def _states(flow_run: FlowRunView) -> List[str]:
    return [type(state).__name__ for state in flow_run.states]


@pytest.mark.parametrize("flow", ["agent-no-labels", "agent-parent"])
def test_flow_runs_without_labels_and_with_any_labels_are_taken(local_runner: LocalRunner, flow: str) -> None:
    assert local_runner.run(flow).state.is_successful()


@pytest.mark.parametrize(
    ("flow", "reason"),
    [("agent-kubernetes", "KubernetesRun as its run config"), ("agent-nowhere", "'/no/such/folder'")],
)
def test_a_flow_run_that_this_machine_cannot_execute_fails_with_the_reason(
    local_runner: LocalRunner, flow: str, reason: str
) -> None:
    flow_run = local_runner.run(flow)
    assert flow_run.state.is_failed()
    assert reason in flow_run.state.message
    assert "Submitted" in _states(flow_run)


def test_a_flow_in_a_docker_image_fails_with_the_reason(local_runner: LocalRunner) -> None:
    flow = prefect.Flow("agent-docker", storage=prefect.storage.Docker(image_name="image", image_tag="1"))
    flow_id = flow.register("default", no_url=True, build=False)
    flow_run_id = prefect.Client().create_flow_run(flow_id=flow_id)
    eventually(lambda: FlowRunView.from_flow_run_id(flow_run_id).state.is_failed())
    assert "stored in a Docker image" in FlowRunView.from_flow_run_id(flow_run_id).state.message


def test_a_task_whose_process_is_killed_is_retried(local_runner: LocalRunner, tmp_path: Path) -> None:
    flow_run = local_runner.run("agent-dies-once", {"folder": str(tmp_path)})
    assert flow_run.state.is_successful()
    task_run = flow_run.get_task_run("dies_once-1")
    assert task_run.get_result() == "alive"
    assert (tmp_path / "attempts").read_text() == "xx"
    retrying = [log.message for log in flow_run.get_logs() if "was killed by SIGKILL" in log.message]
    assert len(retrying) == 1
    assert "1 will be retried" in retrying[0]


def test_a_process_that_ends_while_its_task_runs_fails_it_and_what_it_has_left_is_killed(
    local_runner: LocalRunner, tmp_path: Path
) -> None:
    flow_run = local_runner.run("agent-exits", {"folder": str(tmp_path)})
    assert flow_run.state.is_failed()
    assert "has ended with exit code 0 before" in flow_run.get_task_run("exits-1").state.message
    # the rest of the flow goes on
    assert flow_run.get_task_run("another-1").get_result() == "ran"
    worker = int((tmp_path / "worker").read_text())
    assert_gone([psutil.Process(worker)] if psutil.pid_exists(worker) else [])
