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
from subprocess import TimeoutExpired
from time import monotonic

from prefect.agent.local import LocalAgent

#: Seconds that flow runs have to end after an interrupt, before they are killed
GRACE = 5.0


def _interrupt_at_end_of_input() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGINT)


class _Agent(LocalAgent):
    """Takes its flow runs along when it ends."""

    def on_shutdown(self) -> None:
        """Ends all processes of this one's group, itself included."""
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
