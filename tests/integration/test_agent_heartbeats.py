"""The heartbeats that the agent of a `LocalRunner` sends for its flow runs."""

import os
import signal
import subprocess
from typing import Iterator, Optional

import pytest
from driven import DrivenRun, NewUrl, shared_backend
from prefect import Flow, task
from prefect.engine.state import Cancelled, Running, Scheduled

from prefect_taskrun_tasks import api
from prefect_taskrun_tasks.agent import warm_agent
from prefect_taskrun_tasks.agent.warm_agent import WarmAgent
from prefect_taskrun_tasks.server import Backend


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        yield backend


def _heartbeat(flow_run_id: str) -> Optional[str]:
    [row] = api.find("flow_run", {"id": {"_eq": flow_run_id}}, fields="heartbeat")
    heartbeat: Optional[str] = row["heartbeat"]
    return heartbeat


def test_a_flow_run_has_heartbeats_for_as_long_as_its_process_lives() -> None:
    with Flow("heartbeats") as flow:
        task(lambda: None, name="nothing")()
    run = DrivenRun(flow).enter(Scheduled())
    agent = WarmAgent()
    process = subprocess.Popen(["sleep", "600"])
    try:
        agent._flow_runs[process] = run.id
        assert _heartbeat(run.id) is None
        agent.heartbeat()
        first = _heartbeat(run.id)
        assert first is not None
        agent.heartbeat()
        last = _heartbeat(run.id)
        assert last is not None
        assert last > first
    finally:
        process.kill()
        process.wait()
    agent.heartbeat()
    assert _heartbeat(run.id) == last


def test_processes_that_go_on_after_their_flow_run_was_cancelled_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_agent, "LONGEST_CANCEL", 0.0)
    with Flow("heartbeats-cancelled") as flow:
        task(lambda: None, name="nothing")()
    run = DrivenRun(flow).enter(Running())
    agent = WarmAgent()
    environment = {**os.environ, "PREFECT__CONTEXT__FLOW_RUN_ID": run.id}
    with subprocess.Popen(["sleep", "600"], env=environment) as process:
        try:
            agent._flow_runs[process] = run.id
            agent.heartbeat()
            assert process.poll() is None
            run.enter(Cancelled())
            agent.heartbeat()
            assert process.wait(60) == -signal.SIGKILL
        finally:
            process.kill()
