"""The agent of a `LocalRunner`: it takes flow runs with any labels, and ends with the process that started it.

Run as ``python -m prefect_taskrun_tasks.agent``, in a session of its own. It takes flow runs once the first line of its
standard input has come, see `AgentProcess.configure`. It ends when its standard input is closed, which also happens
when the process at the other end is killed; flow runs that it has started end with it.
"""

import argparse
import json
import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from queue import SimpleQueue
from subprocess import TimeoutExpired
from time import monotonic
from typing import Dict, List, Optional, Sequence

from prefect.run_configs import LocalRun
from prefect.utilities.graphql import GraphQLResult

from ..waiting.agents import ANY_LABELS
from ..waiting.last_lines import AGENT
from ..warm import NotPreloaded, Template, can_fork, configure_prefect
from .warm_agent import WarmAgent

#: Seconds that flow runs have to end after an interrupt, before they are killed
GRACE = 5.0


class RunnerAgent(WarmAgent):
    """Takes flow runs with any labels, and ends them when it ends."""

    def __init__(self, address: str, template: Optional[Template] = None) -> None:
        super().__init__(template, name=AGENT, labels=[ANY_LABELS], hostname_label=False, agent_address=address)
        self._end = threading.Lock()

    def _environment(self, flow_run: GraphQLResult, run_config: LocalRun) -> Dict[str, str]:
        # they end with this agent, which sends their heartbeats
        return {**super()._environment(flow_run, run_config), "PREFECT__CLOUD__HEARTBEAT_MODE": "off"}

    def on_shutdown(self) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, Exception):
            # nothing is printed any more once this process is killed; the disk may be full
            with suppress(OSError):
                traceback.print_exception(type(error), error, error.__traceback__)
        self.end()

    def end(self) -> None:
        """Ends all processes of this one's group, itself included."""
        # only one thread ends the group, the others wait here until they are killed
        with self._end:
            try:
                self._is_ending = True
                os.killpg(0, signal.SIGINT)
                deadline = monotonic() + GRACE
                for process in list(self._flow_runs):
                    process.wait(max(0.0, deadline - monotonic()))
            except TimeoutExpired:
                pass
            finally:
                with suppress(OSError):
                    sys.stdout.flush()
                # flow runs that ignore interrupts, and processes that flow runs have started
                os.killpg(0, signal.SIGKILL)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--preload", action="append", default=[])
    options = parser.parse_args(arguments)
    # the group is signalled as a whole, so it must be this agent's own
    assert os.getpgid(0) == os.getpid(), "start this in a new session"
    # an interrupt of the group is for flow runs, which would ignore it if this process did, as processes do that a
    # shell has started in the background
    signal.signal(signal.SIGINT, lambda number, frame: None)
    template: Optional[Template] = None
    if can_fork() and not options.cold:
        template = Template(options.preload)
        # as long as there is one thread
        template.fork()
    settings: SimpleQueue[bytes] = SimpleQueue()
    agents: List[RunnerAgent] = []
    threading.Thread(target=_read_input, args=(settings, agents), name="input", daemon=True).start()
    try:
        warnings = template.imported() if template and options.preload else []
    except NotPreloaded as error:
        sys.exit(str(error))
    content = json.loads(settings.get())
    os.environ.update(content["environment"])
    configure_prefect()
    agent = RunnerAgent(content["address"], template)
    for warning in warnings:
        agent.logger.warning(warning)
    agents.append(agent)
    agent.start()


def _read_input(settings: "SimpleQueue[bytes]", agents: List[RunnerAgent]) -> None:
    """Ends all when standard input ends, whatever the agent waits for then: its requests take a minute to fail."""
    first_line = sys.stdin.buffer.readline()
    if first_line:
        settings.put(first_line)
    sys.stdin.buffer.read()
    for agent in agents:
        agent.end()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
