"""Frozen pictures of flows, flow runs and task runs."""

from .deferral import Deferral
from .flow import FlowView
from .flow_run import FlowRunView
from .lineage import Lineage
from .log import FlowRunLog
from .task_run import TaskRunView

__all__ = ["Deferral", "FlowRunLog", "FlowRunView", "FlowView", "Lineage", "TaskRunView"]
