"""A child flow run of the current flow run: created once, run anew after a restart, explained when it fails."""

import json
import os
import re
import threading
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, Optional, Union

import pendulum
import prefect
from prefect.engine.state import Cancelling
from prefect.run_configs.base import RunConfig
from prefect.utilities.logging import get_logger

from .. import api
from ..errors import InvalidArgument, TaskRunError
from ..views import FlowRunView, FlowView, Lineage
from ..views.arguments import check_choice
from ..views.history import TimestampedState
from ..views.lineage import CLOSE_POLICIES, RESTART_POLICIES
from ..waiting import Deadline

#: Seconds for which a Prefect API that is away is asked why a flow run failed
EXPLAINING = 10.0

#: The idempotency key of a child that runs anew: UUID of the first one, and how often their parent had been restarted
_RERUN = "{}-rerun-{}"
_IS_RERUN = re.compile("([0-9a-f-]{36})-rerun-[0-9]+")

#: What Prefect's context calls the first calls in the current attempt of a task run
_FIRST_CALLS = "prefect_taskrun_tasks_first_calls"


@dataclass(frozen=True)
class _FirstCall:
    # no tuple: Prefect cannot copy a context with one (`as_nested_dict` in prefect 1.4.1's utilities/collections.py)
    flow_run_id: str
    #: argument -> its value as JSON
    asked: Dict[str, str]


#: One thread at a time looks for a rerun and creates it: Prefect Server itself does not keep two from doing so at once
_rerunning = threading.Lock()


def _forget() -> None:
    global _rerunning
    _rerunning = threading.Lock()


# a thread that held it does not come along into a process that was forked
os.register_at_fork(after_in_child=_forget)


def check_policies(parent_close_policy: Any, on_parent_restart: Any) -> None:
    """Refuses policies that there are not.

    Raises:
        InvalidArgument: (a `ValueError`).
    """
    check_choice(CLOSE_POLICIES, parent_close_policy=parent_close_policy)
    check_choice(RESTART_POLICIES, on_parent_restart=on_parent_restart)


def check_is_not_current(flow_run_id: str, task: str) -> None:
    """Refuses to wait for the flow run that the current task belongs to, which would never end.

    Raises:
        ValueError: it is the current flow run.
    """
    if flow_run_id and prefect.context.get("flow_run_id") == flow_run_id:
        raise ValueError(
            f"Given `flow_run_id` is the same as the currently running flow: {flow_run_id}. `{task}` waits for a flow "
            "run to finish, so it cannot be used on the flow run that it belongs to."
        )


def flow_to_run(flow_id: Optional[str], flow_name: Optional[str], project_name: str) -> FlowView:
    """The flow that is meant.

    Raises:
        ValueError: none, or both, of `flow_id` and `flow_name` were given; no or several flows fit.
    """
    if flow_id and flow_name:
        raise ValueError("Received both `flow_id` and `flow_name`. Only one flow identifier can be passed.")
    if flow_name:
        return FlowView.from_flow_name(flow_name, project_name=project_name)
    if not flow_id:
        raise ValueError("Both `flow_id` and `flow_name` are null. You must pass a flow identifier.")
    return FlowView.from_id(flow_id)


def check_is_registered(flow: FlowView) -> None:
    """Refuses a version of a flow that another has taken the place of.

    Raises:
        InvalidArgument: (a `ValueError`).
    """
    if flow.archived:
        raise InvalidArgument(
            f"Flow {flow.flow_id} is an archived version of {flow.name!r}, which cannot be run. Pass the flow's name, "
            "or the id of its flow group, to run the version that is registered now."
        )


def task_run_key(*parts: Any) -> Optional[str]:
    """An idempotency key for what the current task run creates; None outside of a backend run.

    It is the task run's UUID and, if it has one, its map index, as Prefect's own task has it.
    """
    task_run_id, map_index = prefect.context.get("task_run_id"), prefect.context.get("map_index")
    if not task_run_id:
        return None
    return "-".join(str(part) for part in (task_run_id, map_index, *parts) if part is not None)


def check_is_first_call(key: Optional[str], flow: FlowView, asked: Dict[str, Any]) -> None:
    """Refuses a call that would silently be given the flow run of an earlier call with other arguments.

    Calls are compared within one attempt of a task run: a retry may well have other parameters, and finds the flow run
    that there is. So they are remembered in Prefect's context, which ends with the attempt.

    Args:
        key: idempotency key of the current task run.
        flow: which is to be run.
        asked: arguments that say what flow run is wanted.

    Raises:
        InvalidArgument: (a `ValueError`).
    """
    first = prefect.context.get(_FIRST_CALLS, {}).get(f"{key} {flow.flow_id}")
    if first is None:
        return
    others = [name for name, value in asked.items() if first.asked[name] != _as_text(value)]
    if others:
        raise InvalidArgument(
            f"create_flow_run was called before in this task run, with other {', '.join(others)}, and created flow run "
            f"{first.flow_run_id}. Without `idempotency_key` a task run creates one flow run of a flow, which retries "
            "of the task find. Pass each call an `idempotency_key` of its own, such as "
            "f'{prefect.context.task_run_id}-{number}', or use map_flow_run."
        )


def remember_first_call(key: Optional[str], flow: FlowView, asked: Dict[str, Any], flow_run_id: str) -> None:
    """Notes what a call has asked for that created a flow run, for `check_is_first_call`."""
    if key is not None:
        calls = prefect.context.setdefault(_FIRST_CALLS, {})
        call = _FirstCall(flow_run_id, {name: _as_text(value) for name, value in asked.items()})
        calls.setdefault(f"{key} {flow.flow_id}", call)


def _as_text(value: Any) -> str:
    # the caller may change a dictionary between two calls
    return json.dumps(value, sort_keys=True, default=str)


def created_before(key: Optional[str], flow: FlowView) -> Optional[str]:
    """The run of a flow that an earlier attempt of the current task run has created with a key.

    The Prefect API itself finds it only among the runs of one version of the flow, and the flow may have been
    registered anew since.
    """
    if key is None or not _may_have_run():
        return None
    any_version = {"flow_group": {"flows": {"id": {"_eq": flow.flow_id}}}}
    where = {"idempotency_key": {"_eq": key}, "flow": any_version}
    rows = api.find("flow_run", where, {"created": "asc"}, fields="id", limit=1)
    return str(rows[0]["id"]) if rows else None


def _may_have_run() -> bool:
    """Whether the current task run may be at another than its first attempt.

    After a restart Prefect counts attempts from 1 again. But the first one is the second state of its task run: it was
    Pending before (see `CloudTaskRunner.initialize_run` and `call_runner_target_handlers` in prefect 1.4.1's
    engine/cloud/task_runner.py).
    """
    return prefect.context.get("task_run_count", 1) > 1 or (prefect.context.get("task_run_version") or 0) > 2


def _is_of_a_backend() -> bool:
    """Whether the current task run is one of a backend. Those of ``flow.run()`` have made-up ids, but no version."""
    return prefect.context.get("task_run_version") is not None


def of_this_run(
    context: Optional[Dict[str, Any]],
    labels: Union[str, Iterable[str], None],
    run_config: Optional[RunConfig],
    parent_close_policy: str,
    on_parent_restart: str,
) -> Dict[str, Any]:
    """What `api.create_flow_run` is given for a child, with a context that says that it is the current flow run's.

    Outside of a backend run the context is as it was.
    """
    if isinstance(labels, str):
        # as the Prefect API takes it
        labels = [labels]
    if _is_of_a_backend():
        lineage = Lineage(
            prefect.context.get("flow_run_id"),
            prefect.context.get("task_run_id"),
            prefect.context.get("map_index"),
            parent_close_policy,
            on_parent_restart,
            has_own_labels=labels is not None,
            has_own_run_config=run_config is not None,
        )
        context = {**(context or {}), **lineage.as_context()}
    return {"context": context, "labels": None if labels is None else list(labels), "run_config": run_config}


def finished(flow_run_id: str, deadline: Deadline, wait: Callable[[str], FlowRunView]) -> FlowRunView:
    """Waits for a flow run, and for the one that takes its place if the current flow run was restarted after it failed.

    Args:
        flow_run_id: UUID of the flow run.
        deadline: when to give up.
        wait: blocks until the flow run with a UUID has finished.
    """
    while True:
        flow_run = wait(flow_run_id)
        with api.patience(deadline.left):
            rerun = rerun_of(flow_run)
        if rerun is None:
            return flow_run
        flow_run_id = rerun


def rerun_of(child: FlowRunView) -> Optional[str]:
    """The flow run that takes a child's place: it failed before its parent, the current flow run, was restarted.

    It is created once, however many tasks wait for the child: its idempotency key is made of the first child's UUID and
    the number of restarts.

    Returns:
        Its UUID; None if the child is not to run anew.
    """
    lineage = child.lineage
    if (
        child.state.is_successful()
        or not _is_of_a_backend()
        or lineage is None
        or lineage.on_parent_restart != "rerun_failed"
        or lineage.parent_flow_run_id != prefect.context.get("flow_run_id")
    ):
        return None
    parent = FlowRunView.from_flow_run_id(lineage.parent_flow_run_id)
    restarts = [
        following.timestamp
        for state, following in zip(parent.states, parent.states[1:])
        if state.is_finished() and not following.is_finished()
    ]
    # of one that was cancelled, what counts is when that began: it takes its time to end
    ended = max((state for state in child.states if isinstance(state, Cancelling)), default=child.states[-1], key=_when)
    if not restarts or ended.timestamp > restarts[-1]:
        return None
    with _rerunning:
        return _rerun(child, len(restarts))


def _when(state: TimestampedState) -> pendulum.DateTime:
    return state.timestamp


def _rerun(child: FlowRunView, restarts: int) -> str:
    """Finds or creates the flow run that takes a child's place."""
    fields = "idempotency_key flow { version_group_id }"
    [row] = api.find("flow_run", {"id": {"_eq": child.flow_run_id}}, fields=fields)
    rerun = _IS_RERUN.fullmatch(row["idempotency_key"] or "")
    first = rerun[1] if rerun else child.flow_run_id
    keys = [_RERUN.format(first, number) for number in range(1, restarts + 1)]
    latest = max(
        api.find("flow_run", {"idempotency_key": {"_in": keys}}, fields="id idempotency_key"),
        key=lambda row: keys.index(row["idempotency_key"]),
        default=None,
    )
    if latest is not None and latest["id"] != child.flow_run_id:
        # which may be to run anew itself
        return str(latest["id"])
    get_logger(__name__).info(
        f"Child flow run {child.name!r} ({child.flow_run_id}) ended in state {type(child.state).__name__} before this "
        "flow run was restarted, and is run anew."
    )
    lineage = child.lineage
    assert lineage
    return api.create_flow_run(
        child.name,
        # as it is registered now: it may have been mended, and so may its labels and its run config
        version_group_id=row["flow"]["version_group_id"],
        parameters=_plain(child.parameters),
        context=_plain(child.context),
        labels=list(child.labels) if lineage.has_own_labels else None,
        run_name=child.name,
        run_config=child.run_config if lineage.has_own_run_config else None,
        idempotency_key=keys[-1],
    )


def _plain(value: Any) -> Dict[str, Any]:
    """What Prefect's client has made a Box of."""
    plain: Dict[str, Any] = value.to_dict() if hasattr(value, "to_dict") else dict(value or {})
    return plain


def explained(flow_run: FlowRunView) -> str:
    """Why a flow run ended as it did, and where it is to be seen, in one line: Prefect shows an exception's repr."""
    try:
        with api.patience(EXPLAINING):
            return f"{flow_run.explain_failure('; ')}; {api.flow_run_url(flow_run.flow_run_id)}"
    except (TaskRunError, prefect.exceptions.ClientError) as error:
        return f"it cannot be explained, because {error}"
