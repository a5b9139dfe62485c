"""What ``prefect-taskrun`` shows, to the letter: the files in ``golden`` are there to be looked at."""

import re
from pathlib import Path
from typing import Dict, Iterator, List

import pytest
from driven import DrivenRun, NewUrl, mapped
from looking import Looking, looking_at_a_backend
from prefect import Flow, task
from prefect.engine.results import LocalResult
from prefect.engine.state import Failed, Retrying, Running, Success, TriggerFailed
from wcwidth import wcswidth

from prefect_taskrun_tasks.views.lineage import Lineage

GOLDEN = Path(__file__).parent / "golden"

#: What differs each time -> what it is replaced by, which is as wide
PLACEHOLDERS = {
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}": "01234567-89ab-cdef-0123-456789abcdef",
    r"\b[0-9a-f]{8}\b(?!-)": "01234567",
    r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b": "YYYY-MM-DD hh:mm:ss",
    r"\b\d\.\ds\b": "0.0s",
}

with Flow("etl") as etl:
    rows = task(lambda: None, name="load")()
    cleaned = task(lambda row: None, name="clean").map(rows)
    task(lambda rows: None, name="store_in_the_warehouse")(cleaned)


def _kept(location: str) -> Success:
    # nothing is there, and nobody looks
    return Success("Task run succeeded.", result=LocalResult(location=location))


@pytest.fixture(scope="module")
def look(new_url: NewUrl) -> Iterator[Looking]:
    with looking_at_a_backend(new_url) as look:
        yield look


@pytest.fixture(scope="module")
def commands(look: Looking) -> Dict[str, List[str]]:
    """By their names, for a flow run that failed, and has children."""
    run = DrivenRun(etl, run_name="brave-otter").enter(Running("Running flow."))
    load = run.task_enters("load-1", Running("Starting task run."))
    run.log("Loading...", task_run_id=load)
    run.log("The table is nearly full", level="WARNING", task_run_id=load)
    run.task_enters("load-1", _kept("/data/results/rows"))
    # the parent too, so that only one task run has not started, and the order is always the same
    run.task_enters("clean-1", Running("Starting task run."))
    run.task_enters("clean-1", Running("Starting task run."), 0)
    run.task_enters("clean-1", Retrying("Retrying Task (after attempt 1 of 3)", start_time=None, run_count=1), 0)
    run.task_enters("clean-1", Running("Starting task run."), 0)
    run.task_enters("clean-1", _kept("/data/results/2026/clean/one-of-several-folders-with-long-names/row-0.pickle"), 0)
    run.task_enters("clean-1", Running("Starting task run."), 1)
    run.task_enters("clean-1", Failed("Error during execution of task: ValueError('no such table')"), 1)
    run.log("Task 'clean[1]': Exception encountered\nTraceback:\n  ...\nValueError: no such table", level="ERROR")
    run.task_enters("clean-1", mapped(2))
    skipped = 'Trigger was "all_successful" but some of the upstream tasks failed.'
    run.task_enters("store_in_the_warehouse-1", TriggerFailed(skipped))
    for name in ("first-child", "second-child"):
        child = DrivenRun(etl, run.flow_id, run_name=name, context=Lineage(run.id).as_context())
    for state in (Running("Running flow."), Success("All reference tasks succeeded.")):
        child.enter(state)
    DrivenRun(etl, run.flow_id, run_name="grandchild", context=Lineage(child.id).as_context())
    run.enter(Failed("Some reference tasks failed."))
    return {
        "list": ["list", "brave-otter"],
        "info": ["info", "--id", run.task_run_id("clean-1", 0)],
        "logs": ["logs", "brave-otter"],
        "tree": ["tree", "brave-otter"],
        "watch": ["watch", "brave-otter"],
        "help": ["--help"],
    }


def _assert_golden(name: str, text: str, request: pytest.FixtureRequest) -> None:
    for pattern, placeholder in PLACEHOLDERS.items():
        text = re.sub(pattern, placeholder, text)
    file = GOLDEN / f"{name}.txt"
    if request.config.getoption("rewrite_golden"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


@pytest.mark.parametrize("name", ["list", "info", "logs", "tree", "watch", "help"])
def test_a_terminal_shows_it_like_this(
    look: Looking, commands: Dict[str, List[str]], name: str, request: pytest.FixtureRequest
) -> None:
    with look.on_terminal(*commands[name]) as terminal:
        terminal.exit_code()
        _assert_golden(f"{name}-80", terminal.screen, request)


@pytest.mark.parametrize("name", ["list", "info", "tree", "watch"])
def test_a_wide_terminal_shows_more(
    look: Looking, commands: Dict[str, List[str]], name: str, request: pytest.FixtureRequest
) -> None:
    _assert_golden(f"{name}-160", look.at_terminal(*commands[name], columns=160).screen, request)


@pytest.mark.parametrize("name", ["list", "info", "logs", "tree", "watch"])
def test_a_pipe_gets_all_of_it_without_colours(
    look: Looking, commands: Dict[str, List[str]], name: str, request: pytest.FixtureRequest
) -> None:
    printed = look(*commands[name]).stdout
    assert "\x1b" not in printed
    assert not re.search(r" $", printed, re.MULTILINE)
    _assert_golden(f"{name}-piped", printed, request)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("list", "clean-1[1]  Failed"), ("info", "Retries   1"), ("logs", "ERROR"), ("tree", "└──"), ("watch", "Error")],
)
def test_a_narrow_terminal_is_kept_to(look: Looking, commands: Dict[str, List[str]], name: str, shown: str) -> None:
    terminal = look.at_terminal(*commands[name], columns=20, lines=60)
    assert max(map(wcswidth, terminal.lines)) <= 20
    assert shown in terminal.screen


def test_colours_are_for_terminals_whose_owner_wants_them(look: Looking, commands: Dict[str, List[str]]) -> None:
    assert "\x1b[32mSuccess" in look.at_terminal(*commands["list"]).written
    assert "\x1b[3" not in look.at_terminal(*commands["list"], NO_COLOR="1").written
