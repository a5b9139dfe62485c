"""The backend's commands on a PostgreSQL database, each a process of its own."""

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any, Dict, Tuple

import pytest
import requests
from cluster import Cluster, program
from conftest import EXAMPLES, eventually
from processes import ended, started
from sqlalchemy import make_url

from prefect_taskrun_tasks import FlowRunView
from prefect_taskrun_tasks.runner import LocalRunner
from prefect_taskrun_tasks.server import tables
from prefect_taskrun_tasks.server.clock import ago
from prefect_taskrun_tasks.server.database import Database


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster.new_database()


@pytest.fixture
def environment(url: str) -> Dict[str, str]:
    """Without the password in a command line, and with PostgreSQL's programs on the PATH."""
    programs = str(Path(str(program("initdb"))).parent)
    return {"PREFECT_TASKRUN_DATABASE_URL": url, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}


def ran(url: str) -> str:
    """The id of a parent flow run that has ended, as had its child, in this database."""
    with LocalRunner(url) as local:
        local.register(str(EXAMPLES / "parent_child.py"))
        run = local.run("parent")
        assert run.get_task_run("get_task_run_result-1").get_result() is not None
        assert isinstance(FlowRunView.from_flow_run_id(run.flow_run_id), FlowRunView)
        return run.flow_run_id


def flow_runs(address: str) -> int:
    body = {"query": "{ flow_run_aggregate { aggregate { count } } }"}
    answer = requests.post(address, json=body, timeout=20).json()
    return int(answer["data"]["flow_run_aggregate"]["aggregate"]["count"])


def served(env: Dict[str, str]) -> Tuple[int, str]:
    """How many flow runs a backend on it knows, which is then killed; and what it has printed."""
    with started("prefect-taskrun", "server", "start", "--port", "0", env=env) as command:
        found = eventually(lambda: re.search(r"SERVER__ENDPOINT=(\S+)", command.stdout))
        count = flow_runs(found[1])
        command.process.send_signal(signal.SIGKILL)
        return count, command.stdout + command.stderr


def test_a_parent_runs_its_child_and_is_backed_up_restored_and_pruned(
    url: str, environment: Dict[str, str], cluster: Cluster, tmp_path: Path
) -> None:
    ran(url)
    count, printed = served(environment)
    assert count == 2
    password = str(make_url(url).password)
    assert password not in printed
    assert "***" in printed

    copy = tmp_path / "prefect.dump"
    process = ended("prefect-taskrun", "server", "backup", copy, env=environment)
    assert (process.returncode, process.stderr) == (0, "")
    assert copy.stat().st_mode & 0o077 == 0
    restored = cluster.new_database()
    command = [str(program("pg_restore")), "--no-owner", "--exit-on-error", "--dbname", restored, str(copy)]
    subprocess.run(command, check=True)
    assert served({**environment, "PREFECT_TASKRUN_DATABASE_URL": restored})[0] == 2

    database = Database(url)
    with database.write() as tx:
        tx.update(tables.flow_run, state_timestamp=ago(40 * 86400))
    database.close()
    process = ended("prefect-taskrun", "server", "prune", "--older-than", "30d", env=environment)
    assert (process.returncode, process.stderr) == (0, "")
    assert "Deleted 2 flow runs" in process.stdout
    assert served(environment)[0] == 0


@pytest.mark.parametrize("command", [("prune", "--older-than", "30d"), ("backup", "copy.dump")])
def test_a_database_without_a_backends_data_is_left_alone(
    url: str, environment: Dict[str, str], command: Any, tmp_path: Path
) -> None:
    process = ended("prefect-taskrun", "server", *command, env=environment, cwd=tmp_path)
    assert process.returncode == 1
    assert "no backend's data" in process.stderr
    assert str(make_url(url).password) not in process.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_backup_without_postgresqls_programs_says_what_to_install(
    url: str, environment: Dict[str, str], tmp_path: Path
) -> None:
    Database(url).close()
    # nothing but the commands of this environment
    environment["PATH"] = str(tmp_path)
    process = ended("prefect-taskrun", "server", "backup", tmp_path / "copy.dump", env=environment)
    assert process.returncode == 1
    assert "postgresql-client" in process.stderr
    assert list(tmp_path.iterdir()) == []
