"""``prefect-taskrun server start``, with Prefect's own commands around it; each is a process of its own."""

import json
import re
import signal
import socket
import sqlite3
import subprocess
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Set

import pytest
import requests
from conftest import EXAMPLES, eventually
from processes import Command, ended, started

from prefect_taskrun_tasks.server.database import Database
from prefect_taskrun_tasks.server.migrations import VERSION_TABLE


class Server:
    """A server that has been started, for other processes."""

    def __init__(self, command: Command) -> None:
        self.command = command
        #: the variables that it has printed
        self.environment: Dict[str, str] = eventually(lambda: self._exported())
        self.url = self.environment["PREFECT__SERVER__ENDPOINT"]

    def _exported(self) -> Dict[str, str]:
        # all is there once the last line is
        return dict(re.findall(r"export (\w+)=(\S+)", self.command.stdout)) if "Ctrl-C" in self.command.stdout else {}

    def prefect(self, *arguments: str) -> str:
        """What a command of Prefect prints that talks to this server, and succeeds."""
        process = ended("prefect", *arguments, env=self.environment)
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    def graphql(self, document: str) -> Any:
        answer = requests.post(self.url, json={"query": document}, timeout=10).json()
        assert "errors" not in answer, answer
        return answer["data"]


@contextmanager
def _serving(database: Path, *options: str) -> Iterator[Server]:
    with started("prefect-taskrun", "server", "start", "--database-url", f"sqlite:///{database}", *options) as command:
        yield Server(command)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def agent_address() -> str:
    return f"http://127.0.0.1:{_free_port()}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, agent_address: str) -> Iterator[Server]:
    """A server with a project `p` that has the flows `parent` and `child`, all made by Prefect's commands."""
    database = tmp_path_factory.mktemp("server") / "prefect.db"
    with _serving(database, "--port", "0", "--agent-address", agent_address) as server:
        assert "Tenant created" in server.prefect("server", "create-tenant", "-n", "x", "-s", "x")
        assert "p created" in server.prefect("create", "project", "p")
        registered = server.prefect("register", "-p", str(EXAMPLES / "parent_child.py"), "--project", "p")
        assert "2 registered" in registered
        yield server


def _run_parent(server: Server, *agent_options: str) -> str:
    """Runs the flow `parent` with an agent. Returns the flow run's id."""
    with started("prefect", "agent", "local", "start", *agent_options, env=server.environment):
        printed = server.prefect("run", "--name", "parent", "--project", "p", "--watch")
    assert "Flow run succeeded!" in printed
    found = re.search(r"UUID: (\S+)", printed)
    assert found is not None
    return found.group(1)


@pytest.fixture(scope="module")
def parent_run(server: Server) -> str:
    return _run_parent(server)


def test_the_result_of_a_parent_flow_run_can_be_read_by_another_process(server: Server, parent_run: str) -> None:
    script = (
        "from prefect_taskrun_tasks import TaskRunView\n"
        f"print(TaskRunView.from_task_slug('get_task_run_result-1', flow_run_id='{parent_run}').get_result())"
    )
    process = ended("python", "-c", script, env=server.environment)
    assert process.stdout == "[0, 1, 2, 3, 4]\n", process.stderr


def test_an_agent_with_an_address_runs_what_it_is_told_of(server: Server, agent_address: str) -> None:
    assert _run_parent(server, "--agent-address", agent_address)


def test_a_flow_run_can_be_executed_without_an_agent(server: Server) -> None:
    assert "Flow run succeeded!" in server.prefect("run", "--name", "child", "--execute")


ALONE = """
import psutil
from prefect import Flow, task

@task
def nothing_would_outlive_it():
    assert psutil.Process().children() == []

with Flow("alone") as alone:
    nothing_would_outlive_it()
"""


def test_a_flow_run_has_no_heartbeat_process_with_the_variables_that_are_printed(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "alone.py").write_text(ALONE)
    server.prefect("create", "project", "of alone")
    server.prefect("register", "-p", str(tmp_path / "alone.py"), "--project", "of alone")
    assert "Flow run succeeded!" in server.prefect("run", "--name", "alone", "--execute")


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        (["get", "flows"], ["parent", "child"]),
        (["get", "projects"], ["p"]),
        (["get", "tasks"], ["create_flow_run", "get_task_run_result", "create_some_data"]),
        (["get", "flow-runs"], ["parent", "child", "Success"]),
        (["get", "flow-runs", "--flow", "parent"], ["parent", "Success"]),
        (["get", "logs", "--id", "{flow_run_id}"], ["Beginning Flow run for 'parent'"]),
        (["describe", "flows", "--name", "parent"], ['"name": "parent"', '"version": 1']),
        (["describe", "tasks", "--name", "parent"], ['"slug": "create_flow_run-1"']),
        (["describe", "flow-runs", "--name", "{flow_run_name}"], ['"Success"', '"name": "parent"']),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else None,
)
def test_prefects_commands_show_what_is_there(
    server: Server, parent_run: str, command: List[str], printed: List[str]
) -> None:
    (row,) = server.graphql(f'{{ flow_run(where: {{id: {{_eq: "{parent_run}"}}}}) {{ name }} }}')["flow_run"]
    output = server.prefect(*[word.format(flow_run_id=parent_run, flow_run_name=row["name"]) for word in command])
    for each in printed:
        assert each in output


def test_a_project_can_be_deleted(server: Server) -> None:
    server.prefect("create", "project", "short-lived")
    server.prefect("delete", "project", "short-lived")
    assert "short-lived" not in server.prefect("get", "projects")


def _refused(*options: str) -> str:
    """The one line that the command ends with."""
    process = ended("prefect-taskrun", "server", "start", *options)
    assert process.returncode == 1
    assert process.stdout == ""
    (line,) = process.stderr.splitlines()
    return line


def test_a_port_in_use_is_named(server: Server, tmp_path: Path) -> None:
    port = server.url.rsplit(":", 1)[1]
    line = _refused("--port", port, "--database-url", f"sqlite:///{tmp_path / 'prefect.db'}")
    assert f"127.0.0.1:{port}" in line
    assert "--port" in line


@pytest.mark.parametrize("url", ["mysql://user:secret@h/db", "text.db", "user:secret@h/db"])
def test_what_is_no_url_of_a_database_is_refused_and_not_shown(url: str) -> None:
    """It may be one with a slip of the pen, and a password."""
    line = _refused("--port", "0", "--database-url", url)
    assert "sqlite:///prefect.db or postgresql://" in line
    assert "secret" not in line


@pytest.mark.parametrize("url", ["sqlite:///{folder}", "sqlite:///{folder}/text.db", "sqlite:///{folder}/a/b.db"])
def test_a_database_that_cannot_be_used_is_named(tmp_path: Path, url: str) -> None:
    (tmp_path / "text.db").write_text("This is no database, however long it is. " * 100)
    url = url.format(folder=tmp_path)
    assert url.replace("sqlite:///", "") in _refused("--port", "0", "--database-url", url)


def test_a_database_of_a_newer_version_is_named_with_what_to_do_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "prefect.db"
    Database(f"sqlite:///{file}").close()
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")  # noqa: S608 - its own name
    before = file.read_bytes()
    line = _refused("--port", "0", "--database-url", f"sqlite:///{file}")
    assert str(file) in line
    assert "schema version 9999" in line
    assert "Update prefect-taskrun-tasks" in line
    assert file.read_bytes() == before


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "the key"
    file.write_text("s3cret-key-of-the-test\n")
    file.chmod(0o600)
    return file


def test_with_a_key_prefects_commands_agents_and_flow_runs_use_it(tmp_path: Path, key_file: Path) -> None:
    with _serving(tmp_path / "prefect.db", "--port", "0", "--api-key-file", str(key_file)) as server:
        assert "s3cret" not in server.command.stdout + server.command.stderr
        # as a shell does with the line that was printed
        (exported,) = re.findall(r"export PREFECT__CLOUD__API_KEY=(.*)", server.command.stdout)
        key = subprocess.run(["sh", "-c", f"printf %s {exported}"], check=True, capture_output=True, text=True).stdout
        del server.environment["PREFECT__CLOUD__API_KEY"]
        refused = ended("prefect", "get", "projects", env=server.environment)
        assert "UNAUTHENTICATED" in refused.stdout + refused.stderr
        server.environment["PREFECT__CLOUD__API_KEY"] = key
        server.prefect("create", "project", "p")
        server.prefect("register", "-p", str(EXAMPLES / "parent_child.py"), "--project", "p")
        assert _run_parent(server)
        assert "s3cret" not in server.command.stdout + server.command.stderr


def test_a_key_may_come_from_the_environment(tmp_path: Path) -> None:
    command = ("prefect-taskrun", "server", "start", "--port", "0", "--host", "0.0.0.0", "--database-url")
    url = f"sqlite:///{tmp_path / 'prefect.db'}"
    with started(*command, url, env={"PREFECT_TASKRUN_API_KEY": "s3cret-key-of-the-test"}) as process:
        server = Server(process)
        assert 'export PREFECT__CLOUD__API_KEY="$PREFECT_TASKRUN_API_KEY"' in process.stdout
        body = {"query": "{ hello }"}
        assert "UNAUTHENTICATED" in requests.post(server.url, json=body, timeout=10).text
        headers = {"Authorization": "Bearer s3cret-key-of-the-test"}
        assert requests.post(server.url, json=body, headers=headers, timeout=10).json()["data"]
    refused = ended(*command, url, env={"PREFECT_TASKRUN_API_KEY": ""})
    assert (refused.returncode, "empty" in refused.stderr) == (1, True)


def test_a_backend_for_other_machines_needs_a_key_or_says_that_it_is_unguarded(tmp_path: Path, key_file: Path) -> None:
    database = tmp_path / "prefect.db"
    options = ("--host", "0.0.0.0", "--port", "0", "--database-url", f"sqlite:///{database}")
    assert "--api-key-file" in _refused(*options)
    key_file.chmod(0o644)
    assert "chmod 600" in _refused(*options, "--api-key-file", str(key_file))
    key_file.chmod(0o600)
    contradiction = ended("prefect-taskrun", "server", "start", *options, "--unguarded", "--api-key-file", key_file)
    assert contradiction.returncode == 2
    assert not database.exists()
    with _serving(database, *options[:4], "--unguarded") as server:
        assert "unguarded" in server.command.stderr


@pytest.mark.parametrize("origin", ["*", "null", "runs.example", "https://runs.example/page", "https://a@b"])
def test_a_cors_origin_that_no_browser_would_send_is_refused(origin: str) -> None:
    process = ended("prefect-taskrun", "server", "start", "--cors-origin", origin)
    assert (process.returncode, "--cors-origin" in process.stderr) == (2, True)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8081", "nonsense", "http://127.0.0.1:port", "http://", "ftp://a:1", "http://a:99999"]
)
def test_an_agent_address_that_is_none_is_refused(address: str) -> None:
    process = ended("prefect-taskrun", "server", "start", "--agent-address", address)
    assert (process.returncode, "not an agent's address" in process.stderr) == (2, True)


def test_an_agent_address_may_be_any_that_is_one(tmp_path: Path) -> None:
    addresses = ("http://[::1]:8081", "https://agents.example/one", "http://agents.example:8081/")
    options = [option for address in addresses for option in ("--agent-address", address)]
    with _serving(tmp_path / "prefect.db", "--port", "0", *options) as server:
        assert server.graphql("{ hello }")


@pytest.mark.parametrize("option", ["--query-timeout", "--scheduler-interval"])
@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "1e300", "soon"])
def test_seconds_that_nobody_can_wait_are_refused(option: str, seconds: str) -> None:
    process = ended("prefect-taskrun", "server", "start", option, seconds)
    assert (process.returncode, option in process.stderr) == (2, True)


def test_limits_can_be_given(tmp_path: Path) -> None:
    options = ("--port", "0", "--max-body", "10000", "--max-depth", "2", "--max-fields", "3", "--max-rows", "1")
    with _serving(tmp_path / "prefect.db", *options, "--query-timeout", "5") as server:

        def refusal(query: str) -> str:
            answer = requests.post(server.url, json={"query": query}, timeout=10).json()
            return str(answer["errors"][0]["message"])

        assert "10000 bytes" in refusal("#" * 10_000)
        assert "2 levels" in refusal("{ flow { project { id } } }")
        assert "3 fields" in refusal("{ flow { id name version } }")
        server.graphql('mutation { create_tenant(input: {name: "b", slug: "b"}) { id } }')
        assert "1 rows" in refusal("{ tenant { id } }")


def test_intervals_of_services_can_be_given_and_the_log_be_for_programs(tmp_path: Path) -> None:
    intervals = ("--scheduler-interval", "0.2", "--zombie-killer-interval", "0.2", "--lazarus-interval", "1000")
    log = ("--log-format", "json", "--log-level", "debug")
    with _serving(tmp_path / "prefect.db", "--port", "0", *intervals, *log) as server:

        def runs(service: str) -> int:
            text = requests.get(server.url + "/metrics", timeout=10).text
            return int(re.findall(rf'service_runs_total{{service="{service}"}} (\d+)', text)[0])

        eventually(lambda: runs("schedule") > 1 and runs("kill_zombies") > 1)
        assert runs("lazarus") == 0
        server.graphql("{ hello }")
        lines = [json.loads(line) for line in server.command.stderr.splitlines()]
        assert [line["fields"] for line in lines if line.get("kind") == "query"] == [["hello"]]


def _create_projects(server: Server, acknowledged: Set[str]) -> None:
    """Creates projects until the server has gone."""
    tenant = server.graphql("{ tenant { id } }")["tenant"][0]["id"]
    number = 0
    with requests.Session() as session:
        while True:
            name = f"project {threading.get_ident()} {number}"
            document = f'mutation {{ create_project(input: {{tenant_id: "{tenant}", name: "{name}"}}) {{ id }} }}'
            try:
                answer = session.post(server.url, json={"query": document}, timeout=10)
            except requests.RequestException:
                return
            assert answer.json()["data"]["create_project"]["id"]
            acknowledged.add(name)
            number += 1


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [
        (signal.SIGINT, 0),
        (signal.SIGTERM, -signal.SIGTERM),
        (signal.SIGHUP, -signal.SIGTERM),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
    ids=["interrupted", "terminated", "hung up", "killed"],
)
def test_a_server_stopped_at_work_has_all_that_it_acknowledged_when_it_is_started_again(
    tmp_path: Path, number: int, exit_code: int
) -> None:
    database = tmp_path / "prefect.db"
    port = str(_free_port())
    acknowledged: Set[str] = set()
    with _serving(database, "--port", port) as server:
        assert server.url == f"http://127.0.0.1:{port}"
        clients = [threading.Thread(target=_create_projects, args=(server, acknowledged)) for _ in range(2)]
        for client in clients:
            client.start()
        eventually(lambda: len(acknowledged) > 50)
        server.command.process.send_signal(number)
        assert server.command.exit_code() == exit_code
        for client in clients:
            client.join(20)
        assert "Traceback" not in server.command.stderr
        assert server.command.stdout.endswith("\nStopped.\n") == (number != signal.SIGKILL)
    if number != signal.SIGKILL:
        # closed in good order, all is in the one file; the other is empty, and stays to be locked
        assert sorted(file.name for file in tmp_path.iterdir()) == ["prefect.db", "prefect.db-lock"]
    with _serving(database, "--port", port) as server:
        assert acknowledged <= {project["name"] for project in server.graphql("{ project { name } }")["project"]}


def test_without_a_database_url_all_is_kept_in_prefects_home_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = ("prefect-taskrun", "server", "start", "--port", "0")
    with started(*command, env={"PREFECT__HOME_DIR": str(home)}) as server:
        assert Server(server).graphql("{ tenant { slug } }") == {"tenant": [{"slug": "default"}]}
    assert (home / "prefect-taskrun.db").exists()
