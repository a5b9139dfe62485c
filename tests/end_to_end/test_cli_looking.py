"""``prefect-taskrun``, for people and scripts that look at runs: what it prints, to whom, and with which exit code."""

import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pendulum
import pytest
from conftest import eventually
from driven import DrivenRun, NewUrl, mapped
from looking import Looking, looking_at_a_backend, said_on_failure
from many import map_over_many
from prefect import Flow, task
from prefect.engine.results import LocalResult
from prefect.engine.state import Cancelled, Failed, Running, Success, TriggerFailed
from processes import SCRIPTS, started

from prefect_taskrun_tasks import FlowRunView
from prefect_taskrun_tasks.views.lineage import Lineage


@task
def load() -> None:
    pass


@task
def clean(row: Any) -> None:
    pass


@task
def clear(rows: Any) -> None:
    pass


with Flow("etl") as etl:
    clear(clean.map(load()))

with Flow("hello-world") as hello_world:
    hello = task(lambda: None, name="say-hello")
    foo = task(lambda: None, name="get-foo-dict")
    hello()
    foo()


@pytest.fixture(scope="module")
def look(new_url: NewUrl) -> Iterator[Looking]:
    with looking_at_a_backend(new_url) as look:
        yield look


@pytest.fixture(scope="module")
def hello_run(look: Looking) -> DrivenRun:
    """The flow run of issue 4493 of PrefectHQ/prefect, which asked for these commands."""
    run = DrivenRun(hello_world, run_name="wily-coyote").enter(Running())
    hello = run.task_returns("say-hello-1", None)
    run.log("Hello world", task_run_id=hello)
    run.task_returns("get-foo-dict-1", {"foo": {"bar": 10}})
    run.log("Flow run SUCCESS")
    return run.enter(Success())


@pytest.fixture(scope="module")
def etl_run(look: Looking) -> DrivenRun:
    """A flow run that failed, and is older than any other of its flow."""
    run = DrivenRun(etl, run_name="brave-otter").enter(Running())
    run.task_enters("load-1", Running())
    run.task_returns("load-1", [1, 2])
    run.task_enters("clean-1", Running(), 1)
    run.task_enters("clean-1", Running(), 0)
    run.task_returns("clean-1", "one", 0)
    run.task_enters("clean-1", Failed("no such table"), 1)
    run.task_enters("clean-1", mapped(2))
    run.task_enters("clear-1", TriggerFailed("upstream tasks failed"))
    return run.enter(Failed("Some reference tasks failed."))


def _slugs(table: str) -> List[str]:
    return [line.split()[0] for line in table.splitlines()[1:]]


def test_a_task_run_is_found_by_its_id(look: Looking, hello_run: DrivenRun) -> None:
    code, printed, said = look.as_process("info", "--id", hello_run.task_run_id("say-hello-1"))
    assert (code, said) == (0, "")
    assert printed.startswith("say-hello-1\n")
    assert "wily-coyote" in printed


def test_the_logs_of_a_task_run_are_its_own_lines_of_its_flow_runs(look: Looking, hello_run: DrivenRun) -> None:
    printed = look.prints("logs", "--flow-run-name", "wily-coyote", "--slug", "say-hello-1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \| INFO     \| Hello world\n", printed)
    [first, last] = look.prints("logs", "wily-coyote").splitlines()
    assert f"{first}\n" == printed
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \| INFO     \| Flow run SUCCESS", last)


def test_a_result_is_printed_as_json(look: Looking, hello_run: DrivenRun) -> None:
    options = ["--flow-run-id", hello_run.id, "--slug", "get-foo-dict-1", "--json"]
    ended = look("result", *options)
    assert (ended.code, json.loads(ended.stdout)) == (0, {"foo": {"bar": 10}})
    assert ended.stdout == '{"foo": {"bar": 10}}\n'


@pytest.mark.parametrize("by", ["id", "name", "prefix", "slug's prefix"])
def test_a_task_run_is_found_by_its_slug_and_its_flow_run(look: Looking, etl_run: DrivenRun, by: str) -> None:
    options = {
        "id": ["--flow-run-id", etl_run.id, "--slug", "clean-1", "--map-index", "1"],
        "name": ["--flow-run-name", "brave-otter", "--slug", "clean-1", "--map-index", "1"],
        "prefix": [etl_run.id[:13], "--slug", "clean-1", "--map-index", "1"],
        "slug's prefix": ["brave", "--slug", "clean", "--map-index", "1"],
    }[by]
    printed = json.loads(look.prints("info", *options, "--json"))
    assert printed["id"] == etl_run.task_run_id("clean-1", 1)
    assert (printed["slug"], printed["map_index"], printed["flow_run_name"]) == ("clean-1", 1, "brave-otter")
    assert (printed["state"], printed["message"]) == ("Failed", "no such table")
    assert [each["state"] for each in printed["states"]][-2:] == ["Running", "Failed"]
    assert [each["slug"] for each in printed["upstream"]] == ["load-1"]


def test_the_beginning_of_an_id_is_enough(look: Looking, etl_run: DrivenRun) -> None:
    task_run_id = etl_run.task_run_id("load-1")
    assert json.loads(look.prints("info", "--id", task_run_id[:10].upper(), "--json"))["id"] == task_run_id


def test_without_a_flow_run_the_newest_that_has_the_task_is_meant_and_named(
    look: Looking, etl_run: DrivenRun, hello_run: DrivenRun
) -> None:
    for run, slug in ((etl_run, "load"), (hello_run, "say")):
        newest = DrivenRun(run.flow, run.flow_id)
        ended = look("info", "--slug", slug, "--json")
        assert json.loads(ended.stdout)["flow_run_id"] == newest.id
        assert f"({newest.id}), the newest" in ended.stderr


@pytest.mark.parametrize("command", ["list", "list --json", "logs", "tree"])
def test_a_disk_that_is_full_is_said_in_one_line(look: Looking, etl_run: DrivenRun, command: str) -> None:
    etl_run.log("a line")
    script = f"'{SCRIPTS}/prefect-taskrun' {command} {etl_run.id} > /dev/full"
    ended = subprocess.run(["bash", "-c", script], stderr=subprocess.PIPE, text=True, env=look.env, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "Error: The output cannot be written: No space left on device."
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["info"], 2, "Say which task run: --id ID, or --slug SLUG"),
        (["result", "brave-otter"], 2, "Say which task run"),
        (["logs", "brave-otter", "--map-index", "0"], 2, "Say which task run"),
        (["info", "--id", "abcd1234", "--slug", "load-1"], 2, "--id says which task run is meant"),
        (["list", "brave-otter", "--flow-run-name", "brave-otter"], 2, "Give one of FLOW_RUN, --flow-run-id and"),
        (["result", "brave-otter", "--slug", "load-1", "--location", "--json"], 2, "--location reads nothing"),
        (["list", "brave-otter", "--state", "Sleeping"], 2, "'Sleeping' is not one of"),
        (["info", "brave-otter", "--slug", "cle"], 2, "\n  clean-1\n  clear-1\n"),
        (["tree", ""], 2, "is empty"),
        (
            ["list", "nobody"],
            3,
            "No flow run has the id or the name 'nobody', or one that begins so (of an id, at least 4 digits).",
        ),
        (["logs", "--flow-run-id", "brave-otter"], 3, "No flow run has the id 'brave-otter'"),
        (["info", "--id", "00000000-0000-0000-0000-000000000000"], 3, "No task run has the id '0000"),
        (["info", "brave-otter", "--slug", "lod-1"], 3, "It has: load-1"),
        (["info", "brave-otter", "--slug", "clean-1", "--map-index", "2"], 3, "There are 2 children."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_said_well_enough_is_explained(
    look: Looking, etl_run: DrivenRun, arguments: List[str], code: int, told: str
) -> None:
    assert told in look.fails(code, *arguments)


def test_a_name_of_several_flow_runs_is_answered_by_all_of_them(look: Looking, hello_run: DrivenRun) -> None:
    first, second = (DrivenRun(hello_world, hello_run.flow_id, run_name="twin") for _ in range(2))
    first.enter(Running())
    said = look.fails(2, "tree", "tw")
    assert f"\n  {second.id}  twin  hello-world  Scheduled\n  {first.id}  twin  hello-world  Running\n" in said
    assert look.prints("tree", second.id[:18]).startswith("twin  hello-world  Scheduled")


def test_task_runs_are_listed_in_the_order_in_which_they_started(look: Looking, etl_run: DrivenRun) -> None:
    printed = look.prints("list", "brave-otter")
    assert _slugs(printed)[:3] == ["load-1", "clean-1[1]", "clean-1[0]"]
    assert sorted(_slugs(printed)[3:]) == ["clean-1", "clear-1"]


@pytest.mark.parametrize(
    ("options", "slugs"),
    [
        (["--state", "failed", "--state", "TRIGGERfailed"], ["clean-1[1]", "clear-1"]),
        (["--slug", "clean-1"], ["clean-1[1]", "clean-1[0]", "clean-1"]),
        (["--slug", "clean", "--mapped"], ["clean-1[1]", "clean-1[0]"]),
        (["--slug", "clean", "--not-mapped"], ["clean-1"]),
        (["--state", "Running"], []),
    ],
    ids=" ".join,
)
def test_a_list_is_of_those_that_are_asked_for(
    look: Looking, etl_run: DrivenRun, options: List[str], slugs: List[str]
) -> None:
    assert _slugs(look.prints("list", "brave-otter", *options)) == slugs


def test_a_list_of_nothing_is_an_empty_array(look: Looking, etl_run: DrivenRun) -> None:
    assert look.prints("list", "brave-otter", "--state", "Running", "--json") == "[]\n"


@pytest.fixture(scope="module")
def wide_run(look: Looking) -> DrivenRun:
    """A task was mapped over more than fits on a page of the API, or of the list."""
    run = DrivenRun(etl, run_name="wide-world").enter(Running())
    map_over_many(look.backend, run, "clean-1", 1_200, {7: Failed("no such table")})
    return run


def test_many_children_are_listed_in_order(look: Looking, wide_run: DrivenRun) -> None:
    printed = look.prints("list", "wide", "--mapped")
    assert _slugs(printed) == [f"clean-1[{index}]" for index in range(1_200)]


@pytest.mark.parametrize("columns", [20, 80])
def test_on_a_terminal_of_any_width_it_can_be_seen_which_child_is_which(
    look: Looking, wide_run: DrivenRun, columns: int
) -> None:
    lines = look.at_terminal("list", "wide", "--mapped", columns=columns).lines
    assert [line.split()[0].partition("[")[2] for line in lines[1:]] == [f"{index}]" for index in range(1_200)]
    assert max(map(len, lines)) <= columns


def test_what_is_listed_as_json_says_all(look: Looking, wide_run: DrivenRun) -> None:
    listed = json.loads(look.prints("list", "wide", "--mapped", "--json"))
    assert [each["map_index"] for each in listed] == list(range(1_200))
    assert listed[7]["message"] == "no such table"
    assert set(listed[0]) == {
        *("id", "slug", "map_index", "name", "flow_run_id", "state", "message", "start_time", "end_time", "runtime"),
        *("result_type", "result_location", "waits_for"),
    }


def test_ids_that_are_listed_can_be_given_back(look: Looking, etl_run: DrivenRun) -> None:
    first, *others = look.prints("list", "brave-otter", "-o", "name").splitlines()
    assert len(others) == 4
    assert look.prints("info", "--id", first).startswith("load-1\n")


@pytest.mark.parametrize("options", [["list", "wide"], ["list", "wide", "--json"], ["logs", "wide"]], ids=" ".join)
def test_who_reads_only_the_beginning_is_not_bothered(
    look: Looking, wide_run: DrivenRun, options: List[str], tmp_path: Path
) -> None:
    # more than a pipe holds
    wide_run.log("line\n" * 20_000)
    command = f"set -o pipefail; '{SCRIPTS}/prefect-taskrun' {' '.join(options)} | head -n 1"
    ended = subprocess.run(["bash", "-c", command], env=look.env, capture_output=True, text=True, timeout=60)
    assert len(ended.stdout.splitlines()) == 1
    assert ended.stderr == ""
    assert ended.returncode == 128 + signal.SIGPIPE


class _Tells:
    """Tells on standard error when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.write, (2, b"UNPICKLED\n")


_VALUES = {"text": "Grüße\n", "bytes": b"\x00\xff", "numbers": list(range(40)), "none": None, "tells": _Tells()}


@pytest.fixture(scope="module")
def results_run(look: Looking) -> DrivenRun:
    with Flow("results") as flow:
        for name in (*_VALUES, "gone", "nothing", "unfinished", "failed"):
            task(lambda: None, name=name)()
        task(lambda x: x, name="mapped").map([1, 2, 3])
    run = DrivenRun(flow, run_name="results").enter(Running())
    for name, value in _VALUES.items():
        run.task_returns(f"{name}-1", value)
    run.task_maps("mapped-1", ["a", "b", "c"])
    run.task_enters("gone-1", Success(result=LocalResult(location="/nowhere/gone.pickle")))
    run.task_enters("nothing-1", Success())
    run.task_enters("unfinished-1", Running())
    run.task_enters("failed-1", Failed("no such table"))
    return run


def test_a_result_is_printed_as_python_writes_it_and_people_read_it(look: Looking, results_run: DrivenRun) -> None:
    assert look.prints("result", "results", "--slug", "text-1") == "'Grüße\\n'\n"
    printed = look.prints("result", "results", "--slug", "numbers-1")
    assert printed.splitlines()[:2] == ["[0,", " 1,"]


def test_a_result_that_the_state_itself_keeps_is_not_said_to_be_unpickled(look: Looking, wide_run: DrivenRun) -> None:
    options = ["wide", "--slug", "clean-1", "--map-index", "3"]
    assert look("result", *options) == (0, "3\n", "")
    assert "Result    PrefectResult: 3\n" in look.prints("info", *options)


def test_a_mapped_tasks_result_is_the_list_of_its_childrens(look: Looking, results_run: DrivenRun) -> None:
    assert look.prints("result", "results", "--slug", "mapped-1", "--json") == '["a", "b", "c"]\n'
    locations = look.prints("result", "results", "--slug", "mapped-1", "--location").splitlines()
    assert [pickle.loads(Path(location).read_bytes()) for location in locations] == ["a", "b", "c"]


def test_children_that_failed_can_be_left_out_of_a_mapped_tasks_result(look: Looking, results_run: DrivenRun) -> None:
    run = DrivenRun(results_run.flow, results_run.flow_id).enter(Running())
    run.task_maps("mapped-1", ["a", "b", "c"])
    run.task_enters("mapped-1", Failed("no"), 1)
    options = [run.id, "--slug", "mapped-1"]
    assert "mapped-1[1]" in look("result", *options).stderr
    assert look.prints("result", *options, "--json", "--skip-failed") == '["a", null, "c"]\n'
    ended = look("result", *options, "--location")
    assert (ended.code, len(ended.stdout.splitlines())) == (3, 2)
    assert "of the result of mapped-1[1], which is in state Failed." in ended.stderr


def test_that_a_result_is_unpickled_is_said_before_it_is(look: Looking, results_run: DrivenRun) -> None:
    ended = look.as_process("result", "results", "--slug", "tells-1")
    assert ended.code == 0
    assert "this unpickles it or the flow, which can run code" in ended.stderr.split("UNPICKLED\n")[0]
    assert ended.stderr.endswith("UNPICKLED\n")


def test_where_a_result_is_kept_is_said_without_unpickling_it(look: Looking, results_run: DrivenRun) -> None:
    ended = look("result", "results", "--slug", "tells-1", "--location")
    assert ended.code == 0
    assert ended.stderr == ""
    assert Path(ended.stdout.rstrip("\n")).is_file()
    ended = look("info", "results", "--slug", "tells-1")
    assert "LocalResult at /" in ended.stdout
    assert ended.stderr == ""


@pytest.mark.parametrize(
    ("slug", "written"),
    [
        ("text-1", "Grüße\n".encode()),
        ("bytes-1", b"\x00\xff"),
        ("mapped-1", b"['a', 'b', 'c']\n"),
    ],
)
def test_a_result_is_written_to_a_file(
    look: Looking, results_run: DrivenRun, tmp_path: Path, slug: str, written: bytes
) -> None:
    assert look.prints("result", "results", "--slug", slug, "--output", tmp_path / "file") == ""
    assert (tmp_path / "file").read_bytes() == written


@pytest.mark.parametrize(
    ("slug", "code", "told"),
    [
        ("unfinished-1", 1, "it is not finished but in state Running"),
        ("failed-1", 3, "no such table"),
        ("nothing-1", 3, "no result"),
        ("gone-1", 3, "/nowhere/gone.pickle"),
    ],
)
def test_a_result_that_is_not_there_is_explained_and_leaves_a_file_as_it_is(
    look: Looking, results_run: DrivenRun, tmp_path: Path, slug: str, code: int, told: str
) -> None:
    (tmp_path / "file").write_text("precious")
    said = look.fails(code, "result", "results", "--slug", slug, "--output", tmp_path / "file")
    assert told in said
    assert ("Reading" in said) == (slug in ("nothing-1", "gone-1"))
    assert [file.read_text() for file in tmp_path.iterdir()] == ["precious"]


def test_a_location_that_is_not_known_is_explained(look: Looking, results_run: DrivenRun) -> None:
    said = look.fails(3, "result", "results", "--slug", "nothing-1", "--location")
    assert "No location is known of the result of nothing-1" in said


def test_a_timeline_is_written_and_where_is_said(look: Looking, tmp_path: Path) -> None:
    with Flow("<script>alert(2)</script>") as flow:
        task(lambda: None, name="<script>alert(1)</script>")()
    run = DrivenRun(flow, run_name="<script>alert(3)</script>").enter(Running())
    ended = look.as_process("timeline", run.id, "--output", tmp_path / "page.html")
    assert ended == (0, "", f"Timeline: {tmp_path}/page.html\n")
    page = (tmp_path / "page.html").read_text()
    assert page.count("alert(1)") == 1
    assert not re.search(r"<script>alert", page)


def test_a_page_that_cannot_be_written_is_named(look: Looking, etl_run: DrivenRun, tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "page.html"
    assert look.fails(1, "timeline", "brave-otter", "-o", path) == (
        f"Error: {path} cannot be written: No such file or directory\n"
    )


def _state(flow_run_id: str) -> str:
    return type(FlowRunView.from_flow_run_id(flow_run_id).state).__name__


def test_a_flow_run_is_cancelled_and_its_children_only_if_asked_for(look: Looking, hello_run: DrivenRun) -> None:
    parent = DrivenRun(hello_world, hello_run.flow_id, run_name="cancelled-parent").enter(Running())
    context = Lineage(parent.id).as_context()
    child = DrivenRun(hello_world, hello_run.flow_id, run_name="cancelled-child", context=context).enter(Running())
    printed = look.prints("cancel", "cancelled-parent")
    assert printed == f"Flow run cancelled-parent ({parent.id}) is being cancelled\n"
    assert (_state(parent.id), _state(child.id)) == ("Cancelling", "Running")
    with started("prefect-taskrun", "cancel", parent.id[:18], "--children", env=look.env) as command:
        eventually(lambda: f"Flow run cancelled-child ({child.id}) is being cancelled" in command.stdout)
        # the parent's process has not noticed yet
        late = DrivenRun(hello_world, hello_run.flow_id, run_name="late-child", context=context).enter(Running())
        eventually(lambda: f"Flow run late-child ({late.id}) is being cancelled" in command.stdout)
        for run in (parent, child, late):
            assert _state(run.id) == "Cancelling"
            run.enter(Cancelled())
        assert command.exit_code() == 0
        assert command.stderr == ""


def test_children_that_nobody_ends_are_not_waited_for_for_long(
    look: Looking, hello_run: DrivenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the module, which has the name of the command; 20 s
    monkeypatch.setattr(sys.modules["prefect_taskrun_tasks.cli.cancel"], "GRACE", 1)
    orphan = DrivenRun(hello_world, hello_run.flow_id).enter(Running())
    ended = look("cancel", orphan.id, "--children")
    assert ended.code == 0
    assert "After 1 s, 1 of them have not ended yet." in ended.stderr


def test_a_flow_run_that_has_finished_stays_as_it_is(look: Looking, etl_run: DrivenRun) -> None:
    printed = look.prints("cancel", "brave-otter")
    assert printed == f"Flow run brave-otter ({etl_run.id}) has finished: Failed\n"
    assert _state(etl_run.id) == "Failed"


def test_without_a_backend_it_is_said_how_to_have_one(look: Looking) -> None:
    cloud = {"PREFECT__BACKEND": "cloud", "PREFECT__CLOUD__API": "https://api.prefect.io"}
    said = said_on_failure(look.as_process("list", **cloud), 4)
    assert said.startswith("Error: No Prefect backend is configured.")
    assert "export PREFECT__BACKEND=server" in said


def test_a_backend_that_does_not_answer_is_given_up_soon(look: Looking) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        began = pendulum.now()
        said = said_on_failure(look.as_process("list", PREFECT__SERVER__ENDPOINT=url, PREFECT__CLOUD__API=url), 4)
    assert pendulum.now() - began < pendulum.duration(seconds=20)
    assert url.partition("//")[2].partition(":")[0] in said.splitlines()[-1]


@pytest.mark.parametrize("url", ["localhost:4200", "http://", "http://127.0.0.1:99999"])
def test_an_address_that_is_none_is_an_error_and_no_traceback(look: Looking, url: str) -> None:
    said = said_on_failure(look.as_process("list", PREFECT__SERVER__ENDPOINT=url, PREFECT__CLOUD__API=url), 4)
    assert said.startswith("Error: The Prefect API")


def test_the_shells_get_their_completion(look: Looking) -> None:
    for shell in ("zsh", "fish"):
        assert "_PREFECT_TASKRUN_COMPLETE" in look.prints("completion", shell)
    script = look.as_process("completion", "bash").stdout
    assert "_PREFECT_TASKRUN_COMPLETE" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "completed"),
    [("li", "list"), ("list --state Fai", "failed"), ("tree --wa", "--watch")],
)
def test_commands_options_and_states_are_completed(look: Looking, words: str, completed: str) -> None:
    words = f"prefect-taskrun {words}"
    variables = {"_PREFECT_TASKRUN_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    # click 8.1, the last release for Python 3.8, completes states as the command lists them
    expected = completed.title() if completed == "failed" and version("click").startswith("8.1.") else completed
    assert look.as_process(**variables) == (0, f"plain,{expected}\n", "")


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        ("result", {"PYTHONIOENCODING": "ascii"}),
        ("logs", {"PYTHONIOENCODING": "ascii"}),
        ("tree", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
        ("cancel", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    ],
)
def test_a_terminal_that_does_not_know_all_characters_is_no_obstacle(
    look: Looking, results_run: DrivenRun, command: str, variables: Dict[str, str]
) -> None:
    flow_run = DrivenRun(results_run.flow, results_run.flow_id, run_name="Grüße an Otter 🦦 ").enter(Running())
    flow_run.log("Grüße")
    flow_run.task_returns("text-1", "Grüße")
    options = ["--slug", "text-1"] if command == "result" else []
    ended = look.as_process(command, flow_run.id, *options, **variables)
    assert ended.code == 0, ended
    assert "Gr" in ended.stdout
