"""Artifacts: links and Markdown that tasks leave with their run."""

import json
from typing import Any, Optional

from .. import tables
from ..errors import Refused
from ..transaction import Row, Transaction

#: Bytes of JSON
LARGEST_ARTIFACT = 1_000_000


def _checked(data: Any) -> Any:
    if len(json.dumps(data)) > LARGEST_ARTIFACT:
        raise Refused(f"The artifact is larger than {LARGEST_ARTIFACT} bytes.")
    return data


def create_task_run_artifact(
    tx: Transaction, task_run_id: str, kind: str, data: Any, tenant_id: Optional[str] = None
) -> Row:
    run = tx.get(tables.task_run, task_run_id)
    if run is None:
        # the client looks for "not found", and tries again
        raise Refused(f"Task run {task_run_id} not found")
    id = tx.insert(
        tables.task_run_artifact,
        tenant_id=run["tenant_id"],
        task_run_id=task_run_id,
        kind=kind,
        data=_checked(data),
    )
    return {"id": id}


def update_task_run_artifact(tx: Transaction, task_run_artifact_id: str, data: Any) -> Row:
    artifacts = tables.task_run_artifact
    return {"success": tx.update(artifacts, artifacts.c.id == task_run_artifact_id, data=_checked(data)) > 0}


def delete_task_run_artifact(tx: Transaction, task_run_artifact_id: str) -> Row:
    artifacts = tables.task_run_artifact
    return {"success": tx.delete(artifacts, artifacts.c.id == task_run_artifact_id) > 0}
