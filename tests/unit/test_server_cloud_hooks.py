"""Cloud hooks: which are told of what, and the messages that some leave."""

from contextlib import suppress
from typing import Any, Dict, Iterator, List

import pytest
import stored

from prefect_taskrun_tasks.server import services, tables
from prefect_taskrun_tasks.server.errors import Refused
from prefect_taskrun_tasks.server.rules import cloud_hooks, flow_runs, messages, schedules, tenants
from prefect_taskrun_tasks.server.transaction import Transaction

URL = {"url": "http://127.0.0.1:9/hook"}


@pytest.fixture
def tx(database_url: str) -> Iterator[Transaction]:
    with stored.transaction(database_url) as tx:
        yield tx


def hook(tx: Transaction, **values: Any) -> str:
    given: Dict[str, Any] = {"type": "WEBHOOK", "states": ["Running"], "config": URL, **values}
    return str(cloud_hooks.create_cloud_hook(tx, **{"tenant_id": stored.tenant_id(tx), **given})["id"])


def told(tx: Transaction) -> List[str]:
    """The states that were to be told since this was asked last."""
    names = [call.event["state"]["state"] for call in tx.calls]
    tx.calls = []
    return names


def test_a_hook_is_told_of_its_states_and_of_no_others(tx: Transaction) -> None:
    hook(tx, states=["running", "SUCCESS", "Running"])
    run_id = stored.running(tx)
    stored.set_state(tx, run_id, "Success")
    assert told(tx) == ["Running", "Success"]
    assert stored.rows(tx, tables.cloud_hook)[0]["states"] == ["RUNNING", "SUCCESS"]


def test_a_hook_is_told_of_the_runs_of_its_flow_or_of_all(tx: Transaction) -> None:
    first, second = stored.flow_id(tx, "first"), stored.flow_id(tx, "second")
    [group] = [row["version_group_id"] for row in stored.rows(tx, tables.flow, id=first)]
    of_one, of_all = hook(tx, version_group_id=group), hook(tx)
    stored.running(tx, flow_id=first)
    assert {call.hook["id"] for call in tx.calls} == {of_one, of_all}
    tx.calls = []
    stored.running(tx, flow_id=second)
    assert {call.hook["id"] for call in tx.calls} == {of_all}


def test_a_hook_of_another_tenant_is_told_nothing(tx: Transaction) -> None:
    run_id = stored.flow_run_id(tx)
    hook(tx, tenant_id=tenants.create_tenant(tx, "Other", "other")["id"])
    stored.set_state(tx, run_id, "Running")
    assert told(tx) == []


def test_a_hook_can_be_switched_off_and_on_and_deleted(tx: Transaction) -> None:
    id, run_id = hook(tx), stored.flow_run_id(tx)
    for change, expected in (
        (cloud_hooks.set_cloud_hook_inactive, []),
        (cloud_hooks.set_cloud_hook_active, ["Running"]),
        (cloud_hooks.delete_cloud_hook, []),
    ):
        assert change(tx, id) == {"success": True}
        stored.set_state(tx, run_id, "Running", message=change.__name__)
        assert told(tx) == expected
    for change in (cloud_hooks.set_cloud_hook_inactive, cloud_hooks.delete_cloud_hook):
        assert change(tx, id) == {"success": False}


def test_a_hook_that_is_made_twice_is_one_that_is_active(tx: Transaction) -> None:
    id = hook(tx, name="n")
    cloud_hooks.set_cloud_hook_inactive(tx, id)
    assert hook(tx, name="n", states=["RUNNING"]) == id
    assert [row["active"] for row in stored.rows(tx, tables.cloud_hook)] == [True]
    assert id not in {
        hook(tx, name="m"),
        hook(tx, name="n", states=["Failed"]),
        hook(tx, name="n", config={"url": "https://x"}),
    }


def test_an_event_says_whose_state_it_is(tx: Transaction) -> None:
    hook(tx, states=["Failed"])
    run_id = stored.flow_run_id(tx, flow_run_name="run", labels=["x"])
    stored.set_state(tx, run_id, "Failed", message="why")
    [(_, event)] = tx.calls
    assert (event["type"], event["is_test_event"]) == ("FlowRunStateChange", False)
    assert {name: event["flow_run"][name] for name in ("id", "name", "labels")} == {
        "id": run_id,
        "name": "run",
        "labels": ["x"],
    }
    assert (event["flow"]["name"], event["tenant"]["slug"]) == ("flow", "default")
    state = event["state"]
    assert (state["state"], state["message"], state["version"]) == ("Failed", "why", 2)
    assert state["serialized_state"]["type"] == "Failed"


def test_a_replay_is_told_once(tx: Transaction) -> None:
    """T25."""
    hook(tx, states=["Submitted", "Scheduled", "Failed"])
    tx.agent_id = tables.new_id()
    tx.insert(tables.agent, id=tx.agent_id, tenant_id=stored.tenant_id(tx))
    run_id = stored.flow_run_id(tx, idempotency_key="k")
    flow_runs.create_flow_run(tx, flow_id=stored.flow_run(tx, run_id)["flow_id"], idempotency_key="k")
    for _ in range(2):
        stored.set_state(tx, run_id, "Submitted", state={"type": "Scheduled"})
    for _ in range(2):
        stored.set_state(tx, run_id, "Failed", message="why")
    assert told(tx) == ["Scheduled", "Submitted", "Failed"]


def test_what_is_undone_is_not_told(tx: Transaction) -> None:
    hook(tx, states=["Scheduled"])
    stored.flow_run_id(tx)
    with suppress(Refused), tx.attempt():
        stored.flow_run_id(tx)
        raise Refused("and what was done before it is not done")
    assert told(tx) == ["Scheduled"]
    assert stored.count(tx, tables.flow_run) == 1


def test_what_a_service_does_is_told(tx: Transaction) -> None:
    hook(tx, states=["Scheduled", "Failed"])
    run_id = stored.running(tx)
    stored.no_heartbeat_for(tx, run_id, services.HEARTBEAT_TIMEOUT + 1)
    assert told(tx) == ["Scheduled"]
    services.lazarus(tx)
    assert told(tx) == ["Scheduled"]
    stored.set_state(tx, run_id, "Cancelling")
    stored.no_heartbeat_for(tx, run_id, services.HEARTBEAT_TIMEOUT + 1)
    services.kill_zombies(tx)
    assert told(tx) == ["Failed"]


def test_a_hook_may_leave_messages(tx: Transaction) -> None:
    hook(tx, type="PREFECT_MESSAGE", config=None)
    run_id = stored.running(tx)
    assert told(tx) == []
    [message] = stored.rows(tx, tables.message)
    assert (message["type"], message["read"], message["tenant_id"]) == ("CLOUD_HOOK", False, stored.tenant_id(tx))
    assert message["content"]["type"] == "CLOUD_HOOK"
    assert message["content"]["event"]["flow_run"]["id"] == run_id
    for change, read in ((messages.mark_message_as_read, True), (messages.mark_message_as_unread, False)):
        for _ in range(2):
            assert change(tx, message["id"]) == {"success": True}
            assert stored.rows(tx, tables.message)[0]["read"] is read
        assert change(tx, tables.new_id()) == {"success": False}
    assert messages.delete_message(tx, message["id"]) == {"success": True}
    assert messages.delete_message(tx, message["id"]) == {"success": False}


TWILIO = {"account_sid": "a", "auth_token": "b", "messaging_service_sid": "c", "to": ["1"]}
PAGERDUTY = {"api_token": "a", "routing_key": "b", "severity": "info"}


@pytest.mark.parametrize(
    "values",
    [
        {"states": []},
        {"states": ["Running", "Sleeping"]},
        {"config": None},
        {"config": []},
        {"config": {"url": "file:///etc/passwd"}},
        {"config": {"url": 5}},
        {"config": {**URL, "more": 1}},
        {"type": "SLACK_WEBHOOK", "config": {}},
        {"type": "TWILIO", "config": {**TWILIO, "to": []}},
        {"type": "TWILIO", "config": {**TWILIO, "to": "1"}},
        {"type": "PAGERDUTY", "config": {**PAGERDUTY, "severity": "bad"}},
        {"type": "PAGERDUTY", "config": {"severity": "info"}},
    ],
)
def test_a_hook_that_could_not_be_told_is_refused(tx: Transaction, values: Any) -> None:
    with pytest.raises(Refused, match="Invalid"):
        hook(tx, **values)
    assert stored.count(tx, tables.cloud_hook) == 0


def test_a_hook_needs_a_tenant_that_there_is(tx: Transaction) -> None:
    with pytest.raises(Refused, match="no tenant"):
        hook(tx, tenant_id=tables.new_id())


@pytest.mark.parametrize(("type", "config"), [("TWILIO", TWILIO), ("PAGERDUTY", PAGERDUTY), ("SLACK_WEBHOOK", URL)])
def test_hooks_of_all_types_are_told(tx: Transaction, type: str, config: Any) -> None:
    hook(tx, type=type, config=config)
    stored.running(tx)
    assert told(tx) == ["Running"]


@pytest.mark.parametrize("name", [None, "SCHEDULED", "SUBMITTED", "RUNNING", "SUCCESS", "FAILED"])
def test_a_hook_is_tried_out_with_a_run_that_is_made_up(tx: Transaction, name: Any) -> None:
    id = hook(tx)
    cloud_hooks.set_cloud_hook_inactive(tx, id)
    [(_, event)] = cloud_hooks.trial(tx, id, state_type=name)
    assert event["is_test_event"] is True
    assert event["state"]["state"].upper() == event["state"]["serialized_state"]["type"].upper() == (name or "SUCCESS")
    assert event["flow_run"]["name"]
    assert event["flow"]["name"]
    assert told(tx) == []
    assert stored.count(tx, tables.flow_run) == 0


def test_a_hook_is_tried_out_with_a_flow_run_that_stays_as_it_is(tx: Transaction) -> None:
    run_id, id = stored.flow_run_id(tx), hook(tx)
    [(_, event)] = cloud_hooks.trial(tx, id, run_id, "FAILED")
    assert (event["flow_run"]["id"], event["state"]["state"], event["is_test_event"]) == (run_id, "Failed", True)
    assert stored.history(tx, run_id) == ["Scheduled"]
    for arguments in ([tables.new_id()], [id, tables.new_id()]):
        with pytest.raises(Refused, match="not found"):
            cloud_hooks.trial(tx, *arguments)


def test_flow_runs_of_a_schedule_are_told_when_they_are_made(tx: Transaction) -> None:
    hook(tx, states=["Scheduled"])
    flow_id = stored.flow_id(tx)
    [group_id] = [row["flow_group_id"] for row in stored.rows(tx, tables.flow)]
    schedules.set_flow_group_schedule(tx, group_id, cron_clocks=[{"cron": "0 5 * * *"}])
    schedules.set_schedule_active(tx, flow_id)
    assert told(tx) == ["Scheduled"] * schedules.AHEAD
    services.schedule(tx)
    assert told(tx) == []
