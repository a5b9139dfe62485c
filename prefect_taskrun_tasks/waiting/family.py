"""A flow run together with the flow runs that came out of it."""

from time import monotonic, sleep
from typing import Iterator, List

from .. import api
from ..views import FlowRunView
from .deadline import LONGEST_WAIT

#: Times as long as a look has taken it is quiet until the next one
QUIET = 4


def watch_family(flow_run: FlowRunView, pace: float = 1.0) -> Iterator[List[FlowRunView]]:
    """A flow run, its children, and theirs, again and again until all of them have finished.

    It goes on while the Prefect API is away for a while.

    Args:
        flow_run: the ancestor of all.
        pace: seconds between two looks at least; more where a look takes long.

    Yields:
        Views of all of them, parents before their children.

    Raises:
        NotFound: the flow run was deleted (a `ValueError`).

    Example:
        >>> for family in watch_family(FlowRunView.find("brave-otter")):
        ...     print([flow_run.state for flow_run in family])
    """
    family = [flow_run, *flow_run.iter_descendants()]
    yield family
    took = 0.0
    while not all(each.state.is_finished() for each in family):
        sleep(max(pace, QUIET * took))
        with api.patience(LONGEST_WAIT.total_seconds()):
            start = monotonic()
            latest = flow_run.get_latest()
            family = [latest, *latest.iter_descendants()]
            took = monotonic() - start
        yield family
