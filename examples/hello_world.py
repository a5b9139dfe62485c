"""
Prefect's hello-world flow, and its task runs as GraphQL returns them.

    python examples/hello_world.py
"""

import json
from typing import Any

import prefect
from prefect.hello_world import hello_flow

from prefect_taskrun_tasks.runner import LocalRunner

TASK_RUNS = """
query($flow_run_id: uuid) {
  task_run(where: {flow_run_id: {_eq: $flow_run_id}}) {
    id
    state
    start_time
    task {
      slug
    }
  }
}
"""


def task_runs(flow_run_id: str) -> Any:
    """The answer of the Prefect API to a query for the task runs of a flow run."""
    return prefect.Client().graphql(TASK_RUNS, variables={"flow_run_id": flow_run_id})


if __name__ == "__main__":
    with LocalRunner() as local:
        local.register(__file__)
        flow_run = local.run(hello_flow.name)
        print(json.dumps(task_runs(flow_run.flow_run_id), indent=2))
