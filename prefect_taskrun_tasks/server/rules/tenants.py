"""Tenants and their projects."""

from typing import Optional

from slugify import slugify
from sqlalchemy import select

from .. import tables
from ..database import Row, Transaction
from ..errors import Refused

#: The client takes exactly this text for "exists already, look its id up"
UNIQUENESS_VIOLATION = "Uniqueness violation."


def create_tenant(tx: Transaction, name: str, slug: str) -> Row:
    if not slug or slug != slugify(slug):
        raise Refused(f"{slug!r} is not a slug: use lower-case letters, digits and single hyphens.")
    if tx.row(select(tables.tenant).where(tables.tenant.c.slug == slug)):
        raise Refused(UNIQUENESS_VIOLATION)
    return {"id": tx.insert(tables.tenant, name=name, slug=slug)}


def create_project(tx: Transaction, tenant_id: str, name: str, description: Optional[str] = None) -> Row:
    if tx.get(tables.tenant, tenant_id) is None:
        raise Refused(f"There is no tenant {tenant_id}.")
    projects = tables.project
    if tx.row(select(projects).where(projects.c.tenant_id == tenant_id, projects.c.name == name)):
        raise Refused(UNIQUENESS_VIOLATION)
    return {"id": tx.insert(projects, tenant_id=tenant_id, name=name, description=description)}


def delete_project(tx: Transaction, project_id: str) -> Row:
    return {"success": tx.delete(tables.project, tables.project.c.id == project_id) > 0}
