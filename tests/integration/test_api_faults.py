"""A Prefect API that fails for a while: it is asked again, people are told once, and nothing happens twice."""

import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from http.server import BaseHTTPRequestHandler
from queue import SimpleQueue
from threading import Event
from time import monotonic
from types import SimpleNamespace
from typing import Any, Callable, Iterator, List

import prefect
import pytest
import requests
from answering import serving
from conftest import eventually
from driven import DrivenRun, register
from prefect import Flow, task
from prefect.engine.state import Running, Success

from prefect_taskrun_tasks import (
    FlowRunView,
    api,
    create_flow_run,
    errors,
    get_task_run_result,
    wait_for_flow_run,
    watch_flow_run,
)
from prefect_taskrun_tasks.server import Backend
from prefect_taskrun_tasks.waiting import Deadline, Wait, wait_until_finished, watcher

Fault = Callable[[Any, bytes], None]


def _reset(handler: Any, answer: bytes) -> None:
    """Instead of an answer the connection is reset."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def _reset_in_the_body(handler: Any, answer: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(answer)))
    handler.end_headers()
    handler.wfile.write(answer[: len(answer) // 2])
    handler.wfile.flush()
    _reset(handler, answer)


def _answers(status: int, body: bytes = b"", **headers: str) -> Fault:
    def fault(handler: Any, answer: bytes) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return fault


FAULTS = {
    "reset": _reset,
    "reset in the body": _reset_in_the_body,
    "cut off": lambda handler, answer: _answers(200, answer[: len(answer) // 2])(handler, answer),
    "html": _answers(200, b"<html>Bad gateway</html>"),
    "a list": _answers(200, b"[]"),
    # of Prefect Server's gateway, in an ordinary answer
    "behind the gateway": _answers(
        200, b'{"errors": [{"message": "request to http://hasura failed, reason: read ECONNRESET"}], "data": null}'
    ),
    "408": _answers(408),
    "429": _answers(429, Retry_After="0"),
    "500": _answers(500, b"{}"),
    "502": _answers(502, b"<html>"),
    "503": _answers(503),
    "504": _answers(504),
}


@contextmanager
def faulty(backend: Backend, faults: List[Fault]) -> Iterator[List[bytes]]:
    """What stands between this process and its backend and spoils its answers while there are faults.

    The backend has always done what it was asked to. Yields the bodies that were sent.
    """
    sent: List[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent.append(body)
            answer = requests.post(backend.url, data=body, headers={"Content-Type": "application/json"}, timeout=10)
            (faults.pop(0) if faults else _answers(200, answer.content))(self, answer.content)

        def log_message(self, *args: Any) -> None:
            pass

    with serving(Handler):
        yield sent


@task
def one() -> int:
    return 1


@pytest.fixture
def child(backend: Backend) -> DrivenRun:
    with Flow("child") as flow:
        one()
    return DrivenRun(flow)


each_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


@each_fault
def test_a_look_up_survives_a_fault(backend: Backend, child: DrivenRun, fault: Fault) -> None:
    with faulty(backend, [fault, fault]) as sent:
        assert FlowRunView.from_flow_run_id(child.id).flow_run_id == child.id
    assert len(sent) == 3


@each_fault
def test_a_result_survives_faults(backend: Backend, child: DrivenRun, fault: Fault) -> None:
    child.execute()
    with faulty(backend, [fault] * 4):
        assert get_task_run_result.run(child.id, "one-1") == 1


@each_fault
def test_a_child_whose_creation_was_not_acknowledged_is_created_once(backend: Backend, fault: Fault) -> None:
    with Flow("child") as flow:
        one()
    flow_id = register(flow)
    faults: List[Fault] = []
    with faulty(backend, faults) as sent, prefect.context(task_run_id="4f6b3c1e-0000-4000-8000-000000000001"):
        # the first request looks the flow up
        faults += [_answers_truly, fault, fault]
        created = create_flow_run.run(flow_name="child")
    assert sum(b"create_flow_run(" in body for body in sent) == 3
    assert [row["id"] for row in api.find("flow_run", {"flow_id": {"_eq": flow_id}}, fields="id")] == [created]


def _answers_truly(handler: Any, answer: bytes) -> None:
    _answers(200, answer)(handler, answer)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_what_is_definitely_refused_is_not_asked_again(backend: Backend, child: DrivenRun, status: int) -> None:
    refusal = _answers(status, b'{"errors": [{"message": "no"}]}')
    with faulty(backend, [refusal]) as sent, pytest.raises(Exception, match=str(status)):
        FlowRunView.from_flow_run_id(child.id)
    assert len(sent) == 1


def test_an_episode_of_faults_is_told_once_at_each_end(backend: Backend, child: DrivenRun, caplog: Any) -> None:
    with faulty(backend, [_answers(502), _answers(503), _reset, _answers(408)]):
        FlowRunView.from_flow_run_id(child.id)
    told = [record.getMessage() for record in caplog.records if record.name.endswith("prefect_taskrun_tasks.api")]
    assert len(told) == 2
    assert "502" in told[0]
    assert "answers again" in told[1]


def test_a_wait_asks_again_when_the_api_says_so(backend: Backend, child: DrivenRun) -> None:
    child.enter(Success())
    started = monotonic()
    with faulty(backend, [_answers(429, Retry_After="2")]) as sent:
        wait_for_flow_run.run(child.id, timeout=60)
    assert monotonic() - started >= 2
    assert len(sent) == 2


def test_waits_are_not_blind_for_long_after_a_fault(backend: Backend) -> None:
    loop = watcher.Watcher()
    loop._waits = {Wait("4f6b3c1e-0000-4000-8000-000000000000", SimpleQueue(), slowest=10.0)}
    loop.failure = errors.BackendUnreachable("once")
    state: Any = SimpleNamespace(seconds_since_start=1000.0)
    assert loop._pause_after(state) < 0.2
    loop._failures = 10
    assert loop._pause_after(state) <= 2.0
    loop.failure.retry_after = 30.0
    assert loop._pause_after(state) == 30.0


def test_the_api_says_when_to_ask_again(backend: Backend, child: DrivenRun) -> None:
    started = monotonic()
    with faulty(backend, [_answers(429, Retry_After="1")]):
        FlowRunView.from_flow_run_id(child.id)
    # a lower bound, not a limit: no slower machine fails it
    assert monotonic() - started >= 1


def test_patience_ends(backend: Backend, child: DrivenRun, caplog: pytest.LogCaptureFixture) -> None:
    with faulty(backend, [_answers(503)] * 1000), api.patience(0.5), pytest.raises(errors.BackendUnreachable) as raised:
        FlowRunView.from_flow_run_id(child.id)
    assert child.id in str(raised.value)
    assert "503" in caplog.text
    # what came last; on a machine that stalls for a second, no answer to the last request
    assert "503" in str(raised.value) or "timed out" in str(raised.value)


def test_no_pause_is_begun_that_would_outlast_the_patience(backend: Backend, child: DrivenRun) -> None:
    refused = pytest.raises(errors.BackendUnreachable, match="429")
    with faulty(backend, [_answers(429, Retry_After="3600")]), api.patience(5), refused:
        FlowRunView.from_flow_run_id(child.id)


@each_fault
def test_a_wait_outlasts_faults_until_its_own_limit(backend: Backend, child: DrivenRun, fault: Fault) -> None:
    child.enter(Running())
    faults: List[Fault] = []
    # the patience of a single request is over at once, the wait's is not
    with faulty(backend, faults) as sent, ThreadPoolExecutor(1) as thread, api.patience(0):
        waiting = thread.submit(copy_context().run, wait_for_flow_run.run, child.id, timeout=60)
        eventually(lambda: len(sent) >= 3)
        faults += [fault] * 3
        eventually(lambda: not faults)
        child.enter(Success())
        assert waiting.result(60).state.is_successful()


def test_a_wait_says_in_which_state_it_has_last_seen_a_flow_run_of_a_backend_that_went_away(
    backend: Backend, child: DrivenRun
) -> None:
    child.enter(Running())
    faults: List[Fault] = []
    with faulty(backend, faults) as sent, ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(copy_context().run, wait_until_finished, child.id, Deadline(None, 2))
        eventually(lambda: len(sent) >= 2)
        faults += [_answers(503)] * 1000
        with pytest.raises(errors.WaitTimeout) as raised:
            waiting.result(60)
    assert child.id in str(raised.value)
    assert "Running" in str(raised.value)
    assert isinstance(raised.value.__cause__, errors.BackendUnreachable)


def test_a_flow_run_that_is_deleted_while_it_is_waited_for_ends_the_wait(backend: Backend, child: DrivenRun) -> None:
    child.enter(Running())
    with ThreadPoolExecutor(1) as thread:
        watch = watch_flow_run(child.id, timeout=60)
        next(watch)
        waiting = thread.submit(copy_context().run, list, watch)
        child.client.graphql(
            "mutation($input: delete_flow_run_input!) { delete_flow_run(input: $input) { success } }",
            variables={"input": {"flow_run_id": child.id}},
        )
        with pytest.raises(errors.NotFound, match=f"{child.id}.*was deleted while it was waited for.*Running"):
            waiting.result(60)


def test_logs_are_asked_for_until_the_limit_of_the_wait(backend: Backend, child: DrivenRun) -> None:
    child.enter(Running())
    child.log("on its way")
    faults: List[Fault] = []
    with faulty(backend, faults):
        watch = watch_flow_run(child.id, stream_states=False, timeout=60)
        faults += [_answers(503), _reset]
        assert next(watch).message == "on its way"
        assert not faults


def test_the_last_logs_are_asked_for_until_the_limit_of_the_wait(backend: Backend, child: DrivenRun) -> None:
    child.enter(Running())
    faults: List[Fault] = []
    with faulty(backend, faults), api.patience(0):
        watch = watch_flow_run(child.id, timeout=60)
        next(watch)
        child.enter(Success())
        # the look that finds the end, and then those for logs that come late
        faults += [_answers_truly, _answers(503), _answers(503)]
        list(watch)
        assert not faults


def test_a_request_that_is_not_answered_does_not_outlast_the_wait(backend: Backend, child: DrivenRun) -> None:
    child.enter(Running())
    over = Event()
    with ExitStack() as stack:
        stack.enter_context(faulty(backend, [lambda handler, answer: over.wait(60)]))
        stack.callback(over.set)
        with pytest.raises(errors.WaitTimeout, match=f"{child.id}.*could not be looked at"):
            wait_until_finished(child.id, Deadline(None, 0.5))
