"""Prefect's own commands, and its agent with a scheduled flow, against the embedded backend."""

from pathlib import Path
from typing import Any

import pendulum
import prefect
from click.testing import CliRunner, Result
from conftest import eventually
from prefect.cli import cli

from prefect_taskrun_tasks import FlowRunView
from prefect_taskrun_tasks.runner import LocalRunner
from prefect_taskrun_tasks.server import Backend

FLOW = """
import pendulum
from datetime import timedelta
from prefect import Flow, task
from prefect.engine.results import LocalResult
from prefect.schedules import Schedule
from prefect.schedules.clocks import CronClock, IntervalClock
from prefect.storage import Local

@task
def say():
    return "hello"

start = pendulum.parse({start!r}).in_timezone("Europe/Berlin")
clocks = [
    IntervalClock(timedelta(minutes=1), start_date=start, end_date=start.add(minutes=2)),
    CronClock("0 6 * * *", start_date=start.add(years=1)),
]
# pickled into its storage: not a script
with Flow({name!r}, schedule=Schedule(clocks), result=LocalResult(dir={folder!r}), storage=Local({folder!r})) as flow:
    say()
"""


def write_flow(folder: Path, name: str, start: Any) -> Path:
    file = folder / "flow.py"
    file.write_text(FLOW.format(name=name, start=start.isoformat(), folder=str(folder)))
    return file


def prefect_command(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    return result


def test_the_commands_work(backend: Backend, tmp_path: Path) -> None:
    file = write_flow(tmp_path, "by-command", pendulum.now("utc").add(years=1))
    prefect_command("create", "project", "p")
    assert "1 registered" in prefect_command("register", "-p", str(file), "--project", "p").output
    assert "by-command" in prefect_command("get", "flows").output
    prefect_command("run", "--project", "p", "--name", "by-command")
    assert "by-command" in prefect_command("get", "flow-runs").output
    assert "p" in prefect_command("get", "projects").output
    assert "say" in prefect_command("get", "tasks", "--flow-name", "by-command").output
    assert "hello" not in prefect_command("diagnostics").output
    assert "Flow run succeeded" in prefect_command("run", "-p", str(file), "--execute").output


def test_an_agent_runs_a_scheduled_flow(local_runner: LocalRunner, tmp_path: Path) -> None:
    prefect_command("create", "project", "scheduled")
    file = write_flow(tmp_path, "by-schedule", pendulum.now("utc").add(seconds=5))
    # this makes its schedule active, unlike `local_runner.register`
    prefect_command("register", "-p", str(file), "--project", "scheduled")
    client = prefect.Client()

    def succeeded() -> Any:
        query = {"query": {'flow_run(where: {flow: {name: {_eq: "by-schedule"}}, state: {_eq: "Success"}})': {"id"}}}
        return client.graphql(query).data.flow_run

    # a minute later again, if the machine was too busy for the first time
    (found, *_) = eventually(succeeded, seconds=150)
    assert FlowRunView.from_flow_run_id(found.id).get_task_run("say-1").get_result() == "hello"
