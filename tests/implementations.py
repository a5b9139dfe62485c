"""This package and Prefect 1.4.1 side by side, for tests of what holds for both."""

from types import SimpleNamespace

import prefect.backend.flow_run
import prefect.tasks.prefect
import pytest

import prefect_taskrun_tasks as ours

PREFECT = SimpleNamespace(
    FlowRunLog=prefect.backend.flow_run.FlowRunLog,
    FlowRunView=prefect.backend.FlowRunView,
    FlowView=prefect.backend.FlowView,
    TaskRunView=prefect.backend.TaskRunView,
    CancelFlowRun=prefect.tasks.prefect.CancelFlowRun,
    create_flow_run=prefect.tasks.prefect.create_flow_run,
    get_task_run_result=prefect.tasks.prefect.get_task_run_result,
    wait_for_flow_run=prefect.tasks.prefect.wait_for_flow_run,
    watch_flow_run=prefect.backend.flow_run.watch_flow_run,
    check_for_compatible_agents=prefect.backend.flow_run.check_for_compatible_agents,
)

#: runs a test twice: a caller who changes the import sees no difference
both = pytest.mark.parametrize("lib", [pytest.param(PREFECT, id="prefect"), pytest.param(ours, id="ours")])
