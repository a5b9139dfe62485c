"""What a task run waits for that waits without a process."""

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Dict, Mapping, Optional, Sequence

import pendulum

from .lineage import KEY

#: Part of the serialized states of all task runs that wait so
DEFERRED: Dict[str, Any] = {"context": {KEY: {"deferred": True}}}

#: For how long a process that runs a task sleeps at most until its next attempt (`CloudTaskRunner.run` in prefect
#: 1.4.1's engine/cloud/task_runner.py), and after which it has begun that
LONGEST_SLEEP, AWAKE = timedelta(minutes=10), timedelta(seconds=3)


def at_work(states: Sequence[str], starting: float) -> Dict[str, Any]:
    """The `where` of task runs that have a process.

    They are in one of some states, or asleep until they are tried again, or an agent has submitted them within the last
    `starting` seconds, and begins one for them.
    """
    now = pendulum.now("utc")
    submitted = {
        "state": {"_eq": "Submitted"},
        "state_timestamp": {"_gt": (now - timedelta(seconds=starting)).isoformat()},
    }
    soon = {"_gt": (now - AWAKE).isoformat(), "_lte": (now + LONGEST_SLEEP).isoformat()}
    asleep = {"state": {"_eq": "Retrying"}, "state_start_time": soon}
    return {"_or": [{"state": {"_in": list(states)}}, submitted, asleep]}


@dataclass(frozen=True)
class Deferral:
    """A wait for a flow run that was put off: its task run is Scheduled, and no process waits for it.

    The task run's state says so in its context, where any Prefect 1 backend keeps it.
    """

    #: UUID of the flow run that is awaited
    awaits: str
    #: when the wait began, as ISO 8601 in UTC
    since: str
    #: what the task was given as UUID: of the flow run that is awaited, or of the one in whose place it runs anew
    asked: Optional[str] = None
    #: what the task run that waits has repeated of the flow run, see `Bookmark`
    state_told: Optional[str] = None
    log_told: Optional[str] = None
    lines_told: Sequence[str] = ()
    #: when its time limit is over, as ISO 8601 in UTC; None if it has none. Whoever wakes it lets it sleep until then
    until: Optional[str] = None

    @classmethod
    def of(cls, serialized_state: Any) -> "Optional[Deferral]":
        """Reads it from a task run's serialized state; None if that is of another kind."""
        context = serialized_state.get("context") if isinstance(serialized_state, Mapping) else None
        found = context.get(KEY) if isinstance(context, Mapping) else None
        if not isinstance(found, Mapping) or not found.get("deferred") or serialized_state.get("type") != "Scheduled":
            return None
        awaits, since = found.get("awaits"), found.get("since")
        if not isinstance(awaits, str) or not isinstance(since, str):
            return None
        return cls(**{name: found[name] for name in cls.__dataclass_fields__ if name in found})

    def as_context(self) -> Dict[str, Any]:
        """The item of a state's context that says so."""
        return {KEY: {"deferred": True, **asdict(self)}}
