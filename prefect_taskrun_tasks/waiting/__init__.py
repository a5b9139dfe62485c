"""Waiting for flow runs until they have finished."""

from .agents import check_for_compatible_agents
from .approval import approval_request, approve, awaiting_approval
from .cancelling import cancel_children
from .deadline import LONGEST_WAIT, Deadline, Timeout
from .family import watch_family
from .progress import Progress
from .wait import Wait
from .waits import Waits, wait_until_finished
from .watch import Bookmark, Watch, watch_flow_run

__all__ = [
    "LONGEST_WAIT",
    "Bookmark",
    "Deadline",
    "Progress",
    "Timeout",
    "Wait",
    "Waits",
    "Watch",
    "approval_request",
    "approve",
    "awaiting_approval",
    "cancel_children",
    "check_for_compatible_agents",
    "wait_until_finished",
    "watch_family",
    "watch_flow_run",
]
