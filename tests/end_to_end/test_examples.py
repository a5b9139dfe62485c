"""The examples, as a user runs them."""

import subprocess
import sys

import pytest
from conftest import EXAMPLES

from prefect_taskrun_tasks.runner import LocalRunner


def test_a_parent_flow_run_uses_the_result_of_its_child(local_runner: LocalRunner) -> None:
    local_runner.register(str(EXAMPLES / "parent_child.py"))
    parent_run = local_runner.run("parent")
    assert parent_run.state.is_successful()
    assert parent_run.get_task_run("get_task_run_result-1").get_result() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("example", "printed"),
    [
        ("parent_child.py", "[0, 1, 2, 3, 4]\n"),
        (
            "mapped_child.py",
            "all_together-1 [1, 2, 3, 4, 5, 6]\nonly_one-1 3\nby_iteration-1 [1, 2, 3, 4, 5, 6]\n",
        ),
        ("fan_out.py", "[1, 4, 9]\n[1, 4, 9]\n"),
    ],
)
def test_an_example_runs_by_itself(example: str, printed: str) -> None:
    run = subprocess.run([sys.executable, str(EXAMPLES / example)], capture_output=True, text=True, timeout=120)
    assert run.stdout == printed, run.stderr
