"""How far a flow run has come: its task runs, counted by state."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from time import sleep
from typing import Counter as Counts
from typing import Dict, Iterator, List, Optional

from prefect.engine.state import Failed, Finished

from .. import api
from ..views import FlowRunView
from ..views.arguments import STATES
from ..views.history import instant
from .deadline import LONGEST_WAIT

#: Seconds between two looks
PACE = 1.0

#: How much earlier than the last change a change may have happened that comes to light after it: transactions of a
#: backend overlap
OVERLAP = timedelta(seconds=10)

_FIELDS = "id map_index state updated task { slug }"


@dataclass
class MappedTask:
    """How far a mapped task has come."""

    #: how many children it has; 0 as long as that is not known
    expected: int = 0
    #: name of the state -> children in it
    counts: "Counts[str]" = field(default_factory=Counter)

    @property
    def finished(self) -> int:
        return _among(self.counts, Finished)

    @property
    def failed(self) -> int:
        return _among(self.counts, Failed)


class Progress:
    """Counts the task runs of a flow run by state, and goes on counting.

    Each look asks only for what has changed since the one before.

    Args:
        flow_run: whose.

    Example:
        >>> progress = Progress(FlowRunView.find("brave-otter"))
        >>> for _ in progress.looks():
        ...     print(dict(progress.counts))
    """

    def __init__(self, flow_run: FlowRunView) -> None:
        #: as it was at the last look
        self.flow_run = flow_run
        #: name of the state -> task runs in it, children of mapped ones included
        self.counts: Counts[str] = Counter()
        #: slug -> mapped task, in the order in which they were mapped
        self.mapped: Dict[str, MappedTask] = {}
        self._states: Dict[str, str] = {}
        self._last_change: Optional[str] = None

    @property
    def expected(self) -> int:
        """How many task runs there will be, as far as that is known: children are created as they start."""
        children = sum(max(0, task.expected - sum(task.counts.values())) for task in self.mapped.values())
        return sum(self.counts.values()) + children

    @property
    def finished(self) -> int:
        return _among(self.counts, Finished)

    def looks(self, pace: float = PACE) -> "Iterator[Progress]":
        """Looks again and again until the flow run has finished, also while the Prefect API is away for a while.

        Args:
            pace: seconds between two looks.

        Yields:
            Itself, after each look.

        Raises:
            BackendUnreachable: the Prefect API does not answer the first time.
            NotFound: the flow run was deleted (a `ValueError`).
        """
        self.look()
        yield self
        while not self.flow_run.state.is_finished():
            sleep(pace)
            with api.patience(LONGEST_WAIT.total_seconds()):
                self.look()
            yield self

    def look(self) -> None:
        """Looks once."""
        # first, so that what it ends with has happened before the task runs are counted
        self.flow_run = self.flow_run.get_latest()
        where: api.Where = {"flow_run_id": {"_eq": self.flow_run.flow_run_id}}
        if self._last_change:
            where["updated"] = {"_gte": (instant(self._last_change) - OVERLAP).isoformat()}
        for page in api.pages("task_run", where, fields=_FIELDS):
            for row in page:
                self._count(row)
        mapping = [slug for slug, task in self.mapped.items() if not task.expected]
        if mapping:
            self._expect(mapping)

    def _count(self, row: api.Row) -> None:
        before, now = self._states.get(row["id"]), row["state"] or "Scheduled"
        self._last_change = max(self._last_change or "", row["updated"])
        if now == before:
            return
        self._states[row["id"]] = now
        slug = row["task"]["slug"]
        counters = [self.counts]
        if row["map_index"] >= 0 or now == "Mapped":
            task = self.mapped.setdefault(slug, MappedTask())
            if row["map_index"] >= 0:
                counters.append(task.counts)
        for counter in counters:
            counter[now] += 1
            if before:
                counter[before] -= 1

    def _expect(self, slugs: List[str]) -> None:
        where = {
            "flow_run_id": {"_eq": self.flow_run.flow_run_id},
            "map_index": {"_eq": -1},
            "state": {"_eq": "Mapped"},
            "task": {"slug": {"_in": slugs}},
        }
        for page in api.pages("task_run", where, fields="id serialized_state task { slug }"):
            for row in page:
                self.mapped[row["task"]["slug"]].expected = row["serialized_state"].get("n_map_states") or 0


def _among(counts: "Counts[str]", kind: type) -> int:
    return sum(number for name, number in counts.items() if issubclass(STATES.get(name, object), kind))
