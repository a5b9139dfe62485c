"""All that a faulted run needs: a backend, a faulty proxy before it, and an agent that reaches it through that."""

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional

import flows
import prefect
import psutil
from conftest import eventually
from prefect.utilities.configuration import set_temporary_config
from proxy import Proxy
from sqlalchemy import select

from prefect_taskrun_tasks.agent.process import GRACE
from prefect_taskrun_tasks.runner import settings, variables
from prefect_taskrun_tasks.server import Backend, services, tables
from prefect_taskrun_tasks.server.clock import ago
from prefect_taskrun_tasks.server.rules import flow_runs, states
from prefect_taskrun_tasks.server.transaction import Row
from prefect_taskrun_tasks.warm import title

#: The share of requests of Prefect's own client that are hit: it pauses for two seconds when it is hit twice in a row
RATE = 0.05

#: The share of those of this package
OUR_RATE = 0.25

#: States of flow runs that have a process
WITH_PROCESS = ("Submitted", "Running", "Cancelling")

#: States of task runs that Prefect's UI starts again, when it restarts a flow run
RESTARTED = ("Failed", "TimedOut", "TriggerFailed", "Cancelled")


class Installation:
    """A backend, a faulty proxy before it, and an agent, for as long as a block lasts.

    What is done here is done without the proxy: it stands for people, who try again, and for the backend itself.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._agent: Optional[subprocess.Popen[bytes]] = None
        self._triggerer: Optional[subprocess.Popen[bytes]] = None
        self._stack = ExitStack()
        #: name of a parent flow -> its id
        self.parents: Dict[str, str] = {}

    def __enter__(self) -> "Installation":
        self._directory.mkdir()
        with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as free:
            self._agent_address = f"http://127.0.0.1:{free.getsockname()[1]}"
            database_url = f"sqlite:///{self._directory / 'prefect.db'}"
            self.backend = stack.enter_context(Backend(database_url, port=0, agent_addresses=[self._agent_address]))
            self.proxy = stack.enter_context(Proxy(self.backend.url, RATE, OUR_RATE))
            with set_temporary_config(settings(self.backend.url)):
                prefect.Client().create_project("soak")
                flows.child().register("soak", no_url=True)
                self.parents = {flow.name: flow.register("soak", no_url=True) for flow in flows.parents()}
            stack.callback(self._end_processes)
            self._stack = stack.pop_all()
        self.start_agent()
        self.start_triggerer()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def start_triggerer(self) -> None:
        with (self._directory / "triggerer.log").open("ab") as log:
            self._triggerer = subprocess.Popen(
                [str(Path(sys.executable).parent / "prefect-taskrun"), "triggerer"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._variables()},
                start_new_session=True,
            )

    def kill_triggerer(self) -> None:
        """Kills the triggerer, wherever it is, and starts another."""
        self._end_triggerer()
        self.start_triggerer()

    def _end_triggerer(self) -> None:
        if self._triggerer is not None:
            self._triggerer.kill()
            self._triggerer.wait()

    def _variables(self) -> Dict[str, str]:
        """Those that point a process's Prefect at the proxy."""
        return variables(self.proxy.url)

    def start_agent(self) -> None:
        environment = {
            **os.environ,
            **self._variables(),
            flows.EXECUTIONS: str(self._directory / "executions"),
            # the other way, a process more for each flow run, takes as long to start as the flow run itself
            "PREFECT__CLOUD__HEARTBEAT_MODE": "thread",
            "PYTHONPATH": os.pathsep.join([str(Path(flows.__file__).parent), os.environ.get("PYTHONPATH", "")]),
        }
        with (self._directory / "agent.log").open("ab") as log:
            self._agent = subprocess.Popen(
                [sys.executable, "-m", "prefect_taskrun_tasks.agent"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        assert self._agent.stdin is not None
        line: Dict[str, Any] = {"address": self._agent_address, "environment": {}}
        self._agent.stdin.write(json.dumps(line).encode() + b"\n")
        self._agent.stdin.flush()

    def kill_agent(self) -> List[str]:
        """Kills the agent, brings back what it took along, and starts another; returns the flow runs that were lost."""
        assert self._agent is not None
        assert self._agent.stdin is not None
        self._agent.kill()
        self._agent.wait()
        self._agent.stdin.close()
        self._agent = None
        # which the agent may have just forked, and which then still looks like the agent
        eventually(lambda: "" not in self.processes())
        self.proxy.settle()
        # as long as there is no agent, no process begins
        alive = self.processes()
        lost = self.recover(row["id"] for row in self.flow_runs(WITH_PROCESS) if row["id"] not in alive)
        self.start_agent()
        return lost

    def kill_flow_run(self, flow_run_id: str) -> List[str]:
        """Kills the process of a flow run and brings the flow run back, if it was lost. Returns it if it was."""
        found = self.processes().get(flow_run_id, [])
        for process in found:
            process.kill()
        eventually(lambda: flow_run_id not in self.processes())
        self.proxy.settle()
        return self.recover([flow_run_id])

    def processes(self) -> "Dict[str, List[psutil.Process]]":
        """Flow run id -> its processes; under the empty id all others, but for agent, its template and triggerer."""
        found: Dict[str, List[psutil.Process]] = {}
        titles = {title(row["id"]): row["id"] for row in self.flow_runs()}
        others = [each.pid for each in (self._agent, self._triggerer) if each is not None]
        for pid in psutil.pids():
            # a process that has ended, or is somebody else's
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                environment = process.environ()
                flow_run_id = environment.get("PREFECT__CONTEXT__FLOW_RUN_ID") or titles.get(process.name(), "")
                is_other = pid in others or (not flow_run_id and process.ppid() in others)
                if environment.get("PREFECT__CLOUD__API") == self.proxy.url and not is_other:
                    found.setdefault(flow_run_id, []).append(process)
        return found

    def recover(self, lost: Iterable[str]) -> List[str]:
        """What the backend does once flow runs have been silent for ten minutes, at once.

        Returns:
            Those that were lost: they should have a process.
        """
        runs = tables.flow_run
        with self.backend._database.write() as tx:
            silent = runs.c.id.in_(list(lost)) & runs.c.state.in_(WITH_PROCESS)
            ids = [row["id"] for row in tx.rows(select(runs.c.id).where(silent))]
            tx.update(runs, silent, heartbeat=ago(services.HEARTBEAT_TIMEOUT + 1))
            services.kill_zombies(tx)
            services.lazarus(tx)
        return ids

    def create_flow_run(self, flow_id: str) -> str:
        with self.backend._database.write() as tx:
            return str(flow_runs.create_flow_run(tx, flow_id=flow_id)["id"])

    def restart(self, flow_run_id: str) -> None:
        """Runs a flow run again that has failed, as Prefect's UI does."""
        runs = tables.task_run
        with self.backend._database.write() as tx:
            failed = tx.rows(select(runs.c.id).where(runs.c.flow_run_id == flow_run_id, runs.c.state.in_(RESTARTED)))
            pending = {"type": "Pending", "message": "The flow run was restarted."}
            states.set_task_run_states(tx, [{"task_run_id": row["id"], "state": pending} for row in failed])
            states.set_start(tx, flow_run_id, "Restarted.")

    def flow_runs(self, in_states: Iterable[str] = states.KNOWN) -> List[Row]:
        runs = tables.flow_run
        return self._rows(select(runs).where(runs.c.state.in_(list(in_states))).order_by(runs.c.created))

    def flow_run(self, flow_run_id: str) -> Row:
        [row] = self._rows(select(tables.flow_run).where(tables.flow_run.c.id == flow_run_id))
        return row

    def task_runs(self, flow_run_id: str) -> List[Row]:
        runs, tasks = tables.task_run, tables.task
        joined = select(runs, tasks.c.slug).join(tasks, tasks.c.id == runs.c.task_id)
        return self._rows(joined.where(runs.c.flow_run_id == flow_run_id))

    def history(self, flow_run_id: str) -> List[Row]:
        """The states that a flow run has been in."""
        history = tables.flow_run_state
        return self._rows(select(history).where(history.c.flow_run_id == flow_run_id).order_by(history.c.version))

    def logs(self, flow_run_id: str) -> List[Row]:
        logs = tables.log
        return self._rows(select(logs).where(logs.c.flow_run_id == flow_run_id).order_by(logs.c.timestamp))

    def executions(self) -> List[str]:
        """Ids of the children that were executed, each as often as it was."""
        file = self._directory / "executions"
        return file.read_text().split() if file.exists() else []

    def agent_log(self) -> str:
        return (self._directory / "agent.log").read_text(errors="replace")

    def _rows(self, statement: Any) -> List[Row]:
        with self.backend._database.read() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    def _end_processes(self) -> None:
        self._end_triggerer()
        if self._agent is not None:
            assert self._agent.stdin is not None
            self._agent.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._agent.wait(GRACE)
            self._agent.kill()
            self._agent.wait()
            self._agent = None
        # flow runs of agents that were killed, when a test has failed
        for found in self.processes().values():
            for process in found:
                with suppress(psutil.Error):
                    process.kill()
        eventually(lambda: not self.processes())
