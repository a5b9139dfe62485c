"""The agent of a `LocalRunner`: it takes flow runs with any labels, and ends with the process that started it.

Run as ``python -m prefect_taskrun_tasks.agent ADDRESS``, in a session of its own. It ends when its standard input is
closed, which also happens when the process at the other end is killed; flow runs that it has started end with it.
"""

import argparse
import os
import signal
import sys
import threading
import traceback
from subprocess import TimeoutExpired
from time import monotonic
from typing import Dict, List, Optional

from prefect.run_configs import LocalRun
from prefect.utilities.graphql import GraphQLResult

from ..waiting.agents import ANY_LABELS
from ..waiting.last_lines import AGENT
from ..warm import NotPreloaded, Template, can_fork
from .warm_agent import WarmAgent

#: Seconds that flow runs have to end after an interrupt, before they are killed
GRACE = 5.0


class RunnerAgent(WarmAgent):
    """Takes flow runs with any labels, and ends them when it ends."""

    def __init__(self, address: str, template: Optional[Template] = None) -> None:
        super().__init__(template, name=AGENT, labels=[ANY_LABELS], hostname_label=False, agent_address=address)

    def _environment(self, flow_run: GraphQLResult, run_config: LocalRun) -> Dict[str, str]:
        # they end with this agent, which sends their heartbeats
        return {**super()._environment(flow_run, run_config), "PREFECT__CLOUD__HEARTBEAT_MODE": "off"}

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


def _interrupt_at_end_of_input() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGINT)


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
    if can_fork() and not options.cold:
        template = Template(options.preload)
        # as long as there is one thread
        template.fork()
        try:
            warnings = template.imported() if options.preload else []
        except NotPreloaded as error:
            sys.exit(str(error))
    agent = RunnerAgent(options.address, template)
    for warning in warnings:
        agent.logger.warning(warning)
    threading.Thread(target=_interrupt_at_end_of_input, name="end-of-input", daemon=True).start()
    agent.start()


if __name__ == "__main__":
    main()
