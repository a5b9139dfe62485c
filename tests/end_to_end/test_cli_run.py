"""``prefect-taskrun run``, in a process of its own."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
from pathlib import Path
from typing import Any, Callable, Iterator, List

import psutil
import pytest
from conftest import eventually
from processes import SCRIPTS, Command, assert_gone, ended, started
from terminal import on_terminal

from prefect_taskrun_tasks.runner import LocalRunner

Run = Callable[..., "subprocess.CompletedProcess[str]"]

#: The flows of Prefect's documentation of task runs, with this package's import
DOCUMENTATION = """
from prefect import Flow, task


@task
def create_some_data():
    return list(range(5))


with Flow("child") as child_flow:
    data = create_some_data()

from prefect import Flow
from prefect_taskrun_tasks import create_flow_run, get_task_run_result

with Flow("parent") as parent_flow:
    child_run_id = create_flow_run(flow_name="child")

    child_data = get_task_run_result(child_run_id, "create_some_data-1")
    # At runtime, `child_data` will be `[0, 1, 2, 3, 4]`

from prefect import task, Flow

@task
def inc(x):
  return x + 1

with Flow("example-mapped") as flow:
  inc.map([0, 1, 2, 3, 4, 5])
"""

#: A flow that uses a module beside it, and talks
NOISY = """
import neighbour
from prefect import Flow, Parameter, task

print("while loading")

@task(log_stdout=True)
def measured(size, name):
    print("while running")
    return {"sizes": neighbour.sizes(size), "name": name}

with Flow("noisy") as noisy:
    measured(Parameter("size"), Parameter("name", default="nobody"))
"""

#: A child whose process is killed, as the system does it when there is no memory left
KILLED = """
import os
import signal
from prefect import Flow, task
from prefect_taskrun_tasks import create_flow_run, get_task_run_result

@task
def dies():
    os.kill(os.getpid(), signal.SIGKILL)

with Flow("killed") as killed:
    dies()

with Flow("parent") as parent:
    get_task_run_result(create_flow_run(flow_name="killed"), "dies-1")
"""

#: A parent whose child waits for approval
MANUAL = """
from prefect import Flow, task
from prefect.triggers import manual_only
from prefect_taskrun_tasks import create_flow_run, get_task_run_result

@task(trigger=manual_only)
def deploy():
    return "deployed"

with Flow("child") as child:
    deploy()

with Flow("parent") as parent:
    get_task_run_result(create_flow_run(flow_name="child"), "deploy-1")
"""

#: One flow in which all goes wrong that can
MISTAKES = """
import prefect
from prefect import Flow, task
from twice import twice
from prefect_taskrun_tasks import create_flow_run, get_task_run_result

@task
def divide():
    return 1 / 0

with Flow("broken") as broken:
    divide()

@task
def own_id():
    return prefect.context.flow_run_id

def named(name):
    return {"name": name}

class Unreadable:
    def __reduce__(self):
        return int, ("no number",)

@task
def unreadable():
    return Unreadable()

with Flow("mistakes") as mistakes:
    unreadable()
    child_id = create_flow_run(flow_name="broken")
    get_task_run_result(child_id, "divide-1", task_args=named("of_failed_task"))
    get_task_run_result(child_id, "multiply-1", task_args=named("of_unknown_task"))
    get_task_run_result(own_id(), "own_id-1", task_args=named("of_own_flow_run"))
    create_flow_run(flow_name="nowhere", task_args=named("of_unknown_flow"))
    create_flow_run(flow_name="twice", task_args=named("of_ambiguous_flow"))
"""

#: A flow of the same name as another one
TWICE = """
from prefect import Flow, Parameter

with Flow("twice", tasks=[Parameter("x", default=1)]) as twice:
    pass
"""

#: Flows that do not end by themselves
SLEEPERS = """
import time
from prefect import Flow, task
from prefect_taskrun_tasks import (
    FlowRunView,
    cancel_flow_run,
    create_flow_run,
    get_task_run_result,
    wait_for_flow_run,
)

@task(log_stdout=True)
def sleep():
    time.sleep(600)

with Flow("sleeper") as sleeper:
    sleep()

with Flow("waits") as waits:
    get_task_run_result(create_flow_run(flow_name="sleeper"), "sleep-1")

with Flow("leaves") as leaves:
    create_flow_run(flow_name="sleeper", run_name="left-behind")

@task
def cancelled(flow_run_id):
    while not FlowRunView.from_flow_run_id(flow_run_id).state.is_running():
        time.sleep(0.1)
    cancel_flow_run.run(flow_run_id)
    return type(wait_for_flow_run.run(flow_run_id).state).__name__

with Flow("cancels") as cancels:
    cancelled(create_flow_run(flow_name="sleeper"))
"""

EXPLAINED = """
from prefect import Flow, task
from prefect_taskrun_tasks import create_flow_run, wait_for_flow_run

@task
def load():
    raise ValueError("no such table")

@task
def after(loaded):
    return loaded

with Flow("child") as child:
    after(load())

with Flow("parent") as parent:
    wait_for_flow_run(create_flow_run(flow_name="child"), raise_final_state=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the flow files above, which is not the current one."""
    folder = tmp_path_factory.mktemp("flows")
    files = {
        "documentation.py": DOCUMENTATION,
        "noisy.py": NOISY,
        "neighbour.py": "def sizes(size):\n    return set(range(size))\n",
        "mistakes.py": MISTAKES,
        "twice.py": TWICE,
        "sleepers.py": SLEEPERS,
        "explained.py": EXPLAINED,
        "raises.py": "raise RuntimeError('no flows today')\n",
        "exits.py": "import sys\nsys.exit('no flows today')\n",
        "empty.py": "from prefect import Flow\n",
    }
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs the command with a file of `folder`, from elsewhere."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def run(file: str, *options: Any) -> "subprocess.CompletedProcess[str]":
        return ended("prefect-taskrun", "run", folder / file, *options, cwd=elsewhere)

    return run


def _no_traceback(stderr: str) -> bool:
    return "Traceback" not in stderr


@pytest.mark.parametrize(
    ("flow", "slug", "result"),
    [
        ("parent", "get_task_run_result-1", [0, 1, 2, 3, 4]),
        ("example-mapped", "inc-1", [1, 2, 3, 4, 5, 6]),
    ],
)
def test_the_flows_of_the_documentation_give_the_documented_results(
    run: Run, flow: str, slug: str, result: List[int]
) -> None:
    process = run("documentation.py", "--flow", flow, "--result", slug)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == result


def test_stdout_holds_the_result_alone_and_stderr_all_that_happened(run: Run) -> None:
    options = ["--param", "size=2", "--param", "name=some one", "--result", "measured-1"]
    process = run("noisy.py", "--flow", "noisy", *options)
    assert process.returncode == 0, process.stderr
    assert process.stdout == '{"sizes": "{0, 1}", "name": "some one"}\n'
    for expected in ("while loading", "while running", "Entered state <Running>", "Entered state <Success>"):
        assert expected in process.stderr


def test_a_flow_run_that_fails_is_shown_even_if_a_result_was_wanted_that_is_not_there(run: Run, tmp_path: Path) -> None:
    process = run("mistakes.py", "--flow", "broken", "--result", "divide-1", "--timeline", str(tmp_path / "page.html"))
    assert process.returncode == 1
    assert process.stdout == ""
    assert "There is no result of task run 'divide-1'" in process.stderr
    assert "divide-1" in (tmp_path / "page.html").read_text()


def test_a_required_parameter_that_is_missing_is_named(run: Run) -> None:
    process = run("noisy.py", "--flow", "noisy")
    assert process.returncode == 2
    assert process.stdout == ""
    assert "size" in process.stderr.splitlines()[-1]
    assert _no_traceback(process.stderr)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["missing.py", "--flow", "noisy"], "missing.py"),
        ([".", "--flow", "noisy"], "is a directory"),
        (["noisy.py"], "--flow"),
        (["noisy.py", "--flow", "noisy", "--param", "size"], "'size'"),
        (["noisy.py", "--flow", "noisy", "--param", 'size={"a": '], "size"),
        (["noisy.py", "--flow", "quiet"], "It has: noisy"),
        (["noisy.py", "--flow", "noisy", "--param", "size=2", "--result", "nosy-1"], "has no task 'nosy-1'. It has: "),
        (["noisy.py", "--flow", "noisy", "--param", "sise=2"], "has no parameter 'sise'. It has: name, size"),
    ],
    ids=[
        "missing file",
        "folder",
        "no flow",
        "no value",
        "half of an object",
        "unknown flow",
        "unknown task",
        "unknown parameter",
    ],
)
def test_a_wrong_call_is_explained_and_exits_with_2(run: Run, arguments: List[str], named: str) -> None:
    process = run(*arguments)
    assert process.returncode == 2
    assert process.stdout == ""
    assert named in process.stderr
    assert _no_traceback(process.stderr)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("raises.py", "RuntimeError: no flows today"),
        ("exits.py", "SystemExit: no flows today"),
        ("empty.py", "There is no flow in"),
    ],
)
def test_a_file_without_flows_to_register_is_named_together_with_the_reason(run: Run, file: str, said: str) -> None:
    process = run(file, "--flow", "any")
    assert process.returncode == 1
    assert process.stdout == ""
    assert file in process.stderr
    assert said in process.stderr


@pytest.mark.parametrize("url", ["postgresql://localhost/prefect", "sqlite:////nowhere/at/all.db"])
def test_a_database_that_cannot_be_used_is_named_in_one_line(run: Run, url: str) -> None:
    process = run("noisy.py", "--flow", "noisy", "--database-url", url)
    assert process.returncode == 1
    assert url.rsplit("/", 1)[-1] in process.stderr
    assert len(process.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def mistakes(folder: Path, run: Run) -> "subprocess.CompletedProcess[str]":
    """What is left of a run of the flow `mistakes`, with two flows named `twice`."""
    url = f"sqlite:///{folder / 'mistakes.db'}"
    with LocalRunner(url) as other_project:
        other_project.register(str(folder / "twice.py"), "other")
    return run("mistakes.py", "--flow", "mistakes", "--database-url", url, "--result", "unreadable-1")


@pytest.mark.parametrize(
    ("task", "looked_for"),
    [
        ("of_failed_task", ["divide-1", "ZeroDivisionError"]),
        ("of_unknown_task", ["'multiply-1'"]),
        ("of_own_flow_run", ["same as the currently running flow"]),
        ("of_unknown_flow", ["'nowhere'"]),
        ("of_ambiguous_flow", ["'twice'", "default", "other"]),
    ],
)
def test_a_failed_task_is_named_together_with_what_it_looked_for(
    mistakes: "subprocess.CompletedProcess[str]", task: str, looked_for: List[str]
) -> None:
    assert mistakes.returncode == 1
    assert mistakes.stdout == ""
    line = next(line for line in mistakes.stderr.splitlines() if line.startswith(f"  {task}-1 ended in state "))
    for each in looked_for:
        assert each in line


def test_a_result_that_cannot_be_read_is_named_together_with_the_reason(
    mistakes: "subprocess.CompletedProcess[str]",
) -> None:
    line = mistakes.stderr.splitlines()[-1]
    assert line.startswith("Error: The result of task run 'unreadable-1' of flow run ")
    assert "ValueError(" in line


def test_a_parent_goes_on_at_once_when_the_process_of_its_child_is_killed_and_says_why(folder: Path, run: Run) -> None:
    (folder / "killed.py").write_text(KILLED)
    process = run("killed.py", "--flow", "parent")
    assert process.returncode == 1
    ended = next(line for line in process.stderr.splitlines() if "get_task_run_result-1 ended in state Failed" in line)
    assert "was killed by SIGKILL" in ended
    assert "out of memory" in ended


def test_a_parent_says_that_its_child_waits_for_approval_and_the_command_gives_it(folder: Path) -> None:
    (folder / "manual.py").write_text(MANUAL)
    command = ("prefect-taskrun", "run", folder / "manual.py", "--flow", "parent", "--result", "get_task_run_result-1")
    with started(*command) as run:
        [line] = eventually(lambda: [line for line in run.stderr.splitlines() if "prefect-taskrun approve" in line])
        *variables, program, approve, flow_run_id, option, slug = line.split()
        environment = dict(variable.split("=", 1) for variable in variables)
        approved = ended(program, approve, flow_run_id, option, slug, env=environment)
        assert approved.returncode == 0, approved.stderr
        assert "Approved deploy-1" in approved.stdout
        assert run.exit_code() == 0
        assert run.stdout == '"deployed"\n'
        # nothing waits any more
        again = ended(program, approve, flow_run_id, env=environment)
        assert again.returncode != 0


@pytest.mark.parametrize(("options", "is_shown"), [([], False), (["--log-level", "debug"], True)])
def test_lines_below_info_are_shown_if_they_are_asked_for(run: Run, options: List[str], is_shown: bool) -> None:
    process = run("documentation.py", "--flow", "child", *options)
    assert process.returncode == 0
    assert ("has ended with exit code 0" in process.stderr) == is_shown


@pytest.fixture
def sleeping(folder: Path, tmp_path: Path) -> Iterator[Command]:
    """A run of the flow `waits`, whose child is asleep."""
    url = f"sqlite:///{tmp_path / 'prefect.db'}"
    command = ("prefect-taskrun", "run", folder / "sleepers.py", "--flow", "waits", "--database-url", url)
    with started(*command, env={"TMPDIR": str(tmp_path)}) as run:
        eventually(lambda: "Running" in _states(tmp_path / "prefect.db", "task_run", "sleep-1"))
        yield run


def _states(database: Path, table: str, slug: str = "") -> List[str]:
    """The states of flow runs or task runs in a database file."""
    if not database.exists():
        return []
    joined = f"join task on task.id = task_run.task_id and task.slug = '{slug}'" if slug else ""
    connection = sqlite3.connect(str(database))
    try:
        # names of tables cannot be parameters, and these are the tests' own
        rows: List[Any] = connection.execute(f"select {table}.state from {table} {joined}").fetchall()  # noqa: S608
    except sqlite3.OperationalError:
        # the tables are not there yet
        return []
    finally:
        connection.close()
    return [row[0] for row in rows]


def _ports(run: Command) -> List[int]:
    processes = [run.process, *run.descendants()]
    connections = [each for process in processes for each in process.net_connections()]
    return [each.laddr.port for each in connections if each.status == "LISTEN"]


def _is_closed(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)],
    ids=["interrupted", "terminated", "hung up"],
)
def test_a_stopped_run_takes_everything_with_it_and_is_marked_as_cancelled(
    sleeping: Command, tmp_path: Path, number: int, exit_code: int
) -> None:
    descendants, ports = sleeping.descendants(), _ports(sleeping)
    sleeping.process.send_signal(number)
    assert sleeping.exit_code() == exit_code
    assert_gone(descendants)
    assert all(map(_is_closed, ports))
    assert _states(tmp_path / "prefect.db", "flow_run") == ["Cancelled", "Cancelled"]
    assert not {"Running", "Pending"} & set(_states(tmp_path / "prefect.db", "task_run"))
    assert list(tmp_path.glob("prefect-taskrun-*")) == []
    assert _no_traceback(sleeping.stderr)


def test_a_run_whose_terminal_is_closed_takes_everything_with_it(folder: Path, tmp_path: Path) -> None:
    database = tmp_path / "prefect.db"
    command = ("prefect-taskrun", "run", folder / "sleepers.py", "--flow", "waits")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with on_terminal(*command, "--database-url", f"sqlite:///{database}", env=environment) as terminal:
        eventually(lambda: "Running" in _states(database, "task_run", "sleep-1"))
        descendants = psutil.Process(terminal.process.pid).children(recursive=True)
        terminal.hang_up()
        assert terminal.process.wait(60) == 128 + signal.SIGTERM
    assert_gone(descendants)
    assert _states(database, "flow_run") == ["Cancelled", "Cancelled"]
    assert list(tmp_path.glob("prefect-taskrun-*")) == []


def test_a_killed_run_takes_everything_with_it(sleeping: Command) -> None:
    descendants, ports = sleeping.descendants(), _ports(sleeping)
    # two flow runs, the process that they are forked from, and the agent, which is forked from the command's process
    assert [each.cmdline() for each in descendants] == [sleeping.process.cmdline()] * 4
    assert len(ports) == 2
    sleeping.process.kill()
    assert sleeping.exit_code() == -signal.SIGKILL
    assert_gone(descendants)
    eventually(lambda: all(map(_is_closed, ports)))


def test_a_child_that_is_not_waited_for_is_cancelled_and_named(folder: Path, run: Run) -> None:
    database = folder / "left.db"
    process = run("sleepers.py", "--flow", "leaves", "--database-url", f"sqlite:///{database}")
    assert process.returncode == 0, process.stderr
    assert "Stopped flow run 'left-behind'" in process.stderr
    assert sorted(_states(database, "flow_run")) == ["Cancelled", "Success"]


def test_a_child_can_be_cancelled_when_a_shell_has_started_the_run_in_the_background(folder: Path) -> None:
    # as a shell does it for a command that ends in &
    ignoring_interrupts = ("/bin/sh", "-c", 'trap "" INT; exec "$0" "$@"')
    command = (SCRIPTS / "prefect-taskrun", "run", folder / "sleepers.py", "--flow", "cancels")
    each_second = {"PREFECT__CLOUD__CHECK_CANCELLATION_INTERVAL": "1"}
    process = ended(*ignoring_interrupts, *command, "--result", "cancelled-1", env=each_second)
    assert process.stdout == '"Cancelled"\n', process.stderr


def test_a_failed_child_is_explained_by_its_parent(run: Run) -> None:
    process = run("explained.py", "--flow", "parent")
    assert process.returncode == 1
    ended = next(line for line in process.stderr.splitlines() if "wait_for_flow_run-1 ended in state Failed" in line)
    for told in ("load-1 ended in state Failed", "ValueError('no such table')", "/flow-run/"):
        assert told in ended
    # it only followed
    assert "after-1" not in process.stderr.split("ended in state Failed", 1)[1]
    assert _no_traceback(ended)
