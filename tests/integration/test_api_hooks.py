"""Cloud hooks over HTTP: what is sent to whom, and that who does not answer disturbs nobody."""

import json
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple

import prefect
import pytest
import requests
from asking import Caller
from conftest import eventually

from prefect_taskrun_tasks.server import Backend, hooks
from prefect_taskrun_tasks.server.database import Database


class Told(NamedTuple):
    path: str
    headers: Dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Listener:
    """Somebody outside, who is told things by POST."""

    def __init__(self) -> None:
        self.told: List[Told] = []
        #: what is answered; 0 for nothing at all
        self.status = 200
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                listener.told.append(Told(self.path, {key.lower(): self.headers[key] for key in self.headers}, body))
                if listener.status:
                    self.send_response(listener.status)
                    self.send_header("Location", "http://127.0.0.1:9/")
                    self.end_headers()
                else:
                    listener.released.wait(30)

            def log_message(self, *args: Any) -> None:
                pass

        self.released = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def run_id(client: prefect.Client) -> str:
    client.create_project("project")
    flow_id = prefect.Flow("flow").register("project", no_url=True)
    return client.create_flow_run(flow_id=flow_id, run_name="run")


def mutate(client: prefect.Client, name: str, payload: str, **input: Any) -> Any:
    query = f"mutation($input: {name}_input!) {{ {name}(input: $input) {{ {payload} }} }}"
    return client.graphql(query, variables={"input": input}).data[name]


def hook(client: prefect.Client, type: str, **config: Any) -> str:
    given = {"type": type, "states": ["RUNNING"], "config": config, "tenant_id": client.tenant_id}
    return str(mutate(client, "create_cloud_hook", "id", **given).id)


def run(client: prefect.Client, run_id: str) -> None:
    client.set_flow_run_state(run_id, prefect.engine.state.Running("it runs"))


def test_a_webhook_gets_the_event(client: prefect.Client, listener: Listener, run_id: str) -> None:
    hook(client, "WEBHOOK", url=listener.url + "/hook")
    run(client, run_id)
    [told] = eventually(lambda: listener.told)
    event = told.json["event"]
    assert told.path == "/hook"
    assert told.headers["x-prefect-event-id"] == event["id"]
    assert (event["flow_run"]["id"], event["flow"]["name"], event["tenant"]["slug"]) == (run_id, "flow", "default")
    assert (event["state"]["state"], event["state"]["message"]) == ("Running", "it runs")


def test_slack_gets_words_and_a_link(backend: Backend, client: prefect.Client, listener: Listener, run_id: str) -> None:
    hook(client, "SLACK_WEBHOOK", url=listener.url)
    run(client, run_id)
    [told] = eventually(lambda: listener.told)
    text = "\n".join(block["text"]["text"] for block in told.json["blocks"])
    for part in ("`run`", "`flow`", "`Running`", "it runs", f"{backend.url}/default/flow-run/{run_id}"):
        assert part in text


def test_twilio_gets_a_message_for_each_number(
    client: prefect.Client, listener: Listener, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "TWILIO", listener.url + "/{}/Messages.json")
    hook(client, "TWILIO", account_sid="sid", auth_token="t", messaging_service_sid="from", to=["+1", "+2"])
    run(client, run_id)
    eventually(lambda: len(listener.told) == 2)
    assert {told.path for told in listener.told} == {"/sid/Messages.json"}
    assert [b"To=%2B1" in listener.told[0].body, b"To=%2B2" in listener.told[1].body] == [True, True]
    assert listener.told[0].headers["authorization"].startswith("Basic ")


def test_pagerduty_gets_an_alarm(
    client: prefect.Client, listener: Listener, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "PAGERDUTY", listener.url)
    hook(client, "PAGERDUTY", api_token="t", routing_key="r", severity="error")
    run(client, run_id)
    [told] = eventually(lambda: listener.told)
    assert told.headers["authorization"] == "Token token=t"
    assert (told.json["routing_key"], told.json["payload"]["severity"]) == ("r", "error")
    assert told.json["payload"]["custom_details"]["state_message"] == "it runs"


def test_a_message_is_there_for_who_reads_it(client: prefect.Client, run_id: str) -> None:
    hook(client, "PREFECT_MESSAGE")
    run(client, run_id)
    query = "{ message(where: {read: {_eq: false}}, order_by: {created: desc}) { id type content } }"
    [message] = client.graphql(query).data.message
    assert message.content.event.flow_run.id == run_id
    assert mutate(client, "mark_message_as_read", "success", message_id=message.id).success
    assert client.graphql(query).data.message == []


def test_who_does_not_answer_disturbs_nobody(
    client: prefect.Client, listener: Listener, run_id: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(hooks, "TIMEOUT", 0.2)
    listener.status = 0
    secret = listener.url + "/secret"
    hook(client, "WEBHOOK", url=secret)
    hook(client, "WEBHOOK", url="http://127.0.0.1:9/secret")
    for number in range(3):
        client.set_flow_run_state(run_id, prefect.engine.state.Running(str(number)))
    eventually(lambda: caplog.text.count("could not be told") == 6)
    assert "secret" not in caplog.text
    assert client.get_flow_run_state(run_id).is_running()


def test_a_hook_can_be_tried_out(client: prefect.Client, listener: Listener, run_id: str) -> None:
    id = hook(client, "WEBHOOK", url=listener.url)
    for input in ({}, {"state_type": "FAILED"}, {"flow_run_id": run_id, "state_type": "SCHEDULED"}):
        answer = mutate(client, "test_cloud_hook", "success error", cloud_hook_id=id, **input)
        assert answer == {"success": True, "error": None}
    assert [told.json["event"]["state"]["state"] for told in listener.told] == ["Success", "Failed", "Scheduled"]
    assert {told.json["event"]["is_test_event"] for told in listener.told} == {True}


@pytest.mark.parametrize("status", [404, 500, 302])
def test_a_hook_that_fails_when_it_is_tried_out_says_why(
    client: prefect.Client, listener: Listener, status: int
) -> None:
    listener.status = status
    id = hook(client, "WEBHOOK", url=listener.url)
    answer = mutate(client, "test_cloud_hook", "success error", cloud_hook_id=id)
    assert (answer.success, str(status) in answer.error) == (False, True)
    assert len(listener.told) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://", "http://.example", "https://x:y"])
def test_a_hook_that_cannot_be_reached_when_it_is_tried_out_says_why(client: prefect.Client, url: str) -> None:
    answer = mutate(client, "test_cloud_hook", "success error", cloud_hook_id=hook(client, "WEBHOOK", url=url))
    assert (answer.success, bool(answer.error)) == (False, True)
    unknown = "00000000-0000-0000-0000-000000000000"
    answer = mutate(client, "test_cloud_hook", "success error", cloud_hook_id=unknown)
    assert (answer.success, "not found" in answer.error) == (False, True)


def test_others_write_while_a_hook_is_tried_out(
    client: prefect.Client, listener: Listener, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener.status = 0
    id = hook(client, "WEBHOOK", url=listener.url)
    trial = threading.Thread(target=mutate, args=[client, "test_cloud_hook", "success"], kwargs={"cloud_hook_id": id})
    monkeypatch.setattr(hooks, "TIMEOUT", 60.0)
    trial.start()
    eventually(lambda: listener.told)
    client.set_flow_run_name(run_id, "renamed")
    assert trial.is_alive()
    listener.released.set()
    trial.join(30)


def test_who_does_not_answer_when_hooks_are_tried_out_keeps_nobody_from_reading(
    tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "GRACE", 2.0)
    monkeypatch.setattr(hooks, "TIMEOUT", 60.0)
    listener.status = 0
    trials = " ".join(f"a{number}: test_cloud_hook(input: $input) {{ success error }}" for number in range(100))
    answers: List[Any] = []
    with Backend(f"sqlite:///{tmp_path / 'prefect.db'}", port=0) as backend:

        def post(query: str, **variables: Any) -> Any:
            body = {"query": query, "variables": variables}
            return requests.post(backend.url, json=body, timeout=60).json()["data"]

        query = "mutation($input: create_cloud_hook_input!) { create_cloud_hook(input: $input) { id } }"
        [tenant] = post("{ tenant { id } }")["tenant"]
        given = {"type": "WEBHOOK", "states": ["RUNNING"], "config": {"url": listener.url}, "tenant_id": tenant["id"]}
        input = {"cloud_hook_id": post(query, input=given)["create_cloud_hook"]["id"]}

        def try_out() -> None:
            answers.append(post(f"mutation($input: test_cloud_hook_input!) {{ {trials} }}", input=input))

        # more than there are threads
        begun = time.monotonic()
        trying = [threading.Thread(target=try_out, daemon=True) for _ in range(12)]
        for thread in trying:
            thread.start()
        eventually(lambda: listener.told)
        assert post("{ hello }") == {"hello": "👋"}
        assert answers == []
        eventually(lambda: time.monotonic() > begun + hooks.GRACE)
        listener.released.set()
        eventually(lambda: len(answers) == len(trying))
    assert answers[0]["a99"] == {"success": False, "error": hooks.TOO_LATE}


def test_an_answer_that_never_ends_is_not_waited_for(client: prefect.Client) -> None:
    """Each part of it would come in time."""
    with socket.create_server(("127.0.0.1", 0)) as endless:

        def dribble() -> None:
            connection, _ = endless.accept()
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while True:
                    connection.sendall(b"x")
                    time.sleep(0.1)

        threading.Thread(target=dribble, daemon=True).start()
        id = hook(client, "WEBHOOK", url=f"http://127.0.0.1:{endless.getsockname()[1]}")
        answer = mutate(client, "test_cloud_hook", "success error", cloud_hook_id=id)
    assert (answer.success, answer.error) == (False, "There was no whole answer within 2 seconds")


def test_what_is_to_be_told_is_told_before_the_backend_stops(
    database_url: str, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the last state of a flow run, whose backend lasts no longer than it does."""
    database = Database(database_url)
    caller = Caller(database)
    given = {"type": "WEBHOOK", "states": ["SCHEDULED"], "config": {"url": listener.url}}
    caller.mutate("create_cloud_hook", tenant_id=caller.tenant_id(), **given)
    flow_id = caller.flow_id()
    database.close()
    monkeypatch.setattr(hooks, "TIMEOUT", 60.0)
    # answers come only while the backend stops
    listener.status = 0
    answering = threading.Timer(1, listener.released.set)
    with Backend(database_url, port=0) as backend:
        query = "mutation($id: UUID!) { create_flow_run(input: {flow_id: $id}) { id } }"
        body = {"query": query, "variables": {"id": flow_id}}
        for _ in range(20):
            requests.post(backend.url, json=body, timeout=20)
        answering.start()
    assert len(listener.told) == 20


def test_the_backend_stops_although_somebody_does_not_answer(
    tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "GRACE", 2.0)
    monkeypatch.setattr(hooks, "TIMEOUT", 60.0)
    listener.status = 0
    teller = hooks.Teller("http://here")
    event = {"id": "e", "tenant": {"slug": "s"}, "flow_run": {"id": "r"}}
    teller.tell([hooks.Call({"id": "h", "type": "WEBHOOK", "config": {"url": listener.url}}, event)] * 10)
    eventually(lambda: listener.told)
    stopping = threading.Thread(target=teller.stop, daemon=True)
    stopping.start()
    eventually(lambda: not stopping.is_alive())
    assert not listener.released.is_set()
