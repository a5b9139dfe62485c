"""Agents that are deleted, and their configs."""

from typing import Any, Iterator

import pytest
import stored

from prefect_taskrun_tasks.server import tables
from prefect_taskrun_tasks.server.errors import Refused
from prefect_taskrun_tasks.server.rules import agents
from prefect_taskrun_tasks.server.transaction import Transaction


@pytest.fixture
def tx(database_url: str) -> Iterator[Transaction]:
    with stored.transaction(database_url) as tx:
        yield tx


def test_a_flow_run_outlives_the_agent_that_took_it(tx: Transaction) -> None:
    tx.agent_id = agent_id = agents.register_agent(tx, "LocalAgent", name="a")["id"]
    run_id = stored.flow_run_id(tx)
    stored.set_state(tx, run_id, "Submitted")
    assert stored.flow_run(tx, run_id)["agent_id"] == agent_id
    assert agents.delete_agent(tx, agent_id) == {"success": True}
    assert agents.delete_agent(tx, agent_id) == {"success": False}
    assert stored.flow_run(tx, run_id)["agent_id"] is None


def test_a_config_is_made_once_for_each_name_and_settings(tx: Transaction) -> None:
    tenant_id = stored.tenant_id(tx)
    asked = [("a", {"x": 1}), ("a", {"x": 1}), ("b", {"x": 1}), ("a", {"x": 2}), (None, None), (None, {})]
    ids = [agents.create_agent_config(tx, tenant_id, name, settings)["id"] for name, settings in asked]
    assert [ids.index(id) for id in ids] == [0, 0, 2, 3, 4, 4]
    kept = [(row["name"], row["settings"]) for row in stored.rows(tx, tables.agent_config)]
    assert kept == [("a", {"x": 1}), ("b", {"x": 1}), ("a", {"x": 2}), (None, {})]


def test_a_config_keeps_what_is_not_changed(tx: Transaction) -> None:
    id = agents.create_agent_config(tx, stored.tenant_id(tx), "a", {"x": 1})["id"]
    changes: Any = [({"name": "b"}, ("b", {"x": 1})), ({"settings": {}}, ("b", {})), ({}, ("b", {}))]
    for given, expected in changes:
        assert agents.update_agent_config(tx, id, **given) == {"success": True}
        [config] = stored.rows(tx, tables.agent_config)
        assert (config["name"], config["settings"]) == expected
    assert agents.update_agent_config(tx, tables.new_id(), name="x") == {"success": False}


def test_an_agent_outlives_its_config(tx: Transaction) -> None:
    config_id = agents.create_agent_config(tx, stored.tenant_id(tx))["id"]
    agents.register_agent(tx, "LocalAgent", agent_config_id=config_id)
    assert agents.delete_agent_config(tx, config_id) == {"success": True}
    assert agents.delete_agent_config(tx, config_id) == {"success": False}
    assert [agent["agent_config_id"] for agent in stored.rows(tx, tables.agent)] == [None]


def test_settings_of_a_config_are_an_object_and_its_tenant_is_there(tx: Transaction) -> None:
    tenant_id = stored.tenant_id(tx)
    id = agents.create_agent_config(tx, tenant_id)["id"]
    with pytest.raises(Refused, match="must be an object"):
        agents.create_agent_config(tx, tenant_id, settings=[1])
    with pytest.raises(Refused, match="must be an object"):
        agents.update_agent_config(tx, id, settings="x")
    with pytest.raises(Refused, match="no tenant"):
        agents.create_agent_config(tx, tables.new_id())


def test_an_agent_needs_a_config_that_is_there(tx: Transaction) -> None:
    with pytest.raises(Refused, match="not found"):
        agents.register_agent(tx, "LocalAgent", agent_config_id=tables.new_id())
    assert stored.count(tx, tables.agent) == 0
