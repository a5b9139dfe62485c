"""Flows of flows for Prefect 1: create child flow runs, wait for them, and use the results of their tasks.

What has a namesake in `prefect.backend` or `prefect.tasks.prefect` is a drop-in for it: change the import, and nothing
else.
"""

import prefect1_repairs

from . import requirements

requirements.check()
prefect1_repairs.install()

from .tasks import (
    CancelFlowRun,
    CreateFlowRun,
    GetTaskRunResult,
    MapFlowRun,
    WaitForFlowRun,
    cancel_flow_run,
    create_flow_run,
    get_task_run_result,
    map_flow_run,
    wait_for_flow_run,
)
from .views import FlowRunLog, FlowRunView, FlowView, Lineage, TaskRunView
from .waiting import approve, awaiting_approval, check_for_compatible_agents, watch_flow_run

__version__ = "0.1.0"

__all__ = [
    "CancelFlowRun",
    "CreateFlowRun",
    "FlowRunLog",
    "FlowRunView",
    "FlowView",
    "GetTaskRunResult",
    "Lineage",
    "MapFlowRun",
    "TaskRunView",
    "WaitForFlowRun",
    "approve",
    "awaiting_approval",
    "cancel_flow_run",
    "check_for_compatible_agents",
    "create_flow_run",
    "get_task_run_result",
    "map_flow_run",
    "wait_for_flow_run",
    "watch_flow_run",
]
