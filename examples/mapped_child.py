"""
A child flow with a mapped task, whose results are used all together, one by one, and by iteration.

    prefect-taskrun run examples/mapped_child.py --flow mapped-parent --result all_together-1
"""

from typing import Any, List

from prefect import Flow, task
from prefect.engine.results import LocalResult

from prefect_taskrun_tasks import FlowRunView, create_flow_run, get_task_run_result, wait_for_flow_run


@task
def inc(x: int) -> int:
    return x + 1


@task
def by_iteration(child_run: FlowRunView) -> List[Any]:
    return [task_run.get_result() for task_run in child_run.get_task_run("inc-1").iter_mapped()]


with Flow("example-mapped", result=LocalResult()) as child_flow:
    inc.map([0, 1, 2, 3, 4, 5])

with Flow("mapped-parent", result=LocalResult()) as parent_flow:
    child_run_id = create_flow_run(flow_name="example-mapped")
    # [1, 2, 3, 4, 5, 6]
    all_together = get_task_run_result(child_run_id, "inc-1", task_args={"name": "all_together"})
    # 3
    only_one = get_task_run_result(child_run_id, "inc-1", map_index=2, task_args={"name": "only_one"})
    # [1, 2, 3, 4, 5, 6]
    iterated = by_iteration(wait_for_flow_run(child_run_id))


if __name__ == "__main__":
    from prefect_taskrun_tasks.runner import LocalRunner

    with LocalRunner() as local:
        local.register(__file__)
        parent_run = local.run("mapped-parent")
        for slug in ("all_together-1", "only_one-1", "by_iteration-1"):
            print(slug, parent_run.get_task_run(slug).get_result())
