"""Walks along the edges of flows: from some tasks to all that depend on them, or that they depend on."""

from typing import Dict, List, Optional, Tuple

from sqlalchemy import Subquery, func, literal, select

from . import tables

#: Edges that a walk goes along at most
FARTHEST = 50

#: Name of a walk in the API -> the ends of an edge, from which and to which it goes
WALKS: Dict[str, Tuple[str, str]] = {
    "utility_downstream_tasks": ("upstream_task_id", "downstream_task_id"),
    "utility_upstream_tasks": ("downstream_task_id", "upstream_task_id"),
}


def walk(name: str, start_task_ids: Optional[List[str]] = None, depth_limit: Optional[int] = None) -> Subquery:
    """The tasks that a walk comes by, as rows of `tables.utility_traversal`, each with its greatest distance."""
    task, edge = tables.task, tables.edge
    here, there = WALKS[name]
    farthest = FARTHEST if depth_limit is None else min(depth_limit, FARTHEST)
    start = select(task.c.id.label("task_id"), task.c.tenant_id, literal(0).label("depth"))
    walked = start.where(task.c.id.in_(start_task_ids or [])).cte("walked", recursive=True)
    step = select(edge.c[there], edge.c.tenant_id, walked.c.depth + 1).join(walked, edge.c[here] == walked.c.task_id)
    # a union without duplicates: many ways of one length to a task are gone once
    walked = walked.union(step.where(walked.c.depth < farthest))
    by_task = [walked.c.task_id, walked.c.tenant_id]
    return select(*by_task, func.max(walked.c.depth).label("depth")).group_by(*by_task).subquery()
