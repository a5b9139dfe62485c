"""``prefect-taskrun triggerer``, as a process: it is killed, started again, and an agent goes on where it has woken."""

import signal
from pathlib import Path
from time import monotonic, sleep
from typing import Dict, List, Set

import pendulum
import prefect
import pytest
from conftest import eventually
from processes import Command, started

from benchmarks import silent
from prefect_taskrun_tasks import FlowRunView, api
from prefect_taskrun_tasks.runner import LocalRunner, settings

FLOWS = """
from prefect import Flow, task

@task
def waits():
    return "was woken"

with Flow("triggerer-parent") as parent:
    waits()

with Flow("triggerer-child") as child:
    waits()
"""


@pytest.fixture(scope="module", autouse=True)
def flows(local_runner: LocalRunner, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The flows above are registered, and this process's Prefect talks to their backend."""
    file = tmp_path_factory.mktemp("flows") / "triggered.py"
    file.write_text(FLOWS)
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
        eventually_says(command, "Watching. There are 2 deferred waits.")
        command.process.send_signal(signal.SIGKILL)
        assert command.exit_code() == -signal.SIGKILL
    silent.enter(local_runner.backend, [child], "Success")
    with started("prefect-taskrun", "triggerer", env=local_runner.environment) as command:
        eventually(lambda: FlowRunView.from_flow_run_id(parent).state.is_successful())
        # the agent that has run it was told by
        [woken] = [line for line in command.stdout.splitlines() if "is woken" in line]
        assert f"({parent}) is woken. Flow run" in woken
        assert woken.endswith(f"({child}) has ended in state Success.")
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
def nowhere() -> Dict[str, str]:
    """The environment of a process whose backend is away."""
    variables = settings("http://127.0.0.1:9")
    return {f"PREFECT__{name.upper().replace('.', '__')}": value for name, value in variables.items()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
    # of running flow runs that no agent takes: it has other labels
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
