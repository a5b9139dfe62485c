"""A whole parent/child step: create the child flow run, wait for it, load its result. And when its process starts."""

from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Dict

import prefect

from prefect_taskrun_tasks.runner import LocalRunner

#: Children of one parent, one after the other
STEPS = 5

FLOWS = """
from prefect import Flow, task
from prefect_taskrun_tasks import create_flow_run, get_task_run_result
import prefect.tasks.prefect as theirs

@task
def nothing():
    return 1

with Flow("child") as child:
    nothing()

def parent(name, create, get):
    with Flow(name) as flow:
        last = None
        for step in range({steps}):
            child_run_id = create(flow_name="child", upstream_tasks=[] if last is None else [last])
            last = get(child_run_id, "nothing-1")
    return flow

ours = parent("ours", create_flow_run, get_task_run_result)
prefects = parent("prefect", theirs.create_flow_run, theirs.get_task_run_result)
"""

CHILDREN = """
query($parent: String) {
  flow_run(where: {name: {_ilike: $parent}}, order_by: {created: asc}) {
    created
    logs(where: {message: {_ilike: "Submitted for execution%"}}) { timestamp }
  }
}
"""


def run(directory: Path) -> Dict[str, Any]:
    path = directory / "flows.py"
    path.write_text(FLOWS.format(steps=STEPS))
    sides: Dict[str, Any] = {}
    with LocalRunner() as local:
        local.register(str(path))
        for side in ("ours", "prefect"):
            flow_run = local.run(side)
            assert flow_run.state.is_successful(), flow_run
            children = prefect.Client().graphql(CHILDREN, variables={"parent": f"{flow_run.name}-child"})
            times = [(state.timestamp, type(state).__name__) for state in flow_run.states]
            running = next(time for time, name in times if name == "Running")
            sides[side] = {
                "seconds_per_step": round((times[-1][0] - running).total_seconds() / STEPS, 3),
                "seconds_from_creation_to_process": round(median(map(_start, children.data.flow_run)), 3),
            }
            print(f"  {side}: {sides[side]}")
    ratio = sides["prefect"]["seconds_per_step"] / sides["ours"]["seconds_per_step"]
    return {**sides, "ratio": {"seconds_per_step": round(ratio, 1)}}


def _start(child: Any) -> float:
    """Seconds from the flow run's creation to the agent's word that its process is started."""
    created, started = (datetime.fromisoformat(text) for text in (child.created, child.logs[0].timestamp))
    return (started - created).total_seconds()
