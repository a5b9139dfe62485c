"""``prefect-taskrun agent start``: a Prefect local agent whose flow runs are warm."""

import runpy
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import prefect
import pytest
from conftest import eventually
from prefect.run_configs import LocalRun
from prefect.storage import Local
from processes import Command, assert_gone, started

from prefect_taskrun_tasks import FlowRunView, api
from prefect_taskrun_tasks.server import Backend
from prefect_taskrun_tasks.warm import find_processes

FLOW = """
import os
import time
from pathlib import Path
from prefect import Flow, Parameter, task

@task
def until_there_is(file):
    print("This is printed by", os.environ.get("OWN"), end=".", flush=True)
    while not Path(file).exists():
        time.sleep(0.05)

with Flow("agent-start") as flow:
    until_there_is(Parameter("file"))
"""


#: The environment of agents
VARIABLES = {"PREFECT__BACKEND": "server", "PREFECT__CLOUD__HEARTBEAT_INTERVAL": "0.3"}


@contextmanager
def _agent(backend: Backend, *options: str) -> Iterator[Command]:
    command = ("prefect-taskrun", "agent", "start", "--api", backend.url, "--label", "own", "--no-hostname-label")
    with started(*command, *options, env=VARIABLES) as agent:
        yield agent


@pytest.fixture
def flow_run(backend: Backend, tmp_path: Path) -> FlowRunView:
    """A flow run that goes on until a file exists."""
    file = tmp_path / "flows.py"
    file.write_text(FLOW)
    flow = runpy.run_path(str(file))["flow"]
    flow.storage = Local(path=str(file), stored_as_script=True, add_default_labels=False)
    flow.run_config = LocalRun(labels=["own"])
    client = prefect.Client()
    client.create_project("default")
    flow_id = flow.register("default", no_url=True)
    parameters = {"file": str(tmp_path / "end")}
    return FlowRunView.from_flow_run_id(client.create_flow_run(flow_id=flow_id, parameters=parameters))


def _is_running(flow_run: FlowRunView) -> bool:
    where = {"flow_run_id": {"_eq": flow_run.flow_run_id}, "task": {"slug": {"_eq": "until_there_is-1"}}}
    return "Running" in [row["state"] for row in api.find("task_run", where, fields="state")]


def _heartbeat(flow_run: FlowRunView) -> str:
    [row] = api.find("flow_run", {"id": {"_eq": flow_run.flow_run_id}}, fields="heartbeat")
    return str(row["heartbeat"])


@pytest.mark.parametrize("options", [(), ("--cold",)], ids=["warm", "cold"])
def test_an_agent_executes_flow_runs(backend: Backend, flow_run: FlowRunView, tmp_path: Path, options: Any) -> None:
    with _agent(backend, "--env", "OWN=value", "--show-flow-logs", *options) as agent:
        eventually(lambda: _is_running(flow_run))
        [process] = find_processes([flow_run.flow_run_id])
        assert (process.ppid() == agent.process.pid) == bool(options)
        (tmp_path / "end").touch()
        eventually(lambda: flow_run.get_latest().state.is_successful())
        eventually(lambda: "This is printed by value." in agent.stdout)
        agent.process.send_signal(signal.SIGINT)
        agent.exit_code()
        assert_gone([process])
        assert "Traceback" not in agent.stdout + agent.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_flow_run_goes_on_when_its_agent_has_ended(
    backend: Backend, flow_run: FlowRunView, tmp_path: Path, number: signal.Signals
) -> None:
    with _agent(backend) as agent:
        eventually(lambda: _is_running(flow_run))
        [process] = find_processes([flow_run.flow_run_id])
        agent.process.send_signal(number)
        agent.exit_code()
        last = _heartbeat(flow_run)
        eventually(lambda: _heartbeat(flow_run) > last)
        (tmp_path / "end").touch()
        eventually(lambda: flow_run.get_latest().state.is_successful())
        assert_gone([process])


def test_a_flow_run_whose_process_is_killed_is_settled(backend: Backend, flow_run: FlowRunView) -> None:
    with _agent(backend):
        eventually(lambda: _is_running(flow_run))
        find_processes([flow_run.flow_run_id])[0].kill()
        eventually(lambda: flow_run.get_latest().state.is_failed())
        assert "was killed by SIGKILL" in flow_run.get_task_run("until_there_is-1").state.message


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--preload", "no_such_module"], "The module 'no_such_module' cannot be preloaded"),
        (["--env", "OWN"], "'OWN' is not of the form NAME=VALUE."),
    ],
    ids=["preload", "env"],
)
def test_a_wrong_option_is_refused(backend: Backend, options: Any, error: str) -> None:
    with _agent(backend, *options) as agent:
        assert agent.exit_code() in (1, 2)
        assert error in agent.stderr
