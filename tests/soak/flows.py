"""The flows of a faulted run: a parent with five children, each of which says that it is executed."""

import os
from datetime import timedelta
from typing import Any, List

import prefect
from prefect import Flow, Parameter, task, unmapped
from prefect.engine.results import LocalResult
from prefect.executors import Executor, LocalDaskExecutor, LocalExecutor

from prefect_taskrun_tasks import CreateFlowRun, GetTaskRunResult, MapFlowRun, WaitForFlowRun

#: Environment variable with the path of the file to which each execution of a child adds a line
EXECUTIONS = "SOAK_EXECUTIONS"

#: Children of a parent
CHILDREN = 5


@task
def square(x: int) -> int:
    file = os.open(os.environ[EXECUTIONS], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        # a line is written at once or not at all
        os.write(file, f"{prefect.context.flow_run_id}\n".encode())
    finally:
        os.close(file)
    return x * x


@task
def check(first: int, second: List[int], third: List[int]) -> None:
    squares = [first, *second, *third]
    if squares != [1, 4, 9, 16, 25]:
        raise ValueError(f"The children gave {squares}.")


def child() -> Flow:
    with Flow("child", result=LocalResult()) as flow:
        square(Parameter("x"))
    return flow


def _parent(name: str, executor: Executor, deferrable: bool = False, **options: Any) -> Flow:
    waiting = {"deferrable": deferrable, "defer_after": 0, **options}
    create, wait = CreateFlowRun(name="create", **options), WaitForFlowRun(name="wait", **waiting)
    get, map_children = GetTaskRunResult(name="get", **waiting), MapFlowRun(name="map", **options)
    with Flow(name, result=LocalResult(), executor=executor) as flow:
        one = create(flow_name="child", parameters={"x": 1})
        two = create.map(flow_name=unmapped("child"), parameters=[{"x": 2}, {"x": 3}])
        collected = map_children(flow_name="child", parameters=[{"x": 4}, {"x": 5}], task_slug="square-1")
        finished = wait.map(two, raise_final_state=unmapped(True), stream_logs=unmapped(True))
        mapped = get.map(two, task_slug=unmapped("square-1"), upstream_tasks=[finished])
        check(get(one, "square-1"), mapped, collected)
    return flow


def parents() -> List[Flow]:
    """One whose tasks run one after the other and fail at once; one that is left by its process whenever it waits; one
    that waits in several threads, and tries again."""
    return [
        _parent("parent", LocalExecutor()),
        _parent("deferring-parent", LocalExecutor(), deferrable=True),
        _parent(
            "retrying-parent",
            LocalDaskExecutor(scheduler="threads", num_workers=8),
            max_retries=2,
            retry_delay=timedelta(0),
        ),
    ]
