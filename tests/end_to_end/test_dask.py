"""Parents and children on a Dask cluster whose scheduler and two workers are processes of their own."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, ContextManager, Iterator, NamedTuple, Set

import prefect
import pytest
from conftest import eventually
from distributed import Client
from processes import Command, started

from prefect_taskrun_tasks import FlowRunView, FlowView
from prefect_taskrun_tasks.runner import LocalRunner

#: A cluster of two workers with one thread each
FLOWS = """
import os
import time
from pathlib import Path
from prefect import Flow, Parameter, task, unmapped
from prefect.engine.results import LocalResult
from prefect.executors import DaskExecutor, LocalDaskExecutor
from prefect_taskrun_tasks import CreateFlowRun, GetTaskRunResult
from prefect_taskrun_tasks import create_flow_run, get_task_run_result, map_flow_run, wait_for_flow_run

RESULT = LocalResult(dir={results!r})
ON_THE_CLUSTER = {{"result": RESULT, "executor": DaskExecutor(address={address!r})}}

@task
def meet(number, folder):
    # both at once, so one in each worker's only thread
    (Path(folder) / str(number)).touch()
    deadline = time.monotonic() + 30
    while len(os.listdir(folder)) < 2:
        assert time.monotonic() < deadline, "The other one does not come."
        time.sleep(0.05)
    return os.getpid()

with Flow("dask-meeting", **ON_THE_CLUSTER) as meeting:
    meet.map([0, 1], unmapped(Parameter("folder")))

@task
def square(x):
    return x * x

@task
def where(x):
    return os.getpid()

with Flow("dask-child", **ON_THE_CLUSTER) as child:
    x = Parameter("x")
    square(x)
    where.map([0, 1])

def creates(*numbers):
    return create_flow_run.map(flow_name=unmapped("dask-child"), parameters=[{{"x": x}} for x in numbers])

@task
def state_of(flow_run):
    return type(flow_run.state).__name__

with Flow("dask-parent", **ON_THE_CLUSTER) as parent:
    child_run_id = create_flow_run(flow_name="dask-child", parameters={{"x": 3}})
    finished = wait_for_flow_run(child_run_id)
    state_of(finished)
    get_task_run_result(child_run_id, "square-1", upstream_tasks=[finished])
    get_task_run_result(child_run_id, "where-1", upstream_tasks=[finished])

with Flow("dask-parent-that-holds-all-threads", **ON_THE_CLUSTER) as holds_all:
    wait_for_flow_run.map(creates(1, 2, 3), timeout=unmapped(3))

with Flow("dask-parent-of-a-map", **ON_THE_CLUSTER) as of_a_map:
    map_flow_run(flow_name="dask-child", parameters=[{{"x": 2}}, {{"x": 3}}], task_slug="square-1")

#: only one of the workers has it, and once
ONE_WAITS = GetTaskRunResult(name="one_waits", tags=["dask-resource:WAIT=1"])

with Flow("dask-parent-that-waits-in-one-thread", **ON_THE_CLUSTER) as in_one_thread:
    ONE_WAITS.map(creates(2, 3), unmapped("square-1"))

ONE_DEFERS = GetTaskRunResult(name="one_defers", deferrable=True, defer_after=0.2)

with Flow("dask-parent-whose-waits-are-deferred", **ON_THE_CLUSTER) as defers:
    ONE_DEFERS.map(creates(2, 3), unmapped("square-1"))

with Flow("dask-parent-beside-the-cluster", result=RESULT, executor=LocalDaskExecutor(num_workers=2)) as beside:
    get_task_run_result.map(creates(2, 3), unmapped("square-1"))

@task
def until_there_is(file):
    deadline = time.monotonic() + 60
    while not os.path.exists(file):
        assert time.monotonic() < deadline, "Nobody wrote the file."
        time.sleep(0.05)
    return "done"

with Flow("dask-child-beside-the-cluster", result=RESULT) as child_beside:
    until_there_is(Parameter("file"))

#: a worker of its own has it
MORTAL = {{"tags": ["dask-resource:MORTAL=1"]}}

with Flow("dask-parent-that-loses-its-worker", **ON_THE_CLUSTER) as loses_its_worker:
    file = Parameter("file")
    child_run_id = CreateFlowRun(name="create", **MORTAL)(
        flow_name="dask-child-beside-the-cluster", parameters={{"file": file}}
    )
    GetTaskRunResult(name="get", **MORTAL)(child_run_id, "until_there_is-1")
"""


class DaskCluster(NamedTuple):
    """A Dask cluster of two workers with one thread each, which have not been told of any backend."""

    #: of its scheduler
    address: str
    #: of its workers' processes
    pids: Set[int]
    #: starts one more, with options
    worker: Callable[..., ContextManager[Command]]


@pytest.fixture(scope="module")
def dask_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    folder = tmp_path_factory.mktemp("dask")
    file = folder / "scheduler.json"
    here = ["--host", "127.0.0.1", "--scheduler-file", file, "--dashboard-address", "127.0.0.1:0"]

    def worker(*options: str) -> ContextManager[Command]:
        return started("dask", "worker", *here, "--nthreads", 1, "--no-nanny", "--local-directory", folder, *options)

    with ExitStack() as stack:
        stack.enter_context(started("dask", "scheduler", "--port", 0, *here))
        workers = [stack.enter_context(worker(*options)) for options in ((), ("--resources", "WAIT=1"))]
        address = json.loads(eventually(lambda: file.exists() and file.read_text()))["address"]
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield DaskCluster(address, {worker.process.pid for worker in workers}, worker)


@pytest.fixture(scope="module", autouse=True)
def flows(local_runner: LocalRunner, dask_cluster: DaskCluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The flows above are registered."""
    folder = tmp_path_factory.mktemp("flows")
    file = folder / "on_dask.py"
    file.write_text(FLOWS.format(address=dask_cluster.address, results=str(folder / "results")))
    local_runner.register(file)


def _succeeded(local_runner: LocalRunner, flow_name: str, **parameters: Any) -> FlowRunView:
    # shown if the test fails, also because the flow run hangs
    flow_run = local_runner.run(flow_name, parameters, on_log=lambda log: print(log.timestamp, log.message))
    assert flow_run.state.is_successful(), flow_run.explain_failure()
    return flow_run


def _result(flow_run: FlowRunView, task_slug: str) -> Any:
    return flow_run.get_task_run(task_slug).get_result()


def test_tasks_run_in_the_processes_of_both_workers(
    local_runner: LocalRunner, dask_cluster: DaskCluster, tmp_path: Path
) -> None:
    flow_run = _succeeded(local_runner, "dask-meeting", folder=str(tmp_path))
    assert set(_result(flow_run, "meet-1")) == dask_cluster.pids


def test_a_parent_on_the_cluster_gets_the_results_of_its_child_on_the_same_cluster(
    local_runner: LocalRunner, dask_cluster: DaskCluster
) -> None:
    parent_run = _succeeded(local_runner, "dask-parent")
    assert _result(parent_run, "state_of-1") == "Success"
    assert _result(parent_run, "get_task_run_result-1") == 9
    first, second = _result(parent_run, "get_task_run_result-2")
    assert {first, second} <= dask_cluster.pids


def test_waits_that_hold_all_threads_of_the_cluster_keep_the_children_from_it_until_they_end(
    local_runner: LocalRunner,
) -> None:
    parent_run = local_runner.run("dask-parent-that-holds-all-threads")
    assert parent_run.state.is_failed()
    waits = list(parent_run.get_task_run("wait_for_flow_run-1").iter_mapped())
    assert "has not finished within 0:00:03" in str([wait.state.message for wait in waits])
    children = parent_run.get_children()
    assert len(children) == 3
    for child in children:
        # what is not waited for any more goes on all the same
        eventually(lambda child=child: child.get_latest().state.is_finished())
        task_run = child.get_latest().get_task_run("square-1")
        assert task_run.state.is_successful()
        assert task_run.start_time > min(wait.end_time for wait in waits)
    # the workers have been told of the backend together with their tasks, and each sends it their logs now and then
    for said in (
        f"{local_runner.backend.url}/default/flow-run/{children[0].flow_run_id}",
        "-dask-child': Entered state",
    ):
        eventually(lambda said=said: [log for log in parent_run.iter_logs() if said in log.message])


@pytest.mark.parametrize(
    ("flow_name", "task_slug"),
    [
        ("dask-parent-of-a-map", "map_flow_run-1"),
        ("dask-parent-that-waits-in-one-thread", "one_waits-dask-resource:WAIT=1-1"),
        ("dask-parent-beside-the-cluster", "get_task_run_result-1"),
        ("dask-parent-whose-waits-are-deferred", "one_defers-1"),
    ],
)
def test_a_parent_may_wait_for_as_many_children_as_the_cluster_has_threads(
    local_runner: LocalRunner, flow_name: str, task_slug: str
) -> None:
    parent_run = _succeeded(local_runner, flow_name)
    assert _result(parent_run, task_slug) == [4, 9]


#: Tags are a part of slugs
GET = "get-dask-resource:MORTAL=1-1"


def test_a_wait_whose_worker_is_killed_goes_on_in_another_one_and_there_is_no_second_child(
    local_runner: LocalRunner, dask_cluster: DaskCluster, tmp_path: Path
) -> None:
    file = tmp_path / "the child may end"
    flow_id = FlowView.from_flow_name("dask-parent-that-loses-its-worker").flow_id
    with dask_cluster.worker("--resources", "MORTAL=1") as mortal:
        id = prefect.Client().create_flow_run(flow_id=flow_id, parameters={"file": str(file)})
        eventually(lambda: FlowRunView.from_flow_run_id(id).get_all_task_runs(task_slug=GET, state="Running"))
        mortal.process.kill()
        with dask_cluster.worker("--resources", "MORTAL=1"):
            file.touch()
            eventually(lambda: FlowRunView.from_flow_run_id(id).state.is_finished())
    parent_run = FlowRunView.from_flow_run_id(id)
    assert parent_run.state.is_successful(), parent_run.explain_failure()
    assert _result(parent_run, GET) == "done"
    assert len(parent_run.get_children()) == 1
