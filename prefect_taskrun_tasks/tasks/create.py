"""Creates a flow run of another flow."""

from datetime import datetime, timedelta
from typing import Any, Dict, Iterable, Optional, Union

import pendulum
import prefect
from prefect import Task
from prefect.run_configs.base import RunConfig

from .. import api
from .child import (
    check_is_first_call,
    check_is_registered,
    check_policies,
    created_before,
    flow_to_run,
    of_this_run,
    remember_first_call,
    task_run_key,
)
from .defaults import defaults_from_constructor
from .ready_made import ready_made

StartTime = Union[datetime, timedelta]


class CreateFlowRun(Task):
    """Task that creates a flow run, which an agent then executes.

    Drop-in for the task `prefect.tasks.prefect.create_flow_run`. Everything given here is a default for calls of the
    task, where it can be overridden. Other keyword arguments are those of `prefect.Task`.

    Args:
        flow_id: UUID of the flow or of its flow group.
        flow_name: name of the flow, instead of its UUID.
        project_name: the flow's project; needed if flows in several projects have that name.
        parameters: parameter name -> value.
        context: context variables of the flow run.
        labels: of the flow run; default: those of the flow.
        run_name: name of the flow run; default: ``<name of the current flow run>-<flow name>``.
        run_config: replaces the flow's run config.
        scheduled_start_time: when it is to start, or how long from now; default: now.
        idempotency_key: a second flow run of the same flow with the same key is not created; default: the current
            task run's UUID and map index, and the round of a loop, so that a retry of this task finds the flow run that
            is there already. A task that calls this several times passes each call a key.
        parent_close_policy: what becomes of the flow run when the current one is cancelled: ``"abandon"`` (it goes on)
            or ``"cancel"``.
        on_parent_restart: what tasks that wait for the flow run do when the current one is restarted after it failed:
            ``"rerun_failed"`` (run it anew, if it did not succeed) or ``"reuse"`` (take it as it is, as Prefect's do).

    Example:
        >>> with Flow("parent") as flow:
        ...     child_run_id = create_flow_run(flow_name="child", parameters={"size": 5})
        ...     child_run_ids = create_flow_run.map(flow_name=unmapped("child"), parameters=[{"size": 1}, {"size": 2}])
    """

    def __init__(
        self,
        flow_id: Optional[str] = None,
        flow_name: Optional[str] = None,
        project_name: str = "",
        parameters: Optional[Dict[str, Any]] = None,
        context: Optional[Dict[str, Any]] = None,
        labels: Optional[Iterable[str]] = None,
        run_name: Optional[str] = None,
        run_config: Optional[RunConfig] = None,
        scheduled_start_time: Optional[StartTime] = None,
        idempotency_key: Optional[str] = None,
        parent_close_policy: str = "abandon",
        on_parent_restart: str = "rerun_failed",
        **kwargs: Any,
    ) -> None:
        check_policies(parent_close_policy, on_parent_restart)
        self.flow_id = flow_id
        self.flow_name = flow_name
        self.project_name = project_name
        self.parameters = parameters
        self.context = context
        self.labels = labels
        self.run_name = run_name
        self.run_config = run_config
        self.scheduled_start_time = scheduled_start_time
        self.idempotency_key = idempotency_key
        self.parent_close_policy = parent_close_policy
        self.on_parent_restart = on_parent_restart
        super().__init__(**kwargs)

    @defaults_from_constructor
    def run(
        self,
        flow_id: Optional[str] = None,
        flow_name: Optional[str] = None,
        project_name: str = "",
        parameters: Optional[Dict[str, Any]] = None,
        context: Optional[Dict[str, Any]] = None,
        labels: Optional[Iterable[str]] = None,
        run_name: Optional[str] = None,
        run_config: Optional[RunConfig] = None,
        scheduled_start_time: Optional[StartTime] = None,
        idempotency_key: Optional[str] = None,
        parent_close_policy: str = "abandon",
        on_parent_restart: str = "rerun_failed",
    ) -> str:
        """Creates the flow run. Arguments are those of the class.

        Returns:
            The flow run's UUID.

        Raises:
            ValueError: none, or both, of `flow_id` and `flow_name` were given; no or several flows fit; it is archived.
            WrongParameters: the flow does not know a parameter, or lacks one (a `ValueError` and `ClientError`).
            InvalidArgument: there is no such policy; or a second call in one task run asks for another flow run and
                has no `idempotency_key` (a `ValueError`).
            BackendUnreachable: the Prefect API does not answer.
            prefect.exceptions.ClientError: it refuses.
        """
        check_policies(parent_close_policy, on_parent_restart)
        flow = flow_to_run(flow_id, flow_name, project_name)
        has_own_key = idempotency_key is not None
        asked = {
            "parameters": parameters or {},
            "context": context or {},
            "labels": labels,
            "run_name": run_name,
            "run_config": run_config and run_config.serialize(),
            "scheduled_start_time": scheduled_start_time,
        }
        if not has_own_key:
            loop_count = prefect.context.get("task_loop_count")
            idempotency_key = task_run_key(f"loop-{loop_count}" if loop_count else None)
            check_is_first_call(idempotency_key, flow, asked)
            known = created_before(idempotency_key, flow)
            if known:
                self.logger.info(f"An earlier attempt has created flow run {known} already.")
                remember_first_call(idempotency_key, flow, asked, known)
                return known
        check_is_registered(flow)
        flow.check_parameters(parameters or {})
        if not run_name and prefect.context.get("flow_run_name"):
            run_name = f"{prefect.context.flow_run_name}-{flow.name}"
        if isinstance(scheduled_start_time, timedelta):
            scheduled_start_time = pendulum.now("utc") + scheduled_start_time
        flow_run_id = api.create_flow_run(
            flow.name,
            flow_id=flow.flow_id,
            parameters=parameters,
            run_name=run_name,
            scheduled_start_time=scheduled_start_time,
            idempotency_key=idempotency_key,
            **of_this_run(context, labels, run_config, parent_close_policy, on_parent_restart),
        )
        if not has_own_key:
            remember_first_call(idempotency_key, flow, asked, flow_run_id)
        self.logger.info(f"Created flow run {run_name or '<generated-name>'!r}: {api.flow_run_url(flow_run_id)}")
        return flow_run_id


create_flow_run = ready_made(CreateFlowRun, "create_flow_run")
