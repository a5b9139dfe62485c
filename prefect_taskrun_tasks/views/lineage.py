"""Whose child a flow run is."""

from dataclasses import asdict, dataclass
from typing import Any, Dict, Mapping, Optional

#: The key of a child's context under which it is kept; the embedded backend reads it there too
KEY = "prefect_taskrun_tasks"

#: What becomes of a child when its parent is cancelled
CLOSE_POLICIES = ("abandon", "cancel")

#: What becomes of a child that failed when its parent is restarted
RESTART_POLICIES = ("rerun_failed", "reuse")


@dataclass(frozen=True)
class Lineage:
    """Whose child a flow run is, and what becomes of it when something becomes of its parent.

    `create_flow_run` writes it into the context of the flow run that it creates, where any Prefect 1 backend keeps it.
    """

    #: UUID of the flow run that created this one
    parent_flow_run_id: str
    #: UUID of the task run that did
    parent_task_run_id: Optional[str] = None
    #: of that task run; None if it is not one of a mapped task
    parent_map_index: Optional[int] = None
    #: ``"abandon"`` (it goes on) or ``"cancel"`` when the parent is cancelled
    parent_close_policy: str = "abandon"
    #: ``"rerun_failed"`` or ``"reuse"``: whether a child that failed runs anew when the parent is restarted
    on_parent_restart: str = "rerun_failed"
    #: whether it was given labels, and a run config, of its own, and has not only those of its flow
    has_own_labels: bool = False
    has_own_run_config: bool = False

    @classmethod
    def of(cls, context: Any) -> "Optional[Lineage]":
        """Reads it from a flow run's context; None if that does not say."""
        found = context.get(KEY) if isinstance(context, Mapping) else None
        if not isinstance(found, Mapping) or not isinstance(found.get("parent_flow_run_id"), str):
            return None
        return cls(**{name: found[name] for name in cls.__dataclass_fields__ if name in found})

    def as_context(self) -> Dict[str, Any]:
        """The item of a flow run's context that says so."""
        return {KEY: asdict(self)}
