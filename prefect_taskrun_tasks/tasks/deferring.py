"""Waits that hold no process: the task run ends as Scheduled, and goes on in another process when it has come due."""

from contextlib import suppress
from datetime import timedelta
from typing import Any, Callable, Optional

import pendulum
import prefect
from prefect import Task
from prefect.engine.signals import PrefectStateSignal
from prefect.engine.state import Scheduled
from prefect.exceptions import ClientError
from prefect.utilities.graphql import EnumValue, with_args
from prefect.utilities.logging import get_logger

from .. import api
from ..errors import InvalidArgument, TaskRunError, WaitTimeout
from ..views import FlowRunView
from ..views.deferral import Deferral, at_work
from ..views.history import instant
from ..waiting import Bookmark, Deadline, Timeout
from . import losses

#: Seconds for which a wait holds its process, before it is deferred
DEFER_AFTER = 30.0

#: Seconds until a deferred wait looks again, where nobody wakes it
RECHECK = 60.0

#: Where the defaults are in Prefect's config: ``[prefect_taskrun_tasks]`` in its file, or
#: ``PREFECT__PREFECT_TASKRUN_TASKS__DEFERRABLE=true`` in the environment
SECTION = "prefect_taskrun_tasks"

#: The name of the logger whose lines say which waits are ready, for those in other processes too, and what they say
LOGGER, READY = "prefect_taskrun_tasks.deferring", "Ready to go on without a process."

#: Seconds for which a task run that is Submitted counts as at work. It may be one of this process, which begins it when
#: a wait has left
BRIEFLY = 30

#: States of task runs that are started, or about to be
_UNDER_WAY = ("Running", "Submitted")

#: The label of a flow run that no agent runs, as ``prefect run --execute`` makes it (cli/run.py in prefect 1.4.1)
_AGENTLESS = "agentless-run-"


class Deferred(PrefectStateSignal):
    """Ends a task run as Scheduled. Unlike one that is Retrying, it keeps no process, and no attempt is counted."""

    _state_cls = Scheduled


class Deferring:
    """The wait of the current task run, which may go through several processes.

    Args:
        task: which waits; perhaps it is called by the current task, which then begins anew in each process.
        flow_run_id: UUID of the flow run that it was asked to wait for.
        deferrable: whether it may be deferred; None for Prefect's config, and False if that does not say, or if `task`
            is not the current one.
        defer_after: seconds for which it holds its process first; None for Prefect's config, and 30 if that does not.
        max_duration: how long it lasts at most, in all processes together.
        timeout: the same, and instead of it.

    Raises:
        InvalidArgument: `defer_after` is negative (a `ValueError`).
        WrongType, InvalidArgument: see `Deadline`.
        BackendUnreachable: the Prefect API does not answer.
    """

    def __init__(
        self,
        task: Task,
        flow_run_id: str,
        deferrable: Optional[bool],
        defer_after: Optional[float],
        max_duration: Optional[timedelta],
        timeout: Timeout,
    ) -> None:
        self._defer_after = float(_setting("defer_after", DEFER_AFTER) if defer_after is None else defer_after)
        if not self._defer_after >= 0:
            raise InvalidArgument(f"defer_after is a number of seconds, and not {defer_after!r}.")
        if deferrable is None:
            # nor is the code before it in a class made from one of them to be run again
            is_own = prefect.context.get("task_name") == task.name and type(task).__module__.startswith(__package__)
            deferrable = is_own and bool(_setting("deferrable", False))
        # only a backend's task run can be started again; Prefect's runner for those alone knows its version
        can_go_on = prefect.context.get("task_run_version") is not None
        # its time would begin anew, a loop too, and who has let it run would be asked again
        begins_anew = task.timeout or prefect.context.get("task_loop_count") or prefect.context.get("resume")
        self._is_deferrable = bool(deferrable and can_go_on and not begins_anew)
        self._asked = flow_run_id
        earlier = _earlier() if self._is_deferrable else None
        if earlier and earlier.asked != flow_run_id:
            # another wait of the same task run
            earlier = None
        self._is_resumed = earlier is not None
        self._since = instant(earlier.since) if earlier else pendulum.now("utc")
        #: how far the awaited flow run's doings have been repeated; None if nobody has looked yet
        self.told: Optional[Bookmark] = None
        if earlier:
            self.told = Bookmark(_time(earlier.state_told), _time(earlier.log_told), frozenset(earlier.lines_told))
        waited = max(0.0, (pendulum.now("utc") - self._since).total_seconds())
        #: when to give up
        self.deadline = Deadline(max_duration, timeout, waited)

    def wait(self, flow_run_id: str, wait: Callable[[Deadline], FlowRunView]) -> FlowRunView:
        """Waits for a flow run in this process, and then without one.

        Args:
            flow_run_id: UUID of the flow run.
            wait: blocks until it has finished, or raises `WaitTimeout` at a deadline.

        Raises:
            Deferred: it goes on elsewhere.
            WaitTimeout: the time is over.
        """
        # in another process it is known to last
        here = 0.0 if self._is_resumed else self._defer_after
        refusal: Optional[str] = None
        while self._is_deferrable and self.deadline.left:
            with suppress(WaitTimeout):
                return wait(self.deadline.sooner(here))
            if self.deadline.left:
                refusal = self._defer(flow_run_id, refusal)
                here = max(self._defer_after, _recheck() if refusal else 1.0)
        # or one more look, if the time is over
        return wait(self.deadline)

    def _defer(self, flow_run_id: str, told: Optional[str]) -> Optional[str]:
        """Puts the wait off, unless something holds it here just now.

        Args:
            flow_run_id: UUID of the flow run that is waited for.
            told: what has held it here before, and is not told again.

        Returns:
            What in the flow, or in what has become of it, holds the wait here.
        """
        try:
            with api.patience(0):
                if _is_busy():
                    # which holds the process as well
                    return told
                reason = _refusal()
                found = api.find("flow_run", {"id": {"_eq": flow_run_id}}, fields="id name")
        except (TaskRunError, ClientError):
            # the Prefect API is away, and would not store that either
            return told
        if not found:
            # the next look says so
            return told
        [awaited] = found
        if reason:
            if told is None:
                get_logger(__name__).warning(
                    f"The wait for flow run {awaited['name']!r} ({flow_run_id}) holds its process: {reason}"
                )
            return reason
        pause = min(_recheck(), self.deadline.left)
        bookmark = self.told or Bookmark()
        deferral = Deferral(
            # as the backend writes it
            awaited["id"],
            asked=self._asked,
            since=self._since.isoformat(),
            state_told=_text(bookmark.state),
            log_told=_text(bookmark.log),
            lines_told=sorted(bookmark.lines),
            until=_text(self.deadline.end),
        )
        raise Deferred(
            f"Waiting for flow run {awaited['name']!r} ({flow_run_id}) since {self._since:%Y-%m-%d %H:%M:%S} UTC, "
            "without a process.",
            result=None,
            start_time=pendulum.now("utc") + timedelta(seconds=pause),
            # a retry that is deferred is still that retry: Prefect's task runner finds its number there
            context={"task_run_count": prefect.context.get("task_run_count", 1), **deferral.as_context()},
        )


def _text(time: Optional[pendulum.DateTime]) -> Optional[str]:
    return time.isoformat() if time else None


def _time(text: Optional[str]) -> Optional[pendulum.DateTime]:
    return instant(text) if text else None


def _setting(name: str, default: Any) -> Any:
    section = prefect.context.config.get(SECTION) or {}
    return section.get(name, default)


def _recheck() -> float:
    return float(_setting("recheck", RECHECK))


def _earlier() -> Optional[Deferral]:
    """How this attempt of the current task run was deferred the last time, if it was."""
    fields = with_args(
        "states",
        {
            "where": {"state": {"_nin": [*_UNDER_WAY, "Pending"]}},
            "order_by": {"timestamp": EnumValue("desc")},
            "limit": 1,
        },
    )
    where = {"id": {"_eq": prefect.context.get("task_run_id")}}
    [row] = api.find("task_run", where, fields=f"{fields} {{ serialized_state }}")
    return next((Deferral.of(state["serialized_state"]) for state in row["states"]), None)


def _is_busy() -> bool:
    """Whether anything else of the current flow run is at work, other waits that are ready to be deferred left aside.

    A flow run that is begun again while a process is at work on it has two, none of which runs what needs both.
    """
    flow_run_id, task_run_id = prefect.context.get("flow_run_id"), prefect.context.get("task_run_id")
    where = {"flow_run_id": {"_eq": flow_run_id}, "id": {"_neq": task_run_id}, **at_work(["Running"], BRIEFLY)}
    # before that is looked for: of two that become ready at once, one at least sees the other
    ready = {"flow_run_id": flow_run_id, "task_run_id": task_run_id, "name": LOGGER, "level": "DEBUG", "message": READY}
    api.write_logs([ready])
    pages = api.pages("task_run", where, fields="id state_timestamp")
    others = {row["id"]: instant(row["state_timestamp"]) for page in pages for row in page}
    if not others:
        return False
    said = {"flow_run_id": {"_eq": flow_run_id}, "name": {"_eq": LOGGER}, "task_run_id": {"_in": sorted(others)}}
    logs = [log for page in api.pages("log", said, fields="id task_run_id timestamp") for log in page]
    return bool(
        set(others) - {it["task_run_id"] for it in logs if instant(it["timestamp"]) >= others[it["task_run_id"]]}
    )


def _refusal() -> Optional[str]:
    """Why the current flow run cannot be left by its process; None if it can."""
    flow_run_id = prefect.context.get("flow_run_id")
    [flow_run] = api.find("flow_run", {"id": {"_eq": flow_run_id}}, fields="labels")
    if any(label.startswith(_AGENTLESS) for label in flow_run["labels"] or ()):
        return "no agent would start the flow run again, which was started without one."
    return losses.without_process(flow_run_id, prefect.context.get("task_slug"), "map_index" in prefect.context)
