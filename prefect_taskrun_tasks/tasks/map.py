"""Runs a flow once for each of several parameter sets."""

import hashlib
import json
from collections import deque
from contextlib import suppress
from datetime import timedelta
from typing import Any, Callable, Dict, Iterable, List, Optional

import prefect
from prefect import Task
from prefect.engine.signals import FAIL
from prefect.exceptions import ClientError, PrefectSignal
from prefect.run_configs.base import RunConfig

from .. import api
from ..errors import ChildFailed, TaskRunError, WaitTimeout
from ..results import WORKERS, in_order
from ..views import FlowRunView, TaskRunView
from ..views.arguments import check_choice, check_count
from ..waiting import LONGEST_WAIT, Deadline, Timeout, Wait, Waits
from .child import (
    check_is_registered,
    check_policies,
    created_before,
    explained,
    flow_to_run,
    of_this_run,
    rerun_of,
    task_run_key,
)
from .defaults import defaults_from_constructor
from .ready_made import ready_made

#: What becomes of the others when a child fails
FAILURE_POLICIES = ("fail_fast", "collect")


class MapFlowRun(Task):
    """Task that runs a flow once for each of several parameter sets, at most so many at a time, and waits for them all.

    Everything given here is a default for calls of the task, where it can be overridden. Other keyword arguments are
    those of `prefect.Task`, but for its `on_failure`. The children are created as `create_flow_run` does, once for each
    place in the list and set of parameters: a retry of the task finds them, also those that failed, and after a restart
    of the parent those that failed run anew.

    Args:
        flow_id: UUID of the flow or of its flow group.
        flow_name: name of the flow, instead of its UUID.
        project_name: the flow's project; needed if flows in several projects have that name.
        parameters: one dictionary, parameter name -> value, for each child.
        limit: how many children may be unfinished at a time.
        on_failure: ``"fail_fast"``: when a child fails, the others are cancelled, and the task fails; ``"collect"``:
            all are run, and a `ChildFailed` stands in the place of what a failed one has returned.
        task_slug: the task of the child whose result is wanted; default: views of the finished children.
        context: context variables of the children.
        labels: of the children; default: those of the flow.
        run_config: replaces the flow's run config.
        poll_time: seconds between two looks at the children at most; they start closer together.
        max_duration: how long to wait for them all at most; None for without end.
        parent_close_policy: what becomes of the children when the current flow run is cancelled: ``"cancel"`` or
            ``"abandon"`` (they go on).
        on_parent_restart: what becomes of children that failed when the current flow run is restarted:
            ``"rerun_failed"`` or ``"reuse"``.

    Example:
        >>> with Flow("parent") as flow:
        ...     squares = map_flow_run(
        ...         flow_name="square", parameters=[{"x": 1}, {"x": 2}, {"x": 3}], limit=2, task_slug="square-1"
        ...     )  # [1, 4, 9]
    """

    def __init__(
        self,
        flow_id: Optional[str] = None,
        flow_name: Optional[str] = None,
        project_name: str = "",
        parameters: Iterable[Dict[str, Any]] = (),
        limit: int = 10,
        on_failure: str = "fail_fast",
        task_slug: Optional[str] = None,
        context: Optional[Dict[str, Any]] = None,
        labels: Optional[Iterable[str]] = None,
        run_config: Optional[RunConfig] = None,
        poll_time: float = 5,
        max_duration: Optional[timedelta] = LONGEST_WAIT,
        parent_close_policy: str = "cancel",
        on_parent_restart: str = "rerun_failed",
        **kwargs: Any,
    ) -> None:
        _check(limit, on_failure, parent_close_policy, on_parent_restart)
        self.flow_id = flow_id
        self.flow_name = flow_name
        self.project_name = project_name
        self.parameters = parameters
        self.limit = limit
        self.on_failure = on_failure
        self.task_slug = task_slug
        self.context = context
        self.labels = labels
        self.run_config = run_config
        self.poll_time = poll_time
        self.max_duration = max_duration
        self.parent_close_policy = parent_close_policy
        self.on_parent_restart = on_parent_restart
        super().__init__(**kwargs)

    @defaults_from_constructor
    def run(
        self,
        flow_id: Optional[str] = None,
        flow_name: Optional[str] = None,
        project_name: str = "",
        parameters: Iterable[Dict[str, Any]] = (),
        limit: int = 10,
        on_failure: str = "fail_fast",
        task_slug: Optional[str] = None,
        context: Optional[Dict[str, Any]] = None,
        labels: Optional[Iterable[str]] = None,
        run_config: Optional[RunConfig] = None,
        poll_time: float = 5,
        max_duration: Optional[timedelta] = LONGEST_WAIT,
        parent_close_policy: str = "cancel",
        on_parent_restart: str = "rerun_failed",
        timeout: Timeout = None,
    ) -> List[Any]:
        """Runs the children. Arguments are those of the class, and:

        Args:
            timeout: how long to wait for them all at most, instead of `max_duration`, in seconds or as a `timedelta`.

        Returns:
            One item for each parameter set, in their order: what the task of `task_slug` returned, or else a
            `FlowRunView` of the finished child; for a child that failed, with ``"collect"``, a `ChildFailed`.

        Raises:
            ValueError: no flow, or several, fit, or it is archived; there is no such policy; `limit` is less than 1.
            WrongParameters: the flow does not know a parameter, or lacks one; no child has been created then.
            WaitTimeout: not all have finished in time; they go on, and a retry of the task finds them.
            prefect.engine.signals.FAIL: with ``"fail_fast"``, a child failed; the message explains it.
        """
        _check(limit, on_failure, parent_close_policy, on_parent_restart)
        deadline = Deadline(max_duration, timeout)
        flow, sets = flow_to_run(flow_id, flow_name, project_name), list(parameters)
        check_is_registered(flow)
        for each in sets:
            flow.check_parameters(each)
        name = prefect.context.get("flow_run_name")

        options = of_this_run(context, labels, run_config, parent_close_policy, on_parent_restart)

        def create(index: int) -> str:
            run_name = f"{name}-{flow.name}-{index}" if name else None
            # the same task run may have other children as well, in another call or in another round of a loop
            key = task_run_key(index, prefect.context.get("task_loop_count"), _digest(sets[index]))
            with api.patience(deadline.left):
                return created_before(key, flow) or api.create_flow_run(
                    flow.name,
                    flow_id=flow.flow_id,
                    parameters=sets[index],
                    run_name=run_name,
                    idempotency_key=key,
                    **options,
                )

        with Waits(deadline, poll_time) as waits:
            children = _run_all(waits, create, deadline, len(sets), limit, on_failure == "fail_fast")
        return _values(children, task_slug)


def _digest(parameters: Dict[str, Any]) -> str:
    text = json.dumps(parameters, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check(limit: Any, on_failure: Any, parent_close_policy: Any, on_parent_restart: Any) -> None:
    check_count(limit=limit)
    check_choice(FAILURE_POLICIES, on_failure=on_failure)
    check_policies(parent_close_policy, on_parent_restart)


def _run_all(
    waits: Waits, create: Callable[[int], str], deadline: Deadline, count: int, limit: int, is_failing_fast: bool
) -> List[FlowRunView]:
    """Creates children, at most `limit` of which are unfinished at a time; returns views of them all when finished."""
    coming = deque(range(count))
    running: Dict[Wait, int] = {}
    ended: Dict[int, FlowRunView] = {}
    try:
        while coming or running:
            while coming and len(running) < limit and not waits.is_parent_cancelled:
                index = coming.popleft()
                running[waits.add(create(index))] = index
            if not running:
                raise FAIL(f"{len(coming)} of {count} children were not created: the flow run is being cancelled.")
            wait, child = waits.next_finished()
            index = running.pop(wait)
            with api.patience(deadline.left):
                rerun = rerun_of(child)
            if rerun:
                running[waits.add(rerun)] = index
                continue
            if is_failing_fast and not child.state.is_successful():
                raise FAIL(f"Child {index} of {count} failed, and the others were cancelled; {explained(child)}")
            ended[index] = child
    except WaitTimeout:
        # a retry finds them
        raise
    except (Exception, PrefectSignal):
        for other in running if is_failing_fast else ():
            # one that cannot be cancelled must not hide why
            with suppress(TaskRunError, ClientError):
                api.cancel_flow_run(other.flow_run_id)
        raise
    return [ended[index] for index in range(count)]


def _values(children: List[FlowRunView], task_slug: Optional[str]) -> List[Any]:
    succeeded = [child.flow_run_id for child in children if child.state.is_successful()]
    task_runs = TaskRunView.of_flow_runs(task_slug, succeeded) if task_slug else {}

    def value(child: FlowRunView) -> Any:
        if not child.state.is_successful():
            return ChildFailed(explained(child), child)
        if not task_slug:
            return child
        # which says what is wrong if there is none
        task_run = task_runs.get(child.flow_run_id) or child.get_task_run(task_slug)
        return task_run.get_result()

    return list(in_order(value, children, WORKERS, expected=len(children)))


map_flow_run = ready_made(MapFlowRun, "map_flow_run")
