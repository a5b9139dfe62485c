"""How far a flow run has come, and what has come out of it."""

import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
import requests
from driven import DrivenRun, NewUrl, mapped, register, shared_backend
from many import map_over_many
from prefect import Flow, task
from prefect.engine.state import Failed, Running, Success
from prefect.utilities.configuration import set_temporary_config

from prefect_taskrun_tasks import FlowRunView, errors, watch_flow_run
from prefect_taskrun_tasks.runner import settings
from prefect_taskrun_tasks.server import Backend, tables
from prefect_taskrun_tasks.waiting import Progress, watch_family


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        yield backend


@task
def load() -> List[int]:
    return [1, 2]


@task
def inc(x: int) -> int:
    return x + 1


with Flow("progressing") as flow:
    inc.map(load())


@pytest.fixture(scope="module")
def flow_id(backend: Backend) -> str:
    return register(flow)


@pytest.fixture
def run(flow_id: str) -> DrivenRun:
    return DrivenRun(flow, flow_id).enter(Running())


def counted(progress: Progress) -> Dict[str, int]:
    return {state: number for state, number in progress.counts.items() if number}


def test_task_runs_are_counted_as_they_change(run: DrivenRun) -> None:
    progress = Progress(FlowRunView.from_flow_run_id(run.id))
    progress.look()
    assert (counted(progress), progress.finished, progress.expected) == ({"Pending": 2}, 0, 2)
    run.task_returns("load-1", [1, 2])
    run.task_enters("inc-1", mapped(3))
    run.task_enters("inc-1", Running(), 0)
    progress.look()
    assert counted(progress) == {"Success": 1, "Mapped": 1, "Running": 1}
    # two children have not been created yet
    assert progress.expected == 5
    inc = progress.mapped["inc-1"]
    assert (inc.expected, inc.finished, inc.failed) == (3, 0, 0)
    run.task_enters("inc-1", Success(), 0)
    run.task_enters("inc-1", Failed("no"), 1)
    progress.look()
    progress.look()
    assert counted(progress) == {"Success": 2, "Mapped": 1, "Failed": 1}
    assert (inc.expected, inc.finished, inc.failed, progress.expected) == (3, 2, 1, 5)


def test_a_look_asks_for_what_has_changed_and_not_for_all(backend: Backend, run: DrivenRun, mocker: Any) -> None:
    map_over_many(backend, run, "inc-1", 1_200)
    progress = Progress(FlowRunView.from_flow_run_id(run.id))
    progress.look()
    assert progress.mapped["inc-1"].finished == 1_200
    with backend._database.write() as tx:
        # as if all that had been a while ago
        tx.update(tables.task_run, tables.task_run.c.flow_run_id == run.id, updated="2026-01-01T12:00:00.000000+00:00")
    run.task_returns("load-1", [1])
    send = mocker.spy(requests.adapters.HTTPAdapter, "send")
    progress.look()
    assert send.call_count == 2, "the flow run, and the task run"
    assert progress.finished == 1_202


def test_looks_go_on_until_the_flow_run_has_finished(run: DrivenRun) -> None:
    looks = Progress(FlowRunView.from_flow_run_id(run.id)).looks(pace=0.01)
    assert next(looks).flow_run.state.is_running()
    assert next(looks).flow_run.state.is_running()
    run.task_returns("load-1", [1])
    run.enter(Success())
    *_, last = looks
    assert last.flow_run.state.is_successful()
    assert last.finished == 1


def test_looks_go_on_after_the_backend_has_been_away(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'prefect.db'}"
    with ExitStack() as stack:
        backend = stack.enter_context(Backend(url, port=0))
        stack.enter_context(set_temporary_config(settings(backend.url)))
        run = DrivenRun(flow, register(flow)).enter(Running())
        progress = Progress(FlowRunView.from_flow_run_id(run.id))
        family = watch_family(progress.flow_run, pace=0.01)
        looks = progress.looks(pace=0.01)
        next(looks)
        next(family)
        backend.__exit__()
        port = int(backend.url.rpartition(":")[2])
        restart = threading.Timer(0.5, lambda: stack.enter_context(Backend(url, port=port)))
        restart.start()
        # each goes on from where it was
        assert next(looks).flow_run.state.is_running()
        restart.join()
        run.enter(Success())
        *_, last = looks
        assert last.flow_run.state.is_successful()
        *_, [only] = family
        assert only.state.is_successful()


def test_a_flow_run_that_is_deleted_ends_the_looks(run: DrivenRun) -> None:
    progress = Progress(FlowRunView.from_flow_run_id(run.id))
    looks, family = progress.looks(pace=0.01), watch_family(progress.flow_run, pace=0.01)
    next(looks)
    next(family)
    run.client.graphql(
        "mutation($id: UUID!) { delete_flow_run(input: {flow_run_id: $id}) { success } }", variables={"id": run.id}
    )
    for each in (looks, family):
        with pytest.raises(errors.NotFound):
            next(each)


def test_a_family_is_watched_until_the_last_of_it_has_finished(run: DrivenRun) -> None:
    context = {"prefect_taskrun_tasks": {"parent_flow_run_id": run.id}}
    family = watch_family(FlowRunView.from_flow_run_id(run.id), pace=0.01)
    assert [each.flow_run_id for each in next(family)] == [run.id]
    child = DrivenRun(flow, run.flow_id, context=context).enter(Running())
    run.enter(Failed("no"))
    assert [type(each.state) for each in next(family)] == [Failed, Running]
    child.enter(Success())
    *_, last = family
    assert [type(each.state) for each in last] == [Failed, Success]


def test_a_watch_can_be_for_the_lines_of_one_task_run(run: DrivenRun) -> None:
    own = run.task_run_id("load-1")
    run.log("of the flow run")
    watched = watch_flow_run(run.id, stream_states=False, task_run_id=own, timeout=30)
    run.log("first", task_run_id=own)
    assert next(watched).message == "first"
    run.log("of another", task_run_id=run.task_run_id("inc-1"))
    run.log("second", task_run_id=own)
    assert next(watched).message == "second"
    run.enter(Success())
    assert list(watched) == []
