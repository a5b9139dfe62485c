"""Answers that no Prefect API gives: each is one clear error, soon, and in little memory."""

import gzip
import json
import resource
import time
import zlib
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Callable, Iterator, List

import pytest
from answering import answering, serving
from click.testing import CliRunner
from driven import DrivenRun
from prefect import Flow
from prefect.utilities.configuration import set_temporary_config

from prefect_taskrun_tasks import FlowRunView, api, errors
from prefect_taskrun_tasks.cli import look as look_module
from prefect_taskrun_tasks.cli import main
from prefect_taskrun_tasks.server import Backend

SOMETHING = "4f6b3c1e-0000-4000-8000-000000000000"

Write = Callable[[bytes], Any]


def look() -> FlowRunView:
    return FlowRunView.from_flow_run_id(SOMETHING)


@contextmanager
def writing(send: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[None]:
    """An API that answers as `send` does."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            # whoever asked may have had enough
            with suppress(OSError):
                send(self)

        def log_message(self, *args: Any) -> None:
            pass

    with serving(Handler):
        yield


def begin(handler: BaseHTTPRequestHandler, **headers: Any) -> None:
    handler.send_response(200)
    for name, value in {"Content_Length": 10**12, **headers}.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()


def drip(handler: BaseHTTPRequestHandler) -> None:
    begin(handler)
    while True:
        handler.wfile.write(b" ")
        time.sleep(0.05)


def drip_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        handler.wfile.write(b"x")
        time.sleep(0.05)


def never_end(handler: BaseHTTPRequestHandler) -> None:
    begin(handler)
    while True:
        handler.wfile.write(b" " * 100_000)


def bomb(handler: BaseHTTPRequestHandler) -> None:
    packed = gzip.compress(b" " * 300_000_000, 1)
    begin(handler, Content_Length=len(packed), Content_Encoding="gzip")
    handler.wfile.write(packed)


def nested_bomb(handler: BaseHTTPRequestHandler) -> None:
    packed = gzip.compress(zlib.compress(b" " * 100_000_000))
    begin(handler, Content_Length=len(packed), Content_Encoding="deflate, gzip")
    handler.wfile.write(packed)


def many_values(handler: BaseHTTPRequestHandler) -> None:
    body = b'{"data": [' + b"[]," * 10_000_000 + b"0]}"
    begin(handler, Content_Length=len(body))
    handler.wfile.write(body)


@pytest.mark.parametrize("send", [drip, drip_headers, never_end, bomb, nested_bomb, many_values])
def test_an_answer_ends_in_time_and_in_little_memory(send: Any) -> None:
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with api.patience(2.0), writing(send), pytest.raises((errors.BadAnswer, errors.BackendUnreachable)) as raised:
        look()
    assert SOMETHING in str(raised.value)
    assert time.monotonic() - begun < 20
    # kilobytes; that of the server, in this process, is in it
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700_000


RUN = {
    "id": SOMETHING,
    "state": "Success",
    "created": "2026-11-25T00:00:00+00:00",
    "name": "otter",
    "flow_id": SOMETHING,
    "flow": {"name": "f"},
    "serialized_state": {"type": "Success", "message": "m"},
    "states": [],
    "labels": [],
    "parameters": {},
    "context": {},
    "updated": "2026-11-25T00:00:00+00:00",
    "run_config": None,
}


@pytest.mark.parametrize(
    "body",
    [
        b'{"errors": ["no"], "data": null}',
        b'{"errors": "no"}',
        b'{"errors": {"message": "no"}}',
        b'{"data": {"flow_run": ' + b"[" * 200_000 + b"]" * 200_000 + b"}}",
        *[
            json.dumps({"data": {"flow_run": [{**RUN, **odd}]}}).encode()
            for odd in (
                {"serialized_state": {"type": "Unheard"}},
                {"serialized_state": {"type": ["Success"]}},
                {"serialized_state": {"type": "Success", "_result": {"type": 5}}},
                {"serialized_state": "Success"},
                {"serialized_state": 5},
                {"states": [{"timestamp": "soon", "serialized_state": RUN["serialized_state"]}]},
                {"states": [5]},
                {"states": 5},
                {"flow": 5},
                {"updated": 5},
                {"updated": "soon"},
                {"run_config": {"type": "Unheard"}},
                {"id": 5},
                {"name": ["x"]},
            )
        ],
    ],
    ids=lambda body: body[:90].decode(),
)
def test_an_answer_of_another_shape_is_one_line_and_exit_code_4(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_module, "PATIENCE", 0.5)
    with answering(200, body):
        ended = CliRunner().invoke(main, ["tree", SOMETHING])
    # whether it answers is told apart from what is wrong with the answer
    lines = [line for line in ended.output.splitlines() if not line.startswith("The Prefect API ")]
    assert (ended.exit_code, [line[:7] for line in lines]) == (4, ["Error: "])


@pytest.mark.parametrize("body", [b'{"errors": ["no"]}', b'{"errors": 5}', b'{"errors": null}', b"[" * 200_000, b"[]"])
def test_a_refusal_of_another_shape_is_no_traceback(body: bytes) -> None:
    with answering(400, body):
        ended = CliRunner().invoke(main, ["tree", SOMETHING])
    assert ended.exit_code in (1, 4)
    assert isinstance(ended.exception, SystemExit)


@pytest.fixture
def redirecting(backend: Backend) -> Iterator[List[int]]:
    """The status with which an API redirects to the backend."""
    statuses = [308]

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(statuses[0])
        handler.send_header("Location", backend.url)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with writing(send), api.patience(5.0):
        yield statuses


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_is_followed(backend: Backend, redirecting: List[int], status: int) -> None:
    redirecting[0] = status
    with set_temporary_config({"cloud.api": backend.url}):
        run = DrivenRun(Flow("redirected"))
    assert FlowRunView.from_flow_run_id(run.id).flow_run_id == run.id


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_would_lose_the_query_names_the_address_to_configure(
    backend: Backend, redirecting: List[int], status: int
) -> None:
    redirecting[0] = status
    with pytest.raises(errors.BadAnswer, match=f"redirects with status {status} to {backend.url}"):
        look()


def test_an_api_key_is_not_sent_to_another_host() -> None:
    seen: List[Any] = []

    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
        thread = Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def send(handler: BaseHTTPRequestHandler) -> None:
            seen.append(handler.headers.get("Authorization"))
            handler.send_response(308)
            handler.send_header("Location", f"http://localhost:{other.server_port}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        key = {"cloud.api_key": "secret", "cloud.tenant_id": SOMETHING}
        with api.patience(0.0), writing(send), set_temporary_config(key), pytest.raises(errors.BadAnswer):
            look()
        other.shutdown()
        thread.join()
    assert seen == ["Bearer secret", None]


def test_redirects_without_an_end_are_one_clear_error() -> None:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(308)
        handler.send_header("Location", "/")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with writing(send), api.patience(2.0):
        ended = CliRunner().invoke(main, ["tree", SOMETHING])
    assert (ended.exit_code, ended.output.count("redirects")) == (4, 1)


#: Clears the screen
ESCAPE = "\x1b[2J"

TASK_RUN = {
    "id": f"{ESCAPE}id",
    "name": ESCAPE,
    "task": {"id": ESCAPE, "slug": ESCAPE},
    "map_index": -1,
    "serialized_state": {"type": "Success", "message": ESCAPE},
    "flow_run_id": f"{ESCAPE}id",
    "version": 1,
    "start_time": None,
    "state_timestamp": None,
    "created": "2026-11-25T00:00:00+00:00",
}


@pytest.mark.parametrize(
    "command",
    [
        *("list", "list -o wide", "list -o name", "list --json", "tree", "cancel"),
        *("logs", "watch", "info --slug x", "info --slug x --json", "timeline -o /dev/null"),
    ],
)
def test_ids_of_a_backend_are_escaped_in_every_command(command: str) -> None:
    """Those of another backend may be any text."""
    context = {"prefect_taskrun_tasks": {"parent_flow_run_id": f"{ESCAPE}id"}}
    run = {**RUN, "context": context, "id": f"{ESCAPE}id", "name": f"otter{ESCAPE}", "flow": {"name": ESCAPE}}
    count = {"aggregate": {"count": 1}}
    data = {"flow_run": [run], "task_run": [TASK_RUN], "flow_run_aggregate": count, "task_run_aggregate": count}
    with answering(200, json.dumps({"data": data}).encode()):
        ended = CliRunner().invoke(main, [*command.split(), "--flow-run-name", "otter"])
    assert "x1b[2Jid" in ended.output or "u001b[2Jid" in ended.output
    assert "\x1b" not in ended.output
    assert isinstance(ended.exception, (SystemExit, type(None)))
