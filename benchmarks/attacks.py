"""What other callers notice of requests that ask for too much: their waits, memory, and how the backend stops."""

import http.client
import json
import multiprocessing
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple
from urllib.parse import urlsplit

#: Seconds for one attack at most
PATIENCE = 60.0

#: Seconds between two requests of the other caller
PAUSE = 0.02


def _post(netloc: str, body: bytes) -> bytes:
    connection = http.client.HTTPConnection(netloc, timeout=PATIENCE)
    try:
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        return connection.getresponse().read()
    finally:
        connection.close()


class Target:
    """A backend in a process of its own, with a flow and a few flow runs.

    Args:
        directory: for its database.
        files: how many files it may have open.
    """

    def __init__(self, directory: Path, files: int = 4096) -> None:
        command = [str(Path(sys.executable).parent / "prefect-taskrun"), "server", "start", "--port", "0"]
        command += ["--database-url", f"sqlite:///{directory / 'prefect.db'}"]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=(directory / "log").open("w"),
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)),
        )
        self.log = directory / "log"
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found:
                self.url = found[0]
            if line.startswith("Stop it"):
                break
        self.netloc = urlsplit(self.url).netloc
        self.tenant_id = self.ask("{ tenant { id } }")["tenant"][0]["id"]
        self.project_id = self.mutate("create_project", tenant_id=self.tenant_id, name="attacked")["id"]
        flow = {"name": "attacked", "tasks": [{"slug": "a"}]}
        self.flow_id = self.mutate("create_flow", project_id=self.project_id, serialized_flow=flow)["id"]
        self.run_id = self.mutate("create_flow_run", flow_id=self.flow_id)["id"]

    def post(self, body: bytes) -> bytes:
        return _post(self.netloc, body)

    def ask(self, query: str, **variables: Any) -> Any:
        return json.loads(self.post(json.dumps({"query": query, "variables": json.dumps(variables)}).encode()))["data"]

    def mutate(self, name: str, /, **input: Any) -> Any:
        return self.ask(f"mutation($i: {name}_input!) {{ {name}(input: $i) {{ id }} }}", i=input)[name]

    def body(self, name: str, payload: str = "id", /, **input: Any) -> bytes:
        """A mutation as Prefect's client sends it."""
        query = f"mutation($i: {name}_input!) {{ {name}(input: $i) {{ {payload} }} }}"
        return json.dumps({"query": query, "variables": json.dumps({"i": input})}).encode()

    def connect(self) -> socket.socket:
        host, _, port = self.netloc.partition(":")
        return socket.create_connection((host, int(port)), timeout=PATIENCE)

    def memory(self, name: str) -> int:
        """MB, by a name of /proc/PID/status."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(name))

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def stop(self) -> Dict[str, Any]:
        """Ends it, and says how long that took and how many lines it has logged."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        log = self.log.read_text()
        return {
            "stop_seconds": round(time.monotonic() - begun, 1),
            "log_lines": log.count("\n"),
            "tracebacks": log.count("Traceback"),
        }


def _posts(make: Callable[[Target], bytes], times: int = 1) -> "Callable[[Target, threading.Event], None]":
    def attack(target: Target, over: threading.Event) -> None:
        body = make(target)
        for _ in range(times):
            target.post(body)

    return attack


def _registered(tasks: int) -> "Callable[[Target, threading.Event], None]":
    """A flow in which each task follows another, as Prefect's client registers it: 500 at a time; and a run of it."""

    def attack(target: Target, over: threading.Event) -> None:
        flow = {"name": "large", "tasks": []}
        flow_id = target.mutate("create_flow", project_id=target.project_id, serialized_flow=flow)["id"]
        slugs = [f"task-{number}" for number in range(tasks)]
        for first in range(0, tasks, 500):
            own = [{"slug": slug, "tags": [], "trigger": {"fn": "f" * 200}} for slug in slugs[first : first + 500]]
            target.post(target.body("register_tasks", "success", flow_id=flow_id, serialized_tasks=own))
        ends = [{"upstream_task": up, "downstream_task": down} for up, down in zip(slugs, slugs[1:])]
        for first in range(0, len(ends), 500):
            edges = ends[first : first + 500]
            target.post(target.body("register_edges", "success", flow_id=flow_id, serialized_edges=edges))
        target.mutate("create_flow_run", flow_id=flow_id)

    return attack


def _large_answers(target: Target, over: threading.Event) -> None:
    for _ in range(7):
        target.post(target.body("create_flow_run", flow_id=target.flow_id, parameters={"a": "x" * 29_000_000}))
        target.post(target.body("create_flow_run", flow_id=target.flow_id, parameters={"a": "x" * 4_900_000}))
    aliases = " ".join(f"a{number}: flow_run {{ parameters }}" for number in range(4))
    target.post(json.dumps({"query": f"{{ {aliases} }}"}).encode())


def _readers_that_never_read(target: Target, over: threading.Event) -> None:
    for _ in range(10):
        target.post(target.body("create_flow_run", flow_id=target.flow_id, parameters={"a": "x" * 4_900_000}))
    body = json.dumps({"query": "{ flow_run { parameters } }"}).encode()
    with ExitStack() as opened:
        for _ in range(30):
            connection = opened.enter_context(target.connect())
            connection.sendall(_head(len(body)) + body)
        over.wait(10)


def _head(length: int) -> bytes:
    return (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % length
    )


def _slow_bodies(count: int) -> "Callable[[Target, threading.Event], None]":
    def attack(target: Target, over: threading.Event) -> None:
        with ExitStack() as opened:
            connections = [opened.enter_context(target.connect()) for _ in range(count)]
            for connection in connections:
                connection.sendall(_head(1000))
            for _ in range(10):
                for connection in connections:
                    with suppress(OSError):
                        connection.sendall(b" ")
                over.wait(0.5)

    return attack


def _chunks(target: Target, over: threading.Event) -> None:
    head = _head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with target.connect() as connection, suppress(OSError):
        connection.sendall(head + b"1\r\n \r\n" * 300_000 + b"0\r\n\r\n")
        connection.recv(1000)


def _held(target: Target, over: threading.Event) -> None:
    """600 callers wait for flow runs, while the other one changes the state of another."""
    query = 'query($id: uuid) { flow_run(where: {id: {_eq: $id}, state: {_eq: "Success"}}) { id } }'
    waited = [target.mutate("create_flow_run", flow_id=target.flow_id)["id"] for _ in range(20)]
    with ExitStack() as opened:
        for number in range(600):
            body = json.dumps({"query": query, "variables": {"id": waited[number % 20]}}).encode()
            connection = opened.enter_context(target.connect())
            connection.sendall(_head(len(body)).replace(b"\r\n\r\n", b"\r\nPrefer: wait=30\r\n\r\n") + body)
        over.wait(8)


class Attack(NamedTuple):
    run: "Callable[[Target, threading.Event], None]"
    #: files that the backend may have open
    files: int = 4096


def _logs(lines: int) -> "Callable[[Target], bytes]":
    def make(target: Target) -> bytes:
        rows = [{"flow_run_id": target.run_id, "message": f"line {number}"} for number in range(lines)]
        return target.body("write_run_logs", "success", logs=rows)

    return make


def _flow(tasks: int) -> "Callable[[Target], bytes]":
    def make(target: Target) -> bytes:
        flow = {"name": "large", "tasks": [{"slug": f"task {number}", "tags": []} for number in range(tasks)]}
        return target.body("create_flow", project_id=target.project_id, serialized_flow=flow)

    return make


def _line(target: Target, message: str) -> bytes:
    return target.body("write_run_logs", "success", logs=[{"flow_run_id": target.run_id, "message": message}])


def _query(text: str) -> bytes:
    return json.dumps({"query": text}).encode()


ATTACKS = {
    "31 MB, a text that never ends": Attack(_posts(lambda target: b'{"query":"mutation ' + b"a" * 31_000_000)),
    "25 documents of 480,000 characters": Attack(
        _posts(lambda target: json.dumps([{"query": "{" + "a " * 240_000 + "}"}] * 25).encode())
    ),
    "a fragment that nothing uses": Attack(
        _posts(lambda target: _query("{hello} fragment F on flow {" + "id " * 4_000 + "}"))
    ),
    "a document of 50,000 tokens, 5 times": Attack(
        _posts(lambda target: _query("{flow(where:{version:{_in:[" + "1 " * 49_900 + "]}}){id}}"), 5)
    ),
    "29 MB of parameters, and large answers": Attack(_large_answers),
    "a log line of 30 MB": Attack(
        _posts(
            lambda t: t.body("write_run_logs", "success", logs=[{"flow_run_id": t.run_id, "message": "x" * 30_000_000}])
        )
    ),
    "31 MB of text outside of ASCII": Attack(
        _posts(lambda target: _line(target, "x" * 30_000_000 + "MARK").replace(b"MARK", "\U0001f600".encode()))
    ),
    "30 MB of text outside of ASCII, escaped": Attack(
        _posts(lambda target: _line(target, "x" * 15_000_000 + "\U0001f600"), 2)
    ),
    "140,000 values of JSON (taken)": Attack(
        _posts(
            lambda target: target.body(
                "create_flow_run", flow_id=target.flow_id, parameters={"a": [{"b": [1.5]}] * 35_000}
            ),
            3,
        )
    ),
    "30 readers that never read": Attack(_readers_that_never_read),
    "500 slow bodies": Attack(_slow_bodies(500)),
    "800 slow bodies": Attack(_slow_bodies(800)),
    "500 slow bodies, 64 open files": Attack(_slow_bodies(500), 64),
    "300,000 chunks of a byte": Attack(_chunks),
    "30 MB of empty lists": Attack(_posts(lambda target: b"[" + b"[]," * 10_000_000 + b"[]]")),
    "30 MB, a flow of 400,000 tasks": Attack(_posts(_flow(400_000))),
    "a flow of 1,000 tasks at once (taken)": Attack(_posts(_flow(1_000))),
    "a flow of 5,000 tasks (taken), and a run": Attack(_registered(5_000)),
    "100,000 lines of logs": Attack(_posts(_logs(100_000))),
    "10,000 lines of logs (taken)": Attack(_posts(_logs(10_000))),
    "600 held answers": Attack(_held),
}


class Others:
    """Another caller, in a process of its own, who reads and changes the state of a flow run, again and again."""

    def __init__(self, target: Target) -> None:
        flow_run_id = target.mutate("create_flow_run", flow_id=target.flow_id)["id"]
        self._over = multiprocessing.Event()
        self._seconds: Any = multiprocessing.Queue()
        given = (target.netloc, flow_run_id, self._over, self._seconds)
        self._process = multiprocessing.Process(target=_ask, args=given)
        self.reads: List[float] = []
        self.writes: List[float] = []

    def __enter__(self) -> "Others":
        self._process.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._over.set()
        self.reads, self.writes = self._seconds.get(), self._seconds.get()
        self._process.join()


def _ask(netloc: str, flow_run_id: str, over: Any, found: Any) -> None:
    document = "mutation($i: set_flow_run_states_input!) { set_flow_run_states(input: $i) { states { id } } }"

    def change() -> bytes:
        state = {"type": "Running", "message": str(time.monotonic())}
        given = {"i": {"states": [{"flow_run_id": flow_run_id, "state": state}]}}
        return json.dumps({"query": document, "variables": json.dumps(given)}).encode()

    def ask(make: Callable[[], bytes], seconds: List[float]) -> None:
        while not over.is_set():
            body, begun = make(), time.monotonic()
            with suppress(OSError, http.client.HTTPException):
                _post(netloc, body)
            seconds.append(time.monotonic() - begun)
            over.wait(PAUSE)

    reads: List[float] = []
    writes: List[float] = []
    reading = threading.Thread(target=ask, args=(lambda: b'{"query": "{ hello }"}', reads))
    reading.start()
    ask(change, writes)
    reading.join()
    found.put(reads)
    found.put(writes)


def _milliseconds(seconds: List[float]) -> Dict[str, float]:
    ordered = sorted(seconds)
    return {
        "median": round(1000 * ordered[len(ordered) // 2], 1),
        "p99": round(1000 * ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], 1),
        "max": round(1000 * ordered[-1], 1),
    }


def run(directory: Path) -> Dict[str, Any]:
    figures: Dict[str, Any] = {}
    print(f"{'':40} {'time':>6} {'reads p99/max':>15} {'writes p99/max':>16} {'peak':>7} {'kept':>7} {'stop':>5} log")
    for name, attack in _chosen():
        own = directory / re.sub(r"\W+", "-", name)
        own.mkdir()
        target = Target(own, attack.files)
        with Others(target) as idle:
            time.sleep(2)
        before = target.memory("VmRSS")
        target.forget_peak()
        over, begun = threading.Event(), time.monotonic()
        with Others(target) as others:
            try:
                attack.run(target, over)
            except (OSError, http.client.HTTPException) as error:
                print(f"  {error!r}")
            seconds = time.monotonic() - begun
        peak, kept = target.memory("VmHWM") - before, target.memory("VmRSS") - before
        # it is told to stop in the middle of the same attack
        again = threading.Thread(target=_attacked, args=(attack, target, over), daemon=True)
        again.start()
        time.sleep(1)
        stopped = target.stop()
        over.set()
        again.join(PATIENCE)
        found = {"reads_ms": _milliseconds(others.reads), "writes_ms": _milliseconds(others.writes)}
        quiet = {"idle_reads_ms": _milliseconds(idle.reads), "idle_writes_ms": _milliseconds(idle.writes)}
        figures[name] = {"seconds": round(seconds, 1), **found, **quiet, "peak_mb": peak, "kept_mb": kept, **stopped}
        reads, writes = found["reads_ms"], found["writes_ms"]
        print(
            f"{name:40} {seconds:4.1f} s {reads['p99']:6.0f}/{reads['max']:5.0f} ms {writes['p99']:7.0f}/"
            f"{writes['max']:5.0f} ms {peak:4} MB {kept:4} MB {stopped['stop_seconds']:3.1f} s "
            f"{stopped['log_lines']} lines, {stopped['tracebacks']} tracebacks; writes {writes['median']:.0f} ms, idle "
            f"{quiet['idle_writes_ms']['median']:.0f} ms",
            flush=True,
        )
    return figures


def _chosen() -> "Iterator[Any]":
    wanted = os.environ.get("ATTACKS", "")
    yield from ((name, attack) for name, attack in ATTACKS.items() if re.search(wanted, name))


def _attacked(attack: Attack, target: Target, over: threading.Event) -> None:
    with suppress(OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        attack.run(target, over)
