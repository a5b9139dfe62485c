"""
A Prefect local agent that ends together with the process that started it.

Run as ``python -m prefect_taskrun_tasks.agent ADDRESS``, in a session of its own. It ends when its standard input is
closed, which also happens when the process at the other end is killed; flow runs that it has started end with it.
"""

import os
import signal
import sys
import threading
import traceback
from subprocess import Popen, TimeoutExpired
from time import monotonic

from prefect.agent.local import LocalAgent
from prefect.utilities.graphql import GraphQLResult

#: Seconds that flow runs have to end after an interrupt, before they are killed
GRACE = 5.0


def _interrupt_at_end_of_input() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGINT)


class _Agent(LocalAgent):
    """Takes its flow runs along when it ends, and says when one is killed, which others notice after ten minutes."""

    _is_ending = False

    def deploy_flow(self, flow_run: GraphQLResult) -> str:
        started: str = super().deploy_flow(flow_run)
        [process] = [each for each in list(self.processes) if started.endswith(f" {each.pid}")]
        threading.Thread(target=self._tell_if_killed, args=(process, flow_run.id), daemon=True).start()
        return started

    def _tell_if_killed(self, process: "Popen[bytes]", flow_run_id: str) -> None:
        code = process.wait()
        if code >= 0 or self._is_ending:
            return
        message = (
            f"The process of this flow run (PID {process.pid}) was killed by {signal.Signals(-code).name}. If nobody "
            "did that, the machine may be out of memory. In about ten minutes, what was running fails or is retried, "
            "and the rest goes on. Who does not want to wait for that cancels the flow run."
        )
        self.client.write_run_logs(
            [{"flow_run_id": flow_run_id, "name": "agent", "level": "ERROR", "message": message}]
        )

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
        for process in list(self.processes):
            try:
                process.wait(max(0.0, deadline - monotonic()))
            except TimeoutExpired:
                break
        # what is left: flow runs that ignore interrupts, and heartbeats of those that were killed
        os.killpg(0, signal.SIGKILL)


def main(address: str) -> None:
    # the group is signalled as a whole, so it must be this agent's own
    assert os.getpgid(0) == os.getpid(), "start this in a new session"
    # a shell that starts a command in the background has it ignore interrupts; this one must end by one, even if it
    # comes before the agent has its own handler for it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    agent = _Agent(agent_address=address)
    threading.Thread(target=_interrupt_at_end_of_input, name="end-of-input", daemon=True).start()
    agent.start()


if __name__ == "__main__":
    main(sys.argv[1])
