"""What the page of a timeline is told; how it looks is tested in a browser."""

import json
import re
from typing import Any, Iterator, List

import pytest
from driven import DrivenRun, NewUrl, register, shared_backend
from prefect import Flow, task
from prefect.engine.state import Failed, Running, Success

from prefect_taskrun_tasks import FlowRunView
from prefect_taskrun_tasks.server import Backend
from prefect_taskrun_tasks.timeline import timeline_page


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        yield backend


@task(name="</script><script>alert(1)</script>")
def hostile() -> List[int]:
    return [1, 2]


@task
def inc(x: int) -> int:
    return x + 1


with Flow("timed") as flow:
    inc.map(hostile())

HOSTILE = "</script><script>alert(1)</script>-1"


def picture_in(page: str) -> Any:
    [found] = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    return json.loads(found)


def test_the_page_is_told_of_task_runs_in_the_order_in_which_they_started() -> None:
    run = DrivenRun(flow, register(flow)).enter(Running())
    run.task_enters(HOSTILE, Running())
    run.task_enters(HOSTILE, Success("x" * 1_000))
    run.task_enters("inc-1", Running(), 0)
    view = FlowRunView.from_flow_run_id(run.id)
    page = timeline_page(view)
    assert "<script>alert" not in page
    picture = picture_in(page)
    first, second, third = picture["task_runs"]
    assert first[0] == run.task_run_id(HOSTILE)
    assert first[1:5] == [HOSTILE, -1, "Success", "x" * 200]
    times = view.get_task_run(HOSTILE)
    assert times.start_time is not None
    assert times.end_time is not None
    assert first[5:] == [round(times.start_time.timestamp() * 1000), round(times.end_time.timestamp() * 1000)]
    assert second[1:4] == ["inc-1", 0, "Running"]
    assert second[5] >= first[5]
    assert second[6] is None
    assert third[1:] == ["inc-1", -1, "Pending", "Task run created", None, None]
    assert picture["taken_at"] >= second[5]


def test_the_page_is_told_of_the_flow_run_and_its_descendants() -> None:
    run = DrivenRun(flow, register(flow)).enter(Running())
    lineage = {"parent_flow_run_id": run.id, "parent_task_run_id": run.task_run_id("inc-1", 1), "parent_map_index": 1}
    child = DrivenRun(flow, run.flow_id, context={"prefect_taskrun_tasks": lineage}).enter(Running())
    child.enter(Failed("no"))
    picture = picture_in(timeline_page(FlowRunView.from_flow_run_id(run.id)))
    own, of_child = picture["flow_runs"]
    assert (own["id"], own["flow"], own["state"], own["end"], own["parent_flow_run_id"]) == (
        run.id,
        "timed",
        "Running",
        None,
        None,
    )
    assert {key: of_child[key] for key in ("id", "state", "message", *lineage)} == {
        "id": child.id,
        "state": "Failed",
        "message": "no",
        **lineage,
    }
    assert of_child["end"] >= of_child["start"] >= own["start"]


def test_only_the_task_runs_that_are_given_are_told_of() -> None:
    run = DrivenRun(flow, register(flow)).enter(Running())
    view = FlowRunView.from_flow_run_id(run.id)
    picture = picture_in(timeline_page(view, view.iter_task_runs(task_slug="inc-1")))
    assert [task_run[1] for task_run in picture["task_runs"]] == ["inc-1"]
    assert picture_in(timeline_page(view, []))["task_runs"] == []
