"""Flows: registered in versions, of which the newest is the one that runs."""

import base64
import gzip
import io
import logging
import re
import zlib
from typing import Any, Dict, List, Optional, Set

from sqlalchemy import Table, func, select

from .. import strict_json, tables
from ..errors import Refused
from ..transaction import Row, Transaction
from . import schedules, states
from .serialized_flow import check, check_tasks, ends

logger = logging.getLogger(__name__)

#: Flows that an older Prefect has serialized lack what its backends need
OLDEST_CORE = (0, 6, 1)

#: Tasks and edges of a flow. Each flow run has a task run for each task; children of mapped tasks come on top.
MOST_TASKS, MOST_EDGES = 10_000, 50_000

#: Tasks, and edges, that are registered in one transaction, while other writers wait. Prefect's client sends 500 at a
#: time (`Client.register` in client/client.py).
MOST_AT_ONCE = 1_000


def create_flow_from_compressed_string(tx: Transaction, serialized_flow: str, **options: Any) -> Row:
    try:
        decoded = strict_json.loads(_decompressed(serialized_flow))
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise Refused(
            f"The compressed flow cannot be read as JSON, compressed by gzip and written as base64: {error}"
        ) from error
    return create_flow(tx, decoded, **options)


def _decompressed(text: str) -> bytes:
    with gzip.open(io.BytesIO(base64.b64decode(text, validate=True))) as file:
        found = file.read(tables.LARGEST_FLOW + 1)
    if len(found) > tables.LARGEST_FLOW:
        raise Refused(
            f"The compressed flow is larger than {tables.LARGEST_FLOW} bytes. Keep large values out of its tasks."
        )
    return found


def create_flow(
    tx: Transaction,
    serialized_flow: Any,
    project_id: str,
    version_group_id: Optional[str] = None,
    set_schedule_active: Optional[bool] = True,
    description: Optional[str] = None,
    idempotency_key: Optional[str] = None,
) -> Row:
    """Registers a new version of a flow and archives the versions before it."""
    check(serialized_flow)
    _check_core_version(serialized_flow)
    project = tx.get(tables.project, project_id)
    if project is None:
        raise Refused("Invalid project.")

    group_name = version_group_id or _known_group(tx, project_id, serialized_flow["name"])
    group = _group(tx, project["tenant_id"], group_name) if group_name else None
    if group is None:
        id = tx.insert(
            tables.flow_group,
            tenant_id=project["tenant_id"],
            name=group_name or tables.new_id(),
            settings={
                "heartbeat_enabled": True,
                "lazarus_enabled": True,
                "version_locking_enabled": False,
                "idempotency_key": idempotency_key,
            },
        )
        group = tx.get(tables.flow_group, id)
    else:
        if idempotency_key and group["settings"].get("idempotency_key") == idempotency_key:
            unchanged = _unarchived(tx, group["id"])
            if unchanged:
                return {"id": unchanged[0]["id"]}
        settings = {**group["settings"], "idempotency_key": idempotency_key}
        tx.update(tables.flow_group, tables.flow_group.c.id == group["id"], settings=settings)
    assert group is not None

    replaced = _unarchived(tx, group["id"])
    flow_id = _insert(tx, project, group, serialized_flow, description)
    register_tasks(tx, flow_id, serialized_flow.get("tasks") or [])
    register_edges(tx, flow_id, serialized_flow.get("edges") or [])
    if set_schedule_active:
        _activate_schedule(tx, flow_id)
    for flow in replaced:
        archive_flow(tx, flow["id"])
    return {"id": flow_id}


def _check_core_version(serialized_flow: Dict[str, Any]) -> None:
    # an unreleased Prefect calls itself by other words, such as 0+unknown
    found = re.match(r"(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?", str(serialized_flow.get("__version__")))
    if found and tuple(int(part) for part in found.groups("0")) < OLDEST_CORE:
        oldest = ".".join(str(part) for part in OLDEST_CORE)
        raise Refused(
            f"Flow {serialized_flow['name']!r} was made by Prefect {found.group()}: this backend takes flows of "
            f"Prefect {oldest} and later."
        )


def _known_group(tx: Transaction, project_id: str, name: str) -> Optional[str]:
    flows = tables.flow
    newest = (
        select(flows.c.version_group_id)
        .where(flows.c.project_id == project_id, flows.c.name == name)
        .order_by(flows.c.created.desc())
        .limit(1)
    )
    row = tx.row(newest)
    return row["version_group_id"] if row else None


def _group(tx: Transaction, tenant_id: str, name: str) -> Optional[Row]:
    groups = tables.flow_group
    return tx.row(select(groups).where(groups.c.tenant_id == tenant_id, groups.c.name == name))


def _unarchived(tx: Transaction, group_id: str) -> List[Row]:
    flows = tables.flow
    return tx.rows(
        select(flows.c.id)
        .where(flows.c.flow_group_id == group_id, flows.c.archived.is_(False))
        .order_by(flows.c.version.desc())
    )


def _insert(tx: Transaction, project: Row, group: Row, serialized: Dict[str, Any], description: Optional[str]) -> str:
    flows = tables.flow
    versions = select(func.max(flows.c.version)).where(flows.c.flow_group_id == group["id"])
    return tx.insert(
        flows,
        tenant_id=project["tenant_id"],
        project_id=project["id"],
        flow_group_id=group["id"],
        version_group_id=group["name"],
        name=serialized["name"],
        description=description,
        version=(tx.connection.execute(versions).scalar() or 0) + 1,
        # tasks are added to it by register_tasks, edges are only kept as rows
        serialized_flow={**serialized, "tasks": []},
        environment=serialized.get("environment"),
        run_config=serialized.get("run_config"),
        storage=serialized.get("storage"),
        parameters=serialized.get("parameters") or [],
        core_version=serialized.get("__version__"),
        schedule=serialized.get("schedule"),
    )


def _activate_schedule(tx: Transaction, flow_id: str) -> None:
    missing = schedules.missing_parameters(tx, flow_id)
    if missing:
        # they may be set for the flow group, which there has to be first
        logger.warning("The schedule of flow %s is not active: its parameters %s have no values", flow_id, missing)
        return
    # a schedule that cannot be used is refused with its flow. Prefect Server registers the flow with the schedule off,
    # and only its log says why
    schedules.set_schedule_active(tx, flow_id)


def register_tasks(tx: Transaction, flow_id: str, serialized_tasks: List[Dict[str, Any]]) -> Row:
    """Adds tasks to a flow; those whose slug it has already are left alone, so that a request may come twice."""
    flow = _registered(tx, flow_id)
    _check_count(flow, "tasks", len(serialized_tasks), MOST_TASKS)
    _check_at_once(flow, "tasks", len(serialized_tasks))
    check_tasks(flow["name"], serialized_tasks)
    known = _task_ids(tx, flow_id, {each["slug"] for each in serialized_tasks})
    added: Dict[str, Dict[str, Any]] = {}
    for each in serialized_tasks:
        if each["slug"] not in known:
            added[each["slug"]] = each
    _check_count(flow, "tasks", _count(tx, tables.task, flow_id) + len(added), MOST_TASKS)
    tx.insert_many(
        tables.task,
        [
            {
                "tenant_id": flow["tenant_id"],
                "flow_id": flow_id,
                "name": each.get("name"),
                "slug": slug,
                "type": each.get("type"),
                "max_retries": each.get("max_retries"),
                "retry_delay": _interval(each.get("retry_delay")),
                "trigger": (each.get("trigger") or {}).get("fn"),
                "cache_key": each.get("cache_key"),
                "tags": each.get("tags") or [],
                "auto_generated": bool(each.get("auto_generated")),
            }
            for slug, each in added.items()
        ],
    )
    if added:
        flows = tables.flow
        stored = tx.row(select(flows.c.serialized_flow).where(flows.c.id == flow_id)) or {}
        serialized = dict(stored["serialized_flow"] or {})
        serialized["tasks"] = [*(serialized.get("tasks") or []), *added.values()]
        tx.update(tables.flow, tables.flow.c.id == flow_id, serialized_flow=serialized)
    return {"success": True}


def _registered(tx: Transaction, flow_id: str) -> Row:
    """A flow without its serialized form, which may be large."""
    flows = tables.flow
    flow = tx.row(select(flows.c.id, flows.c.tenant_id, flows.c.name).where(flows.c.id == flow_id))
    if flow is None:
        raise Refused(f"Flow {flow_id} not found.")
    return flow


def _count(tx: Transaction, table: Table, flow_id: str) -> int:
    return int(tx.connection.execute(select(func.count()).where(table.c.flow_id == flow_id)).scalar_one())


def _check_at_once(flow: Row, what: str, count: int) -> None:
    if count > MOST_AT_ONCE:
        raise Refused(
            f"A request registers at most {MOST_AT_ONCE:,} {what} of flow {flow['name']!r}, not {count:,}. "
            f"Send the others with register_{what}, as Prefect's client does."
        )


def _check_count(flow: Row, what: str, count: int, most: int) -> None:
    if count > most:
        raise Refused(
            f"Flow {flow['name']!r} has {count:,} {what}: this backend takes {most:,}. "
            "Map a task over many values instead."
        )


def _interval(seconds: Optional[float]) -> Optional[str]:
    if seconds is None:
        return None
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}"


def _task_ids(tx: Transaction, flow_id: str, slugs: Set[str]) -> Dict[str, str]:
    """The ids of a flow's tasks with some slugs."""
    tasks = tables.task
    of_flow = select(tasks.c.slug, tasks.c.id).where(tasks.c.flow_id == flow_id)
    return {row["slug"]: row["id"] for row in tx.rows_with(of_flow, tasks.c.slug, slugs)}


def register_edges(tx: Transaction, flow_id: str, serialized_edges: List[Dict[str, Any]]) -> Row:
    """Adds edges between a flow's tasks; two between the same tasks are one row."""
    flow = _registered(tx, flow_id)
    _check_count(flow, "edges", len(serialized_edges), MOST_EDGES)
    _check_at_once(flow, "edges", len(serialized_edges))
    given = [(ends(flow["name"], each), each) for each in serialized_edges]
    ids = _task_ids(tx, flow_id, {slug for slugs, _ in given for slug in slugs if isinstance(slug, str)})
    for slugs, _ in given:
        for slug in slugs:
            if not isinstance(slug, str) or slug not in ids:
                raise Refused(f"An edge names the task {slug!r}, which flow {flow['name']!r} does not have.")
    added = {(ids[upstream], ids[downstream]): each for (upstream, downstream), each in given}
    edges = tables.edge
    of_flow = select(edges.c.upstream_task_id, edges.c.downstream_task_id).where(edges.c.flow_id == flow_id)
    for known in tx.rows_with(of_flow, edges.c.downstream_task_id, {downstream for _, downstream in added}):
        added.pop((known["upstream_task_id"], known["downstream_task_id"]), None)
    _check_count(flow, "edges", _count(tx, edges, flow_id) + len(added), MOST_EDGES)
    tx.insert_many(
        edges,
        [
            {
                "tenant_id": flow["tenant_id"],
                "flow_id": flow_id,
                "upstream_task_id": upstream,
                "downstream_task_id": downstream,
                "key": each.get("key"),
                "mapped": bool(each.get("mapped")),
            }
            for (upstream, downstream), each in added.items()
        ],
    )
    return {"success": True}


def archive_flow(tx: Transaction, flow_id: str) -> Row:
    """Takes a version out of use: its scheduled runs are deleted, other runs that wait are cancelled."""
    if not tx.update(tables.flow, tables.flow.c.id == flow_id, archived=True):
        return {"success": False}
    schedules.delete_scheduled_runs(tx, flow_id)
    runs = tables.flow_run
    cancelled = {"type": "Cancelled", "message": f"Flow {flow_id} was archived."}
    for run in tx.rows(select(runs.c.id).where(runs.c.flow_id == flow_id, runs.c.state == "Scheduled")):
        states.set_flow_run_states(tx, [{"flow_run_id": run["id"], "state": cancelled}])
    return {"success": True}


def update_flow_project(tx: Transaction, flow_id: str, project_id: str) -> Row:
    """Moves this version of a flow to another project of its tenant."""
    flow, project = tx.get(tables.flow, flow_id), tx.get(tables.project, project_id)
    if flow is None:
        raise Refused(f"Flow {flow_id} not found.")
    if project is None or project["tenant_id"] != flow["tenant_id"]:
        raise Refused("Invalid project.")
    tx.update(tables.flow, tables.flow.c.id == flow_id, project_id=project_id)
    return {"id": flow_id}


def delete_flow(tx: Transaction, flow_id: str) -> Row:
    return {"success": states.delete(tx, tables.flow, tables.flow.c.id == flow_id) > 0}
