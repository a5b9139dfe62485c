"""Task runs that wait without a process: what is known of them, and how they are woken."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple
from uuid import UUID

from .. import api
from ..views.deferral import Deferral
from ..views.history import instant

#: Seconds for which a mutation may take. What was sent and not answered may still happen, but hardly later
SENDING = 5.0

_SET_TASK_RUN_STATES = (
    "mutation($input: set_task_run_states_input!) "
    "{ set_task_run_states(input: $input) { states { id status message } } }"
)


@dataclass(frozen=True)
class Deferred:
    """A task run that waits without a process, in one of its states."""

    #: UUID of the task run
    id: str
    #: of the task run in this state
    version: int
    flow_run_id: str
    flow_run_name: str
    #: UUID of the flow run that it waits for; None if its state does not say, so that nothing is to be done for it
    awaits: Optional[str]
    #: when it is due anyway
    due: datetime
    #: when its time limit is over; None if it has none
    limit: Optional[datetime]
    #: as the Prefect API has it
    serialized_state: Mapping[str, Any]

    @classmethod
    def of(cls, row: api.Row) -> "Deferred":
        deferral = Deferral.of(row["serialized_state"])
        return cls(
            row["id"],
            row["version"],
            row["flow_run"]["id"],
            row["flow_run"]["name"],
            _uuid(deferral.awaits) if deferral else None,
            instant(row["state_start_time"]),
            _limit(deferral),
            row["serialized_state"],
        )

    @property
    def key(self) -> Tuple[str, int]:
        """Tells it from the same task run in another state."""
        return self.id, self.version

    def woken(self, reason: str) -> Dict[str, Any]:
        """The state in which it is due now, by the backend's clock: a Scheduled state without a time starts at once."""
        kept = {name: value for name, value in self.serialized_state.items() if name != "start_time"}
        return {**kept, "message": reason}

    def put_off(self, due: datetime) -> "Deferred":
        """As it is when it has been put off, by its state alone."""
        state = {**self.serialized_state, "start_time": due.isoformat()}
        return replace(self, version=self.version + 1, due=due, serialized_state=state)


def _limit(deferral: Optional[Deferral]) -> Optional[datetime]:
    try:
        return instant(deferral.until) if deferral and deferral.until else None
    except (TypeError, ValueError):
        return None


def _uuid(text: str) -> Optional[str]:
    try:
        return str(UUID(text))
    except ValueError:
        # asked for, it would spoil the question for the others
        return None


def store(waits: Sequence[Deferred], states: Sequence[Mapping[str, Any]], purpose: str) -> None:
    """Stores other states of task runs.

    Args:
        waits: some that were there just now: any other state that came since is lost.
        states: one for each.
        purpose: what for, as a message to people has it.

    Raises:
        BackendUnreachable, BadAnswer: no answer; it may have happened, or happen yet.
        prefect.exceptions.ClientError: the API refused at least one of them.
    """
    # the version is for backends that refuse what is based on an older state; Prefect Server takes no notice
    changes = [{"task_run_id": wait.id, "version": wait.version, "state": state} for wait, state in zip(waits, states)]
    with api.sent_once(SENDING):
        api.ask(_SET_TASK_RUN_STATES, {"input": {"states": changes}}, purpose)
