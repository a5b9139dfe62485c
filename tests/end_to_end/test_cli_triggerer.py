"""``prefect-taskrun triggerer``, as a process: it is killed, started again, and an agent goes on where it has woken."""

import signal
from pathlib import Path
from time import monotonic, sleep
from typing import Dict, List, Set

import pendulum
import prefect
import pytest
from conftest import eventually
from prefect.engine.state import Scheduled
from processes import Command, started

from benchmarks import silent
from prefect_taskrun_tasks import FlowRunView, api, cancel_flow_run
from prefect_taskrun_tasks.runner import LocalRunner, settings
from prefect_taskrun_tasks.server import tables
from prefect_taskrun_tasks.server.clock import ago
from prefect_taskrun_tasks.triggerer import questions

FLOWS = """
import os
from prefect import Flow, task
from prefect.engine.results import LocalResult
from prefect.run_configs import UniversalRun
from prefect_taskrun_tasks import create_flow_run, get_task_run_result

@task
def waits():
    return "was woken"

with Flow("triggerer-parent") as parent:
    waits()

with Flow("triggerer-child") as child:
    waits()

#: so late that it has to be woken
LATE = UniversalRun(env={"PREFECT__PREFECT_TASKRUN_TASKS__RECHECK": "3600"})

with Flow("triggerer-deferring", result=LocalResult(dir=RESULTS), run_config=LATE) as deferring:
    later = {"scheduled_start_time": LATER}
    child_run_id = create_flow_run(flow_name="triggerer-child", parent_close_policy="cancel", **later)
    get_task_run_result(child_run_id, "waits-1", deferrable=True, defer_after=0.2)
"""


@pytest.fixture(scope="module", autouse=True)
def flows(local_runner: LocalRunner, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The flows above are registered, and this process's Prefect talks to their backend."""
    folder = tmp_path_factory.mktemp("flows")
    file = folder / "triggered.py"
    given = f"import pendulum\nRESULTS = {str(folder / 'results')!r}\nLATER = pendulum.now('utc').add(hours=1)\n"
    file.write_text(given + FLOWS)
    local_runner.register(file)


def not_yet(local_runner: LocalRunner, flow_name: str) -> str:
    """A flow run that no agent takes by itself for a while."""
    flow_id = local_runner._flows[flow_name][0]
    later = pendulum.now("utc").add(hours=1)
    flow_run_id: str = prefect.Client().create_flow_run(flow_id=flow_id, scheduled_start_time=later)
    return flow_run_id


def eventually_says(command: Command, text: str) -> None:
    eventually(lambda: text in command.stdout)


def test_what_was_awaited_while_it_was_dead_is_woken_and_run_by_an_agent(local_runner: LocalRunner) -> None:
    parent, child = (not_yet(local_runner, f"triggerer-{each}") for each in ("parent", "child"))
    other, unfinished = (not_yet(local_runner, f"triggerer-{each}") for each in ("parent", "child"))
    [_, left] = silent.defer(local_runner.backend, [parent, other], [child, unfinished], seconds=3600)
    with started("prefect-taskrun", "triggerer", env=local_runner.environment) as command:
        eventually_says(command, "Watching. Deferred waits: 2")
        command.process.send_signal(signal.SIGKILL)
        assert command.exit_code() == -signal.SIGKILL
    silent.enter(local_runner.backend, [child], "Success")
    with started("prefect-taskrun", "triggerer", env=local_runner.environment) as command:
        eventually(lambda: FlowRunView.from_flow_run_id(parent).state.is_successful())
        # the agent that has run it was told by
        [woken] = [line for line in command.stdout.splitlines() if "is woken" in line]
        assert f"({parent}) is woken. Flow run" in woken
        assert woken.endswith(f"({child}) has ended as Success.")
        command.process.send_signal(signal.SIGTERM)
        assert (command.exit_code(), command.stderr) == (0, "")
    [task_run] = FlowRunView.from_flow_run_id(parent).get_all_task_runs()
    assert task_run.get_result() == "was woken"
    [waiting] = FlowRunView.from_flow_run_id(other).get_all_task_runs()
    assert (waiting.task_run_id, type(waiting.state).__name__) == (left, "Scheduled")
    silent.enter(local_runner.backend, [other, unfinished], "Success")


def test_a_flow_run_that_is_cancelled_without_a_process_is_ended(local_runner: LocalRunner) -> None:
    parent, child = (not_yet(local_runner, f"triggerer-{each}") for each in ("parent", "child"))
    silent.defer(local_runner.backend, [parent], [child], seconds=3600)
    silent.enter(local_runner.backend, [parent], "Cancelling")
    silent.beats(local_runner.backend, parent, seconds=70)
    with started("prefect-taskrun", "triggerer", env=local_runner.environment) as command:
        eventually_says(command, f"({parent}) had no process, and is Cancelled.")
    assert type(FlowRunView.from_flow_run_id(parent).state).__name__ == "Cancelled"


@pytest.fixture
def unhelpful(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend, in this process, wakes nobody and cancels nothing by itself, as Prefect Server."""
    rules = "prefect_taskrun_tasks.server.rules"
    monkeypatch.setattr(f"{rules}.states._wake", lambda tx, flow_run, state: None)
    monkeypatch.setattr(f"{rules}.states._cancel_children", lambda tx, parent: None)
    monkeypatch.setattr(f"{rules}.deferrals.awaited_by", lambda state: None)


def deferring(local_runner: LocalRunner) -> FlowRunView:
    """A flow run that has deferred its wait, and whose process has ended."""
    flow_run_id = prefect.Client().create_flow_run(flow_id=local_runner._flows["triggerer-deferring"][0])
    left = {"flow_run_id": {"_eq": flow_run_id}, "message": {"_eq": questions.LEFT}}
    eventually(lambda: api.find("log", left, fields="id"))
    flow_run = FlowRunView.from_flow_run_id(flow_run_id)
    states = {type(task_run.state).__name__ for task_run in flow_run.get_all_task_runs()}
    assert (states, flow_run.state.is_running()) == ({"Success", "Scheduled"}, True)
    return flow_run


@pytest.mark.usefixtures("unhelpful")
def test_a_parent_that_was_left_by_its_process_goes_on_when_its_child_has_ended(local_runner: LocalRunner) -> None:
    parent = deferring(local_runner)
    [child] = parent.get_children()
    with started("prefect-taskrun", "triggerer", env=local_runner.environment) as command:
        eventually_says(command, "Watching. Deferred waits: 1")
        prefect.Client().set_flow_run_state(child.flow_run_id, Scheduled())
        eventually(lambda: parent.get_latest().state.is_successful())
        assert f"({parent.flow_run_id}) is woken." in command.stdout
    assert parent.get_latest().get_task_run("get_task_run_result-1").get_result() == "was woken"


@pytest.mark.usefixtures("unhelpful")
def test_a_parent_that_was_left_by_its_process_is_cancelled_at_once(local_runner: LocalRunner) -> None:
    parent = deferring(local_runner)
    [child] = parent.get_children()
    with started("prefect-taskrun", "triggerer", env=local_runner.environment) as command:
        eventually_says(command, "Watching.")
        cancel_flow_run.run(flow_run_id=parent.flow_run_id)
        # long before its last heartbeat is old
        eventually(lambda: type(parent.get_latest().state).__name__ == "Cancelled", seconds=20)
        eventually_says(command, f"({parent.flow_run_id}) had no process, and is Cancelled. Cancelled with it: 1")
    assert type(child.get_latest().state).__name__ == "Cancelled"


@pytest.fixture
def nowhere() -> Dict[str, str]:
    """The environment of a process whose backend is away."""
    variables = settings("http://127.0.0.1:9")
    return {f"PREFECT__{name.upper().replace('.', '__')}": value for name, value in variables.items()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_at_once_when_it_is_told_to_also_while_the_backend_is_away(
    number: signal.Signals, nowhere: Dict[str, str], tmp_path: Path
) -> None:
    with started("prefect-taskrun", "triggerer", env=nowhere, cwd=tmp_path) as command:
        eventually(lambda: "does not answer" in command.stderr)
        begin = monotonic()
        command.process.send_signal(number)
        assert command.exit_code() == 0
        assert monotonic() - begin < 5
        assert len(command.stderr.splitlines()) == 1
        assert command.stdout == ""


def test_nothing_is_lost_or_woken_wrongly_when_it_is_killed_again_and_again(local_runner: LocalRunner) -> None:
    parents, children = (
        [not_yet(local_runner, f"triggerer-{each}") for _ in range(40)] for each in ("parent", "child")
    )
    # of running flow runs that no agent takes: the one that has their labels only seems to be at work
    other = prefect.Client().register_agent("LocalAgent", "elsewhere", ["elsewhere"])
    with local_runner.backend._database.write() as tx:
        tx.update(tables.agent, tables.agent.c.id == other, last_queried=ago(-3600))
    prefect.Client().graphql(
        "mutation { "
        + " ".join(
            f'l{i}: set_flow_run_labels(input: {{flow_run_id: "{each}", labels: ["elsewhere"]}}) {{ success }}'
            for i, each in enumerate(parents)
        )
        + " }"
    )
    task_run_ids = silent.defer(local_runner.backend, parents, children, seconds=3600)
    for kill in range(5):
        with started("prefect-taskrun", "triggerer", "--interval", "0.01", env=local_runner.environment) as command:
            eventually_says(command, "Watching.")
            # in the midst of it
            silent.enter(local_runner.backend, children[5 * kill : 5 * kill + 5], "Success")
            sleep(0.02 * kill)
            command.process.kill()
            command.exit_code()
    with started("prefect-taskrun", "triggerer", env=local_runner.environment):
        eventually(lambda: due(task_run_ids[:25]) == set(task_run_ids[:25]))
    assert due(task_run_ids[25:]) == set()
    rows = api.find("task_run", {"id": {"_in": task_run_ids}}, fields="state version")
    # the first two states, and at most one more
    assert sorted((row["state"], row["version"]) for row in rows) == [("Scheduled", 2)] * 15 + [("Scheduled", 3)] * 25
    silent.enter(local_runner.backend, parents + children, "Success")


def due(task_run_ids: List[str]) -> Set[str]:
    """Those of some task runs that are due."""
    where = {"id": {"_in": task_run_ids}, "state_start_time": {"_lte": str(pendulum.now("utc"))}}
    return {row["id"] for row in api.find("task_run", where, fields="id")}
