"""Prefect's executors run mapped tasks, retry, and stop tasks that take too long."""

import os
import time
from datetime import timedelta
from typing import List

import pytest
from prefect import Flow, task
from prefect.engine.signals import SKIP
from prefect.executors import DaskExecutor, Executor, LocalDaskExecutor, LocalExecutor

EXECUTORS = {
    "local": LocalExecutor,
    "threads": lambda: LocalDaskExecutor(scheduler="threads", num_workers=2),
    "processes": lambda: LocalDaskExecutor(scheduler="processes", num_workers=2),
    "dask": lambda: DaskExecutor(cluster_kwargs={"n_workers": 1, "processes": False, "dashboard_address": None}),
}


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Executor:
    return EXECUTORS[request.param]()


@task
def numbers() -> List[int]:
    return [1, 2, 3, 4]


@task
def square(x: int) -> int:
    if x == 3:
        raise SKIP("not this one", result=None)
    return x * x


@task(skip_on_upstream_skip=False)
def total(squares: List[int]) -> int:
    return sum(each or 0 for each in squares)


@task(timeout=1)
def endless() -> None:
    while True:
        time.sleep(0.05)


@task(max_retries=2, retry_delay=timedelta(0))
def succeeds_at_the_second_attempt(file: str) -> str:
    with open(file, "a") as attempts:
        attempts.write("x")
    assert os.path.getsize(file) == 2
    return "done"


def test_mapped_tasks_skip_retry_and_time_out(executor: Executor, tmp_path: "os.PathLike[str]") -> None:
    with Flow("executed", executor=executor) as flow:
        result = total(square.map(numbers()))
        late = endless()
        again = succeeds_at_the_second_attempt(os.path.join(tmp_path, "attempts"))
    final = flow.run()
    assert final.result[result].result == 1 + 4 + 16
    assert type(final.result[late]).__name__ == "TimedOut"
    assert final.result[again].result == "done"
    assert final.is_failed()
