"""Flow runs of three agents: this package's, warm and cold, and Prefect's. Starts, children of a parent, and memory."""

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, Iterator, List

import prefect
import psutil
from prefect.utilities.configuration import set_temporary_config

from prefect_taskrun_tasks import FlowRunView
from prefect_taskrun_tasks.runner import settings, variables
from prefect_taskrun_tasks.warm import find_processes

from .backend import serving

#: Agents, by name
AGENTS = {
    "warm": ("prefect-taskrun", "agent", "start"),
    "cold": ("prefect-taskrun", "agent", "start", "--cold"),
    "prefect": ("prefect", "agent", "local", "start"),
}

#: Flow runs that are started one after the other
STARTS = 10

#: Children of a parent, and how many of them run at once
CHILDREN, AT_ONCE = 50, 10

#: Parents that wait in their processes
WAITING = 30

#: Seconds until flow runs have finished, or wait, at most
LONGEST = 600.0

FLOWS = f"""
from prefect import Flow, Parameter, task
from prefect_taskrun_tasks import map_flow_run, wait_for_flow_run

@task
def nothing():
    return 1

with Flow("child") as child:
    nothing()

with Flow("parent") as parent:
    map_flow_run(flow_name="child", parameters=[{{}}] * {CHILDREN}, limit={AT_ONCE})

with Flow("waits") as waits:
    wait_for_flow_run(Parameter("awaited"))
"""


def run(directory: Path) -> Dict[str, Any]:
    figures = {name: _measured(command, directory / name) for name, command in AGENTS.items()}
    ratios = {
        other: {
            "start": round(figures[other]["seconds_to_running"] / figures["warm"]["seconds_to_running"], 1),
            "children": round(figures["warm"]["children_per_second"] / figures[other]["children_per_second"], 1),
            "memory": round(figures[other]["megabytes_per_parent"] / figures["warm"]["megabytes_per_parent"], 1),
        }
        for other in ("cold", "prefect")
    }
    print(f"  warm is better by: {ratios}")
    return {**figures, "ratio": ratios}


def _measured(command: "tuple[str, ...]", directory: Path) -> Dict[str, float]:
    directory.mkdir()
    with ExitStack() as stack:
        agent_address = f"http://127.0.0.1:{_free_port()}"
        database = f"sqlite:///{directory / 'prefect.db'}"
        url, _ = stack.enter_context(serving(database, "--agent-address", agent_address))
        stack.enter_context(set_temporary_config(settings(url)))
        agent = stack.enter_context(_agent(command, url, agent_address, directory))
        flow_ids = _registered(directory)
        starts = [_seconds_to_running(_finished(_begin(flow_ids["child"]))) for _ in range(STARTS)]
        parent = _finished(_begin(flow_ids["parent"]))
        children = parent.get_children()
        assert len(children) == CHILDREN, children
        ended = [child.end_time - parent.start_time for child in children if child.end_time and parent.start_time]
        # which no agent takes
        awaited = _begin(flow_ids["child"], labels=["nobody"])
        waiting = [_begin(flow_ids["waits"], parameters={"awaited": awaited}) for _ in range(WAITING)]
        _await(lambda: _waiting(flow_ids["waits"]) == WAITING)
        processes = [*agent.children(), *find_processes(waiting)]
        figures = {
            "seconds_to_running": round(median(starts), 3),
            "children_per_second": round(CHILDREN / max(ended).total_seconds(), 1),
            "megabytes_per_parent": round(_megabytes(processes) / WAITING, 1),
        }
        prefect.Client().cancel_flow_run(awaited)
        for flow_run_id in waiting:
            _finished(flow_run_id)
    print(f"  {directory.name:<8}", figures, flush=True)
    return figures


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def _agent(command: "tuple[str, ...]", url: str, address: str, directory: Path) -> "Iterator[psutil.Process]":
    names = variables(url)
    program = [str(Path(sys.executable).parent / command[0]), *command[1:]]
    options = ["--agent-address", address, "--no-hostname-label", "--label", "bench"]
    with (directory / "agent.log").open("wb") as log, subprocess.Popen(
        [*program, *options], stdout=log, stderr=log, env={**os.environ, **names}
    ) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def _registered(directory: Path) -> Dict[str, str]:
    client = prefect.Client()
    found: Dict[str, Any] = {}
    client.create_project("bench")
    exec(compile(FLOWS, "flows", "exec"), found)
    flow_ids = {}
    for name in ("child", "parent", "waits"):
        flow = found[name]
        flow.storage = prefect.storage.Local(directory=str(directory), add_default_labels=False)
        flow.result = prefect.engine.results.LocalResult(dir=str(directory))
        flow_ids[name] = flow.register("bench", no_url=True, labels=["bench"], set_schedule_active=False)
    return flow_ids


def _begin(flow_id: str, **options: Any) -> str:
    return str(prefect.Client().create_flow_run(flow_id=flow_id, **options))


def _finished(flow_run_id: str) -> FlowRunView:
    _await(lambda: FlowRunView.from_flow_run_id(flow_run_id).state.is_finished())
    return FlowRunView.from_flow_run_id(flow_run_id)


def _seconds_to_running(flow_run: FlowRunView) -> float:
    """From its creation."""
    running = next(state for state in flow_run.states if state.is_running())
    return float((running.timestamp - flow_run.states[0].timestamp).total_seconds())


def _waiting(flow_id: str) -> int:
    query = """query($flow: uuid) { task_run_aggregate(where: {
        flow_run: {flow_id: {_eq: $flow}}, state: {_eq: "Running"}, task: {slug: {_eq: "wait_for_flow_run-1"}}
    }) { aggregate { count } } }"""
    answer = prefect.Client().graphql(query, variables={"flow": flow_id})
    return int(answer.data.task_run_aggregate.aggregate.count)


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < deadline, "They do not finish, or do not wait."
        time.sleep(0.05)


def _megabytes(processes: "List[psutil.Process]") -> float:
    """What they take together: memory that several share is shared out among them."""
    return float(sum(process.memory_full_info().pss for process in set(processes)) / 1_000_000)
