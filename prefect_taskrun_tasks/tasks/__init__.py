"""Task classes to drop into a `Flow`, and ready-made instances of them."""

from .cancel import CancelFlowRun, cancel_flow_run
from .create import CreateFlowRun, create_flow_run
from .map import MapFlowRun, map_flow_run
from .result import GetTaskRunResult, get_task_run_result
from .wait import WaitForFlowRun, wait_for_flow_run

__all__ = [
    "CancelFlowRun",
    "CreateFlowRun",
    "GetTaskRunResult",
    "MapFlowRun",
    "WaitForFlowRun",
    "cancel_flow_run",
    "create_flow_run",
    "get_task_run_result",
    "map_flow_run",
    "wait_for_flow_run",
]
