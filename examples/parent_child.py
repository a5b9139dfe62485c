"""
A parent flow that runs a child flow and uses the result of one of its tasks.

    prefect-taskrun run examples/parent_child.py --flow parent --result get_task_run_result-1
"""

from typing import List

from prefect import Flow, task
from prefect.engine.results import LocalResult

from prefect_taskrun_tasks import create_flow_run, get_task_run_result


@task
def create_some_data() -> List[int]:
    return list(range(5))


# `prefect register --path` stores the name of this file, and not the flows as they are, so they have to say themselves
# where the results of their tasks are kept
with Flow("child", result=LocalResult()) as child_flow:
    data = create_some_data()

with Flow("parent", result=LocalResult()) as parent_flow:
    child_run_id = create_flow_run(flow_name="child")
    child_data = get_task_run_result(child_run_id, "create_some_data-1")
    # at run time, `child_data` is [0, 1, 2, 3, 4]


if __name__ == "__main__":
    from prefect_taskrun_tasks.runner import LocalRunner

    with LocalRunner() as local:
        local.register(__file__)
        parent_run = local.run("parent")
        print(parent_run.get_task_run("get_task_run_result-1").get_result())
