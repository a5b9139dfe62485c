"""What a command does when its terminal is closed (SIGHUP)."""

import os
import signal
from typing import Any


def treat_hangup_as_termination() -> None:
    """Have this process end by SIGHUP as it ends by SIGTERM, unless SIGHUP is ignored, as `nohup` has it."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        return
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def terminate(number: int, frame: Any) -> None:
        # writing to a terminal that is gone is an error, which would end the clean-up
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in terminals:
            os.dup2(nowhere, descriptor)
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGHUP, terminate)
