"""Flow runs in warm processes, which are forked, are the same as in cold ones, which are new interpreters."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Dict, Iterator, List, Tuple

import prefect
import psutil
import pytest
from conftest import eventually
from processes import ended

from prefect_taskrun_tasks import FlowRunView, FlowView
from prefect_taskrun_tasks.runner import AgentFailed, LocalRunner
from prefect_taskrun_tasks.warm import find_processes

FLOWS = """
import asyncio
import json
import locale
import logging
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import prefect
from prefect import Flow, Parameter, task
from prefect.engine.results import LocalResult
from prefect.executors import DaskExecutor, LocalDaskExecutor
from prefect.run_configs import LocalRun, UniversalRun
from prefect.storage import Local

import beside

STORED = Local(path=__file__, stored_as_script=True)
RESULT = LocalResult(dir=os.path.dirname(__file__))
ENVIRONMENT = {"PREFECT__CONTEXT__SECRETS__OWN": "hidden", "PREFECT__LOGGING__LEVEL": "DEBUG", "OWN": "one",
               "PREFECT__LOGGING__EXTRA_LOGGERS": "['own']", "PREFECT__OWN__NUMBER": "2"}

def status(name):
    return Path("/proc/self/status").read_text().split(name + ":")[1].split()[0]

def open_files():
    found = []
    for each in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{each}")
        except FileNotFoundError:
            continue
        # the folder that is listed, and connections of other threads
        if not target.startswith(("/proc", "socket", "anon_inode")):
            found.append((int(each), target))
    return sorted(found)

@task
def see(file):
    prefect.context.logger.info("This line is logged once.")
    logging.getLogger("own").info("This one too.")
    main = sys.modules["__main__"]
    # those that Prefect adds to the context of a task run
    of_run = ["date", "today", "yesterday", "tomorrow", "scheduled_start_time", "config", "parameters", "logger"]
    Path(file).write_text(json.dumps({
        "environment": dict(os.environ),
        "config": prefect.config.to_dict(),
        "context": {name: value for name, value in prefect.context.items()
                    if not name.startswith(tuple(of_run))},
        "config in context": prefect.context.config,
        "kinds": [type(each).__name__ for each in (
            prefect.config, prefect.config.cloud, prefect.context.config, prefect.context.config.cloud)],
        "path": sys.path,
        "arguments": sys.argv,
        "folder": os.getcwd(),
        "main": [main.__name__, main.__spec__.name, main.__file__],
        "umask": status("Umask"),
        "blocked signals": status("SigBlk"),
        "ignored signals": status("SigIgn"),
        "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "open files": open_files(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "handlers": {name: [type(each).__name__ for each in logging.getLogger(name).handlers]
                     for name in ("", "prefect", "own")},
        "levels": {name: logging.getLogger(name).level for name in ("prefect", "own")},
        "streams": [(each.fileno(), each.encoding, each.errors) for each in (sys.stdin, sys.stdout, sys.stderr)],
        "locale": locale.getlocale(),
        "temporary files": tempfile.gettempdir(),
        "start method": multiprocessing.get_start_method(),
        "process": multiprocessing.current_process().name,
        "beside": beside.VALUE,
        "limits": sys.getrecursionlimit(),
        "collects garbage": __import__("gc").isenabled(),
    }, default=repr))

@task
def random_number():
    return random.random()

def square(x):
    return x * x

@task
def in_all_ways():
    database = sqlite3.connect(":memory:")
    found = [database.execute("select 1 + 1").fetchone()[0]]
    found += [asyncio.run(asyncio.sleep(0, 3))]
    found += [int(subprocess.check_output([sys.executable, "-c", "print(4)"]))]
    with ThreadPoolExecutor(2) as pool:
        found += pool.map(square, [2, 3])
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            found += pool.map(abs, [-1, -2])
    return found

RUN_CONFIG = LocalRun(env=ENVIRONMENT, working_dir=os.path.dirname(__file__))

with Flow("warm-sees", storage=STORED, result=RESULT, run_config=RUN_CONFIG) as a:
    see(Parameter("file"))

with Flow("warm-random", storage=STORED, result=RESULT) as b:
    random_number()

with Flow("warm-all-ways", storage=STORED, result=RESULT) as c:
    in_all_ways()

@task
def mapped(x):
    return x + 1

for name, executor in {
    "threads": LocalDaskExecutor(scheduler="threads", num_workers=2),
    "processes": LocalDaskExecutor(scheduler="processes", num_workers=2),
    "cluster": DaskExecutor(cluster_kwargs={"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}),
}.items():
    with Flow("warm-" + name, storage=STORED, result=RESULT, executor=executor) as flow:
        mapped.map(list(range(3)))
    globals()[name] = flow

@task
def end(how):
    if how == "os._exit":
        os._exit(4)
    if how == "sys.exit":
        sys.exit(3)
    if how == "chdir":
        os.chdir("/")
    if how == "thread":
        threading.Thread(target=print, daemon=False).start()
    return how

with Flow("warm-ends", storage=STORED, result=RESULT) as d:
    end(Parameter("how"))

with Flow("warm-beside", storage=STORED, result=RESULT) as e:
    task(lambda: beside.VALUE, name="value")()

with Flow("warm-hash-seed", storage=STORED, result=RESULT, run_config=UniversalRun(env={"PYTHONHASHSEED": "7"})) as f:
    task(lambda: [hash("text"), os.environ["PYTHONHASHSEED"]], name="hashes")()
"""


UUIDS = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("warm")
    (folder / "warm_flows.py").write_text(FLOWS)
    (folder / "beside.py").write_text("VALUE = 'first'")
    return folder


@contextmanager
def _runner(kind: str, folder: Path) -> Iterator[LocalRunner]:
    # the agent and its flow runs start in this process's working folder
    with LocalRunner(import_paths=[str(folder)], warm=kind == "warm") as runner:
        runner.register(folder / "warm_flows.py")
        yield runner


@pytest.fixture(scope="module")
def runner(request: pytest.FixtureRequest, folder: Path) -> Iterator[LocalRunner]:
    with _runner(getattr(request, "param", "warm"), folder) as runner:
        yield runner


def _process_end(flow_run: FlowRunView) -> str:
    """What the agent has logged about the end of the process of a flow run."""

    def found() -> List[str]:
        return [log.message for log in flow_run.iter_logs() if log.message.startswith("The process of this flow run")]

    return str(re.sub("PID [0-9]+", "PID", eventually(found)[0]))


def _seen(file: Path) -> Dict[str, Any]:
    """What a flow run of "warm-sees" has seen, without what is another in each flow run."""
    text = file.read_text()
    flow_run: Dict[str, Any] = json.loads(text)
    # what pytest sets
    text = text.replace(os.environ["PYTEST_CURRENT_TEST"], "own")
    for own in (flow_run["context"]["flow_run_name"], flow_run["config"]["cloud"]["api"], str(file)):
        text = text.replace(own, "own")
    seen: Dict[str, Any] = json.loads(UUIDS.sub("UUID", text))
    return seen


@pytest.fixture(scope="module")
def seen_cold(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuple[Dict[str, Any], List[str]]:
    """What a flow run sees in a new interpreter, and its log."""
    return _seen_with_runner("cold", folder, tmp_path_factory.mktemp("seen"))


def _seen_with_runner(kind: str, folder: Path, tmp_path: Path) -> Tuple[Dict[str, Any], List[str]]:
    file = tmp_path / "seen"
    with _runner(kind, folder) as runner:
        flow_run = runner.run("warm-sees", {"file": str(file)})
        assert flow_run.state.is_successful(), flow_run.state.message
        logs = [f"{log.level} {log.message}" for log in flow_run.get_logs()]
    logs = [UUIDS.sub("UUID", line).replace(flow_run.name, "own") for line in logs]
    return _seen(file), sorted(re.sub("PID.? [0-9]+", "PID", line) for line in logs)


def test_a_flow_run_sees_the_same(seen_cold: Tuple[Dict[str, Any], List[str]], folder: Path, tmp_path: Path) -> None:
    seen, logs = _seen_with_runner("warm", folder, tmp_path)
    for name in seen_cold[0]:
        assert seen[name] == seen_cold[0][name], name
    assert logs == seen_cold[1]
    assert [line for line in logs if "This" in line] == ["20 This line is logged once.", "20 This one too."]
    assert seen["config"]["own"] == {"number": 2}
    assert seen["context"]["secrets"] == {"OWN": "hidden"}


@pytest.mark.parametrize("option", [[], ["--cold"]], ids=["warm", "cold"])
def test_a_flow_run_of_the_command_sees_the_same(
    seen_cold: Tuple[Dict[str, Any], List[str]], folder: Path, tmp_path: Path, option: List[str]
) -> None:
    # the agent is forked from the command's process, and has none of the files that that was started with
    file = tmp_path / "seen"
    command = ("prefect-taskrun", "run", folder / "warm_flows.py", "--flow", "warm-sees", "--param", f"file={file}")
    with TemporaryFile() as inherited:
        process = ended(*command, *option, pass_fds=[inherited.fileno()])
    assert process.returncode == 0, process.stderr
    seen = _seen(file)
    for name in seen_cold[0]:
        assert seen[name] == seen_cold[0][name], name


def test_random_numbers_of_two_flow_runs_differ(runner: LocalRunner) -> None:
    numbers = [runner.run("warm-random").get_task_run("random_number-1").get_result() for _ in range(2)]
    assert numbers[0] != numbers[1]


def test_processes_threads_and_event_loops_work(runner: LocalRunner) -> None:
    flow_run = runner.run("warm-all-ways")
    assert flow_run.get_task_run("in_all_ways-1").get_result() == [2, 3, 4, 4, 9, 1, 2, 1, 2, 1, 2]


@pytest.mark.parametrize("executor", ["threads", "processes", "cluster"])
def test_flows_run_on_each_executor(runner: LocalRunner, executor: str) -> None:
    assert runner.run(f"warm-{executor}").get_task_run("mapped-1").get_result() == [1, 2, 3]


@pytest.mark.parametrize("runner", ["warm", "cold"], indirect=True)
@pytest.mark.parametrize(
    ("how", "state", "end"),
    [
        ("os._exit", "Failed", "has ended with exit code 4 before the flow run has."),
        ("sys.exit", "Failed", "has ended with exit code 3"),
        ("chdir", "Success", "has ended with exit code 0."),
        ("thread", "Success", "has ended with exit code 0."),
    ],
)
def test_processes_end_the_same(runner: LocalRunner, how: str, state: str, end: str) -> None:
    flow_run = runner.run("warm-ends", {"how": how})
    assert type(flow_run.state).__name__ == state
    assert end in _process_end(flow_run)


def test_a_flow_run_sees_modules_as_they_are_now(runner: LocalRunner, folder: Path) -> None:
    for value in ("first", "second, edited"):
        (folder / "beside.py").write_text(f"VALUE = {value!r}")
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)
        assert runner.run("warm-beside").get_task_run("value-1").get_result() == value
    (folder / "beside.py").write_text("VALUE = 'first'")


def test_what_only_a_new_interpreter_reads_starts_one(runner: LocalRunner) -> None:
    expected = subprocess.check_output(
        [sys.executable, "-c", "print(hash('text'))"], env={**os.environ, "PYTHONHASHSEED": "7"}
    )
    assert runner.run("warm-hash-seed").get_task_run("hashes-1").get_result() == [int(expected), "7"]


def _agent_processes() -> "List[psutil.Process]":
    return [each for each in psutil.Process().children() if "prefect_taskrun_tasks.agent" in each.cmdline()]


SLEEPS = """
import time
from pathlib import Path
import prefect
from prefect import Flow, Parameter, task

@task
def until_there_is(file):
    while not Path(file).exists():
        time.sleep(0.05)

with Flow("warm-waits") as flow:
    until_there_is(Parameter("file"))

with Flow("warm-preloaded") as preloaded:
    task(lambda: __import__("own_module").START, name="start")()
"""


def _start(file: Path) -> FlowRunView:
    flow_id = FlowView.from_flow_name("warm-waits").flow_id
    client = prefect.Client()
    return FlowRunView.from_flow_run_id(client.create_flow_run(flow_id=flow_id, parameters={"file": str(file)}))


def test_when_the_template_is_killed_another_one_starts_and_flow_runs_go_on(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(SLEEPS)
    others = _agent_processes()
    with LocalRunner() as local:
        local.register(tmp_path / "flows.py")
        [agent] = [agent for agent in _agent_processes() if agent not in others]
        first = _start(tmp_path / "end")
        eventually(lambda: first.get_latest().state.is_running())
        [template] = agent.children()
        [process] = find_processes([first.flow_run_id])
        assert process.ppid() == template.pid
        template.kill()
        second = _start(tmp_path / "end")
        eventually(lambda: second.get_latest().state.is_running())
        assert process.is_running()
        [process] = find_processes([second.flow_run_id])
        assert process.ppid() in [each.pid for each in agent.children()]
        (tmp_path / "end").touch()
        for flow_run in (first, second):
            eventually(lambda flow_run=flow_run: flow_run.get_latest().state.is_successful())
        assert "exit code that is not known" in _process_end(first)
        assert "exit code 0" in _process_end(second)


def test_modules_can_be_imported_before_flow_runs(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(SLEEPS)
    (tmp_path / "own_module.py").write_text("import time; START = time.time()")
    with LocalRunner(import_paths=[str(tmp_path)], preload=["own_module"]) as local:
        local.register(tmp_path / "flows.py")
        starts = [local.run("warm-preloaded").get_task_run("start-1").get_result() for _ in range(2)]
        assert starts[0] == starts[1]
        # it has changed on disk: another template starts
        (tmp_path / "own_module.py").write_text("import time; START = -time.time()")
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        assert local.run("warm-preloaded").get_task_run("start-1").get_result() < 0


@pytest.mark.parametrize("content", [None, "1 / 0"], ids=["missing", "failing"])
def test_an_agent_does_not_start_without_the_modules_to_preload(tmp_path: Path, content: Any) -> None:
    (tmp_path / "flows.py").write_text(SLEEPS)
    if content:
        (tmp_path / "own_module.py").write_text(content)
    with LocalRunner(import_paths=[str(tmp_path)], preload=["own_module"]) as local:
        local.register(tmp_path / "flows.py")
        with pytest.raises(AgentFailed, match="The module 'own_module' cannot be preloaded"):
            local.run("warm-preloaded")
