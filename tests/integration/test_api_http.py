"""The API over HTTP, as the Prefect client and other programs reach it."""

import asyncio
import base64
import errno
import gzip
import json
import socket
import threading
import time
from contextlib import ExitStack, nullcontext
from typing import Any, Dict, List, Tuple

import prefect
import pytest
import requests
from conftest import eventually
from prefect.exceptions import ClientError

from prefect_taskrun_tasks.server import Backend, Limits, PortUnavailable
from prefect_taskrun_tasks.server.connection import SeldomTold
from prefect_taskrun_tasks.server.endpoint import _pieces

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("path", ["", "/", "/graphql", "/graphql/"])
def test_the_api_is_answered_at_every_address_that_prefect_uses(backend: Backend, path: str) -> None:
    answer = requests.post(backend.url + path, json={"query": "{ hello }", "variables": "null"}, timeout=20)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == {"data": {"hello": "👋"}}


def test_the_backend_says_that_it_is_well(backend: Backend) -> None:
    assert requests.get(backend.url + "/health", timeout=20).json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("body", "status"), [(b"", 400), (b"\xff", 400), (b"[" * 100_000, 400), (b'{"query": "{ unheard_of }"}', 400)]
)
def test_a_hostile_body_is_the_callers_error(backend: Backend, body: bytes, status: int) -> None:
    answer = requests.post(backend.url, data=body, headers=JSON, timeout=20)
    assert answer.status_code == status
    assert answer.json()["errors"]


def test_a_connection_by_which_nobody_asks_is_closed(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_taskrun_tasks.server.connection.HEAD", 0.2)
    host, _, port = backend.url[len("http://") :].partition(":")
    for begun in (b"", b"POST / HTTP/1.1\r\nHost: "):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(begun)
            assert connection.recv(1) == b""
    with requests.Session() as session:
        for _ in range(2):
            assert session.get(f"{backend.url}/health", timeout=20).ok


def connected(backend: Backend) -> socket.socket:
    host, _, port = backend.url[len("http://") :].partition(":")
    return socket.create_connection((host, int(port)), timeout=20)


HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture
def hasty(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """A backend that waits a moment for requests, and for answers to be read."""
    for name in ("HEAD", "BODY", "ANSWER"):
        monkeypatch.setattr(f"prefect_taskrun_tasks.server.connection.{name}", 0.5)
    return backend


def test_a_request_that_does_not_end_is_not_waited_for_however_it_dribbles(hasty: Backend) -> None:
    whole = HEAD + b"Content-Length: 20\r\n\r\n" + b'{"query":"{ hello }"'
    for begun in (HEAD + b"Content-Length: 1000\r\n\r\n", b"POST / HTTP/1.1\r\nX: ", whole + b"POST / HTTP/1.1\r\nX: "):
        with connected(hasty) as connection:
            connection.sendall(begun)
            connection.settimeout(0.05)

            def is_closed(connection: socket.socket = connection) -> bool:
                try:
                    connection.sendall(b"1")
                    return connection.recv(4096) == b""
                except socket.timeout:
                    return False
                except OSError:
                    return True

            eventually(is_closed, 20)


def test_an_answer_that_nobody_reads_is_not_kept(hasty: Backend, client: prefect.Client) -> None:
    client.create_project("p", project_description="x" * 900_000)
    body = json.dumps({"query": "{ " + " ".join(f"a{n}: project {{ description }}" for n in range(30)) + " }"}).encode()
    with connected(hasty) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        eventually(lambda: any(each.transport.get_write_buffer_size() for each in connections(hasty)))
        eventually(lambda: not connections(hasty), 20)


def connections(backend: Backend) -> List[Any]:
    return list(backend._server.server_state.connections)


def test_a_request_in_chunks_is_refused_before_they_are_read(backend: Backend) -> None:
    with connected(backend) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 100)
        assert connection.recv(65536).startswith(b"HTTP/1.1 411 ")


def test_a_request_far_too_large_is_refused_before_it_is_read(backend: Backend) -> None:
    with connected(backend) as connection:
        connection.sendall(HEAD + b"Content-Length: 999999999\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_large_requests_together_leave_room_for_small_ones(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_taskrun_tasks.server.endpoint.RECEIVED", 100_000)
    with connected(backend) as slow:
        slow.sendall(HEAD + b"Content-Length: 200000\r\n\r\n" + b" " * 90_000)
        eventually(lambda: backend._endpoint._received_bytes == 90_000)
        large = b'{"query": "{ hello }"}' + b" " * 50_000
        assert requests.post(backend.url, data=large, headers=JSON, timeout=20).status_code == 503
        assert requests.post(backend.url, json={"query": "{ hello }"}, timeout=20).ok
    eventually(lambda: backend._endpoint._received_bytes == 0)
    assert requests.post(backend.url, data=large, headers=JSON, timeout=20).ok


def test_a_large_answer_is_the_same_as_a_small_one(backend: Backend, client: prefect.Client) -> None:
    """It is read by a thread for large answers, written in pieces, and sent as it is read."""
    client.create_project("p", project_description="\U0001f600" + "x" * 900_000)
    fields = ["name", "description", "flows { id }", "tenant { slug }"]
    query = "{ " + " ".join(f"a{n}: project {{ {' '.join(fields)} }}" for n in range(5)) + " empty: flow { id } hello }"
    answer = requests.post(backend.url, json={"query": query}, timeout=20)
    row = {"name": "p", "description": "\U0001f600" + "x" * 900_000, "flows": [], "tenant": {"slug": "default"}}
    expected = {**{f"a{n}": [row] for n in range(5)}, "empty": [], "hello": "👋"}
    assert answer.json() == {"data": expected}
    assert int(answer.headers["content-length"]) == len(answer.content) > 4_500_000
    batch = requests.post(backend.url, json=[{"query": query}, {"query": "{ unheard_of }"}], timeout=20).json()
    assert (batch[0], list(batch[1])) == ({"data": expected}, ["errors"])


def test_a_large_answer_is_let_go_while_it_is_written() -> None:
    """Its memory and that of its text are not needed at once."""
    shared = [1, 2]
    data = {"a": [{"b": number} for number in range(1001)], "c": {"d": shared}, "e": [], "f": None}
    answer = {"data": data, "errors": [{"message": "m"}, {"message": "n"}]}
    text = json.dumps(answer)
    assert "".join(_pieces(answer)) == text
    assert (answer, data, shared) == ({}, {}, [1, 2])


@pytest.mark.parametrize(("unread", "at_start"), [(1_000_000, 99_000_000), (99_000_000, 1_000_000)])
def test_large_answers_that_are_not_read_leave_room_for_others(
    backend: Backend, client: prefect.Client, monkeypatch: pytest.MonkeyPatch, unread: int, at_start: int
) -> None:
    monkeypatch.setattr("prefect_taskrun_tasks.server.endpoint.UNREAD", unread)
    monkeypatch.setattr("prefect_taskrun_tasks.server.endpoint.UNREAD_AT_START", at_start)
    client.create_project("p", project_description="x" * 900_000)
    body = json.dumps({"query": "{ " + " ".join(f"a{n}: project {{ description }}" for n in range(30)) + " }"}).encode()
    with connected(backend) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        eventually(lambda: backend._endpoint._unread)
        assert requests.post(backend.url, data=body, headers=JSON, timeout=20).status_code == 503
        assert requests.post(backend.url, json={"query": "{ hello }"}, timeout=20).ok
    eventually(lambda: backend._endpoint._unread == 0)
    assert requests.post(backend.url, data=body, headers=JSON, timeout=20).ok


def test_connections_by_which_nobody_asks_keep_nobody_out(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_taskrun_tasks.server.connection._most_connections", lambda: 10)
    with ExitStack() as opened:
        for _ in range(50):
            connection = opened.enter_context(connected(backend))
            connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        eventually(lambda: len(connections(backend)) <= 10)
        assert requests.post(backend.url, json={"query": "{ hello }"}, timeout=20).ok


def test_a_backend_stops_at_once_while_requests_arrive_slowly(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as opened:
        for _ in range(100):
            connection = opened.enter_context(connected(backend))
            connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        eventually(lambda: len(connections(backend)) == 100)
        begun = time.monotonic()
        backend.__exit__()
        assert time.monotonic() - begun < 4
    assert caplog.text == ""


def test_connections_that_cannot_be_taken_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    loop, told = asyncio.new_event_loop(), SeldomTold()
    for number in (errno.EMFILE, errno.EMFILE, errno.EIO):
        told(loop, {"message": "accept", "exception": OSError(number, "as this test wants it")})
    loop.close()
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "No more connections can be taken",
        "accept",
    ]


@pytest.mark.parametrize("content_type", ["Application/JSON", "application/json;charset=utf-8"])
def test_json_is_taken_however_it_is_written(backend: Backend, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    assert requests.post(backend.url, data=b'{"query": "{ hello }"}', headers=headers, timeout=20).ok


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"])
def test_a_page_elsewhere_cannot_have_a_browser_change_anything(backend: Backend, content_type: str) -> None:
    """Browsers ask before they send JSON to another site, and are not allowed to; other types they just send."""
    body = json.dumps({"query": "mutation { create_flow_run(input: {}) { id } }"})
    answer = requests.post(backend.url, data=body, headers={"Content-Type": content_type}, timeout=20)
    assert answer.status_code == 415


UI = "http://localhost:8080"


def preflight(backend: Backend, origin: str) -> requests.Response:
    """What a browser asks before it sends a request of the web UI of Prefect Server."""
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,x-backend"}
    return requests.options(backend.url + "/graphql", headers={"Origin": origin, **asked}, timeout=20)


def test_a_web_ui_elsewhere_may_use_the_api_if_it_is_named(tmp_path: Any) -> None:
    with Backend(f"sqlite:///{tmp_path / 'ui.db'}", port=0, cors_origins=[UI + "/"]) as backend:
        answer = preflight(backend, UI)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, UI)
        assert "x-backend" in answer.headers["access-control-allow-headers"].lower()
        batch = [{"operationName": "Api", "query": "query Api { api { mode } }", "variables": {}}]
        answer = requests.post(
            backend.url + "/graphql", json=batch, headers={"Origin": UI, "X-Prefect-UI": "true"}, timeout=20
        )
        assert answer.json() == [{"data": {"api": {"mode": "normal"}}}]
        assert answer.headers["access-control-allow-origin"] == UI
        for other in ("http://elsewhere.example", "null", UI + "1"):
            assert "access-control-allow-origin" not in preflight(backend, other).headers


def test_no_web_ui_elsewhere_may_use_the_api_by_itself(backend: Backend) -> None:
    answer = preflight(backend, UI)
    assert answer.status_code != 200
    assert "access-control-allow-origin" not in answer.headers


def test_a_name_that_only_leads_here_is_not_answered(backend: Backend) -> None:
    headers = {"Host": "rebound.example"}
    assert requests.post(backend.url, json={"query": "{ hello }"}, headers=headers, timeout=20).status_code == 400


@pytest.mark.parametrize(("method", "path"), [("PUT", "/graphql"), ("POST", "/elsewhere"), ("GET", "/else/where")])
def test_other_methods_and_addresses_are_no_server_errors(backend: Backend, method: str, path: str) -> None:
    assert requests.request(method, backend.url + path, timeout=20).status_code in (404, 405)


def test_the_client_reports_a_refusal_with_its_message(client: prefect.Client) -> None:
    with pytest.raises(ClientError, match="Cannot query field 'unheard_of'"):
        client.graphql("{ unheard_of }")
    with pytest.raises(ClientError, match="needs a flow_id"):
        client.graphql("mutation { create_flow_run(input: {}) { id } }")


def test_a_batch_of_logs_of_four_megabytes_is_taken(client: prefect.Client) -> None:
    """T1: escaped twice it is larger than the limits of most servers."""
    flow = prefect.Flow("flow", tasks=[prefect.Task("a")])
    client.create_project("project")
    run_id = client.create_flow_run(flow_id=flow.register("project", no_url=True))
    message = '"\n' * 500_000
    client.write_run_logs([{"flow_run_id": run_id, "message": message}] * 4)
    query = "query($id: uuid!) { flow_run_by_pk(id: $id) { logs { message } } }"
    logs = client.graphql(query, variables={"id": run_id}).data.flow_run_by_pk.logs
    assert [log.message == message for log in logs] == [True] * 4


@pytest.mark.parametrize("levels", [700, 800, 900, 960, 970, 980, 1000])
def test_a_deeply_nested_flow_is_refused_or_can_be_answered_within_others(client: prefect.Client, levels: int) -> None:
    """The client repeats for a minute what is answered with 500, as what cannot be written as JSON would be."""
    nested = b'{"name": "deep", "x": ' + b"[" * levels + b"]" * levels + b"}"
    packed = base64.b64encode(gzip.compress(nested)).decode()
    mutation = """mutation($i: create_flow_from_compressed_string_input!) {
        create_flow_from_compressed_string(input: $i) { id }
    }"""
    project_id = client.create_project("project")
    is_stored = levels <= 800
    refused = nullcontext() if is_stored else pytest.raises(ClientError, match="nested too deeply")
    with refused:
        client.graphql(mutation, variables={"i": {"project_id": project_id, "serialized_flow": packed}})
    within = "serialized_flow"
    for _ in range(6):
        within = f"project {{ flows {{ {within} }} }}"
    answer = requests.post(client.api_server, json={"query": f"{{ flow {{ {within} }} }}"}, timeout=20)
    assert answer.status_code == 200
    assert len(answer.json()["data"]["flow"]) == is_stored


def test_a_body_beyond_all_limits_is_refused(tmp_path: Any) -> None:
    with Backend(f"sqlite:///{tmp_path / 'small.db'}", port=0, limits=Limits(body=1_000_000)) as backend:
        answer = requests.post(backend.url, data=b" " * 20_000_000, headers=JSON, timeout=20)
    assert answer.status_code == 413
    assert "1000000" in answer.json()["errors"][0]["message"]


def test_a_caller_who_hangs_up_disturbs_nobody(backend: Backend) -> None:
    host, port = backend.url[len("http://") :].split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
        )
    assert requests.post(backend.url, json={"query": "{ hello }"}, timeout=20).status_code == 200


def test_an_address_that_is_taken_is_refused(backend: Backend, tmp_path: Any) -> None:
    port = int(backend.url.rsplit(":", 1)[1])
    with pytest.raises(PortUnavailable, match="--port"):
        Backend(f"sqlite:///{tmp_path / 'other.db'}", port=port)


def test_the_agent_is_known_by_its_header(backend: Backend, client: prefect.Client) -> None:
    agent_id = client.register_agent("LocalAgent", name="agent", labels=["b", "a"])
    client.attach_headers({"X-PREFECT-AGENT-ID": agent_id})
    client.create_project("project")
    run_id = client.create_flow_run(flow_id=prefect.Flow("flow").register("project", no_url=True))
    client.set_flow_run_state(run_id, prefect.engine.state.Submitted(state=prefect.engine.state.Scheduled()))
    query = "query($id: uuid!) { flow_run_by_pk(id: $id) { agent { id core_version labels } } }"
    agent = client.graphql(query, variables={"id": run_id}).data.flow_run_by_pk.agent
    assert agent == {"id": agent_id, "core_version": prefect.__version__, "labels": ["a", "b"]}


class Callers:
    """Calls a backend from many threads at once."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: List[Tuple[int, Any]] = []

    def _call(self, start: threading.Barrier, bodies: List[Dict[str, Any]]) -> None:
        with requests.Session() as session:
            start.wait()
            for body in bodies:
                answer = session.post(self.url, json=body, timeout=60)
                self.answers.append((answer.status_code, answer.json()))

    def call(self, bodies_of_each: List[List[Dict[str, Any]]]) -> List[Any]:
        """The data of all answers; each caller sends its bodies one after the other."""
        start = threading.Barrier(len(bodies_of_each))
        threads = [threading.Thread(target=self._call, args=[start, bodies]) for bodies in bodies_of_each]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [answer for status, answer in self.answers if status != 200] == []
        return [answer.get("data") for _, answer in self.answers]


def mutation(name: str, payload: str, /, **input: Any) -> Dict[str, Any]:
    query = f"mutation($input: {name}_input!) {{ {name}(input: $input) {{ {payload} }} }}"
    return {"query": query, "variables": {"input": input}}


@pytest.fixture
def flow_id(client: prefect.Client) -> str:
    client.create_project("project")
    id: str = prefect.Flow("flow", tasks=[prefect.Task("a")]).register("project", no_url=True)
    return id


def test_many_callers_with_one_key_make_one_flow_run(backend: Backend, client: prefect.Client, flow_id: str) -> None:
    body = mutation("create_flow_run", "id", flow_id=flow_id, idempotency_key="k")
    answers = Callers(backend.url).call([[body] * 3] * 12)
    assert len(answers) == 36
    assert len({answer["create_flow_run"]["id"] for answer in answers}) == 1


def test_many_workers_make_one_mapped_child(backend: Backend, client: prefect.Client, flow_id: str) -> None:
    """T20."""
    run_id = client.create_flow_run(flow_id=flow_id)
    [task] = client.graphql("{ task { id } }").data.task
    children = [
        mutation("get_or_create_task_run_info", "id", flow_run_id=run_id, task_id=task.id, map_index=index)
        for index in range(4)
    ]
    answers = Callers(backend.url).call([children] * 12)
    assert len({answer["get_or_create_task_run_info"]["id"] for answer in answers}) == 4
    assert client.graphql("{ task_run_state_aggregate { aggregate { count } } }").data == {
        "task_run_state_aggregate": {"aggregate": {"count": 5}}
    }


def test_one_of_many_agents_gets_a_flow_run(backend: Backend, client: prefect.Client, flow_id: str) -> None:
    """T22."""
    run_id = client.create_flow_run(flow_id=flow_id)
    states = [{"flow_run_id": run_id, "state": {"type": "Submitted", "state": {"type": "Scheduled"}}}]
    callers = Callers(backend.url)
    callers.call([[mutation("set_flow_run_states", "states { status }", states=states)]] * 12)
    refusals = [answer["errors"][0]["message"] for _, answer in callers.answers if "errors" in answer]
    assert refusals == ["State update failed: this run has already been submitted."] * 11


def test_writers_from_many_threads_lose_nothing(backend: Backend, client: prefect.Client, flow_id: str) -> None:
    run_id = client.create_flow_run(flow_id=flow_id)

    def bodies(caller: int) -> List[Dict[str, Any]]:
        written = []
        for number in range(10):
            states = [{"flow_run_id": run_id, "state": {"type": "Running", "message": f"{caller}-{number}"}}]
            written.append(mutation("set_flow_run_states", "states { status }", states=states))
            log = {"flow_run_id": run_id, "message": f"{caller}-{number}"}
            written.append(mutation("write_run_logs", "success", logs=[log]))
            written.append({"query": "{ flow_run { state states { version } } }"})
        return written

    answers = Callers(backend.url).call([bodies(caller) for caller in range(12)])
    assert None not in answers
    query = """query($id: uuid!) { flow_run_by_pk(id: $id) {
        version state_message logs { message } states(order_by: {timestamp: asc}) { version message }
    } }"""
    run = client.graphql(query, variables={"id": run_id}).data.flow_run_by_pk
    assert [state.version for state in run.states] == list(range(1, 122))
    assert (run.version, run.state_message) == (121, run.states[-1].message)
    assert len({log.message for log in run.logs}) == 120


def test_one_of_many_registrations_with_one_key_makes_a_version(backend: Backend, client: prefect.Client) -> None:
    client.create_project("project")
    [project] = client.graphql("{ project { id } }").data.project
    flow = {"name": "flow", "tasks": []}
    body = mutation("create_flow", "id", project_id=project.id, serialized_flow=flow, idempotency_key="k")
    answers = Callers(backend.url).call([[body]] * 8)
    assert len({answer["create_flow"]["id"] for answer in answers}) == 1


def test_an_agent_is_told_of_a_new_flow_run(tmp_path: Any) -> None:
    """And of nothing else."""
    pokes: List[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as agent:
        address = f"http://127.0.0.1:{agent.getsockname()[1]}"

        def listen() -> None:
            while True:
                connection, _ = agent.accept()
                with connection:
                    request = connection.recv(1000)
                    if not request:
                        return
                    pokes.append(request.split(b"\r\n")[0])
                    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        # others do not keep this one from being told
        wrong = ["nonsense", "http://127.0.0.1:port"]
        with Backend(f"sqlite:///{tmp_path / 'poked.db'}", port=0, agent_addresses=[*wrong, address]) as backend:

            def post(body: Dict[str, Any]) -> Any:
                return requests.post(backend.url, json=body, timeout=20).json()["data"]

            tenant_id = post({"query": "{ tenant { id } }"})["tenant"][0]["id"]
            project = post(mutation("create_project", "id", tenant_id=tenant_id, name="p"))["create_project"]["id"]
            flow = mutation("create_flow", "id", project_id=project, serialized_flow={"name": "f"})
            flow_id = post(flow)["create_flow"]["id"]
            assert pokes == []
            post(mutation("create_flow_run", "id", flow_id=flow_id))
            eventually(lambda: pokes)
            assert pokes == [b"GET /api/poke HTTP/1.1"]
        socket.create_connection(agent.getsockname()).close()
        listener.join(20)


def test_what_is_stored_survives_a_restart(database_url: str) -> None:
    body = {"query": "{ tenant { id } }"}
    answers = []
    for _ in range(2):
        with Backend(database_url, port=0) as backend:
            answers.append(requests.post(backend.url, data=json.dumps(body), headers=JSON, timeout=20).json())
    assert answers[0] == answers[1]


def test_a_caller_that_goes_away_while_it_sends_is_no_error_of_the_backend(backend: Backend, caplog: Any) -> None:
    host, port = backend.url.split("//")[1].split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        connection.sendall(b"Content-Length: 1000\r\n\r\n{")
        # by then the backend waits for the rest
        assert requests.get(backend.url + "/health", timeout=20).ok
    for _ in range(3):
        assert requests.get(backend.url + "/health", timeout=20).ok
    assert "Traceback" not in caplog.text
    assert "Exception in ASGI application" not in caplog.text


def test_a_request_that_goes_on_when_the_backend_stops_leaves_no_traceback(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    going_on, may_end = threading.Event(), threading.Event()

    def steps(body: Any, headers: Any) -> Any:
        going_on.set()
        may_end.wait(60)
        return 200, {"data": {}}
        yield

    monkeypatch.setattr(backend._endpoint._api, "steps", steps)
    monkeypatch.setattr("prefect_taskrun_tasks.server.http.GRACE", 1.0)
    backend._server.config.timeout_graceful_shutdown = 1
    with connected(backend) as connection:
        connection.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")
        going_on.wait(20)
        threading.Timer(3, may_end.set).start()
        backend.__exit__()
        assert connection.recv(1000) == b""
    assert "Traceback" not in caplog.text
