"""What becomes of a flow run whose process has ended before the flow run has.

Prefect Server notices that after ten minutes without a heartbeat: its zombie killer then fails or retries the task runs
that were running, and its lazarus starts the flow run again if nothing else does. The agent of a `LocalRunner` knows it
at once, and does the same.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import List, Optional

import pendulum
from prefect.engine.state import Cancelled, Failed, Retrying, Scheduled

from .. import api

#: How often a flow run is started again that was lost without a task run that brings it back; as Prefect Server does it
RESTARTS = 3

#: States of task runs for which an agent starts their flow run again when their start time has come
WAITING = ["Scheduled", "Paused", "Resume", "Retrying"]

_FLOW_RUN = "state agent_id flow { flow_group { settings } }"
_TASK_RUN = 'id task { max_retries retry_delay } states(where: {state: {_eq: "Retrying"}}) { id }'


@dataclass(frozen=True)
class LostFlowRun:
    """A flow run that has not finished, and that no process executes any more.

    Args:
        flow_run_id: UUID of the flow run.
        state: type of its state, such as ``"Running"``.
        running: rows of its task runs that are Running.
        may_restart: whether its flow allows lazarus to start it again.
    """

    flow_run_id: str
    state: str
    running: List[api.Row]
    may_restart: bool

    @classmethod
    def find(cls, flow_run_id: str, agent_id: str) -> "Optional[LostFlowRun]":
        """The flow run that a process of an agent has left behind.

        Returns:
            None if the flow run has finished, another agent has taken it, or it waits without a process: for the time
            of a retry, for approval, or for another flow run.
        """
        for row in api.find("flow_run", {"id": {"_eq": flow_run_id}}, fields=_FLOW_RUN):
            if row["agent_id"] not in (None, agent_id) or row["state"] not in ("Submitted", "Running", "Cancelling"):
                return None
            of_it = {"flow_run_id": {"_eq": flow_run_id}}
            pages = api.pages("task_run", {**of_it, "state": {"_eq": "Running"}}, fields=_TASK_RUN)
            running = [task_run for page in pages for task_run in page]
            if not running and row["state"] == "Running" and _is_waiting(flow_run_id):
                return None
            settings = row["flow"]["flow_group"]["settings"] or {}
            return cls(flow_run_id, row["state"], running, settings.get("lazarus_enabled", True))
        return None

    def settle(self, reason: str, restarts: "Counter[str]") -> str:
        """Fails or retries what was running, and has the flow run started again if nothing else does.

        Args:
            reason: what happened to the process, as a sentence.
            restarts: UUID of a flow run -> how often it was started again; counts on.

        Returns:
            What was done, in words for the log.

        Raises:
            BackendUnreachable: the Prefect API does not answer.
            prefect.exceptions.ClientError: it refuses.
        """
        if self.state == "Cancelling":
            api.set_flow_run_state(self.flow_run_id, Cancelled(f"Flow run is cancelled. {reason}"))
            return "The flow run is Cancelled."
        retried = sum(self._end(task_run, reason) for task_run in self.running)
        failed = len(self.running) - retried
        done = [f"Task runs that were running: {failed:,} failed, {retried:,} will be retried."] if self.running else []
        if retried or _is_waiting(self.flow_run_id):
            return " ".join(done)
        before = restarts[self.flow_run_id]
        if self.may_restart and before < RESTARTS:
            restarts[self.flow_run_id] += 1
            again = f"The flow run is started again (attempt {before + 1} of {RESTARTS})."
            api.set_flow_run_state(self.flow_run_id, Scheduled(f"{reason} {again}"))
        else:
            again = "The flow run has failed."
            why = f" It was started again {before} times." if before else ""
            api.set_flow_run_state(self.flow_run_id, Failed(f"{reason}{why}"))
        return " ".join([*done, again])

    @staticmethod
    def _end(task_run: api.Row, reason: str) -> bool:
        """Whether the task run is retried."""
        task, retries = task_run["task"], len(task_run["states"])
        if retries >= (task["max_retries"] or 0):
            api.set_task_run_state(task_run["id"], Failed(reason))
            return False
        hours, minutes, seconds = map(float, (task["retry_delay"] or "0:0:0").split(":"))
        delay = timedelta(hours=hours, minutes=minutes, seconds=seconds)
        start = pendulum.now("utc") + (delay or timedelta(seconds=-api.OVERDUE))
        state = Retrying(f"{reason} The task is retried.", start_time=start, run_count=retries + 1)
        api.set_task_run_state(task_run["id"], state)
        return True


def _is_waiting(flow_run_id: str) -> bool:
    """Whether a task run brings its flow run back when its time has come."""

    def some(states: List[str]) -> bool:
        where = {"flow_run_id": {"_eq": flow_run_id}, "state": {"_in": states}}
        return bool(api.find("task_run", where, fields="id", limit=1))

    # one that is Submitted was to be executed by the process that has ended, and no agent takes it up
    return some(WAITING) and not some(["Submitted"])
