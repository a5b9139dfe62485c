"""The backend under load, all at once: clients that change states, readers like the views, agents that poll."""

import http.client
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple
from urllib.parse import urlsplit

import requests

from . import mapped_run

#: Clients of each kind
WRITERS, READERS, AGENTS = 16, 4, 20

#: Writers in one process, as threads. All in one would wait for its interpreter lock, and count that as the backend's.
TOGETHER = 4

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
    """Asks on one connection, and keeps how long each answer took.

    It costs a third of what `requests` does: the clients take their time from the cores that the backend runs on.
    """

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        self.seconds: List[float] = []

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables})
        begun = time.perf_counter()
        self._connection.request("POST", "/", body, {"Content-Type": "application/json"})
        answered = self._connection.getresponse().read()
        self.seconds.append(time.perf_counter() - begun)
        answer = json.loads(answered)
        assert "errors" not in answer, answer
        return answer["data"]

    def leave(self) -> None:
        """Closes the connection; the next question opens another."""
        self._connection.close()


@contextmanager
def serving(database_url: str, *options: str) -> Iterator[Tuple[str, int]]:
    """A backend in a process of its own; its address and its process's id."""
    command = [str(Path(sys.executable).parent / "prefect-taskrun"), "server", "start", "--port", "0", *options]
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
    count = WRITERS // TOGETHER + 2
    fresh = multiprocessing.get_context("spawn")
    with serving(database_url) as (url, pid), ProcessPoolExecutor(count, mp_context=fresh) as processes:
        # none of them is to start while it is measured
        list(processes.map(time.sleep, [1.0] * count))
        first = Client(url)
        flow = first.ask("{ flow { id } tenant { id } }")
        flow_id, tenant_id = flow["flow"][0]["id"], flow["tenant"][0]["id"]
        own = [first.ask(CREATE, input={"flow_id": flow_id})["create_flow_run"]["id"] for _ in range(WRITERS)]

        def start(work: Work, subjects: Sequence[str], seconds: float) -> "Future[List[float]]":
            return processes.submit(_together, work, url, subjects, time.monotonic() + seconds)

        polls = start(_poll, [tenant_id] * AGENTS, ALONE + LOADED)
        polling = _measured(pid, ALONE)
        changes = [start(_write, own[i : i + TOGETHER], LOADED) for i in range(0, WRITERS, TOGETHER)]
        reads = start(_read, [flow_run_id] * READERS, LOADED)
        loaded = _measured(pid, LOADED)
        figures = {
            "agents_alone": {"agents": AGENTS, "percent_of_a_core": polling},
            "state_changes": _figure(WRITERS, [each for some in changes for each in some.result()], LOADED),
            "reads": _figure(READERS, reads.result(), LOADED),
            "polls": _figure(AGENTS, polls.result(), ALONE + LOADED),
            "loaded": {"percent_of_a_core": loaded},
        }
    for name, figure in figures.items():
        print(f"  {name:14} {figure}")
    return figures


#: What a client does to its subject, an id, until a reading of `time.monotonic`, which is the same in all processes
Work = Callable[[Client, str, int, float], None]


def _together(work: Work, url: str, subjects: Sequence[str], until: float) -> List[float]:
    """The seconds that each answer took to some clients, in threads of this process."""
    clients = [Client(url) for _ in subjects]
    with ThreadPoolExecutor(len(clients)) as threads:
        working = [
            threads.submit(work, client, subject, number, until)
            for number, (client, subject) in enumerate(zip(clients, subjects))
        ]
    for each in working:
        each.result()
    return [seconds for client in clients for seconds in client.seconds]


def _write(client: Client, flow_run_id: str, number: int, until: float) -> None:
    """One change after the other, without a pause."""
    state = {"type": "Running", "context": {}, "cached_inputs": {}, "__version__": "1.4.1"}
    for index in itertools.count():
        if time.monotonic() > until:
            return
        # one that a run is in already would be no change
        state["message"] = f"Running, {index}."
        client.ask(SET_STATES, input={"states": [{"flow_run_id": flow_run_id, "state": state}]})


def _read(client: Client, flow_run_id: str, number: int, until: float) -> None:
    reads: List[Callable[[int], Any]] = [
        lambda index: client.ask(FLOW_RUN, id=flow_run_id),
        lambda index: client.ask(TASK_RUN, id=flow_run_id, index=index % CHILDREN),
        lambda index: client.ask(PAGE, id=flow_run_id),
    ]
    index = number
    # a few each second: people who look, and parents that wait
    while time.monotonic() < until:
        index += 1
        reads[index % len(reads)](index)
        time.sleep(0.1)


def _poll(client: Client, tenant_id: str, number: int, until: float) -> None:
    # not all in the same moment
    due = time.monotonic() + POLL * number / AGENTS
    while due < until:
        time.sleep(max(0.0, due - time.monotonic()))
        client.ask(QUEUE, input={"tenant_id": tenant_id, "labels": [f"agent-{number}"]})
        # longer idle than the backend keeps a connection
        client.leave()
        due += POLL


def _measured(pid: int, seconds: float) -> float:
    """The percentage of a core that a process takes for some time."""
    before, begun = _processor_time(pid), time.perf_counter()
    time.sleep(seconds)
    return round(100 * (_processor_time(pid) - before) / (time.perf_counter() - begun), 1)


def _processor_time(pid: int) -> float:
    """Seconds in which a process has worked, and the system for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _figure(clients: int, took: List[float], seconds: float) -> Dict[str, float]:
    took = sorted(took)
    return {
        "clients": clients,
        "per_second": round(len(took) / seconds, 1),
        "p50_ms": round(1000 * took[len(took) // 2], 1),
        "p99_ms": round(1000 * took[len(took) * 99 // 100], 1),
    }
