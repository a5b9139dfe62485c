"""Names, messages and logs that mean to do something to the terminal they are shown on."""

import re
from pathlib import Path
from typing import Dict, Iterator, List

import pytest
from driven import DrivenRun, NewUrl
from looking import Looking, looking_at_a_backend
from prefect import Flow, task
from prefect.engine.results import LocalResult
from prefect.engine.state import Failed, Running, Success
from wcwidth import wcswidth

#: Clears the screen, overwrites the line, rings; is markup of rich; turns the direction of writing; is wide
HOSTILE = "\x1b[2J\x1b]0;title\x07\r\x9b1m[red]x[/red][link=http://x]\u202eabc\u2028日本語🦦"

#: The same as it may be shown
HARMLESS = r"\x1b[2J\x1b]0;title\x07\r\x9b1m[red]x[/red][link=http://x]\u202eabc\u2028日本語🦦"

#: Of rich itself: colours, and what live displays need to draw on the same lines again
OF_RICH = re.compile(r"\r?\x1b\[(?:[0-9;]*m|1A|2K|\?25[lh])")

WIDE_AND_LONG = "日本語🦦" * 60


@pytest.fixture(scope="module")
def look(new_url: NewUrl) -> Iterator[Looking]:
    with looking_at_a_backend(new_url) as look:
        yield look


@pytest.fixture(scope="module")
def commands(look: Looking, tmp_path_factory: pytest.TempPathFactory) -> Dict[str, List[str]]:
    """By their names, for a flow run all of whose names and texts are hostile."""
    with Flow(HOSTILE) as flow:
        task(lambda: None, name=HOSTILE)()
        task(lambda: None, name=WIDE_AND_LONG)()
    run = DrivenRun(flow, run_name=HOSTILE).enter(Running(HOSTILE))
    slug = f"{HOSTILE}-1"
    location = str(tmp_path_factory.mktemp("results") / HOSTILE.replace("/", ""))
    Path(location).write_bytes(LocalResult().serializer.serialize(HOSTILE))
    id = run.task_enters(slug, Success(HOSTILE, result=LocalResult(location=location)))
    run.task_enters(f"{WIDE_AND_LONG}-1", Failed(WIDE_AND_LONG + HOSTILE))
    run.log(HOSTILE, task_run_id=id)
    run.log(WIDE_AND_LONG)
    run.enter(Failed(HOSTILE))
    DrivenRun(flow, run.flow_id, run_name=HOSTILE).enter(Failed(HOSTILE))
    return {
        "list": ["list", run.id],
        "list --json": ["list", run.id, "--json"],
        "info": ["info", "--id", id],
        "logs": ["logs", run.id],
        "tree": ["tree", run.id],
        "tree --watch": ["tree", run.id, "--watch"],
        "watch": ["watch", run.id],
        "result": ["result", "--id", id],
        "result --location": ["result", "--id", id, "--location"],
        "cancel": ["cancel", run.id],
        "ambiguous name": ["tree", HOSTILE],
        "unknown slug": ["info", run.id, "--slug", "y"],
        "result of a failure": ["result", run.id, "--slug", "日"],
        "newest": ["logs"],
    }


DRAWN = ("list", "info", "logs", "tree", "tree --watch", "watch", "newest")

TOLD = (
    *("list --json", "result", "result --location", "cancel"),
    *("ambiguous name", "unknown slug", "result of a failure"),
)


@pytest.mark.parametrize("name", DRAWN + TOLD)
def test_nothing_reaches_the_terminal_that_could_do_something_to_it(
    look: Looking, commands: Dict[str, List[str]], name: str
) -> None:
    terminal = look.at_terminal(*commands[name], columns=100)
    written = OF_RICH.sub("", terminal.written.replace("\r\n", ""))
    assert written.isprintable(), written
    assert "Traceback" not in written
    if name in DRAWN:
        assert max(map(wcswidth, terminal.lines)) <= 100


def test_what_could_do_something_is_shown_escaped_and_all_else_as_it_is(
    look: Looking, commands: Dict[str, List[str]]
) -> None:
    assert look.prints(*commands["cancel"]).startswith(f"Flow run {HARMLESS} (")
    assert f"{HARMLESS}-1" in look.prints(*commands["list"])
