"""A Prefect local agent whose flow runs are warm, and which settles those whose process ends early."""

import os
import signal
import sys
import threading
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from subprocess import DEVNULL, STDOUT, Popen
from typing import Any, Dict, Optional, Set, Union

import pendulum
import psutil
from prefect.agent.local import LocalAgent
from prefect.run_configs import LocalRun, UniversalRun
from prefect.serialization.run_config import RunConfigSchema
from prefect.serialization.storage import StorageSchema
from prefect.storage import Docker
from prefect.utilities.graphql import GraphQLResult

from .. import api
from ..views import FlowRunView
from ..waiting import approval_request
from ..waiting.last_lines import PROCESS_ENDED
from ..warm import NotForked, Template, WarmProcess, find_processes, read_at_start
from .process_end import LostFlowRun

#: A process of a flow run: forked from the template, or a new interpreter
FlowRunProcess = Union[WarmProcess, "Popen[bytes]"]


#: Seconds that processes of a cancelled flow run have to end
LONGEST_CANCEL = 10.0


class CannotExecute(Exception):
    """This machine has no way to execute the flow run."""


class WarmAgent(LocalAgent):
    """Starts flow runs in forked processes, and settles those whose process has ended early.

    It sends heartbeats for its flow runs, as long as their processes live. Prefect's heartbeat process outlives a flow
    run that is killed, and says for ever that it is alive (Prefect issue 2834). So a flow run sends its own heartbeats
    from a thread, which go on when the agent has ended.

    Args:
        template: what to fork flow runs from; default: each is a new interpreter, as with Prefect's agent.
        options: of `prefect.agent.local.LocalAgent`.
    """

    def __init__(self, template: Optional[Template] = None, **options: Any) -> None:
        super().__init__(**options)
        #: seconds between two heartbeats, as of Prefect's flow runs
        self.heartbeat_period = 30
        self._template = template
        self._is_ending = False
        #: process that has not ended, or whose end has not been looked into -> UUID of its flow run
        self._flow_runs: Dict[FlowRunProcess, str] = {}
        #: UUID of a flow run -> how often it was started again after its process was lost
        self._restarts: Counter[str] = Counter()
        self._settling = threading.Lock()
        self._id = ""

    def _register_agent(self) -> str:
        self._id = super()._register_agent()
        return self._id

    def heartbeat(self) -> None:
        """Sends a heartbeat for each flow run whose process lives; called every 30 seconds."""
        alive = {process: id for process, id in list(self._flow_runs.items()) if process.poll() is None}
        for flow_run_id in alive.values():
            self.client.update_flow_run_heartbeat(flow_run_id)
        if alive:
            self._end_cancelled(alive)

    def _end_cancelled(self, alive: Dict[FlowRunProcess, str]) -> None:
        """Kills processes that go on after their flow run was cancelled.

        On Python 3.8, a pool of processes of `LocalDaskExecutor` waits for ever after an interrupt.
        """
        latest = pendulum.now("utc") - timedelta(seconds=LONGEST_CANCEL)
        where = {"id": {"_in": list(alive.values())}, "state": {"_eq": "Cancelled"}}
        for row in api.find("flow_run", {**where, "state_timestamp": {"_lt": latest.isoformat()}}, fields="id"):
            message = (
                f"Processes of this flow run go on {LONGEST_CANCEL:.0f} s after it was cancelled. They are killed."
            )
            self._log(row["id"], "WARNING", message)
            _kill_processes(row["id"])

    def deploy_flow(self, flow_run: GraphQLResult) -> str:
        """Starts the process of a flow run.

        Raises:
            CannotExecute: this machine cannot; the flow run then fails with this reason.
        """
        run_config = self._local_run(flow_run)
        storage = StorageSchema().load(flow_run.flow.storage)
        if isinstance(storage, Docker):
            raise CannotExecute(
                "This flow is stored in a Docker image, and this agent executes flow runs as processes of its own "
                "machine. Register the flow with another storage, such as Local(), or run it with a Docker or "
                "Kubernetes agent."
            )
        if run_config.working_dir and not os.path.isdir(run_config.working_dir):
            raise CannotExecute(
                f"The working_dir {run_config.working_dir!r} of this flow run's run config is not a folder of this "
                "machine. Create it, or give another one."
            )
        process = self._start(flow_run.id, self._environment(flow_run, run_config), run_config.working_dir)
        self._flow_runs[process] = flow_run.id
        threading.Thread(target=self._wait_for, args=(process,), daemon=True).start()
        return f"PID: {process.pid}"

    def _environment(self, flow_run: GraphQLResult, run_config: LocalRun) -> Dict[str, str]:
        return {"PREFECT__CLOUD__HEARTBEAT_MODE": "thread", **self.populate_env_vars(flow_run, run_config)}

    def _start(self, flow_run_id: str, environment: Dict[str, str], working_dir: Optional[str]) -> FlowRunProcess:
        changed = read_at_start(environment)
        if self._template and changed:
            self.logger.debug(f"Flow run {flow_run_id} sets {', '.join(changed)}: it starts in a new interpreter.")
        elif self._template:
            try:
                return self._template.start(environment, working_dir)
            except NotForked as error:
                self.logger.warning(f"Flow run {flow_run_id} starts in a new interpreter: {error}")
        return Popen(
            [sys.executable, "-m", "prefect", "execute", "flow-run"],
            stdin=DEVNULL,
            stdout=None if self.show_flow_logs else DEVNULL,
            stderr=STDOUT,
            env=environment,
            cwd=working_dir,
        )

    def _local_run(self, flow_run: GraphQLResult) -> LocalRun:
        run_config = RunConfigSchema().load(flow_run.run_config) if flow_run.run_config else UniversalRun()
        if isinstance(run_config, UniversalRun):
            return LocalRun(env=run_config.env, labels=run_config.labels)
        if not isinstance(run_config, LocalRun):
            kind = type(run_config).__name__
            raise CannotExecute(
                f"This flow run has a {kind} as its run config, and this agent executes flow runs as processes of its "
                f"own machine. Give it a LocalRun or UniversalRun, or run it with an agent for {kind}."
            )
        return run_config

    def _wait_for(self, process: FlowRunProcess) -> None:
        code = process.wait()
        if self._is_ending:
            return
        try:
            # one at a time: two processes of one flow run must not be settled at once
            with self._settling:
                self._look_into(process, code)
        except Exception:
            # the services of the backend settle it later
            self.logger.exception(f"The end of process {process.pid} could not be looked into.")
        finally:
            del self._flow_runs[process]

    def _look_into(self, process: FlowRunProcess, code: int) -> None:
        flow_run_id = self._flow_runs[process]
        ended = PROCESS_ENDED.format(process.pid) + _how(code)
        lost = LostFlowRun.find(flow_run_id, self._id)
        if lost is None or self._has_another(process):
            self._ask_for_approval(flow_run_id)
            self._log(flow_run_id, "DEBUG", f"{ended}.")
            return
        _kill_processes(flow_run_id)
        if code == -signal.SIGKILL:
            reason = f"{ended}. If nobody did that, the machine may be out of memory."
        else:
            reason = f"{ended} before the flow run has."
        done = lost.settle(reason, self._restarts)
        self._log(flow_run_id, "ERROR", f"{reason} {done}")

    def _ask_for_approval(self, flow_run_id: str) -> None:
        """Says in the log of a flow run, and of those that it is a child of, what it waits for if that is a person."""
        flow_run = FlowRunView.from_flow_run_id(flow_run_id)
        request = None if flow_run.state.is_finished() else approval_request(flow_run)
        asked: Set[str] = set()
        reader: Optional[FlowRunView] = flow_run
        while request and reader and reader.flow_run_id not in asked:
            asked.add(reader.flow_run_id)
            self._log(reader.flow_run_id, "WARNING", request)
            reader = reader.get_parent()

    def _has_another(self, process: FlowRunProcess) -> bool:
        """Whether the flow run has been given another process meanwhile."""
        flow_run_id = self._flow_runs[process]
        others = [other for other, id in list(self._flow_runs.items()) if id == flow_run_id and other is not process]
        return flow_run_id in self.submitting_flow_runs or any(other.poll() is None for other in others)

    def _log(self, flow_run_id: str, level: str, message: str) -> None:
        api.write_logs([{"flow_run_id": flow_run_id, "name": self.name, "level": level, "message": message}])


def _how(code: int) -> str:
    """What an exit code of a process says."""
    if code == WarmProcess.UNKNOWN:
        return "has ended with an exit code that is not known"
    if code >= 0:
        return f"has ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _kill_processes(flow_run_id: str) -> None:
    """Kills the processes of a flow run: also those that it has started, such as workers that go on with its tasks."""
    for process in find_processes([flow_run_id]):
        with suppress(psutil.Error, OSError):
            if os.getpgid(process.pid) == os.getpgid(0):
                process.kill()
