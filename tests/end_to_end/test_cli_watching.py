"""``prefect-taskrun watch``, ``tree --watch`` and ``logs --follow``, while something happens."""

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Iterator, List

import pytest
from conftest import eventually
from driven import DrivenRun, NewUrl, mapped, register
from looking import Looking, looking_at_a_backend
from prefect import Flow, task
from prefect.engine.state import Cancelled, Failed, Running, State, Success
from prefect.utilities.configuration import set_temporary_config
from processes import started

from prefect_taskrun_tasks import FlowRunView, create_flow_run
from prefect_taskrun_tasks.runner import LocalRunner, settings
from prefect_taskrun_tasks.server import Backend
from prefect_taskrun_tasks.views.lineage import Lineage

with Flow("etl") as etl:
    rows = task(lambda: None, name="load")()
    task(lambda row: None, name="clean").map(rows)


@pytest.fixture(scope="module")
def look(new_url: NewUrl) -> Iterator[Looking]:
    with looking_at_a_backend(new_url) as look:
        yield look


@pytest.fixture(scope="module")
def flow_id(look: Looking) -> str:
    return register(etl)


@pytest.fixture
def run(flow_id: str) -> DrivenRun:
    """A flow run that is running."""
    return DrivenRun(etl, flow_id).enter(Running())


def _child_of(run: DrivenRun, name: str) -> DrivenRun:
    return DrivenRun(etl, run.flow_id, run_name=name, context=Lineage(run.id).as_context())


def test_watch_counts_on_a_terminal_until_the_flow_run_has_finished(look: Looking, run: DrivenRun) -> None:
    with look.on_terminal("watch", run.id) as terminal:
        terminal.shows("Running").shows("2 Pending")
        assert "clean-1" not in terminal.screen
        assert not terminal.is_cursor_shown
        run.task_returns("load-1", [1, 2, 3])
        run.task_enters("clean-1", mapped(3))
        run.task_enters("clean-1", Running(), 0)
        terminal.shows("0/3").shows("1 Mapped  1 Running  1 Success")
        run.task_returns("clean-1", 1, 0)
        run.task_enters("clean-1", Failed("no such table"), 1)
        terminal.shows("2/3 1 failed")
        run.task_returns("clean-1", 3, 2)
        run.enter(Success())
        assert terminal.exit_code() == 0
        assert re.search(r"clean-1 +━+ 3/3 1 failed\n3 Success  1 Failed  1 Mapped\n$", terminal.screen)
        # one picture, drawn again and again in the same place
        assert terminal.screen.count("task runs") == 1
        assert terminal.is_cursor_shown


def test_watch_says_why_the_flow_run_failed(look: Looking, run: DrivenRun) -> None:
    with started("prefect-taskrun", "watch", run.id, env=look.env) as command:
        eventually(lambda: "Running" in command.stdout)
        run.task_enters("load-1", Failed("no such table"))
        run.enter(Failed("Some reference tasks failed."))
        assert command.exit_code() == 1
        first, *_, last = command.stdout.splitlines()
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  \S+  Running  0/2 task runs: 2 Pending", first)
        assert last.endswith("  Failed  1/2 task runs: 1 Failed, 1 Pending")
        assert "load-1 ended in state Failed: no such table" in command.stderr


def test_watch_can_be_interrupted_and_the_flow_run_goes_on(look: Looking, run: DrivenRun) -> None:
    with look.on_terminal("watch", run.id) as terminal:
        terminal.shows("Running").press(b"\x03")
        assert terminal.exit_code() == 130
        assert terminal.screen.splitlines()[-1].endswith("Interrupted.")
        assert "Traceback" not in terminal.screen
        assert terminal.is_cursor_shown
    assert FlowRunView.from_flow_run_id(run.id).state.is_running()


@pytest.mark.parametrize("command", [["watch"], ["tree", "--watch"]], ids=" ".join)
def test_a_backend_may_be_started_again_under_a_watch(tmp_path: Path, command: List[str]) -> None:
    database = f"sqlite:///{tmp_path / 'prefect.db'}"
    with ExitStack() as stack:
        with Backend(database, port=0) as backend:
            stack.enter_context(set_temporary_config(settings(backend.url)))
            run = DrivenRun(etl).enter(Running())
            terminal = stack.enter_context(Looking(backend).on_terminal(*command, run.id))
            terminal.shows("Running")
        terminal.shows("does not answer")
        with Backend(database, port=int(backend.url.rpartition(":")[2])):
            terminal.shows("answers again")
            run.enter(Success())
            assert terminal.exit_code() == 0
    assert "  etl  Success  " in terminal.screen


def test_tree_draws_three_generations_until_all_have_finished(look: Looking, run: DrivenRun) -> None:
    with look.on_terminal("tree", run.id, "--watch") as terminal:
        terminal.shows("Running")
        child = _child_of(run, "child").enter(Running())
        terminal.shows("└── child  etl  Running")
        grandchild = _child_of(child, "grandchild")
        terminal.shows("    └── grandchild  etl  Scheduled")
        run.enter(Failed("Some reference tasks failed."))
        grandchild.enter(Success())
        terminal.shows("grandchild  etl  Success")
        assert terminal.process.poll() is None
        child.enter(Cancelled())
        assert terminal.exit_code() == 1
        root, *others = terminal.screen.splitlines()
        assert "  etl  Failed  " in root
        assert [re.sub(r"  \S+  2 task.*", "", line) for line in others] == [
            "└── child  etl  Cancelled",
            "    └── grandchild  etl  Success",
        ]


def test_tree_tells_changes_line_by_line_where_there_is_no_terminal(look: Looking, run: DrivenRun) -> None:
    with started("prefect-taskrun", "tree", run.id, "-w", env=look.env) as command:
        eventually(lambda: "Running" in command.stdout)
        child = _child_of(run, "child").enter(Running())
        eventually(lambda: "child" in command.stdout)
        child.enter(Success())
        eventually(lambda: "child  etl  Success" in command.stdout)
        run.enter(Success())
        assert command.exit_code() == 0
        told = [line.split("  ")[1:] for line in command.stdout.splitlines()]
    name = FlowRunView.from_flow_run_id(run.id).name
    # the child may have been seen before it ran
    assert [each for each in told if each[-1] != "Scheduled"] == [
        [name, "etl", "Running"],
        ["child", "etl", "Running"],
        ["child", "etl", "Success"],
        [name, "etl", "Success"],
    ]


def test_logs_are_followed_until_the_flow_run_has_finished(look: Looking, run: DrivenRun) -> None:
    load = run.task_run_id("load-1")
    run.log("first", task_run_id=load)
    command = ("prefect-taskrun", "logs", run.id, "--follow")
    with started(*command, env=look.env) as of_all, started(
        *command, "--slug", "load-1", "--json", env=look.env
    ) as own:
        eventually(lambda: "first" in of_all.stdout and "first" in own.stdout)
        run.log("of another task run")
        run.log("second", task_run_id=load)
        eventually(lambda: "second" in of_all.stdout and "second" in own.stdout)
        run.log("last")
        run.enter(Success())
        assert (of_all.exit_code(), own.exit_code()) == (0, 0)
        messages = [line.partition("INFO     | ")[2] for line in of_all.stdout.splitlines()]
        assert messages == ["first", "of another task run", "second", "last"]
        lines = [json.loads(line) for line in own.stdout.splitlines()]
        assert [(line["level"], line["message"]) for line in lines] == [("INFO", "first"), ("INFO", "second")]


@pytest.mark.parametrize("state", [Success(), Failed("no such table")], ids=["success", "failure"])
def test_logs_of_a_flow_run_that_has_finished_are_all_there_is_to_follow(
    look: Looking, run: DrivenRun, state: State
) -> None:
    run.log("first")
    run.enter(state)
    assert look.prints("logs", run.id, "--follow").endswith("| INFO     | first\n")


FLOWS = """
from prefect import Flow, task
from prefect_taskrun_tasks import create_flow_run, get_task_run_result

@task(log_stdout=True, name="say-hello")
def say_hello():
    print("Hello world")
    return {"foo": {"bar": 10}}

@task(name="twice")
def twice(number):
    return 2 * number

with Flow("child") as child:
    say_hello()
    twice.map([1, 2, 3])

with Flow("parent") as parent:
    get_task_run_result(create_flow_run(flow_name="child", run_name="wily-coyote"), "say-hello-1")
"""


def test_flow_runs_of_an_agent_are_watched_and_looked_at(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOWS)
    with LocalRunner() as local:
        local.register(tmp_path / "flows.py")
        look = Looking(local.backend)
        parent = create_flow_run.run(flow_name="parent", project_name="default", run_name="acme")
        with look.on_terminal("tree", "acme", "--watch", columns=120) as terminal:
            assert terminal.exit_code() == 0
            assert re.search(r"^acme  parent  Success  .*\n└── wily-coyote  child  Success  .*\n$", terminal.screen)
        printed = look.prints("logs", "wily-coyote", "--slug", "say-hello-1")
        assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \| INFO     \| Hello world$", printed, re.MULTILINE)
        assert "twice" not in printed
        options = ["--flow-run-id", parent, "--slug", "get_task_run_result-1", "--json"]
        assert look.prints("result", *options) == '{"foo": {"bar": 10}}\n'
        assert look.prints("result", "--slug", "twice-1", "--json") == "[2, 4, 6]\n"
        listed = json.loads(look.prints("list", "wily", "--slug", "twice-1", "--mapped", "--json"))
        assert {each["map_index"]: each["state"] for each in listed} == dict.fromkeys(range(3), "Success")
        assert [each["start_time"] for each in listed] == sorted(each["start_time"] for each in listed)
