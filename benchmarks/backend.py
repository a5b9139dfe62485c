"""The backend under load, all at once: clients that change states, readers like the views, agents that poll."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, Callable, Dict, Iterator, List, Tuple

import requests

from . import mapped_run

#: Threads of each kind, in this process
WRITERS, READERS, AGENTS = 16, 4, 20

#: Seconds between two polls of an agent, as Prefect's wait while there is nothing to do
POLL = 10.0

#: Seconds in which the agents are alone, and in which all are there
ALONE, LOADED = 30.0, 60.0

#: Task runs of the flow run that is read
CHILDREN = 1_000

SET_STATES = "mutation($input: set_flow_run_states_input!) { set_flow_run_states(input: $input) { states { status } } }"
CREATE = "mutation($input: create_flow_run_input!) { create_flow_run(input: $input) { id } }"
QUEUE = "mutation($input: get_runs_in_queue_input!) { get_runs_in_queue(input: $input) { flow_run_ids } }"

#: What a `FlowRunView` asks for, and a `TaskRunView` of one child
FLOW_RUN = """query($id: uuid!) { flow_run(where: {id: {_eq: $id}}) {
    id name flow_id serialized_state states { timestamp serialized_state }
    labels parameters context updated run_config } }"""
TASK_RUN = """query($id: uuid!, $index: Int!) { task_run(
    where: {flow_run_id: {_eq: $id}, task: {slug: {_eq: "inc-1"}}, map_index: {_eq: $index}}) {
    id name task { id slug } map_index serialized_state flow_run_id } }"""
PAGE = """query($id: uuid!) { task_run(where: {flow_run_id: {_eq: $id}}, order_by: {map_index: asc}, limit: 200) {
    id name task { id slug } map_index serialized_state flow_run_id } }"""


class Client:
    """Asks, and keeps how long each answer took."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()
        self.seconds: List[float] = []

    def ask(self, query: str, **variables: Any) -> Any:
        begun = time.perf_counter()
        answer = self._session.post(self._url, json={"query": query, "variables": variables}, timeout=60).json()
        self.seconds.append(time.perf_counter() - begun)
        assert "errors" not in answer, answer
        return answer["data"]


@contextmanager
def serving(database_url: str) -> Iterator[Tuple[str, int]]:
    """A backend in a process of its own; its address and its process's id."""
    command = [str(Path(sys.executable).parent / "prefect-taskrun"), "server", "start", "--port", "0"]
    with subprocess.Popen([*command, "--database-url", database_url], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = next(line.split("=", 1)[1].strip() for line in process.stdout if "SERVER__ENDPOINT=" in line)
            while _is_down(url):
                time.sleep(0.05)
            yield url, process.pid
        finally:
            process.terminate()


def _is_down(url: str) -> bool:
    try:
        return not requests.get(f"{url}/health", timeout=10).ok
    except requests.ConnectionError:
        return True


def run(directory: Path) -> Dict[str, Any]:
    database_url = f"sqlite:///{directory / 'prefect.db'}"
    flow_run_id = mapped_run.create(database_url, CHILDREN, directory / "results")
    with serving(database_url) as (url, pid), ThreadPoolExecutor(WRITERS + READERS + AGENTS) as threads:
        first = Client(url)
        flow = first.ask("{ flow { id } tenant { id } }")
        flow_id, tenant_id = flow["flow"][0]["id"], flow["tenant"][0]["id"]
        writers, readers, agents = ([Client(url) for _ in range(count)] for count in (WRITERS, READERS, AGENTS))
        over = Event()
        working = [threads.submit(_poll, each, tenant_id, index, over) for index, each in enumerate(agents)]
        try:
            polling = _measured(pid, ALONE)
            own = [first.ask(CREATE, input={"flow_id": flow_id})["create_flow_run"]["id"] for _ in writers]
            working += [threads.submit(_write, each, id, over) for each, id in zip(writers, own)]
            working += [threads.submit(_read, each, flow_run_id, index, over) for index, each in enumerate(readers)]
            loaded = _measured(pid, LOADED)
        finally:
            over.set()
        for each in working:
            each.result()
    figures = {
        "agents_alone": {"agents": AGENTS, "percent_of_a_core": polling},
        "state_changes": _figure(writers, LOADED),
        "reads": _figure(readers, LOADED),
        "polls": _figure(agents, ALONE + LOADED),
        "loaded": {"percent_of_a_core": loaded},
    }
    for name, figure in figures.items():
        print(f"  {name:14} {figure}")
    return figures


def _write(client: Client, flow_run_id: str, over: Event) -> None:
    """One change after the other, without a pause."""
    state = {"type": "Running", "message": "Running.", "context": {}, "cached_inputs": {}, "__version__": "1.4.1"}
    while not over.is_set():
        client.ask(SET_STATES, input={"states": [{"flow_run_id": flow_run_id, "state": state}]})


def _read(client: Client, flow_run_id: str, number: int, over: Event) -> None:
    reads: List[Callable[[int], Any]] = [
        lambda index: client.ask(FLOW_RUN, id=flow_run_id),
        lambda index: client.ask(TASK_RUN, id=flow_run_id, index=index % CHILDREN),
        lambda index: client.ask(PAGE, id=flow_run_id),
    ]
    index = number
    # a few each second: people who look, and parents that wait
    while not over.wait(0.1):
        index += 1
        reads[index % len(reads)](index)


def _poll(client: Client, tenant_id: str, number: int, over: Event) -> None:
    # not all in the same moment
    wait = POLL * number / AGENTS
    while not over.wait(wait):
        client.ask(QUEUE, input={"tenant_id": tenant_id, "labels": [f"agent-{number}"]})
        wait = POLL


def _measured(pid: int, seconds: float) -> float:
    """The percentage of a core that a process takes for some time."""
    before, begun = _processor_time(pid), time.perf_counter()
    time.sleep(seconds)
    return round(100 * (_processor_time(pid) - before) / (time.perf_counter() - begun), 1)


def _processor_time(pid: int) -> float:
    """Seconds in which a process has worked, and the system for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _figure(clients: List[Client], seconds: float) -> Dict[str, float]:
    took = sorted(each for client in clients for each in client.seconds)
    return {
        "clients": len(clients),
        "per_second": round(len(took) / seconds, 1),
        "p50_ms": round(1000 * took[len(took) // 2], 1),
        "p99_ms": round(1000 * took[len(took) * 99 // 100], 1),
    }
