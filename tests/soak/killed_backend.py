"""A backend that is killed and started again on the same file, and clients that note what it has acknowledged."""

import random
import signal
import socket
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from threading import Event, Lock
from time import sleep
from typing import Any, Dict, List, Optional

import requests
from conftest import eventually

from prefect_taskrun_tasks.server.clock import now

#: Seconds for a request; a backend that has been killed closes its connections at once
PATIENCE = 60

#: Acknowledged writes between the start of a backend and its end, at most
MOST_WRITES = 150

#: Of so many kills, one hits a backend that is still starting
ONE_WHILE_STARTING = 5

#: Seconds in which a backend starts, and more than a write takes
START, WRITE = 1.5, 0.01

#: The share of answers that are lost on their way, besides those of a backend that was killed
LOST = 0.1

#: Of each flow run
STATES, BATCHES, LINES = 6, 3, 2


class KilledBackend:
    """A process on a file and a port, which are the same however often it is started.

    Args:
        directory: for the log, and for the file if no database is named.
        options: of ``prefect-taskrun server start``.
        database_url: what it is started on; default: a file.
    """

    def __init__(self, directory: Path, *options: str, database_url: Optional[str] = None) -> None:
        self._options = options
        self.path = directory / "prefect.db"
        self.database_url = database_url or f"sqlite:///{self.path}"
        self._log = directory / "backend.log"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: Optional[subprocess.Popen[bytes]] = None

    def start(self) -> None:
        """Returns before it is ready."""
        command = [str(Path(sys.executable).parent / "prefect-taskrun"), "server", "start", "--port", str(self._port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--database-url", self.database_url, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def await_ready(self) -> None:
        eventually(self._is_ready)

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()[-3000:]
        try:
            return requests.get(f"{self.url}/health", timeout=PATIENCE).ok
        except requests.ConnectionError:
            return False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        """What it has printed, each time that it was started."""
        return self._log.read_text()

    def end(self, with_signal: int) -> int:
        """Returns the exit code."""
        assert self._process is not None
        self._process.send_signal(with_signal)
        return self._process.wait(PATIENCE)

    def __enter__(self) -> "KilledBackend":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._process is not None and self._process.poll() is None:
            self.end(signal.SIGKILL)


class Written:
    """What clients have asked for, and how often; all of it was acknowledged in the end."""

    def __init__(self) -> None:
        self.lock = Lock()
        #: writes that were acknowledged
        self.acknowledged = 0
        #: requests whose answer was lost
        self.lost = 0
        #: idempotency key -> the flow run's id that was answered
        self.flow_runs: Dict[str, str] = {}
        #: idempotency key -> messages of its states in their order
        self.states: Dict[str, List[str]] = defaultdict(list)
        #: idempotency key -> lines of its log
        self.lines: Dict[str, List[str]] = defaultdict(list)


class Writer:
    """Creates flow runs one after the other, gives them states and logs, and says again what was not acknowledged.

    Args:
        url: of the backend.
        flow_id: of the flow to run.
        name: of this client.
        written: where it notes what was acknowledged.
        over: it goes on until this is set.
    """

    def __init__(self, url: str, flow_id: str, name: str, written: Written, over: Event) -> None:
        self._url = url
        self._flow_id = flow_id
        self._name = name
        self._written = written
        self._over = over
        self._session = requests.Session()
        self._choose = random.Random(name)

    def work(self) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            self._write_flow_run(f"{self._name}/{number}")

    def _write_flow_run(self, key: str) -> None:
        flow_run_id = self._acknowledged("create_flow_run", "id", {"flow_id": self._flow_id, "idempotency_key": key})
        self._written.flow_runs[key] = flow_run_id["id"]
        for number in range(STATES):
            message = f"{key} state {number}"
            kind = "Success" if number == STATES - 1 else "Running"
            state = {"flow_run_id": flow_run_id["id"], "state": {"type": kind, "message": message}}
            self._acknowledged("set_flow_run_states", "states { status }", {"states": [state]})
            self._written.states[key].append(message)
        for number in range(BATCHES):
            lines = [f"{key} line {number}.{line}" for line in range(LINES)]
            logs = [{"flow_run_id": flow_run_id["id"], "message": line, "timestamp": now()} for line in lines]
            self._acknowledged("write_run_logs", "success", {"logs": logs})
            self._written.lines[key] += lines

    def _acknowledged(self, mutation: str, fields: str, input: Dict[str, Any]) -> Any:
        document = f"mutation($input: {mutation}_input!) {{ {mutation}(input: $input) {{ {fields} }} }}"
        while True:
            try:
                body = {"query": document, "variables": {"input": input}}
                answer = self._session.post(self._url, json=body, timeout=PATIENCE).json()
            except requests.RequestException:
                if self._over.is_set():
                    # nobody starts it again
                    raise
                # it was killed before it knew of the request, or after it had done what was asked
                with self._written.lock:
                    self._written.lost += 1
                self._over.wait(0.1)
                continue
            assert "errors" not in answer, answer
            is_lost = self._choose.random() < LOST
            with self._written.lock:
                self._written.lost += is_lost
                self._written.acknowledged += not is_lost
            if is_lost:
                continue
            return answer["data"][mutation]


def await_death_time(choose: random.Random, written: Written, backend: KilledBackend) -> bool:
    """Waits for the moment at which a backend that has just been started is to be killed.

    Returns:
        Whether it was ready by then.
    """
    if choose.random() < 1 / ONE_WHILE_STARTING:
        sleep(START * choose.random())
        return False
    backend.await_ready()
    enough = written.acknowledged + choose.randint(1, MOST_WRITES)
    eventually(lambda: written.acknowledged >= enough)
    # anywhere in a write
    sleep(WRITE * choose.random())
    return True
