"""Tenants and their projects."""

from typing import Any, Optional

from slugify import slugify
from sqlalchemy import Table, select

from .. import tables
from ..errors import Refused
from ..transaction import Row, Transaction
from . import states

#: The client takes exactly this text for "exists already, look its id up"
UNIQUENESS_VIOLATION = "Uniqueness violation."


def create_tenant(tx: Transaction, name: str, slug: str) -> Row:
    _check_slug(tx, slug)
    return {"id": tx.insert(tables.tenant, name=name, slug=slug)}


def _check_slug(tx: Transaction, slug: str, tenant_id: Optional[str] = None) -> None:
    if not slug or slug != slugify(slug):
        raise Refused(f"{slug!r} is not a slug: use lower-case letters, digits and single hyphens.")
    known = tx.row(select(tables.tenant).where(tables.tenant.c.slug == slug))
    if known and known["id"] != tenant_id:
        raise Refused(UNIQUENESS_VIOLATION)


def update_tenant_name(tx: Transaction, tenant_id: str, name: str) -> Row:
    return _updated(tx, tables.tenant, tenant_id, name=name)


def update_tenant_slug(tx: Transaction, tenant_id: str, slug: str) -> Row:
    _check_slug(tx, slug, tenant_id)
    return _updated(tx, tables.tenant, tenant_id, slug=slug)


def update_tenant_settings(tx: Transaction, tenant_id: str, settings: Any = None) -> Row:
    """Sets the settings that are given, and leaves the others as they are."""
    if not isinstance(settings, (dict, type(None))):
        raise Refused(f"The settings of a tenant must be an object, not {settings!r}.")
    known = tx.get(tables.tenant, tenant_id)
    return _updated(tx, tables.tenant, tenant_id, settings={**(known["settings"] if known else {}), **(settings or {})})


def _updated(tx: Transaction, table: Table, id: str, **values: Any) -> Row:
    if not tx.update(table, table.c.id == id, **values):
        raise Refused(f"Update failed. There is no {table.name} {id}.")
    return {"id": id}


def delete_tenant(tx: Transaction, tenant_id: str, confirm: bool) -> Row:
    """Deletes a tenant with all its projects, flows and runs."""
    if not confirm:
        raise Refused("A tenant is deleted with all that it has: say so with confirm.")
    return {"success": tx.delete(tables.tenant, tables.tenant.c.id == tenant_id) > 0}


def create_project(tx: Transaction, tenant_id: str, name: str, description: Optional[str] = None) -> Row:
    if tx.get(tables.tenant, tenant_id) is None:
        raise Refused(f"There is no tenant {tenant_id}.")
    _check_name(tx, tenant_id, name)
    return {"id": tx.insert(tables.project, tenant_id=tenant_id, name=name, description=description)}


def _check_name(tx: Transaction, tenant_id: str, name: str, project_id: Optional[str] = None) -> None:
    projects = tables.project
    known = tx.row(select(projects).where(projects.c.tenant_id == tenant_id, projects.c.name == name))
    if known and known["id"] != project_id:
        raise Refused(UNIQUENESS_VIOLATION)


def set_project_name(tx: Transaction, project_id: str, name: str) -> Row:
    project = tx.get(tables.project, project_id)
    if project:
        _check_name(tx, project["tenant_id"], name, project_id)
    return _updated(tx, tables.project, project_id, name=name)


def set_project_description(tx: Transaction, project_id: str, description: Optional[str] = None) -> Row:
    return _updated(tx, tables.project, project_id, description=description)


def delete_project(tx: Transaction, project_id: str) -> Row:
    return {"success": states.delete(tx, tables.project, tables.project.c.id == project_id) > 0}
