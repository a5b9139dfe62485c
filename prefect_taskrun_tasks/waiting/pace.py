"""How long it is until the next look."""

import random

from tenacity import RetryCallState
from tenacity.wait import wait_base

#: Of the time in which nothing has happened, the share that is waited, at first and in the end
AT_FIRST, IN_THE_END = 0.25, 0.02

#: Of a pause, the share by which it may be shorter, so that many processes do not ask in step
JITTER = 0.1


class wait_share_of_quiet(wait_base):
    """Waits for a share of the time since the first attempt: what has just begun may soon be over.

    Args:
        first: seconds at least.
        steady: seconds until which the pauses grow soon, and after which they grow slowly.
        slowest: seconds at most.

    Example:
        >>> Retrying(wait=wait_share_of_quiet(first=0.1, steady=2, slowest=10))
    """

    def __init__(self, first: float, steady: float, slowest: float) -> None:
        self.first = first
        self.steady = steady
        self.slowest = slowest

    def __call__(self, retry_state: RetryCallState) -> float:
        quiet = retry_state.seconds_since_start or 0.0
        pause = max(self.first, min(AT_FIRST * quiet, self.steady), IN_THE_END * quiet)
        return min(pause, self.slowest) * random.uniform(1 - JITTER, 1)
