"""A parent flow run that is cancelled, and what becomes of its children and theirs."""

from pathlib import Path
from typing import Any, Dict, List

import prefect
import pytest
from conftest import eventually
from processes import assert_gone

from prefect_taskrun_tasks import FlowRunView, FlowView
from prefect_taskrun_tasks.runner import LocalRunner
from prefect_taskrun_tasks.warm import find_processes

#: Seconds until a family of flow runs has come to rest, at most; far more than it takes
PATIENCE = 40

#: Three generations, of which the last goes on until a file exists; each waits for the next.
#:
#: A flow run of prefect 1.4.1 that comes to its end in the very moment in which it is to be interrupted is interrupted
#: while it leaves `check_for_cancellation` (engine/cloud/flow_runner.py), and stays Cancelling. So here those that are
#: interrupted certainly have something to do then: the last ones take their time to end, and the others wait for them.
FLOWS = """
import os
import time
from prefect import Flow, Parameter, task
from prefect.executors import LocalDaskExecutor
from prefect.run_configs import UniversalRun
from prefect_taskrun_tasks import create_flow_run, map_flow_run, wait_for_flow_run

#: Seconds between two looks of a flow run's process whether it is cancelled; Prefect's own 15 are long for a test
NOTICES_SOON = UniversalRun(env={"PREFECT__CLOUD__CHECK_CANCELLATION_INTERVAL": "0.5"})
#: a flow run is always asked once more when it ends
NOTICES_AT_ITS_END = UniversalRun(env={"PREFECT__CLOUD__CHECK_CANCELLATION_INTERVAL": "600"})

@task
def until_there_is(file):
    try:
        # a test that has failed must not leave it for ever
        for _ in range(3000):
            if os.path.exists(file):
                return
            time.sleep(0.1)
        raise RuntimeError("Nobody wrote the file.")
    except KeyboardInterrupt:
        time.sleep(2)
        raise

def waits_for(flow_name, **options):
    child_run_id = create_flow_run(flow_name=flow_name, parameters={"file": Parameter("file")}, **options)
    wait_for_flow_run(child_run_id, raise_final_state=True)

CANCEL = {"parent_close_policy": "cancel"}

with Flow("cancelling-grandchild", run_config=NOTICES_SOON) as grandchild:
    until_there_is(Parameter("file"))

with Flow("cancelling-child", run_config=NOTICES_AT_ITS_END) as child:
    waits_for("cancelling-grandchild", **CANCEL)

with Flow("cancelling-parent", run_config=NOTICES_SOON) as parent:
    waits_for("cancelling-child", **CANCEL)

with Flow("cancelling-parent-by-default", run_config=NOTICES_SOON) as by_default:
    waits_for("cancelling-child")

with Flow(
    "cancelling-parent-threads", run_config=NOTICES_SOON, executor=LocalDaskExecutor(scheduler="threads")
) as threads:
    waits_for("cancelling-child", **CANCEL)

with Flow(
    "cancelling-parent-processes", run_config=NOTICES_SOON, executor=LocalDaskExecutor(scheduler="processes")
) as processes:
    waits_for("cancelling-child", **CANCEL)

with Flow("cancelling-parent-unaware", run_config=NOTICES_AT_ITS_END) as unaware:
    waits_for("cancelling-child", **CANCEL)

@task
def all_the_same(file):
    return [{"file": file}] * 3

with Flow("cancelling-parent-mapped", run_config=NOTICES_SOON) as mapped:
    map_flow_run(
        flow_name="cancelling-grandchild", parameters=all_the_same(Parameter("file")), limit=2, on_failure="collect"
    )
"""


@pytest.fixture(scope="module", autouse=True)
def flows(local_runner: LocalRunner, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The flows above are registered."""
    file = tmp_path_factory.mktemp("flows") / "cancelling.py"
    file.write_text(FLOWS)
    local_runner.register(file)


@pytest.fixture
def unhelpful(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend leaves the children of what it cancels alone, and answers at once, as Prefect Server does."""
    # it runs in a thread of this process
    monkeypatch.setattr("prefect_taskrun_tasks.server.rules.states._cancel_children", lambda tx, parent: None)
    monkeypatch.setattr("prefect_taskrun_tasks.server.endpoint.preferred_hold", lambda headers: None)


def _view(flow_run_id: str) -> FlowRunView:
    return FlowRunView.from_flow_run_id(flow_run_id)


def _state(flow_run_id: str) -> str:
    return type(_view(flow_run_id).state).__name__


def _history(flow_run_id: str) -> List[str]:
    return [type(state).__name__ for state in _view(flow_run_id).states]


def _begun(flow_name: str, parameters: Dict[str, Any]) -> str:
    """Asks for a flow run, and does not wait for it."""
    flow_id = FlowView.from_flow_name(flow_name).flow_id
    flow_run_id: str = prefect.Client().create_flow_run(flow_id=flow_id, parameters=parameters)
    return flow_run_id


def _busy_children(flow_run_id: str, task_slug: str, count: int = 1) -> List[str]:
    """Blocks until that task is running in so many children of a flow run."""

    def busy() -> List[str]:
        children = _view(flow_run_id).get_children()
        return [each.flow_run_id for each in children if each.get_task_run(task_slug).state.is_running()]

    eventually(lambda: len(busy()) == count)
    return busy()


def _begun_family(flow_name: str, parameters: Dict[str, Any]) -> List[str]:
    """Begins a parent, and blocks until all wait for its grandchild: parent, child and grandchild."""
    parent = _begun(flow_name, parameters)
    [child] = _busy_children(parent, "wait_for_flow_run-1")
    [grandchild] = _busy_children(child, "until_there_is-1")
    return [parent, child, grandchild]


def _cancel(flow_run_id: str) -> None:
    assert prefect.Client().cancel_flow_run(flow_run_id)


def _assert_cancelled(*flow_run_ids: str) -> None:
    eventually(lambda: {_state(flow_run_id) for flow_run_id in flow_run_ids} == {"Cancelled"}, PATIENCE)
    assert_gone(find_processes(flow_run_ids))


def test_a_parent_that_is_cancelled_takes_its_child_and_grandchild_along(tmp_path: Path) -> None:
    family = _begun_family("cancelling-parent", {"file": str(tmp_path / "never")})
    assert all(find_processes([flow_run_id]) for flow_run_id in family)
    _cancel(family[0])
    _assert_cancelled(*family)


def test_by_default_a_child_outlives_the_parent_that_is_cancelled(tmp_path: Path) -> None:
    parent, child, grandchild = _begun_family("cancelling-parent-by-default", {"file": str(tmp_path / "now")})
    _cancel(parent)
    _assert_cancelled(parent)
    (tmp_path / "now").touch()
    eventually(lambda: _state(child) == "Success", PATIENCE)
    assert _history(child)[-2:] == _history(grandchild)[-2:] == ["Running", "Success"]


def test_a_parent_whose_process_is_killed_while_it_is_being_cancelled_is_cancelled_as_are_its_children(
    tmp_path: Path,
) -> None:
    family = _begun_family("cancelling-parent", {"file": str(tmp_path / "never")})
    [process] = find_processes([family[0]])
    # as long as it is stopped it cannot cancel itself
    process.suspend()
    _cancel(family[0])
    process.kill()
    _assert_cancelled(*family)
    assert "was killed by SIGKILL" in _view(family[0]).state.message


@pytest.mark.usefixtures("unhelpful")
@pytest.mark.parametrize("flow_name", ["cancelling-parent", "cancelling-parent-threads", "cancelling-parent-processes"])
def test_where_the_backend_leaves_children_alone_the_parent_that_waits_cancels_them(
    tmp_path: Path, flow_name: str
) -> None:
    family = _begun_family(flow_name, {"file": str(tmp_path / "never")})
    _cancel(family[0])
    _assert_cancelled(*family)


@pytest.mark.usefixtures("unhelpful")
def test_a_parent_that_waits_cancels_its_children_also_if_prefect_never_interrupts_it(tmp_path: Path) -> None:
    family = _begun_family("cancelling-parent-unaware", {"file": str(tmp_path / "never")})
    _cancel(family[0])
    _assert_cancelled(*family)


@pytest.mark.parametrize("backend_helps", [True, False], ids=["by the backend", "by the parent"])
def test_map_flow_run_has_its_children_cancelled_with_the_parent_and_begins_no_others(
    request: pytest.FixtureRequest, tmp_path: Path, backend_helps: bool
) -> None:
    if not backend_helps:
        request.getfixturevalue("unhelpful")
    parent = _begun("cancelling-parent-mapped", {"file": str(tmp_path / "never")})
    children = _busy_children(parent, "until_there_is-1", 2)
    _cancel(parent)
    _assert_cancelled(parent, *children)
    others = {child.flow_run_id for child in _view(parent).get_children()} - set(children)
    assert [flow_run_id for flow_run_id in others if "Running" in _history(flow_run_id)] == []
    _assert_cancelled(parent, *others)
