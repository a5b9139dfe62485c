"""Cancels a flow run."""

from typing import Any, Optional

import prefect
from prefect import Task

from .. import api
from .defaults import defaults_from_constructor
from .ready_made import ready_made


class CancelFlowRun(Task):
    """Task that asks for a flow run to be cancelled. Drop-in for `prefect.tasks.prefect.CancelFlowRun`.

    Args:
        flow_run_id: UUID of the flow run; a default for calls of the task, where it can be overridden. Default: the
            current flow run.
        **kwargs: those of `prefect.Task`.

    Example:
        >>> with Flow("parent") as flow:
        ...     child_run_id = create_flow_run(flow_name="child")
        ...     cancel_flow_run(child_run_id)
    """

    def __init__(self, flow_run_id: Optional[str] = None, **kwargs: Any) -> None:
        self.flow_run_id = flow_run_id
        super().__init__(**kwargs)

    @defaults_from_constructor
    def run(self, flow_run_id: Optional[str] = None) -> bool:
        """Cancels.

        Returns:
            Whether the Prefect API has taken note. A running flow run notices within 15 seconds.

        Raises:
            ValueError: no `flow_run_id` was given, and there is no current flow run.
            BackendUnreachable: the Prefect API does not answer.
            prefect.exceptions.ClientError: it refuses, for example because there is no such flow run.
        """
        flow_run_id = flow_run_id or prefect.context.get("flow_run_id")
        if not flow_run_id:
            raise ValueError("Can't cancel a flow run without flow run ID.")
        return api.cancel_flow_run(flow_run_id)


cancel_flow_run = ready_made(CancelFlowRun, "cancel_flow_run")
