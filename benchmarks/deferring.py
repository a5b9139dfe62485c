"""A hundred parents that wait for one slow child each: the memory of all that is alive, with and without deferring."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import prefect
import psutil
from prefect.engine.state import Running
from prefect.utilities.configuration import set_temporary_config

from prefect_taskrun_tasks.runner import settings, variables
from prefect_taskrun_tasks.warm import find_processes

from .backend import serving

PARENTS = 100

#: Seconds until all of them wait, at most
LONGEST = 900.0

#: Seconds for which processes of the deferred ones are counted: some times as long as a wait sleeps that nobody wakes
WATCHED = 200.0

FLOWS = """
from prefect import Flow, Parameter, task
from prefect.engine.results import LocalResult
from prefect_taskrun_tasks import wait_for_flow_run

@task
def nothing():
    pass

with Flow("child") as child:
    nothing()

def parent(name, **options):
    with Flow(name, result=LocalResult(dir={results!r})) as flow:
        wait_for_flow_run(Parameter("child"), **options)
    return flow

deferring = parent("deferring", deferrable=True, defer_after=0)
holding = parent("holding")
"""

#: Task runs that wait, by flow
WAITING = """query($flow: String, $state: String) { task_run_aggregate(where: {
    flow_run: {flow: {name: {_eq: $flow}}}, state: {_eq: $state}, task: {slug: {_eq: "wait_for_flow_run-1"}}
}) { aggregate { count } } }"""


def run(directory: Path) -> Dict[str, Any]:
    file = directory / "flows.py"
    file.write_text(FLOWS.format(results=str(directory)))
    with ExitStack() as stack:
        url, backend = stack.enter_context(serving(f"sqlite:///{directory / 'prefect.db'}"))
        stack.enter_context(set_temporary_config(settings(url)))
        stack.enter_context(_agent(url, directory))
        triggerer = stack.enter_context(_process("prefect-taskrun", "triggerer", url=url, log=directory / "log"))
        flow_ids = _registered(file)
        keepers = [psutil.Process(pid) for pid in (backend, triggerer)]
        figures: Dict[str, Any] = {}
        for name, state in (("deferring", "Scheduled"), ("holding", "Running")):
            parents = _begun(flow_ids, name)
            _await(partial(_all_wait, name, state))
            if name == "deferring":
                _await(partial(_are_left, parents))
            held = find_processes(parents)
            figures[name] = {
                "parents": len(parents),
                "processes": len(held),
                "parents_mb": _megabytes(held),
                "backend_and_triggerer_mb": _megabytes(keepers),
            }
            if name == "deferring":
                figures[name][f"processes_seen_in_{WATCHED:.0f}_s"] = _seen(parents)
            print(f"  {name:<9}", figures[name], flush=True)
        # one that is just being started is found the next time
        _await(partial(_are_killed, parents))
    ratio = _total(figures["holding"]) / _total(figures["deferring"])
    print(f"  without deferring {ratio:.0f} times the memory")
    return {**figures, "ratio": round(ratio, 1)}


def _total(figures: Dict[str, Any]) -> float:
    return float(figures["parents_mb"] + figures["backend_and_triggerer_mb"])


@contextmanager
def _agent(url: str, directory: Path) -> Iterator[None]:
    command = ("prefect", "agent", "local", "start", "--no-hostname-label", "--label", "bench")
    with _process(*command, url=url, log=directory / "agent.log"):
        yield


@contextmanager
def _process(program: str, *arguments: str, url: str, log: Path) -> Iterator[int]:
    """One of the installed commands, for as long as a block lasts; its process's id."""
    names = variables(url)
    command = [str(Path(sys.executable).parent / program), *arguments]
    with log.open("wb") as output, subprocess.Popen(
        command, stdout=output, stderr=output, env={**os.environ, **names}
    ) as process:
        try:
            yield process.pid
        finally:
            process.terminate()


def _registered(file: Path) -> Dict[str, str]:
    client, names = prefect.Client(), {}
    client.create_project("bench")
    found: Dict[str, Any] = {}
    exec(compile(file.read_text(), str(file), "exec"), found)
    for flow in (found["child"], found["deferring"], found["holding"]):
        flow.storage = prefect.storage.Local(
            stored_as_script=False, directory=str(file.parent), add_default_labels=False
        )
        names[flow.name] = flow.register("bench", no_url=True, labels=["bench"], set_schedule_active=False)
    return names


def _begun(flow_ids: Dict[str, str], name: str) -> List[str]:
    """Parents, each with a child that runs, as far as the backend knows, and that no agent takes."""
    client, parents = prefect.Client(), []
    for _ in range(PARENTS):
        child = client.create_flow_run(flow_id=flow_ids["child"], labels=["nobody"])
        client.set_flow_run_state(child, Running())
        parents.append(client.create_flow_run(flow_id=flow_ids[name], parameters={"child": child}))
    return parents


def _all_wait(flow: str, state: str) -> bool:
    answer = prefect.Client().graphql(WAITING, variables={"flow": flow, "state": state})
    return int(answer.data.task_run_aggregate.aggregate.count) == PARENTS


def _are_left(flow_run_ids: List[str]) -> bool:
    return not find_processes(flow_run_ids)


def _seen(flow_run_ids: List[str]) -> int:
    """How many processes of flow runs there are in some minutes."""
    found, end = set(), time.monotonic() + WATCHED
    while time.monotonic() < end:
        found |= set(find_processes(flow_run_ids))
        time.sleep(0.2)
    return len(found)


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < deadline, "They do not all wait."
        time.sleep(1)


def _are_killed(flow_run_ids: List[str]) -> bool:
    """Kills the processes of flow runs; whether there were none left."""
    found = find_processes(flow_run_ids)
    for process in found:
        with suppress(psutil.Error):
            process.kill()
    return not found


def _megabytes(processes: "List[psutil.Process]") -> float:
    """What they take together: memory that several share is shared out among them."""
    return float(round(sum(process.memory_full_info().pss for process in processes) / 1_000_000, 1))
