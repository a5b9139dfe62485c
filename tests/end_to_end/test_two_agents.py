"""A backend and two agents with different labels, each a process of its own, as if they were on three machines."""

import re
import socket
from contextlib import ExitStack
from typing import Any, Dict, Iterator

import prefect
import pytest
from conftest import eventually
from prefect.utilities.configuration import set_temporary_config
from processes import Command, ended, started

from prefect_taskrun_tasks import FlowRunView, FlowView, api
from prefect_taskrun_tasks.runner import settings

FLOWS = """
import os
from prefect import Flow, Parameter, task
from prefect.engine.results import LocalResult
from prefect.run_configs import UniversalRun
from prefect.storage import Local
from prefect_taskrun_tasks import create_flow_run, get_task_run_result, wait_for_flow_run
from prefect_taskrun_tasks.waiting import watch

#: both agents see this folder; flows that are stored in one usually get the label of the machine where it is
SHARED = {{
    "storage": Local(directory={folder!r}, add_default_labels=False),
    "result": LocalResult(dir={folder!r}),
}}
IN_THE_OFFICE = {{**SHARED, "run_config": UniversalRun(labels=["office"])}}

@task
def machine():
    return os.environ["MACHINE"]

with Flow("agents-child", **SHARED, run_config=UniversalRun(labels=["gpu"])) as child:
    machine()

with Flow("agents-parent", **IN_THE_OFFICE) as parent:
    machine()
    get_task_run_result(create_flow_run(flow_name="agents-child"), "machine-1")
    get_task_run_result(create_flow_run(flow_name="agents-child", labels=["office"]), "machine-1")

@task
def warns_soon():
    # instead of after a quarter of a minute; this process is for this flow run alone
    watch.AGENT_WARNING = 0.5

with Flow("agents-parent-of-a-child-that-nobody-runs", **IN_THE_OFFICE) as nobody_runs:
    child_run_id = create_flow_run(flow_name="agents-child", labels=["tape"])
    wait_for_flow_run(child_run_id, timeout=2, upstream_tasks=[warns_soon()])
"""


def _free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def _exported(command: Command) -> Dict[str, str]:
    """The variables that the backend has printed, once all are there."""
    return dict(re.findall(r"export (\w+)=(\S+)", command.stdout)) if "Ctrl-C" in command.stdout else {}


@pytest.fixture(scope="module", autouse=True)
def backend_and_agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A backend, for this process's Prefect too, with the flows above, and an agent for each of two labels."""
    folder = tmp_path_factory.mktemp("shared")
    file = folder / "on_agents.py"
    file.write_text(FLOWS.format(folder=str(folder)))
    addresses = {label: _free_address() for label in ("office", "gpu")}
    told = [option for address in addresses.values() for option in ("--agent-address", address)]
    database_url = f"sqlite:///{folder / 'prefect.db'}"
    with ExitStack() as stack:
        serve = ("prefect-taskrun", "server", "start", "--port", 0, "--database-url", database_url, *told)
        backend = stack.enter_context(started(*serve))
        environment = eventually(lambda: _exported(backend))
        agents = []
        for label, address in addresses.items():
            agent = ("prefect", "agent", "local", "start", "--label", label, "--agent-address", address)
            machine = {**environment, "MACHINE": f"the {label} machine"}
            agents.append(stack.enter_context(started(*agent, env=machine)))
        for command in (("create", "project", "p"), ("register", "-p", file, "--project", "p")):
            done = ended("prefect", *command, env=environment)
            assert done.returncode == 0, done.stdout + done.stderr
        stack.enter_context(set_temporary_config(settings(environment["PREFECT__SERVER__ENDPOINT"])))
        yield


def _finished(flow_name: str) -> FlowRunView:
    flow_id = FlowView.from_flow_name(flow_name).flow_id
    flow_run_id = prefect.Client().create_flow_run(flow_id=flow_id)
    eventually(lambda: FlowRunView.from_flow_run_id(flow_run_id).state.is_finished())
    return FlowRunView.from_flow_run_id(flow_run_id)


def _agent_labels(flow_run: FlowRunView) -> Any:
    """Those of the agent that has run it, without the machine's name, which an agent adds."""
    [row] = api.find("flow_run", {"id": {"_eq": flow_run.flow_run_id}}, fields="agent { labels }")
    return [label for label in row["agent"]["labels"] if label != socket.gethostname()]


def test_flow_runs_are_run_by_the_agents_that_have_their_labels_and_results_go_through_a_shared_folder() -> None:
    parent_run = _finished("agents-parent")
    assert parent_run.state.is_successful(), parent_run.explain_failure()
    assert parent_run.get_task_run("machine-1").get_result() == "the office machine"
    assert parent_run.get_task_run("get_task_run_result-1").get_result() == "the gpu machine"
    assert parent_run.get_task_run("get_task_run_result-2").get_result() == "the office machine"
    children = parent_run.get_children()
    assert sorted(child.labels for child in children) == [["gpu"], ["office"]]
    for flow_run in [parent_run, *children]:
        assert _agent_labels(flow_run) == flow_run.labels


def test_a_parent_says_that_no_agent_has_the_labels_of_its_child_and_waits_until_its_timeout() -> None:
    parent_run = _finished("agents-parent-of-a-child-that-nobody-runs")
    assert parent_run.state.is_failed()
    assert "has not finished within 0:00:02" in str(parent_run.get_task_run("wait_for_flow_run-1").state.message)
    log = "\n".join(log.message for log in parent_run.iter_logs())
    assert "your flow run has not been submitted by an agent" in log
    assert "You have 2 healthy agents in your tenant but do not have an agent with labels ['tape']" in log
    [child] = parent_run.get_children()
    assert child.state.is_scheduled()
