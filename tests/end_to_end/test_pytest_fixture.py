"""The fixture `local_runner`, in the test-suite of a user who has installed this package."""

from pathlib import Path

import psutil
from processes import ended

FLOWS = """
from prefect import Flow, Parameter, task
from prefect.engine.results import LocalResult
from prefect_taskrun_tasks import create_flow_run, get_task_run_result

@task
def square(x):
    return x * x

with Flow("child", result=LocalResult()) as child_flow:
    square(Parameter("x"))

with Flow("parent", result=LocalResult()) as parent_flow:
    child_run_id = create_flow_run(flow_name="child", parameters={"x": 7})
    get_task_run_result(child_run_id, "square-1")
"""

TESTS = """
import prefect
import pytest
from my_flows import child_flow, parent_flow

def test_the_parent_has_what_its_child_returned(local_runner):
    local_runner.register(child_flow)
    local_runner.register(parent_flow)
    parent_run = local_runner.run("parent")
    assert parent_run.get_task_run("get_task_run_result-1").get_result() == 49

def test_prefect_talks_to_the_backend_of_the_fixture(local_runner):
    assert prefect.Client().api_server == local_runner.backend.url
    assert prefect.config.cloud.api_key == ""

def test_a_parameter_that_is_missing_is_told(local_runner):
    local_runner.register(child_flow)
    with pytest.raises(ValueError, match="needs the parameter 'x'"):
        local_runner.run("child")
"""


def test_users_test_their_own_flows_with_it(tmp_path: Path) -> None:
    (tmp_path / "my_flows.py").write_text(FLOWS)
    (tmp_path / "test_my_flows.py").write_text(TESTS)
    home = tmp_path / "home"
    home.mkdir()
    # an account and a backend of the user, which the fixture must not talk to
    theirs = {"HOME": str(home), "PREFECT__CLOUD__API_KEY": "secret", "PREFECT__CLOUD__API": "http://127.0.0.1:1"}
    run = ended("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path, cwd=tmp_path, env=theirs)
    assert "3 passed" in run.stdout, run.stdout + run.stderr
    agents = [process for process in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(process.info["cmdline"])]
    assert not agents


def test_modules_can_be_preloaded(tmp_path: Path) -> None:
    (tmp_path / "my_flows.py").write_text(FLOWS)
    (tmp_path / "test_my_flows.py").write_text(TESTS)
    preload = "local_runner_preload=no_such_module"
    run = ended("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", preload, tmp_path, cwd=tmp_path)
    assert "The module 'no_such_module' cannot be preloaded" in run.stdout


def test_pytest_starts_without_importing_prefect(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text("import sys\n\ndef test_it():\n    assert 'prefect' not in sys.modules\n")
    run = ended("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path, cwd=tmp_path)
    assert "1 passed" in run.stdout, run.stdout + run.stderr
