"""What ``prefect-taskrun`` says about itself, and how it prints results."""

import gc
import json
import platform
from pathlib import Path
from typing import Any, Iterator, List

import click
import pytest
from click.testing import CliRunner
from prefect.engine.state import Success
from pytest_mock import MockerFixture

from prefect_taskrun_tasks import TaskRunView
from prefect_taskrun_tasks.cli import main
from prefect_taskrun_tasks.cli.record import record
from prefect_taskrun_tasks.cli.result import in_json
from prefect_taskrun_tasks.views.span import Span


def _commands(group: click.Group, *path: str) -> Iterator[List[str]]:
    yield [*path]
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, *path, name)
        else:
            yield [*path, name]


@pytest.mark.parametrize("command", list(_commands(main)), ids=" ".join)
def test_every_command_explains_itself_by_examples(command: List[str]) -> None:
    result = CliRunner().invoke(main, [*command, "--help"], prog_name="prefect-taskrun")
    assert result.exit_code == 0
    usage, _, examples = result.output.partition("Examples:\n")
    assert usage.startswith(" ".join(["Usage: prefect-taskrun", *command, "["]))
    assert f"$ prefect-taskrun {' '.join(command)}" in examples
    assert max(map(len, usage.splitlines())) <= 80


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (None, "null"),
        ([0, 1, 2, 3, 4], "[0, 1, 2, 3, 4]"),
        ({"text": "ä"}, '{"text": "\\u00e4"}'),
        ({1}, '"{1}"'),
        ([1, {2}], '[1, "{2}"]'),
        (float("nan"), '"nan"'),
        ([float("inf"), 1], '"[inf, 1]"'),
        ({(0, 1): "key"}, "\"{(0, 1): 'key'}\""),
        (b"bytes", "\"b'bytes'\""),
    ],
)
def test_a_result_is_printed_as_json_with_repr_for_what_json_does_not_have(value: Any, printed: str) -> None:
    assert in_json(value) == printed


def test_a_result_that_contains_itself_is_printed_as_its_repr() -> None:
    value = [1]
    value.append(value)  # type: ignore[arg-type]
    assert in_json(value) == '"[1, [...]]"'


def test_a_task_run_that_took_no_time_is_json_too() -> None:
    noon = "2026-01-01T12:00:00.000000+00:00"
    row = {
        "id": "id",
        "name": None,
        "task": {"id": "task id", "slug": "quick-1"},
        "map_index": -1,
        "serialized_state": Success().serialize(),
        "flow_run_id": "flow run id",
        "version": 1,
        "start_time": noon,
        "state_timestamp": noon,
    }
    view = TaskRunView._from_task_run_data(row)
    assert json.loads(json.dumps(record(view, Span(view.start_time, view.end_time))))["runtime"] == 0


def test_the_garbage_collector_leaves_alone_what_a_backend_starts_with(tmp_path: Path, mocker: MockerFixture) -> None:
    left_alone = []
    serving = mocker.patch("prefect_taskrun_tasks.server.Backend.serve")
    serving.side_effect = lambda: left_alone.append(gc.get_freeze_count())
    try:
        command = ["server", "start", "--port", "0", "--database-url", f"sqlite:///{tmp_path / 'prefect.db'}"]
        result = CliRunner().invoke(main, command)
    finally:
        gc.unfreeze()
    assert result.exit_code == 0
    assert left_alone[0] > 10_000


def test_version_says_what_a_bug_report_needs() -> None:
    text = CliRunner().invoke(main, ["version"]).output
    facts = json.loads(CliRunner().invoke(main, ["version", "--json"]).output)
    assert {"python", "prefect", "pendulum", "time_zones", "repairs", "backend"} < set(facts)
    assert facts["python"] == platform.python_version()
    assert facts["time_zones"] >= "2026f"
    assert "read time zones of pytz" in facts["repairs"] or "run cron clocks on pendulum 3" in facts["repairs"]
    assert all(fact in text for fact in facts.values())
