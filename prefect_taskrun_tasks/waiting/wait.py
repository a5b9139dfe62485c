"""One flow run that is waited for, and what is told of it."""

import threading
from queue import SimpleQueue
from time import monotonic
from typing import List, NamedTuple, Optional, Set, Tuple, Union

import pendulum
import prefect
from prefect.engine.state import Finished

from .. import api
from ..results import state_class
from ..views import Lineage
from . import cycles

#: Seconds that a wait has lasted before it is looked whether it will ever end, and between two attempts to do so
LASTING = 5.0


class News(NamedTuple):
    """What is new of a flow run."""

    #: the flow run as it is now, if it was not known or has entered another state
    row: Optional[api.Row]
    #: log lines that were not known
    logs: List[api.Row]
    #: the flow run that waits is being cancelled, and wants to have this one cancelled too
    is_parent_cancelled: bool = False


#: What a wait is told: news, or the error that ends it
Told = Tuple["Wait", Union[News, BaseException]]


class Wait:
    """A flow run that somebody waits for.

    Args:
        flow_run_id: the flow run's UUID.
        inbox: where what is new of it goes.
        slowest: seconds between two looks at most.
        states: whether its states on the way are of interest.
        logs: whether its logs are.
        until: when the wait gives up; None if never.
    """

    def __init__(
        self,
        flow_run_id: str,
        inbox: "SimpleQueue[Told]",
        slowest: float,
        states: bool = False,
        logs: bool = False,
        until: Optional[pendulum.DateTime] = None,
    ) -> None:
        self.flow_run_id = flow_run_id
        self.slowest = slowest
        self.states = states
        self.logs = logs
        self.since = monotonic()
        #: seconds for which the Prefect API may be away before it has answered once: it may be the wrong address
        self.patience = api.patience_now()
        #: UUID of the flow run that waits, if it is a backend's
        self.waiting_run_id: Optional[str] = prefect.context.get("flow_run_id")
        #: who waits for what, until that has been declared
        self.edge = (
            cycles.Edge(self.waiting_run_id, prefect.context.get("task_run_id"), flow_run_id, until)
            if self.waiting_run_id
            else None
        )
        self.declares_at = self.since + LASTING
        #: the waiting flow run, if the awaited one is its child and is to be cancelled together with it
        self.guarded_by: Optional[str] = None
        #: whether the wait has been told that this one is being cancelled
        self.knows_of_parent = False
        #: set once the awaited flow run has been looked for, whether the Prefect API has answered or not
        self.is_looked_for = threading.Event()
        #: whether it has finished, and only its last logs are awaited
        self.is_ending = False
        #: version and name of the flow run's state that was told last
        self.seen: Optional[Tuple[int, str]] = None
        self._inbox = inbox
        #: hashes of the ids of log lines that were told
        self._logs: Set[int] = set()

    @property
    def is_new(self) -> bool:
        return self.seen is None

    def see(self, row: Optional[api.Row], logs: List[api.Row]) -> bool:
        """Tells what is new in what was found; whether there was something."""
        if row is not None and (row["version"], row["state"]) == self.seen:
            row = None
        by_hash = {hash(log["id"]): log for log in logs}
        new = [log for key, log in by_hash.items() if key not in self._logs]
        self._logs.update(by_hash)
        if row is not None:
            self.seen = (row["version"], row["state"])
            self.is_ending = is_finished(row)
            lineage = Lineage.of(row["context"])
            if (
                lineage
                and lineage.parent_close_policy == "cancel"
                and lineage.parent_flow_run_id == self.waiting_run_id
            ):
                self.guarded_by = self.waiting_run_id
        if row is not None or new:
            self._inbox.put((self, News(row, new)))
        return row is not None or bool(new)

    def see_parent(self, cancelled: Set[str]) -> None:
        """Tells, once, that the flow run that waits is among those that are being cancelled."""
        if self.guarded_by in cancelled and not self.knows_of_parent:
            # it stays guarded: whoever was told may be interrupted while it cancels, and has to do so again
            self.knows_of_parent = True
            self._inbox.put((self, News(None, [], True)))

    def end(self, error: BaseException) -> None:
        self._inbox.put((self, error))


def is_finished(row: api.Row) -> bool:
    """Whether a flow run, as the Prefect API describes it, is in a final state."""
    state = row["serialized_state"]
    return bool(state) and issubclass(state_class(state["type"]), Finished)
