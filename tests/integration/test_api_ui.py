"""The web UI of Prefect Server, page by page: requests of the kind that it sends, and what it must get."""

import json
from typing import Any, Dict, Iterator, List

import pytest
from asking import Caller, caller


@pytest.fixture
def api(database_url: str) -> Iterator[Caller]:
    with caller(database_url) as api:
        api.headers.update({"x-prefect-ui": "true", "x-backend": "SERVER"})
        yield api


def batch(api: Caller, *operations: Any) -> List[Any]:
    """The answers to several operations in one request, each a query and its variables."""
    body = [
        {"operationName": name, "query": f"query {name}{query}", "variables": variables}
        for name, (query, variables) in zip("ABCDEFG", operations)
    ]
    status, answers = api.api.answer(json.dumps(body).encode(), api.headers)
    assert (status, len(answers)) == (200, len(operations))
    return list(answers)


@pytest.fixture
def runs(api: Caller) -> Dict[str, str]:
    """Ids of flow runs by name, of the flows f (two versions, project one) and g (project two)."""
    first = api.flow_id("f", project="one", tasks=["a", "b"], edges=[{"upstream_task": "a", "downstream_task": "b"}])
    ids = {"old": api.flow_run_id(first, flow_run_name="old")}
    api.set_state(ids["old"], "Running")
    api.set_state(ids["old"], "Failed", message="broken")
    edges = [{"upstream_task": "a", "downstream_task": "b"}]
    second = api.flow_id("f", project="one", tasks=["a", "b"], edges=edges)
    other = api.flow_id("g", project="two", tasks=["a"])
    for name, flow_id in (("bad", second), ("worse", second), ("good", other), ("next", other)):
        later = "2031-01-01T00:00:00Z" if name == "next" else None
        ids[name] = api.flow_run_id(flow_id, flow_run_name=name, scheduled_start_time=later)
    for name, state in (("bad", "Failed"), ("worse", "Failed"), ("good", "Success")):
        api.set_state(ids[name], "Running")
        api.set_state(ids[name], state, message=name)
    return ids


def test_an_operation_of_a_batch_that_fails_leaves_the_others_alone(api: Caller) -> None:
    answers = batch(
        api,
        (" { tenant { slug __typename } }", {}),
        (" { unheard_of { id } }", {}),
        ("($i: UUID!) { get_task_run_info(task_run_id: $i) { id } hello }", {"i": "0" * 32}),
        ("($l: Int) { flow(limit: $l) { id } }", {"l": "x"}),
        (" { hello }", None),
    )
    assert answers[0] == {"data": {"tenant": [{"slug": "default", "__typename": "tenant"}]}}
    assert [list(answer) for answer in answers[1:4]] == [["errors"], ["data", "errors"], ["errors"]]
    assert answers[2]["data"] == {"get_task_run_info": None, "hello": "👋"}
    assert answers[2]["errors"][0]["path"] == ["get_task_run_info"]
    assert answers[4] == {"data": {"hello": "👋"}}


def test_mutations_of_a_batch_are_carried_out_each_for_itself(api: Caller, runs: Dict[str, str]) -> None:
    rename = """mutation Rename($id: UUID!, $n: String!) {
        set_flow_run_name(input: {flow_run_id: $id, name: $n}) { success }
    }"""
    body = [{"query": rename, "variables": {"id": runs["bad"], "n": name}} for name in ("x", "", "y")]
    _, answers = api.api.answer(json.dumps(body).encode(), api.headers)
    assert [("errors" in answer) for answer in answers] == [False, True, False]
    assert api.flow_run(runs["bad"], "name") == {"name": "y"}


def test_the_dashboard_counts_and_lists_runs_of_a_project_or_of_all(api: Caller, runs: Dict[str, str]) -> None:
    counts = """($project: uuid, $since: timestamptz) {
        Success: flow_run_aggregate(
            where: {flow: {project_id: {_eq: $project}}, updated: {_gte: $since}, state: {_eq: "Success"}}
        ) { aggregate { count } }
        Failed: flow_run_aggregate(
            where: {flow: {project_id: {_eq: $project}}, updated: {_gte: $since}, state: {_eq: "Failed"}}
        ) { aggregate { count } }
    }"""
    upcoming = """($project: uuid) {
        flow_run(
            where: {flow: {project_id: {_eq: $project}}, state: {_eq: "Scheduled"}}
            order_by: [{scheduled_start_time: asc}, {flow: {name: asc}}]
        ) { name flow { id name schedule } task_runs { id version } }
    }"""
    failures = """($since: timestamptz, $projects: [uuid!]) {
        flow_run(
            where: {state: {_eq: "Failed"}, updated: {_gte: $since}, flow: {project_id: {_in: $projects}}}
            distinct_on: flow_id
            order_by: [{flow_id: asc}, {updated: desc}]
        ) {
            name
            flow {
                version
                failed: flow_runs_aggregate(where: {state: {_eq: "Failed"}, updated: {_gte: $since}}) {
                    aggregate { count }
                }
                all: flow_runs_aggregate(where: {updated: {_gte: $since}}) { aggregate { count } }
            }
        }
    }"""
    since = "2020-01-01T00:00:00.000Z"
    one = api.project_id("one")
    answers = batch(
        api,
        (counts, {"since": since}),
        (counts, {"project": one, "since": None}),
        (upcoming, {}),
        (upcoming, {"project": one}),
        (failures, {"since": since}),
        (failures, {"since": since, "projects": [api.project_id("two")]}),
    )
    totals = [{state: tile["aggregate"]["count"] for state, tile in answer["data"].items()} for answer in answers[:2]]
    assert totals == [{"Success": 1, "Failed": 3}, {"Success": 0, "Failed": 3}]
    assert [run["name"] for run in answers[2]["data"]["flow_run"]] == ["next"]
    assert answers[3]["data"]["flow_run"] == []
    failed = {run["name"]: run["flow"] for run in answers[4]["data"]["flow_run"]}
    assert {name: (flow["version"], flow["failed"]["aggregate"]["count"]) for name, flow in failed.items()} == {
        "old": (1, 1),
        "worse": (2, 2),
    }
    assert answers[5]["data"]["flow_run"] == []


def test_flows_are_searched_for_by_groups_of_versions(api: Caller, runs: Dict[str, str]) -> None:
    query = """query Flows($order: [flow_group_order_by!], $groups: flow_group_bool_exp, $flows: flow_bool_exp) {
        flows: flow_group(where: $groups, limit: 15, offset: 0, order_by: $order) {
            id name schedule settings
            flows(where: $flows) { id name version archived is_schedule_active project { id name } parameters storage }
        }
        flow_group_aggregate(where: $groups) { aggregate { count } }
    }"""
    current = {"archived": {"_eq": False}}
    either = [{"name": {"_ilike": "%F%"}}, {"project": {"name": {"_ilike": "%f%"}}}]
    found = {"flows": {**current, "_or": either}}
    answer = api.ask(query, groups=found, flows=current, order=[{"created": "desc"}])
    [group] = answer["flows"]
    assert [(flow["name"], flow["version"]) for flow in group["flows"]] == [("f", 2)]
    assert answer["flow_group_aggregate"] == {"aggregate": {"count": 1}}
    assert len(api.ask(query, groups=None, flows=None, order=None)["flows"]) == 2


def test_the_page_of_a_flow_has_its_versions_runs_and_errors(api: Caller, runs: Dict[str, str]) -> None:
    [group] = api.ask('{ flow_group(where: {flows: {name: {_eq: "f"}}}) { id } }')["flow_group"]
    page = """query Flow($id: uuid!) { flow_group_by_pk(id: $id) {
        labels default_parameters schedule
        flows(order_by: {version: desc}) { version flow_runs(limit: 2) { scheduled_start_time } project { name } }
    } }"""
    flows = api.ask(page, id=group["id"])["flow_group_by_pk"]["flows"]
    assert [(flow["version"], len(flow["flow_runs"])) for flow in flows] == [(2, 2), (1, 1)]
    table = """query Runs($name: String, $order: [flow_run_order_by!], $group: uuid, $flow: uuid) {
        flow_run(
            where: {
                flow: {flow_group_id: {_eq: $group}, id: {_eq: $flow}}
                name: {_ilike: $name}
                state: {_neq: "Scheduled"}
            }
            order_by: $order, limit: 10, offset: 0
        ) { name state start_time end_time flow { version } }
    }"""
    order = [{"flow": {"version": "desc"}}, {"name": "asc"}]
    found = api.ask(table, group=group["id"], order=order)["flow_run"]
    assert [run["name"] for run in found] == ["bad", "worse", "old"]
    assert [run["name"] for run in api.ask(table, group=group["id"], name="%O%", order=order)["flow_run"]] == [
        "worse",
        "old",
    ]
    api.mutate("write_run_logs", "success", logs={"flow_run_id": runs["bad"], "level": "ERROR", "message": "oh"})
    errors = """query Errors($since: timestamptz_comparison_exp, $group: uuid) {
        flow_run(
            where: {
                updated: $since
                flow: {flow_group_id: {_eq: $group}}
                logs: {level: {_in: ["CRITICAL", "ERROR"]}}
            }
            order_by: [{updated: desc}]
        ) { name logs(limit: 1, where: {level: {_in: ["CRITICAL", "ERROR"]}, timestamp: $since}) { level message } }
    }"""
    for since in ({"_gte": "2020-01-01T00:00:00Z"}, None, {}):
        found = api.ask(errors, since=since, group=group["id"])["flow_run"]
        assert found == [{"name": "bad", "logs": [{"level": "ERROR", "message": "oh"}]}]


def test_the_page_of_a_flow_run_has_its_states_and_task_runs_by_name(api: Caller, runs: Dict[str, str]) -> None:
    run = api.flow_run(runs["bad"], "states { id state timestamp start_time } agent_id flow { version_group_id }")
    assert [state["state"] for state in run["states"]] == ["Scheduled", "Running", "Failed"]
    table = """query TaskRuns($id: uuid, $name: String, $states: [String!], $order: [task_run_order_by!]) {
        flow_run(where: {id: {_eq: $id}}) {
            task_runs(
                where: {
                    _or: [{name: {_ilike: $name}}, {task: {name: {_ilike: $name}}}]
                    state: {_in: $states}
                }
                order_by: $order
            ) { state task { name } }
            task_runs_aggregate(where: {state: {_in: $states}}) { aggregate { count } }
        }
    }"""
    order = [{"task": {"name": "desc"}}]
    [found] = api.ask(table, id=runs["bad"], order=order)["flow_run"]
    assert [task_run["task"]["name"] for task_run in found["task_runs"]] == ["b", "a"]
    [found] = api.ask(table, id=runs["bad"], name="%A%", states=["Pending"], order=order)["flow_run"]
    assert [task_run["task"]["name"] for task_run in found["task_runs"]] == ["a"]
    assert found["task_runs_aggregate"]["aggregate"] == {"count": 2}


def test_the_page_of_a_task_run_has_its_neighbours(api: Caller, runs: Dict[str, str]) -> None:
    query = """query Neighbours($run: uuid!, $slug: String) {
        task_run(where: {flow_run_id: {_eq: $run}, task: {slug: {_eq: $slug}}}) {
            states { state message } logs { message }
            task {
                retry_delay max_retries trigger
                upstream_edges { upstream_task { name task_runs(where: {flow_run_id: {_eq: $run}}) { state } } }
                downstream_edges { downstream_task { name task_runs(where: {flow_run_id: {_eq: $run}}) { state } } }
            }
        }
        task_run_state(where: {task_run: {flow_run_id: {_eq: $run}}}, order_by: {timestamp: desc}) { state }
        task_run_artifact(where: {task_run: {flow_run_id: {_eq: $run}}}) { kind data }
    }"""
    answer = api.ask(query, run=runs["bad"], slug="a")
    [task_run] = answer["task_run"]
    assert task_run["task"]["upstream_edges"] == []
    neighbour = {"downstream_task": {"name": "b", "task_runs": [{"state": "Pending"}]}}
    assert task_run["task"]["downstream_edges"] == [neighbour]
    assert (len(answer["task_run_state"]), answer["task_run_artifact"]) == (2, [])


def test_a_failed_flow_run_is_restarted(api: Caller, runs: Dict[str, str]) -> None:
    """Contract 4.5: a log, the failed task runs and what follows them to Pending, the flow run to Scheduled."""
    api.headers["x-prefect-core-version"] = "1.4.1"
    run_id = runs["bad"]
    task_runs = {
        task_run["task"]["slug"]: task_run["id"]
        for task_run in api.flow_run(run_id, "task_runs { id task { slug } }")["task_runs"]
    }
    api.set_task_state(task_runs["a"], "Failed")
    api.set_task_state(task_runs["b"], "TriggerFailed")
    failed = """query Failed($run: uuid, $states: [String!]) {
        task_run(where: {flow_run_id: {_eq: $run}, state: {_in: $states}}) { id task_id version }
    }"""
    states = ["Cancelled", "Failed", "TimedOut", "TriggerFailed"]
    found = api.ask(failed, run=run_id, states=states)["task_run"]
    downstream = """query Downstream($run: uuid, $tasks: _uuid) {
        utility_downstream_tasks(args: {start_task_ids: $tasks}) {
            depth task_id task { task_runs(where: {flow_run_id: {_eq: $run}, map_index: {_eq: -1}}) { id version } }
        }
    }"""
    literal = "{" + ",".join(each["task_id"] for each in found) + "}"
    walked = api.ask(downstream, run=run_id, tasks=literal)["utility_downstream_tasks"]
    again = {each["task"]["task_runs"][0]["id"] for each in walked}
    assert again == set(task_runs.values())
    log = """mutation WriteRunLogs($flowRunId: UUID!, $taskRunId: UUID, $message: String, $name: String) {
        write_run_logs(
            input: {logs: [{flow_run_id: $flowRunId, task_run_id: $taskRunId, name: $name, message: $message}]}
        ) { success }
    }"""
    assert api.ask(log, flowRunId=run_id, message="restarted")["write_run_logs"] == {"success": True}
    pending = """mutation Pending($input: [set_task_run_state_input!]!) {
        set_task_run_states(input: {states: $input}) { states { id } }
    }"""
    state = {"type": "Pending", "message": "restarted"}
    api.ask(pending, input=[{"task_run_id": id, "state": state, "version": 1} for id in again])
    scheduled = """mutation Scheduled($id: UUID!, $version: Int!, $state: JSON!) {
        set_flow_run_states(input: {states: [{flow_run_id: $id, state: $state, version: $version}]}) {
            states { id status }
        }
    }"""
    api.ask(scheduled, id=run_id, version=3, state={"type": "Scheduled", "message": "restarted"})
    run = api.flow_run(run_id, "state state_start_time task_runs { state }")
    assert (run["state"], run["task_runs"]) == ("Scheduled", [{"state": "Pending"}] * 2)
    assert run_id in api.mutate("get_runs_in_queue", "flow_run_ids", tenant_id=api.tenant_id())


def test_the_page_of_a_schedule_sets_and_removes_it(api: Caller, runs: Dict[str, str]) -> None:
    [flow] = api.ask('{ flow(where: {name: {_eq: "g"}}) { id flow_group_id } }')["flow"]
    clocks = {"cron_clocks": [{"cron": "0 5 * * *", "parameter_defaults": {"x": 1}}], "interval_clocks": []}
    given = {"flow_group_id": flow["flow_group_id"], "timezone": "Europe/Berlin", **clocks}
    assert api.mutate("set_flow_group_schedule", "success", **given) is True
    assert api.mutate("set_schedule_active", "success", flow_id=flow["id"]) is True
    upcoming = """query Upcoming($group: uuid) {
        flow_run_aggregate(where: {
            flow: {flow_group_id: {_eq: $group}}, auto_scheduled: {_eq: true}, state: {_eq: "Scheduled"}
        }) { aggregate { count min { scheduled_start_time } max { scheduled_start_time } } }
    }"""
    found = api.ask(upcoming, group=flow["flow_group_id"])["flow_run_aggregate"]["aggregate"]
    assert found["count"] == 10
    assert found["min"]["scheduled_start_time"] < found["max"]["scheduled_start_time"]
    removed = api.mutate("delete_flow_group_schedule", "success", flow_group_id=flow["flow_group_id"])
    assert removed is True
    found = api.ask(upcoming, group=flow["flow_group_id"])["flow_run_aggregate"]["aggregate"]
    assert found == {"count": 0, "min": {"scheduled_start_time": None}, "max": {"scheduled_start_time": None}}


def test_agents_are_listed_with_what_they_did_and_deleted(api: Caller, runs: Dict[str, str]) -> None:
    id = api.mutate("register_agent", type="LocalAgent", tenant_id=api.tenant_id(), name="agent")
    api.headers["x-prefect-agent-id"] = id
    later = api.flow_run_id(api.ask('{ flow(where: {name: {_eq: "g"}}) { id } }')["flow"][0]["id"])
    api.set_state(later, "Submitted", state={"type": "Scheduled"})
    listed = """query Agents { agent { id name labels last_queried type core_version agent_config { id name }
        flow_runs(where: {state: {_neq: "Scheduled"}}, order_by: {start_time: desc_nulls_last}) { id }
    } }"""
    [agent] = api.ask(listed)["agent"]
    assert agent["flow_runs"] == [{"id": later}]
    delete = "mutation DeleteAgent($agentId: UUID!) { delete_agent(input: {agent_id: $agentId}) { success } }"
    assert api.ask(delete, agentId=id)["delete_agent"] == {"success": True}
    assert api.ask(listed)["agent"] == []


def test_notifications_are_counted_read_and_deleted(api: Caller) -> None:
    hook = {"tenant_id": api.tenant_id(), "type": "PREFECT_MESSAGE", "states": ["FAILED"], "name": "n", "config": {}}
    api.mutate("create_cloud_hook", **hook)
    api.set_state(api.running(), "Failed")
    listed = """query Notifications($where: message_bool_exp, $order: [message_order_by!]) {
        notifications: message(where: $where, limit: 15, offset: 0, order_by: $order) { id read text type content }
        message_aggregate(where: $where) { aggregate { count } }
    }"""
    unread = {"read": {"_eq": False}}
    answer = api.ask(listed, where=unread, order=[{"created": "desc"}])
    assert answer["message_aggregate"] == {"aggregate": {"count": 1}}
    [message] = answer["notifications"]
    assert api.mutate("mark_message_as_read", "success error", message_id=message["id"]) == {
        "success": True,
        "error": None,
    }
    assert api.ask(listed, where=unread)["notifications"] == []
    assert api.mutate("delete_message", "success", message_id=message["id"]) is True
    assert api.ask(listed)["notifications"] == []
    query = """query Hooks($id: String) {
        cloud_hook(where: {version_group_id: {_eq: $id}}) { active config name states type }
    }"""
    expected = {"active": True, "config": {}, "name": "n", "states": ["FAILED"], "type": "PREFECT_MESSAGE"}
    assert api.ask(query)["cloud_hook"] == [expected]
