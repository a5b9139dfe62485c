"""Agents, and which flow runs the queue gives them."""

from typing import Any, Iterator, List, Optional

import pytest
import stored

from prefect_taskrun_tasks.server import tables
from prefect_taskrun_tasks.server.clock import ago
from prefect_taskrun_tasks.server.errors import Refused
from prefect_taskrun_tasks.server.rules import agents, states, tenants
from prefect_taskrun_tasks.server.transaction import Transaction


@pytest.fixture
def tx(database_url: str) -> Iterator[Transaction]:
    with stored.transaction(database_url, core_version="1.4.1") as tx:
        yield tx


def queue(tx: Transaction, **options: Any) -> List[str]:
    options.setdefault("tenant_id", stored.tenant_id(tx))
    ids: List[str] = agents.get_runs_in_queue(tx, **options)["flow_run_ids"]
    return ids


def test_a_run_is_in_the_queue_until_its_state_changes(tx: Transaction) -> None:
    run_id = stored.flow_run_id(tx)
    assert queue(tx) == queue(tx) == [run_id]
    stored.set_state(tx, run_id, "Submitted")
    assert queue(tx) == []


def test_a_run_is_due_from_its_start_time_on(tx: Transaction) -> None:
    start = ago(-100)
    run_id = stored.flow_run_id(tx, scheduled_start_time=start)
    assert queue(tx) == []
    assert queue(tx, before=ago(1, start)) == []
    assert queue(tx, before=start) == [run_id]


@pytest.mark.parametrize("name", states.SCHEDULED)
def test_every_kind_of_scheduled_run_is_in_the_queue(tx: Transaction, name: str) -> None:
    """T37."""
    run_id = stored.flow_run_id(tx)
    stored.set_state(tx, run_id, name, start_time=ago(1))
    assert queue(tx) == [run_id]


@pytest.mark.parametrize("name", sorted({*states.KNOWN} - {*states.SCHEDULED}))
def test_no_other_run_is_in_the_queue(tx: Transaction, name: str) -> None:
    stored.set_state(tx, stored.flow_run_id(tx), name)
    assert queue(tx) == []


def test_a_paused_run_without_a_time_is_not_in_the_queue(tx: Transaction) -> None:
    stored.set_state(tx, stored.flow_run_id(tx), "Paused")
    assert queue(tx, before=ago(-1e9)) == []


@pytest.mark.parametrize("name", states.SCHEDULED)
def test_a_running_run_is_in_the_queue_when_a_task_run_of_it_is_due(tx: Transaction, name: str) -> None:
    """Contract 4.4: a task that waits longer than ten minutes outlives the process of its flow run."""
    run_id = stored.running(tx)
    task_run_id = stored.task_runs(tx, run_id)[0]["id"]
    start = ago(-700)
    stored.set_task_state(tx, task_run_id, name, start_time=start)
    assert queue(tx) == []
    assert queue(tx, before=start) == [run_id]
    stored.set_task_state(tx, task_run_id, "Submitted")
    assert queue(tx, before=start) == []


@pytest.mark.parametrize("name", ["Cancelling", "Failed", "Submitted"])
def test_a_due_task_run_brings_back_only_a_running_flow_run(tx: Transaction, name: str) -> None:
    run_id = stored.running(tx)
    stored.set_task_state(tx, stored.task_runs(tx, run_id)[0]["id"], "Scheduled")
    stored.set_state(tx, run_id, name)
    assert queue(tx) == []


@pytest.mark.parametrize(
    ("name", "age", "start", "is_busy"),
    [
        ("Running", 9999, None, True),
        # its process is being started, or was lost
        ("Submitted", 0, None, True),
        ("Submitted", agents.STARTING - 10, None, True),
        ("Submitted", agents.STARTING + 10, None, False),
        # asleep, or to be begun by another process
        ("Retrying", 0, 1, True),
        ("Retrying", 0, 590, True),
        ("Retrying", 300, 290, True),
        # left behind, by a process that would have slept for longer
        ("Retrying", 300, 310, False),
        ("Retrying", 0, 610, False),
        ("Retrying", 0, -10, False),
    ],
)
def test_a_running_run_is_left_alone_while_its_process_is_at_work(
    tx: Transaction, name: str, age: float, start: Optional[float], is_busy: bool
) -> None:
    """With a second one beside it, what is Retrying would be tried by both."""
    run_id = stored.running(tx)
    due, other = (row["id"] for row in stored.task_runs(tx, run_id))
    stored.set_task_state(tx, due, "Scheduled")
    times = {} if start is None else {"start_time": ago(-start)}
    stored.set_task_state(tx, other, name, **times)
    tx.update(tables.task_run, tables.task_run.c.id == other, state_timestamp=ago(age))
    assert queue(tx) == ([] if is_busy else [run_id])


def test_the_longest_due_comes_first_and_running_runs_last(tx: Transaction) -> None:
    resumable = stored.running(tx)
    stored.set_task_state(tx, stored.task_runs(tx, resumable)[0]["id"], "Scheduled")
    flow_id = stored.flow_id(tx, name="other")
    late, early, middle = (
        stored.flow_run_id(tx, flow_id=flow_id, scheduled_start_time=ago(age)) for age in (1, 100, 50)
    )
    assert queue(tx) == [early, middle, late, resumable]


def test_an_answer_holds_25_runs(tx: Transaction) -> None:
    flow_id = stored.flow_id(tx, tasks=[])
    ids = [stored.flow_run_id(tx, flow_id=flow_id, scheduled_start_time=ago(100 - age)) for age in range(30)]
    assert queue(tx) == ids[:25]


@pytest.mark.parametrize(
    ("run_labels", "agent_labels", "is_taken"),
    [
        ([], [], True),
        ([], None, True),
        (["a"], [], False),
        ([], ["a"], False),
        (["a"], ["a"], True),
        (["a"], ["a", "b"], True),
        (["a", "b"], ["a"], False),
        (["a"], ["b"], False),
    ],
)
def test_an_agent_takes_the_runs_whose_labels_it_has(
    tx: Transaction, run_labels: Any, agent_labels: Any, is_taken: bool
) -> None:
    """T7, T27: no labels only meet no labels."""
    run_id = stored.flow_run_id(tx, labels=run_labels)
    assert queue(tx, labels=agent_labels) == ([run_id] if is_taken else [])


def test_runs_for_other_agents_do_not_crowd_out_those_for_this_one(tx: Transaction) -> None:
    """T38."""
    flow_id = stored.flow_id(tx, tasks=[])
    for _ in range(100):
        stored.flow_run_id(tx, flow_id=flow_id, labels=["elsewhere"], scheduled_start_time=ago(1000))
    mine = stored.flow_run_id(tx, flow_id=flow_id, labels=["here"])
    assert queue(tx, labels=["here"]) == [mine]


def test_the_queue_holds_the_runs_of_one_tenant(tx: Transaction) -> None:
    stored.flow_run_id(tx)
    other = tenants.create_tenant(tx, "Other", "other")["id"]
    project = tenants.create_project(tx, other, "project")["id"]
    theirs = stored.flow_run_id(tx, flow_id=stored.flow_id(tx, project_id=project))
    assert queue(tx, tenant_id=other) == [theirs]
    assert queue(tx, tenant_id=tables.new_id()) == []


def test_an_agent_that_asks_is_seen_once_a_second(tx: Transaction) -> None:
    """T36: it may ask several times a second."""
    tx.agent_id = agents.register_agent(tx, "LocalAgent")["id"]
    tx.update(tables.agent, last_queried=ago(5))
    before = ago(2)
    queue(tx)
    [seen] = stored.rows(tx, tables.agent)
    assert seen["last_queried"] > before
    queue(tx)
    assert stored.rows(tx, tables.agent) == [seen]


def test_an_unknown_agent_may_ask(tx: Transaction) -> None:
    run_id = stored.flow_run_id(tx)
    tx.agent_id = "unheard of"
    assert queue(tx) == [run_id]


LOCAL = {"type": "LocalAgent", "name": "agent", "labels": ["a", "b"]}


def test_an_agent_that_starts_again_is_still_the_same(tx: Transaction) -> None:
    first = agents.register_agent(tx, **LOCAL)
    assert agents.register_agent(tx, **{**LOCAL, "labels": ["b", "a"]}) == first
    assert stored.rows(tx, tables.agent)[0]["labels"] == ["a", "b"]
    assert stored.rows(tx, tables.agent)[0]["core_version"] == "1.4.1"


@pytest.mark.parametrize(
    "difference", [{"type": "DockerAgent"}, {"name": "other"}, {"labels": ["a"]}, {"labels": None}]
)
def test_an_agent_that_differs_is_another(tx: Transaction, difference: Any) -> None:
    assert agents.register_agent(tx, **LOCAL) != agents.register_agent(tx, **{**LOCAL, **difference})


def test_an_agent_of_another_prefect_version_is_another(tx: Transaction) -> None:
    first = agents.register_agent(tx, **LOCAL)
    tx.core_version = "1.4.0"
    assert agents.register_agent(tx, **LOCAL) != first


def test_an_agent_without_a_tenant_gets_the_first(tx: Transaction) -> None:
    tenants.create_tenant(tx, "Other", "other")
    agents.register_agent(tx, **LOCAL)
    assert stored.rows(tx, tables.agent)[0]["tenant_id"] == stored.tenant_id(tx)


def test_an_agent_of_an_unknown_tenant_is_refused(tx: Transaction) -> None:
    with pytest.raises(Refused, match="No tenant found"):
        agents.register_agent(tx, tenant_id=tables.new_id(), **LOCAL)


@pytest.mark.parametrize("labels", [[["a"]], [1], {"a": 1}], ids=repr)
def test_labels_that_were_stored_and_are_no_text_keep_no_other_run_from_its_agent(tx: Transaction, labels: Any) -> None:
    flow_id = stored.flow_id(tx)
    odd, run_id = (stored.flow_run_id(tx, flow_id=flow_id) for _ in range(2))
    tx.update(tables.flow_run, tables.flow_run.c.id == odd, labels=labels)
    assert queue(tx) == [run_id]


@pytest.mark.parametrize("labels", [[], ["gpu"], ["gpu", "tape"]], ids=str)
def test_an_agent_for_any_labels_takes_flow_runs_with_and_without_labels(tx: Transaction, labels: List[str]) -> None:
    run_id = stored.flow_run_id(tx, labels=labels)
    assert queue(tx, labels=[agents.ANY_LABELS]) == [run_id]


def test_an_agent_for_any_labels_leaves_flow_runs_to_agents_at_work_that_have_their_labels(tx: Transaction) -> None:
    own, other = (agents.register_agent(tx, "LocalAgent", name=name, labels=["*"])["id"] for name in ("own", "other"))
    flow_id = stored.flow_id(tx)
    runs = [stored.flow_run_id(tx, flow_id=flow_id, labels=labels) for labels in ([], ["gpu"], ["tape"])]

    def taken_by(agent_id: str, *labels: str) -> List[int]:
        tx.agent_id = agent_id
        return sorted(map(runs.index, queue(tx, labels=list(labels))))

    assert taken_by(own, "*") == taken_by(other, "*") == [0, 1, 2]
    gpu = agents.register_agent(tx, "LocalAgent", name="third", labels=["gpu"])["id"]
    assert taken_by(gpu, "gpu") == [1]
    assert taken_by(own, "*") == [0, 2]
    # an agent that does not ask any more may be gone
    tx.update(tables.agent, tables.agent.c.id == gpu, last_queried=ago(agents.AT_WORK + 1))
    assert taken_by(own, "*") == [0, 1, 2]
