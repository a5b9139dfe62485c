"""Artifacts: links and Markdown that tasks leave with their run."""

import json
from typing import Any, Optional

from sqlalchemy import select

from .. import tables
from ..clock import ago
from ..errors import Refused
from ..transaction import Row, Transaction

#: Bytes of JSON
LARGEST_ARTIFACT = 1_000_000


#: Seconds for which the client may send a request again that was not answered: seven times 15 s, and 62 s of pauses
RESENT_FOR = 170


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
    artifacts, data = tables.task_run_artifact, _checked(data)
    lately = select(artifacts).where(artifacts.c.task_run_id == task_run_id, artifacts.c.created > ago(RESENT_FOR))
    for known in tx.rows(lately):
        if (known["kind"], known["data"]) == (kind, tx.as_stored(data)):
            return {"id": known["id"]}
    id = tx.insert(artifacts, tenant_id=run["tenant_id"], task_run_id=task_run_id, kind=kind, data=data)
    return {"id": id}


def update_task_run_artifact(tx: Transaction, task_run_artifact_id: str, data: Any) -> Row:
    artifacts = tables.task_run_artifact
    return {"success": tx.update(artifacts, artifacts.c.id == task_run_artifact_id, data=_checked(data)) > 0}


def delete_task_run_artifact(tx: Transaction, task_run_artifact_id: str) -> Row:
    artifacts = tables.task_run_artifact
    return {"success": tx.delete(artifacts, artifacts.c.id == task_run_artifact_id) > 0}
