"""The reads and writes of the unmodified Prefect client, its views and its command line, against the backend."""

import logging
from pathlib import Path
from typing import Any

import pendulum
import prefect
import pytest
from click.testing import CliRunner
from conftest import eventually
from driven import DrivenRun
from prefect import Flow, Parameter, Task, unmapped
from prefect.agent.local import LocalAgent
from prefect.backend import FlowRunView, FlowView, TaskRunView, TenantView
from prefect.cli import cli
from prefect.client import Client
from prefect.engine.results import PrefectResult
from prefect.engine.state import Cached, Cancelled, Mapped, Retrying, Running, Scheduled, State, Submitted, Success
from prefect.run_configs import UniversalRun
from prefect.schedules import IntervalSchedule
from prefect.storage import Local
from prefect.tasks.core.function import FunctionTask
from prefect.utilities.graphql import EnumValue, with_args

from prefect_taskrun_tasks import FlowRunView as OurFlowRunView
from prefect_taskrun_tasks.server import Backend


class Add(Task):
    def run(self, x: int, y: int) -> int:
        return x + y


def example() -> Flow:
    with Flow("example", run_config=UniversalRun(labels=["here"]), storage=Local(add_default_labels=False)) as flow:
        n = Parameter("n", default=1)
        one = Add(name="one", max_retries=1, retry_delay=pendulum.duration(seconds=5))(n, 1)
        Add(name="many").map([1, 2], unmapped(one))
    return flow


@pytest.fixture
def flow_id(client: Client) -> str:
    client.create_project("project")
    id: str = example().register("project", no_url=True)
    return id


@pytest.fixture
def run_id(client: Client, flow_id: str) -> str:
    """Of a flow run whose task `one` succeeded with 2 and whose mapped task with 3 and 4."""
    id = client.create_flow_run(flow_id=flow_id, parameters={"n": 5}, context={"c": 1}, run_name="mine")
    client.set_flow_run_state(id, Running(), version=1)
    slugs = {run.task_slug: run for run in client.get_flow_run_info(id).task_runs}

    def succeed(task_run_id: str, value: int) -> None:
        client.set_task_run_state(task_run_id, Running(), version=1)
        result = PrefectResult(location=str(value))
        client.set_task_run_state(task_run_id, Success("done", result=result))

    succeed(slugs["one-1"].id, 2)
    client.set_task_run_state(slugs["many-1"].id, Mapped(n_map_states=2))
    for index in (1, 0):
        child = client.get_task_run_info(id, slugs["many-1"].task_id, map_index=index)
        succeed(child.id, 3 + index)
    return id


def test_registering_a_flow_stores_its_tasks_and_edges(client: Client, flow_id: str) -> None:
    """R5, R7; contract 5.1."""
    query = "query($id: uuid!) { flow_by_pk(id: $id) { tasks { slug tags retry_delay } edges { key mapped } } }"
    flow = client.graphql(query, variables={"id": flow_id}).data.flow_by_pk
    assert {"slug": "one-1", "tags": [], "retry_delay": "00:00:05"} in flow.tasks
    # two arguments from one task are one edge
    assert len(flow.edges) == len({(edge.upstream_task, edge.downstream_task) for edge in example().edges})


@pytest.mark.parametrize("is_compressed", [True, False])
def test_registering_again_with_a_key_changes_nothing(client: Client, is_compressed: bool) -> None:
    client.create_project("project")
    ids = {
        client.register(example(), "project", idempotency_key="k", compressed=is_compressed, no_url=True, build=False)
        for _ in range(2)
    }
    assert len(ids) == 1


def test_a_project_that_exists_is_found_again(client: Client) -> None:
    """R5: and a deleted one is gone."""
    assert client.create_project("project") == client.create_project("project")
    assert client.delete_project("project")
    with pytest.raises(ValueError, match="not found"):
        client.delete_project("project")


def test_a_schedule_is_active_from_registration_on(client: Client) -> None:
    client.create_project("project")
    flow = Flow("scheduled", schedule=IntervalSchedule(interval=pendulum.duration(days=1)))
    flow_id = flow.register("project", no_url=True)
    query = "query($id: uuid!) { flow_by_pk(id: $id) { is_schedule_active flow_runs { auto_scheduled } } }"
    registered = client.graphql(query, variables={"id": flow_id}).data.flow_by_pk
    assert registered.is_schedule_active
    assert [run.auto_scheduled for run in registered.flow_runs] == [True] * 10


def test_the_client_knows_its_tenant(client: Client) -> None:
    """R1 to R4."""
    tenant = TenantView.from_current_tenant()
    assert (tenant.tenant_id, tenant.slug) == (client.tenant_id, "default")
    assert client.get_default_tenant_slug() == "default"
    assert client.create_tenant("Other", "other") != client.tenant_id
    assert client.get_cloud_url("flow-run", "1").endswith("/default/flow-run/1")


def test_a_flow_is_found_in_each_way(client: Client, flow_id: str) -> None:
    """R8."""
    by_id = FlowView.from_flow_id(flow_id)
    assert (by_id.name, by_id.project_name, by_id.archived, by_id.flow_group_labels) == (
        "example",
        "project",
        False,
        None,
    )
    for view in (
        FlowView.from_flow_name("example"),
        FlowView.from_flow_name("example", project_name="project"),
        FlowView.from_id(flow_id),
        FlowView.from_flow_group_id(client.graphql("{ flow_group { id } }").data.flow_group[0].id),
    ):
        assert view.flow_id == flow_id
    with pytest.raises(ValueError, match="found"):
        FlowView.from_flow_name("example", project_name="other")
    newer = example().register("project", no_url=True)
    assert FlowView.from_flow_name("example").flow_id == newer


def test_a_flow_run_is_shown_with_its_states_and_logs(client: Client, run_id: str) -> None:
    """R10, R11."""
    times = [f"2026-01-01T00:00:0{second}.000001+00:00" for second in (2, 1, 3)]
    client.write_run_logs(
        [{"flow_run_id": run_id, "timestamp": time, "message": time, "level": "INFO"} for time in times]
    )
    view = FlowRunView.from_flow_run_id(run_id)
    assert (view.name, view.parameters, view.context) == ("mine", {"n": 5}, {"c": 1})
    assert view.labels == ["here"]
    assert [type(state) for state in view.states] == [Scheduled, Running]
    assert [log.message for log in view.get_logs()] == sorted(times)
    after, until = pendulum.parse(sorted(times)[0]), pendulum.parse(sorted(times)[1])
    assert [log.message for log in view.get_logs(start_time=after, end_time=until)] == sorted(times)[1:2]
    assert view.get_logs()[0].level == logging.INFO


def test_task_runs_are_found_with_their_results(run_id: str) -> None:
    """R17, R18."""
    view = FlowRunView.from_flow_run_id(run_id, load_static_tasks=True)
    assert view.get_task_run("one-1").get_result() == 2
    assert view.get_task_run("many-1").get_result() == [3, 4]
    assert [child.map_index for child in view.get_task_run("many-1").iter_mapped()] == [0, 1]
    assert view.get_task_run("many-1", map_index=1).get_result() == 4
    assert len(view.get_all_task_runs()) == 6
    assert len(view.get_task_run_ids()) == 6
    task_run = view.get_task_run("one-1")
    assert TaskRunView.from_task_run_id(task_run.task_run_id).get_result() == 2


def test_a_runner_gets_what_it_asks_for(client: Client, flow_id: str, run_id: str) -> None:
    """R13, R14, R15."""
    info = client.get_flow_run_info(run_id)
    assert (info.flow_id, info.name, info.parameters, info.project.name) == (flow_id, "mine", {"n": 5}, "project")
    assert {run.task_slug for run in info.task_runs} == {"n", "one-1", "many-1", "[1, 2]-1"}
    assert client.get_flow_run_state(run_id).is_running()
    client.update_flow_run_heartbeat(run_id)
    query = "query($id: uuid!) { flow_run_by_pk(id: $id) { flow { settings } } }"
    assert client.graphql(query, variables={"id": run_id}).data.flow_run_by_pk.flow.settings == {}
    task_run_id = info.task_runs[0].id
    assert client.get_task_run_state(task_run_id).is_pending()
    assert client.set_task_run_name(task_run_id, "renamed")
    assert client.set_flow_run_name(run_id, "renamed")


def test_a_cached_state_is_found_while_it_is_fresh(client: Client, run_id: str) -> None:
    """R19, T14: with a time without a zone."""
    task_run = FlowRunView.from_flow_run_id(run_id).get_task_run("one-1")
    client.set_task_run_state(task_run.task_run_id, Cached(result=PrefectResult(location="2")))
    since = pendulum.now("UTC").subtract(minutes=1)
    assert [
        state.load_result(state._result).result
        for state in client.get_latest_cached_states(task_run.task_id, None, since)
    ] == [2]
    assert client.get_latest_cached_states(task_run.task_id, "other key", since) == []
    assert client.get_latest_cached_states(task_run.task_id, None, since.add(minutes=5)) == []


def test_a_local_agent_takes_a_run_and_submits_it(client: Client, flow_id: str) -> None:
    """R16, R20; contract 5.2."""
    run_id = client.create_flow_run(flow_id=flow_id)
    later = client.create_flow_run(flow_id=flow_id, scheduled_start_time=pendulum.now("UTC").add(hours=1))
    agent = LocalAgent(labels=["here"], hostname_label=False, show_flow_logs=False)
    agent.client.attach_headers({"X-PREFECT-AGENT-ID": agent._register_agent()})
    assert agent._get_ready_flow_runs() == {run_id}
    [run] = agent._get_flow_run_metadata([run_id, later])[:1]
    assert run.flow.name == "example"
    agent._mark_flow_as_submitted(run)
    assert agent._get_ready_flow_runs() == set()
    assert client.get_flow_run_state(run_id).is_submitted()
    [row] = client.graphql("{ agent { id name labels last_queried } }").data.agent
    assert (row.name, row.labels) == ("agent", ["here"])


def test_a_running_run_is_given_to_an_agent_when_its_retry_is_due(client: Client, run_id: str) -> None:
    """R16: with just the task runs that are due."""
    task_run_id = FlowRunView.from_flow_run_id(run_id).get_task_run("one-1").task_run_id
    client.set_task_run_state(task_run_id, Retrying(start_time=pendulum.now("UTC").subtract(minutes=1), run_count=2))
    agent = LocalAgent(labels=["here"], hostname_label=False)
    # once no process can be between two of its tasks
    assert eventually(agent._get_ready_flow_runs) == {run_id}
    [run] = agent._get_flow_run_metadata([run_id])
    assert [task_run.id for task_run in run.task_runs] == [task_run_id]
    agent._mark_flow_as_submitted(run)
    [state] = [
        each.state for each in FlowRunView.from_flow_run_id(run_id).get_all_task_runs() if each.state.is_submitted()
    ]
    assert isinstance(state, Submitted)
    assert (type(state.state), state.state.run_count) == (Retrying, 2)


def test_a_run_is_cancelled(client: Client, run_id: str) -> None:
    """Contract 5.8."""
    assert client.cancel_flow_run(run_id)
    assert FlowRunView.from_flow_run_id(run_id).state.is_running()
    query = "query($id: uuid!) { flow_run_by_pk(id: $id) { state } }"
    assert client.graphql(query, variables={"id": run_id}).data.flow_run_by_pk.state == "Cancelling"


def test_an_artifact_is_kept(client: Client, run_id: str) -> None:
    task_run_id = client.get_flow_run_info(run_id).task_runs[0].id
    artifact_id = client.create_task_run_artifact(task_run_id, "link", {"link": "x"})
    client.update_task_run_artifact(artifact_id, {"link": "y"})
    assert client.graphql("{ task_run_artifact { data } }").data.task_run_artifact == [{"data": {"link": "y"}}]
    client.delete_task_run_artifact(artifact_id)


def test_a_single_log_stands_for_a_list_of_one(client: Client, run_id: str) -> None:
    """Contract 5.9: sent when a flow cannot be loaded."""
    client.write_run_logs({"flow_run_id": run_id, "message": "alone", "level": "ERROR"})
    assert client.graphql("{ log { message level } }").data.log == [{"message": "alone", "level": "ERROR"}]


def test_an_unmodified_query_of_the_newest_version_is_answered(client: Client, flow_id: str) -> None:
    """R6 and R9, as the client writes them."""
    newer = example().register("project", no_url=True)
    where = {"_and": {"name": {"_eq": "example"}, "project": {"name": {"_eq": "project"}}}}
    arguments = {"where": where, "order_by": {"version": EnumValue("desc")}, "limit": 1}
    assert client.graphql({"query": {with_args("flow", arguments): ["id", "version"]}}).data.flow == [
        {"id": newer, "version": 2}
    ]


def test_a_flow_run_that_is_cancelled_while_its_process_starts_runs_no_task(client: Client, tmp_path: Path) -> None:
    """The runner that Prefect's agents start ends quietly."""

    def cancel(flow: Flow, old: State, new: State) -> None:
        if new.is_running():
            # just before it says so to the backend
            assert client.cancel_flow_run(prefect.context.flow_run_id)

    def touch() -> None:
        (tmp_path / "ran").touch()

    with Flow("cancelled", state_handlers=[cancel]) as flow:
        FunctionTask(touch)()
    run = DrivenRun(flow).enter(Submitted())
    assert isinstance(run.execute(), Cancelled)
    assert not (tmp_path / "ran").exists()
    states = [type(state).__name__ for state in OurFlowRunView.from_flow_run_id(run.id).states]
    assert states == ["Scheduled", "Submitted", "Cancelled"]


COMMANDS = [
    (["get", "flows"], "example"),
    (["get", "flows", "--all-versions", "--name", "example", "--project", "project"], "example"),
    (["get", "projects"], "project"),
    (["get", "tasks"], "one"),
    (["get", "flow-runs"], "mine"),
    (["get", "flow-runs", "--started", "--flow", "example"], "mine"),
    (["get", "logs", "--name", "mine"], "a log"),
    (["describe", "flows", "--name", "example"], '"version": 1'),
    (["describe", "tasks", "--name", "example"], '"slug": "one-1"'),
    (["describe", "flow-runs", "--name", "mine"], '"name": "example"'),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("command", "shown"), COMMANDS, ids=[" ".join(command) for command, _ in COMMANDS])
def test_the_command_line_shows_what_there_is(
    backend: Backend, client: Client, run_id: str, command: Any, shown: str
) -> None:
    """R23, T8."""
    client.write_run_logs([{"flow_run_id": run_id, "message": "a log", "level": "INFO"}])
    result = CliRunner().invoke(cli, command)
    assert result.exception is None
    assert shown in result.output
