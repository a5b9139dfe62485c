"""A flow run together with the flow runs that came out of it."""

from time import sleep
from typing import Iterator, List

from .. import api
from ..views import FlowRunView
from .deadline import LONGEST_WAIT


def watch_family(flow_run: FlowRunView, pace: float = 1.0) -> Iterator[List[FlowRunView]]:
    """A flow run, its children, and theirs, again and again until all of them have finished.

    It goes on while the Prefect API is away for a while.

    Args:
        flow_run: the ancestor of all.
        pace: seconds between two looks.

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
    while not all(each.state.is_finished() for each in family):
        sleep(pace)
        with api.patience(LONGEST_WAIT.total_seconds()):
            latest = flow_run.get_latest()
            family = [latest, *latest.iter_descendants()]
        yield family
