"""
A Prefect local agent that ends together with the process that started it.

Run as ``python -m prefect_taskrun_tasks.agent ADDRESS``, in a session of its own. It ends when its standard input is
closed, which also happens when the process at the other end is killed; flow runs that it has started end with it.
"""

import argparse
import os
import signal
import sys
import threading
import traceback
from collections import Counter
from contextlib import suppress
from subprocess import DEVNULL, Popen, TimeoutExpired
from time import monotonic
from typing import Dict, List, Optional, Set, Union

import psutil
from prefect.agent.local import LocalAgent
from prefect.run_configs import LocalRun, UniversalRun
from prefect.serialization.run_config import RunConfigSchema
from prefect.serialization.storage import StorageSchema
from prefect.storage import Docker
from prefect.utilities.graphql import GraphQLResult

from . import api
from .process_end import LostFlowRun
from .views import FlowRunView
from .waiting import approval_request
from .waiting.agents import ANY_LABELS
from .waiting.last_lines import AGENT, PROCESS_ENDED
from .warm import NotForked, NotPreloaded, Template, WarmProcess, find_processes, read_at_start

#: A process of a flow run: forked from the template, or a new interpreter
FlowRunProcess = Union[WarmProcess, "Popen[bytes]"]

#: Seconds that flow runs have to end after an interrupt, before they are killed
GRACE = 5.0


def _interrupt_at_end_of_input() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGINT)


class CannotExecute(Exception):
    """This machine has no way to execute the flow run."""


class _Agent(LocalAgent):
    """Takes flow runs with any labels, takes them along when it ends, and settles those whose process has ended early.

    It sends the heartbeats of its flow runs itself, for as long as their processes live. Prefect's heartbeat process
    outlives a flow run that is killed, and says for ever that the flow run is alive (Prefect issue 2834).
    """

    def __init__(self, address: str, template: Optional[Template] = None) -> None:
        super().__init__(name=AGENT, labels=[ANY_LABELS], hostname_label=False, agent_address=address)
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
        """Says for each process that lives that its flow run does; called every 30 seconds."""
        for process, flow_run_id in list(self._flow_runs.items()):
            if process.poll() is None:
                self.client.update_flow_run_heartbeat(flow_run_id)

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
        environment = {**self.populate_env_vars(flow_run, run_config), "PREFECT__CLOUD__HEARTBEAT_MODE": "off"}
        process = self._start(flow_run.id, environment, run_config.working_dir)
        self._flow_runs[process] = flow_run.id
        threading.Thread(target=self._wait_for, args=(process,), daemon=True).start()
        return f"PID: {process.pid}"

    def _start(self, flow_run_id: str, environment: Dict[str, str], working_dir: Optional[str]) -> FlowRunProcess:
        reasons = read_at_start(environment)
        if self._template and not reasons:
            try:
                return self._template.start(environment, working_dir)
            except NotForked as error:
                reasons = [str(error)]
        if self._template:
            self.logger.debug(f"Flow run {flow_run_id} starts in a new interpreter: {', '.join(reasons)}")
        return Popen(
            [sys.executable, "-m", "prefect", "execute", "flow-run"],
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
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
        _kill_rest(flow_run_id)
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
        api.write_logs([{"flow_run_id": flow_run_id, "name": AGENT, "level": level, "message": message}])

    def on_shutdown(self) -> None:
        """Ends all processes of this one's group, itself included."""
        self._is_ending = True
        error = sys.exc_info()[1]
        if isinstance(error, Exception):
            # nothing is printed any more once this process is killed
            traceback.print_exception(type(error), error, error.__traceback__)
        sys.stdout.flush()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.killpg(0, signal.SIGINT)
        deadline = monotonic() + GRACE
        for process in list(self._flow_runs):
            try:
                process.wait(max(0.0, deadline - monotonic()))
            except TimeoutExpired:
                break
        # flow runs that ignore interrupts, and processes that flow runs have started
        os.killpg(0, signal.SIGKILL)


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


def _kill_rest(flow_run_id: str) -> None:
    """Kills the processes that a process of a flow run has left, such as workers that go on with its task runs."""
    for process in find_processes([flow_run_id]):
        with suppress(psutil.Error, OSError):
            if os.getpgid(process.pid) == os.getpgid(0):
                process.kill()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--preload", action="append", default=[])
    options = parser.parse_args()
    # the group is signalled as a whole, so it must be this agent's own
    assert os.getpgid(0) == os.getpid(), "start this in a new session"
    # a shell that starts a command in the background has it ignore interrupts; this one must end by one, even if it
    # comes before the agent has its own handler for it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    template: Optional[Template] = None
    warnings: List[str] = []
    # on macOS, libraries of the system do not work after a fork
    if sys.platform == "linux" and not options.cold:
        template = Template(options.preload)
        # as long as there is one thread
        template.fork()
        try:
            warnings = template.imported() if options.preload else []
        except NotPreloaded as error:
            sys.exit(str(error))
    agent = _Agent(options.address, template)
    for warning in warnings:
        agent.logger.warning(warning)
    threading.Thread(target=_interrupt_at_end_of_input, name="end-of-input", daemon=True).start()
    agent.start()


if __name__ == "__main__":
    main()
