"""Parents with several children, under each of the executors that flows may have."""

from pathlib import Path

import pytest

from prefect_taskrun_tasks.runner import LocalRunner

#: One parent for each executor, and one that looks at how its process waits
FLOWS = """
import os
import threading
import time
from prefect import Flow, Parameter, task, unmapped
from prefect.executors import DaskExecutor, LocalDaskExecutor, LocalExecutor
from prefect_taskrun_tasks import create_flow_run, get_task_run_result, wait_for_flow_run
from prefect_taskrun_tasks.waiting import watcher

@task
def square(x, file):
    deadline = time.monotonic() + 30
    while file and not os.path.exists(file):
        assert time.monotonic() < deadline, "Nobody wrote the file."
        time.sleep(0.05)
    return x * x

with Flow("executors-child") as child:
    square(Parameter("x"), Parameter("file", default=None))

@task
def each(file):
    return [{"x": x, "file": file} for x in range(3)]

def creates_children(file):
    return create_flow_run.map(flow_name=unmapped("executors-child"), parameters=each(file))

@task
def state_of(flow_run):
    return type(flow_run.state).__name__

def gets_squares_and_states():
    child_run_ids = creates_children(None)
    get_task_run_result.map(child_run_ids, unmapped("square-1"))
    state_of.map(wait_for_flow_run.map(child_run_ids))

with Flow("executors-local", executor=LocalExecutor()) as local:
    gets_squares_and_states()

with Flow("executors-threads", executor=LocalDaskExecutor(scheduler="threads", num_workers=4)) as threads:
    gets_squares_and_states()

with Flow("executors-processes", executor=LocalDaskExecutor(scheduler="processes", num_workers=2)) as processes:
    gets_squares_and_states()

#: without its dashboard, which would listen on a port that others may need
CLUSTER = {"n_workers": 2, "threads_per_worker": 2, "dashboard_address": None}

with Flow("executors-cluster", executor=DaskExecutor(cluster_kwargs=CLUSTER)) as cluster:
    gets_squares_and_states()

@task
def threads_that_watch(file):
    deadline = time.monotonic() + 30
    while sum(len(each._waits) for each in watcher._watchers.values()) < 3:
        assert time.monotonic() < deadline, "Nobody waits."
        time.sleep(0.05)
    found = [thread.name for thread in threading.enumerate() if thread.name == "watcher"]
    open(file, "w").close()
    return found

@task
def together(squares, threads):
    return squares, threads

with Flow("executors-one-watcher", executor=LocalDaskExecutor(scheduler="threads", num_workers=4)) as one_watcher:
    file = Parameter("file")
    squares = get_task_run_result.map(creates_children(file), unmapped("square-1"))
    # Prefect begins with all that one task needs at once, and with the children of a mapped task alone last
    together(squares, threads_that_watch(file))
"""


@pytest.fixture(scope="module", autouse=True)
def flows(local_runner: LocalRunner, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The flows above are registered."""
    file = tmp_path_factory.mktemp("flows") / "executors.py"
    file.write_text(FLOWS)
    local_runner.register(file)


@pytest.mark.parametrize("executor", ["local", "threads", "processes", "cluster"])
def test_a_parent_gets_the_results_of_all_its_children_under_any_executor(
    local_runner: LocalRunner, executor: str
) -> None:
    parent_run = local_runner.run(f"executors-{executor}")
    assert parent_run.state.is_successful(), parent_run.explain_failure()
    assert parent_run.get_task_run("get_task_run_result-1").get_result() == [0, 1, 4]
    assert parent_run.get_task_run("state_of-1").get_result() == ["Success"] * 3
    assert len(parent_run.get_children()) == 3


def test_waits_in_several_threads_share_one_that_watches(local_runner: LocalRunner, tmp_path: Path) -> None:
    # the children go on until all of them are waited for at once
    parent_run = local_runner.run("executors-one-watcher", {"file": str(tmp_path / "all are waited for")})
    assert parent_run.state.is_successful(), parent_run.explain_failure()
    assert parent_run.get_task_run("together-1").get_result() == ([0, 1, 4], ["watcher"])
