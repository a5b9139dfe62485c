"""
One child flow run for each of several parameter sets, then all their results: all at once, or two at a time.

    prefect-taskrun run examples/fan_out.py --flow fan-out --result get_task_run_result-1
    prefect-taskrun run examples/fan_out.py --flow fan-out-limited --result map_flow_run-1
"""

from prefect import Flow, Parameter, task, unmapped
from prefect.engine.results import LocalResult

from prefect_taskrun_tasks import create_flow_run, get_task_run_result, map_flow_run


@task
def square(x: int) -> int:
    return x * x


with Flow("square", result=LocalResult()) as child_flow:
    square(Parameter("x"))

with Flow("fan-out", result=LocalResult()) as parent_flow:
    child_run_ids = create_flow_run.map(
        flow_name=unmapped("square"),
        parameters=[{"x": 1}, {"x": 2}, {"x": 3}],
    )
    squares = get_task_run_result.map(child_run_ids, task_slug=unmapped("square-1"))
    # at run time, `squares` is [1, 4, 9]

with Flow("fan-out-limited", result=LocalResult()) as limited_flow:
    squares_again = map_flow_run(
        flow_name="square", parameters=[{"x": 1}, {"x": 2}, {"x": 3}], limit=2, task_slug="square-1"
    )


if __name__ == "__main__":
    from prefect_taskrun_tasks.runner import LocalRunner

    with LocalRunner() as local:
        local.register(__file__)
        for flow_name, task_slug in (("fan-out", "get_task_run_result-1"), ("fan-out-limited", "map_flow_run-1")):
            print(local.run(flow_name).get_task_run(task_slug).get_result())
