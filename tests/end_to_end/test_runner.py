"""`LocalRunner`, in this process."""

import logging
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Dict, List

import pendulum
import prefect
import psutil
import pytest
import requests
from conftest import eventually
from prefect.utilities.configuration import set_temporary_config
from processes import assert_gone, started

from prefect_taskrun_tasks import FlowRunView
from prefect_taskrun_tasks.agent.process import AgentProcess
from prefect_taskrun_tasks.runner import AgentFailed, LocalRunner, RegistrationFailed, settings, variables
from prefect_taskrun_tasks.server import Backend

FLOWS = """
import os
import time
from prefect import Flow, Parameter, task

@task
def double(x):
    return 2 * x

@task
def where():
    return os.environ["PREFECT__CLOUD__API"]

@task
def sleep():
    time.sleep(600)

with Flow("double") as doubles:
    double(Parameter("x"))

with Flow("where") as wheres:
    where()

with Flow("sleep") as sleeps:
    sleep()
"""


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of flows."""
    file = tmp_path_factory.mktemp("flows") / "runner_flows.py"
    file.write_text(FLOWS)
    return str(file)


def _configured() -> Dict[str, Any]:
    config = prefect.config
    return {"backend": config.backend, "server": config.server.to_dict(), "cloud": config.cloud.to_dict()}


def _agents() -> "List[psutil.Process]":
    """Agents that this process has started."""
    children = psutil.Process().children()
    return [child for child in children if "prefect_taskrun_tasks.agent" in child.cmdline()]


def test_prefects_configuration_is_that_of_the_backend_within_the_block_and_the_old_one_after_it() -> None:
    before = _configured()
    with LocalRunner() as local:
        assert _configured() != before
        assert prefect.Client().api_server == local.backend.url
    assert _configured() == before


def test_an_error_in_the_block_stops_backend_and_agent(flows: str) -> None:
    before = _configured()
    others = _agents()
    local = LocalRunner()

    def fail() -> None:
        with local:
            local.register(flows)
            started.extend(agent for agent in _agents() if agent not in others)
            raise ZeroDivisionError

    started: List[psutil.Process] = []
    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(started) == 1
    assert_gone(started)
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{local.backend.url}/health", timeout=10)
    assert _configured() == before


def test_flow_runs_that_wait_when_the_agent_dies_end_in_an_error_and_leave_no_process(flows: str) -> None:
    others = _agents()
    with LocalRunner() as local:
        local.register(flows)
        (agent,) = [agent for agent in _agents() if agent not in others]
        found: List[psutil.Process] = []

        def kill_agent_when_asleep(log: Any) -> None:
            if not found and "Beginning Flow run" in log.message:
                found.extend(agent.children(recursive=True))
                agent.send_signal(signal.SIGKILL)

        with pytest.raises(AgentFailed, match="exit code -9"):
            local.run("sleep", on_log=kill_agent_when_asleep)
    assert found
    assert_gone(found)


def test_an_agent_ends_with_the_process_that_started_it_while_it_waits_for_an_answer(backend: Backend) -> None:
    polls, is_silent, is_over = threading.Event(), threading.Event(), threading.Event()

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if is_silent.is_set():
                polls.set()
                is_over.wait()
                return
            answer = requests.post(backend.url, body, headers={"Content-Type": "application/json"}).content
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            if b"get_runs_in_queue" in body:
                is_silent.set()

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy, AgentProcess() as agent:
        threading.Thread(target=proxy.serve_forever).start()
        with ExitStack() as stack:
            stack.callback(proxy.shutdown)
            stack.callback(is_over.set)
            agent.configure("", variables(f"http://127.0.0.1:{proxy.server_port}"))
            [process] = [child for child in _agents() if child.pid == agent.pid]
            assert polls.wait(60)
            agent.close_input()
            # Prefect's client waits 15 s for an answer, and asks 6 times more
            assert_gone([process])


def test_an_agent_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, flows: str) -> None:
    monkeypatch.setenv("PREFECT__CLOUD__AGENT__LEVEL", "NONSENSE")
    with LocalRunner() as local:
        local.register(flows)
        with pytest.raises(AgentFailed, match="NONSENSE"):
            local.run("where")


def test_runners_within_each_other_run_their_own_flow_runs(flows: str) -> None:
    with LocalRunner() as outer:
        outer.register(flows)
        with LocalRunner() as inner:
            inner.register(flows)
            assert inner.run("where").get_task_run("where-1").get_result() == inner.backend.url
            outer_run = outer.run("where")
            # this process's Prefect talks to the innermost one
            with pytest.raises(ValueError, match=outer_run.flow_run_id):
                FlowRunView.from_flow_run_id(outer_run.flow_run_id)
        assert prefect.Client().api_server == outer.backend.url
        assert outer_run.get_task_run("where-1").get_result() == outer.backend.url


def test_a_file_that_is_registered_again_makes_new_versions(local_runner: LocalRunner, flows: str) -> None:
    assert local_runner.register(flows) == local_runner.register(flows) == ["double", "where", "sleep"]
    flow_run = local_runner.run("double", {"x": 2})
    assert flow_run.get_task_run("double-1").get_result() == 4
    assert not flow_run.get_flow_metadata().archived


def test_threads_can_run_flows_at_once(local_runner: LocalRunner, flows: str) -> None:
    local_runner.register(flows)
    with ThreadPoolExecutor() as threads:
        flow_runs = list(threads.map(lambda x: local_runner.run("double", {"x": x}), range(3)))
    assert [flow_run.get_task_run("double-1").get_result() for flow_run in flow_runs] == [0, 2, 4]


def test_a_flow_with_two_names_in_the_file_is_registered_once(local_runner: LocalRunner, tmp_path: Path) -> None:
    file = tmp_path / "alias.py"
    file.write_text("from prefect import Flow\nfirst = second = Flow('one of two')\n")
    assert local_runner.register(str(file)) == ["one of two"]


def test_a_flow_that_was_not_registered_cannot_be_run(local_runner: LocalRunner) -> None:
    with pytest.raises(ValueError, match="no flow named 'nowhere'"):
        local_runner.run("nowhere")


def test_a_file_that_cannot_be_loaded_leaves_the_import_path_as_it_was(
    local_runner: LocalRunner, tmp_path: Path
) -> None:
    file = tmp_path / "broken.py"
    file.write_text("1 / 0")
    import_path = list(sys.path)
    with pytest.raises(RegistrationFailed, match="ZeroDivisionError"):
        local_runner.register(str(file))
    assert list(sys.path) == import_path


def test_logs_and_states_are_given_as_they_come(local_runner: LocalRunner, flows: str) -> None:
    local_runner.register(flows)
    logs: List[Any] = []
    local_runner.run("double", {"x": 1}, on_log=logs.append)
    messages = [log.message for log in logs]
    assert "Entered state <Running>: Running flow." in messages
    assert "Beginning Flow run for 'double'" in messages
    assert messages[-1].endswith("has ended with exit code 0.")
    assert [log.level for log in logs] == [logging.INFO] * (len(logs) - 1) + [logging.DEBUG]


SCHEDULED = """
from datetime import timedelta
from prefect import Flow
from prefect.schedules import IntervalSchedule

hourly = Flow("hourly", schedule=IntervalSchedule(interval=timedelta(hours=1)))
"""


def test_a_database_that_is_kept_keeps_its_schedules(tmp_path: Path, database_url: str) -> None:
    file = tmp_path / "scheduled.py"
    file.write_text(SCHEDULED)
    namespace: Dict[str, Any] = {}
    exec(SCHEDULED, namespace)
    runs = "{ flow_run { state auto_scheduled } flow(where: {archived: {_eq: false}}) { version is_schedule_active } }"

    with Backend(database_url, port=0) as backend, set_temporary_config(settings(backend.url)):
        prefect.Client().create_project("default")
        namespace["hourly"].register("default", no_url=True)
    with LocalRunner(database_url):
        # neither run from here, nor cancelled
        pass
    with LocalRunner(database_url) as local:
        local.register(str(file))
        found = prefect.Client().graphql(runs).data
    assert {run.state for run in found.flow_run} == {"Scheduled"}
    assert [(flow.version, flow.is_schedule_active) for flow in found.flow] == [(2, True)]


def test_a_runner_cancels_only_what_was_created_in_its_block(tmp_path: Path, flows: str) -> None:
    url = f"sqlite:///{tmp_path / 'prefect.db'}"
    later = pendulum.now("utc").add(days=1)

    def create(local: LocalRunner) -> str:
        local.register(flows)
        query = '{ flow(where: {name: {_eq: "where"}, archived: {_eq: false}}) { id } }'
        [flow] = prefect.Client().graphql(query).data.flow
        flow_run_id: str = prefect.Client().create_flow_run(flow_id=flow.id, scheduled_start_time=later)
        return flow_run_id

    with Backend(url, port=0) as backend, set_temporary_config(settings(backend.url)):
        prefect.Client().create_project("default")
        flow_id = prefect.Flow("before").register("default", no_url=True)
        before = prefect.Client().create_flow_run(flow_id=flow_id, scheduled_start_time=later)
    with LocalRunner(url) as local:
        within = create(local)
    with Backend(url, port=0) as backend, set_temporary_config(settings(backend.url)):
        states = [type(FlowRunView.from_flow_run_id(id).state).__name__ for id in (before, within)]
    assert states == ["Scheduled", "Cancelled"]


FORKING = """
import os
import sys
import time
from prefect_taskrun_tasks.runner import LocalRunner

def doubled(local, x):
    return local.run("double", {"x": x}).get_task_run("double-1").get_result()

with LocalRunner(sys.argv[1]) as local:
    local.register(sys.argv[2])
    child = os.fork()
    if not child:
        assert doubled(local, 1) == 2
        # out of the block
        sys.exit(7)
    assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 7
    assert doubled(local, 2) == 4
    if not os.fork():
        os.setsid()
        time.sleep(600)
    print("forked", local.backend.url, flush=True)
    time.sleep(600)
"""


def test_a_forked_child_neither_ends_its_parents_runner_nor_keeps_agent_and_backend(flows: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'prefect.db'}"
    with started("python", "-c", FORKING, url, flows, env={"TMPDIR": str(tmp_path)}) as parent:
        eventually(lambda: "forked" in parent.stdout or not parent.process.is_running())
        assert "forked" in parent.stdout, parent.stderr
        address = parent.stdout.split()[1]
        children = parent.process.children()
        [agent] = [child for child in children if "prefect_taskrun_tasks.agent" in child.cmdline()]
        [child] = [child for child in children if child != agent]
        try:
            parent.process.kill()
            assert parent.exit_code() == -signal.SIGKILL
            assert_gone([agent])
            assert child.is_running()
            with pytest.raises(requests.ConnectionError):
                requests.get(f"{address}/health", timeout=10)
            with Backend(url, port=0):
                # the file is free
                pass
        finally:
            child.kill()
