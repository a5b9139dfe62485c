"""Tenants and projects that are changed, and what is left alone then."""

from typing import Any, Iterator

import pytest
import stored

from prefect_taskrun_tasks.server import tables
from prefect_taskrun_tasks.server.errors import Refused
from prefect_taskrun_tasks.server.rules import tenants
from prefect_taskrun_tasks.server.transaction import Transaction


@pytest.fixture
def tx(database_url: str) -> Iterator[Transaction]:
    with stored.transaction(database_url) as tx:
        yield tx


def test_a_tenant_can_be_renamed(tx: Transaction) -> None:
    id = stored.tenant_id(tx)
    for _ in range(2):
        assert tenants.update_tenant_name(tx, id, "Other") == {"id": id}
        assert tenants.update_tenant_slug(tx, id, "other") == {"id": id}
    [tenant] = stored.rows(tx, tables.tenant)
    assert (tenant["name"], tenant["slug"]) == ("Other", "other")


def test_the_slug_of_a_tenant_is_its_own(tx: Transaction) -> None:
    id = tenants.create_tenant(tx, "Other", "other")["id"]
    with pytest.raises(Refused, match=r"^Uniqueness violation\.$"):
        tenants.update_tenant_slug(tx, id, "default")
    with pytest.raises(Refused, match="is not a slug"):
        tenants.update_tenant_slug(tx, id, "Not A Slug")
    assert stored.rows(tx, tables.tenant, id=id)[0]["slug"] == "other"


def test_settings_of_a_tenant_are_merged(tx: Transaction) -> None:
    id = stored.tenant_id(tx)
    for settings in ({"a": 1, "b": 1}, {"b": 2}, None):
        assert tenants.update_tenant_settings(tx, id, settings) == {"id": id}
    assert stored.rows(tx, tables.tenant)[0]["settings"] == {"a": 1, "b": 2}
    with pytest.raises(Refused, match="must be an object"):
        tenants.update_tenant_settings(tx, id, [])


def test_a_tenant_is_deleted_with_all_that_it_has_if_that_is_confirmed(tx: Transaction) -> None:
    stored.flow_run_id(tx)
    other = tenants.create_tenant(tx, "Other", "other")["id"]
    id = next(row["id"] for row in stored.rows(tx, tables.tenant) if row["id"] != other)
    with pytest.raises(Refused, match="confirm"):
        tenants.delete_tenant(tx, id, False)
    assert stored.count(tx, tables.tenant) == 2
    assert tenants.delete_tenant(tx, id, True) == {"success": True}
    assert tenants.delete_tenant(tx, id, True) == {"success": False}
    assert [row["id"] for row in stored.rows(tx, tables.tenant)] == [other]
    for table in (tables.project, tables.flow_group, tables.flow, tables.flow_run, tables.task_run_state):
        assert stored.count(tx, table) == 0, table.name


def test_a_project_can_be_renamed_and_described(tx: Transaction) -> None:
    id = stored.project_id(tx, "p")
    for _ in range(2):
        assert tenants.set_project_name(tx, id, "q") == {"id": id}
    assert tenants.set_project_description(tx, id, "about") == {"id": id}
    [project] = stored.rows(tx, tables.project)
    assert (project["name"], project["description"]) == ("q", "about")
    tenants.set_project_description(tx, id)
    assert stored.rows(tx, tables.project)[0]["description"] is None


def test_a_project_cannot_take_the_name_of_another_of_its_tenant(tx: Transaction) -> None:
    id, _ = stored.project_id(tx, "p"), stored.project_id(tx, "q")
    with pytest.raises(Refused, match=r"^Uniqueness violation\.$"):
        tenants.set_project_name(tx, id, "q")
    other = tenants.create_tenant(tx, "Other", "other")["id"]
    tenants.create_project(tx, other, "r")
    assert tenants.set_project_name(tx, id, "r") == {"id": id}


@pytest.mark.parametrize(
    ("change", "values"),
    [
        (tenants.update_tenant_name, ["x"]),
        (tenants.update_tenant_slug, ["x"]),
        (tenants.update_tenant_settings, [{}]),
        (tenants.set_project_name, ["x"]),
        (tenants.set_project_description, ["x"]),
    ],
)
def test_what_is_not_there_cannot_be_changed(tx: Transaction, change: Any, values: Any) -> None:
    with pytest.raises(Refused, match=r"^Update failed"):
        change(tx, tables.new_id(), *values)
