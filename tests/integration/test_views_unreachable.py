"""A Prefect API that does not answer, or not as it should."""

import socket
from typing import Any, Iterator

import pytest
import requests
from answering import answering
from implementations import both
from prefect.exceptions import ClientError
from prefect.utilities.configuration import set_temporary_config

import prefect_taskrun_tasks as ours
from prefect_taskrun_tasks import api, errors
from prefect_taskrun_tasks.runner import settings

SOMETHING = "4f6b3c1e-0000-4000-8000-000000000000"

CALLS = {
    "flow": lambda lib: lib.FlowView.from_flow_id(SOMETHING),
    "flow or flow group": lambda lib: lib.FlowView.from_id(SOMETHING),
    "flow name": lambda lib: lib.FlowView.from_flow_name(SOMETHING),
    "flow run": lambda lib: lib.FlowRunView.from_flow_run_id(SOMETHING),
    "task run": lambda lib: lib.TaskRunView.from_task_run_id(SOMETHING),
    "create": lambda lib: lib.create_flow_run.run(flow_name=SOMETHING),
    "cancel": lambda lib: lib.CancelFlowRun().run(flow_run_id=SOMETHING),
    "wait": lambda lib: lib.wait_for_flow_run.run(SOMETHING),
    "result": lambda lib: lib.get_task_run_result.run(SOMETHING, "inc-1"),
    "watch": lambda lib: list(lib.watch_flow_run(SOMETHING)),
}
calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture(autouse=True)
def _little_patience(mocker: Any) -> Iterator[None]:
    # prefect.Client waits for 63 s altogether
    mocker.patch("urllib3.util.retry.Retry.sleep")
    with api.patience(0.0):
        yield


@pytest.fixture
def nobody() -> Iterator[str]:
    """The address of an API where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with set_temporary_config(settings(url)):
            yield url


@both
@calls
@pytest.mark.usefixtures("nobody")
def test_no_answer_is_a_connection_error(lib: Any, call: Any) -> None:
    with pytest.raises(requests.ConnectionError):
        call(lib)


@calls
def test_no_answer_is_told_with_the_address_and_what_was_looked_for(call: Any, nobody: str) -> None:
    with pytest.raises(errors.BackendUnreachable) as raised:
        call(ours)
    assert nobody in str(raised.value)
    assert SOMETHING in str(raised.value)
    assert "PREFECT__SERVER__ENDPOINT" in str(raised.value)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: api.create_flow_run("child", flow_id=SOMETHING), "creating a flow run of 'child'"),
        (lambda: api.flow_run_url(SOMETHING), f"the address of flow run '{SOMETHING}'"),
        (lambda: ours.check_for_compatible_agents([]), "querying for agents"),
    ],
)
@pytest.mark.usefixtures("nobody")
def test_no_answer_is_told_with_what_was_being_done(call: Any, told: str) -> None:
    with pytest.raises(errors.BackendUnreachable, match=told):
        call()


@both
@calls
@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (404, b"{}", requests.HTTPError),
        (401, b"{}", requests.HTTPError),
        (500, b"{}", requests.exceptions.RetryError),
        (200, b"<html>", ClientError),
        (400, b"{}", ClientError),
        (200, b'{"errors": [{"message": "no"}]}', ClientError),
    ],
)
def test_a_bad_answer_raises_what_prefect_raises(lib: Any, call: Any, status: int, body: bytes, error: Any) -> None:
    with answering(status, body), pytest.raises(error) as raised:
        call(lib)
    assert isinstance(raised.value, errors.BackendUnreachable) == (lib is ours and status == 500)


@both
@pytest.mark.parametrize("name", ["flow", "flow or flow group", "flow name", "flow run", "task run", "create", "wait"])
def test_an_answer_without_rows_is_a_value_error(lib: Any, name: str) -> None:
    with answering(200, b'{"data": {}}'), pytest.raises(ValueError):  # noqa: PT011 the words differ
        CALLS[name](lib)


@pytest.mark.parametrize("body", [b'{"data": {}}', b'{"data": null}', b"{}"])
def test_an_answer_without_rows_is_told_with_what_was_looked_for(body: bytes) -> None:
    with answering(200, body), pytest.raises(errors.BadAnswer, match=SOMETHING):
        ours.FlowRunView.from_flow_run_id(SOMETHING)
