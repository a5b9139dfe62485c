"""When task runs ran, as the command line shows it."""

from typing import Dict

import pytest
from driven import DrivenRun, mapped
from prefect import Flow, Task
from prefect.engine.state import Failed, Running, Skipped, Success, TriggerFailed

from prefect_taskrun_tasks import FlowRunView, TaskRunView
from prefect_taskrun_tasks.server import Backend
from prefect_taskrun_tasks.views.span import Span, spans


@pytest.fixture
def run(backend: Backend) -> DrivenRun:
    return DrivenRun(Flow("spans", tasks=[Task("map"), Task("other")])).enter(Running())


def shown(run: DrivenRun) -> Dict[str, Span]:
    task_runs = list(FlowRunView.from_flow_run_id(run.id).iter_task_runs())
    found = spans(task_runs)
    return {f"{each.task_slug}{each.map_index}": found[each.task_run_id] for each in task_runs}


def test_a_mapped_task_run_ran_from_the_start_of_its_first_child_to_the_end_of_its_last(run: DrivenRun) -> None:
    run.task_enters("map-1", mapped(4))
    for state, index in (
        (Running(), 1),
        (Running(), 0),
        (Success(), 0),
        (Skipped(), 1),
        (TriggerFailed(), 2),
    ):
        run.task_enters("map-1", state, index)
    found = shown(run)
    assert found["map-1-1"] == Span(found["map-11"].start, found["map-11"].end)
    assert found["other-1-1"] == Span(None, None)


def test_a_mapped_task_run_goes_on_while_children_do(run: DrivenRun) -> None:
    run.task_enters("map-1", mapped(2))
    run.task_enters("map-1", Running(), 0)
    start = shown(run)["map-10"].start
    assert shown(run)["map-1-1"] == Span(start, None)
    run.task_enters("map-1", Failed(), 0)
    found = shown(run)
    assert found["map-1-1"] == found["map-10"]


def test_a_mapped_task_run_without_children_that_started_has_its_own_times(run: DrivenRun) -> None:
    id = run.task_enters("map-1", mapped(0))
    view = TaskRunView.from_task_run_id(id)
    assert spans([view])[id] == Span(None, view.end_time)


def test_the_runs_of_many_mapped_tasks_are_looked_up_together(run: DrivenRun) -> None:
    other = DrivenRun(run.flow, flow_id=run.flow_id).enter(Running())
    ids = []
    for each in (run, other):
        ids.append(each.task_enters("map-1", mapped(1)))
        each.task_enters("map-1", Running(), 0)
    found = spans([TaskRunView.from_task_run_id(id) for id in ids])
    assert [found[id] for id in ids] == [shown(each)["map-10"] for each in (run, other)]
