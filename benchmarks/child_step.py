"""A whole parent/child step: create the child flow run, wait for it, load its result. And when its process starts."""

import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Dict

import pendulum
import prefect
from prefect.engine.state import Pending

from prefect_taskrun_tasks import FlowRunView, FlowView
from prefect_taskrun_tasks.runner import LocalRunner

#: Children of one parent, one after the other
STEPS = 5

#: Times that the child is executed by hand, each of three times
BARE = 3

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
        # before, between and after the two, for others may use the machine
        bare = [_bare(local) for _ in range(BARE)]
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
            print(f"  {side}: {sides[side]}", flush=True)
            bare += [_bare(local) for _ in range(BARE)]
    seconds = median(bare)
    print(f"  `prefect execute flow-run` of the child by hand: {seconds:.3f} s ({min(bare):.3f} to {max(bare):.3f})")
    for side, figures in sides.items():
        figures["seconds_above_bare"] = round(figures["seconds_per_step"] - seconds, 3)
        print(f"  {side}: {figures['seconds_above_bare']} s above that")
    ratio = sides["prefect"]["seconds_per_step"] / sides["ours"]["seconds_per_step"]
    return {**sides, "ratio": {"seconds_per_step": round(ratio, 1)}, "bare_seconds": round(seconds, 3)}


def _bare(local: LocalRunner) -> float:
    """Seconds that the process of a child takes which nobody waits for, from its start to its end."""
    flow_id = FlowView.from_flow_name("child").flow_id
    # which no agent takes: it is due tomorrow, and then Pending
    tomorrow = pendulum.now("utc").add(days=1)
    flow_run_id = prefect.Client().create_flow_run(flow_id=flow_id, scheduled_start_time=tomorrow)
    prefect.Client().set_flow_run_state(flow_run_id, Pending())
    environment = {
        **local.environment,
        # as prefect 1.4.1's agent/local/agent.py sets them
        "PREFECT__CONTEXT__FLOW_RUN_ID": flow_run_id,
        "PREFECT__CONTEXT__FLOW_ID": flow_id,
        "PREFECT__CLOUD__USE_LOCAL_SECRETS": "false",
        "PREFECT__CLOUD__SEND_FLOW_RUN_LOGS": "true",
        "PREFECT__ENGINE__FLOW_RUNNER__DEFAULT_CLASS": "prefect.engine.cloud.CloudFlowRunner",
    }
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "prefect", "execute", "flow-run"],
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    seconds = time.perf_counter() - start
    assert FlowRunView.from_flow_run_id(flow_run_id).state.is_successful()
    return seconds


def _start(child: Any) -> float:
    """Seconds from the flow run's creation to the agent's word that its process is started."""
    created, started = (datetime.fromisoformat(text) for text in (child.created, child.logs[0].timestamp))
    return (started - created).total_seconds()
