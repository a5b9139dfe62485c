"""When task runs ran, as the command line shows it; the page computes the same from its own rows."""

import json
from datetime import timedelta
from typing import Dict, Iterable, List, NamedTuple, Optional

import pendulum
from prefect.engine.state import Finished, Mapped

from .. import api
from .arguments import STATES
from .history import instant
from .task_run import TaskRunView

#: Mapped task runs whose children are looked up by one query
MOST_PARENTS = 100


class Span(NamedTuple):
    """When a run started and ended; None if it has not."""

    start: Optional[pendulum.DateTime]
    end: Optional[pendulum.DateTime]

    @property
    def duration(self) -> Optional[timedelta]:
        """How long it ran, up to now if it has not ended; None if it has not started."""
        return None if self.start is None else (self.end or pendulum.now("utc")) - self.start


def spans(task_runs: Iterable[TaskRunView]) -> Dict[str, Span]:
    """When task runs ran; a mapped one ran from the start of its first child to the end of its last.

    Returns:
        UUID of each task run -> its span.

    Raises:
        BackendUnreachable: the Prefect API does not answer.
    """
    found: Dict[str, Span] = {}
    mapped: Dict[str, List[str]] = {}
    for each in task_runs:
        found[each.task_run_id] = Span(each.start_time, each.end_time)
        if each._is(Mapped):
            mapped.setdefault(each.flow_run_id, []).append(each.task_run_id)
    for flow_run_id, ids in mapped.items():
        for start in range(0, len(ids), MOST_PARENTS):
            where = {"id": {"_in": ids[start : start + MOST_PARENTS]}}
            for row in api.find("task_run", where, fields=_fields(flow_run_id)):
                children = row["task"]["started"]["aggregate"]
                if children["count"]:
                    is_over = not row["task"]["unfinished"]["aggregate"]["count"]
                    ended = children["max"]["state_timestamp"] if is_over else None
                    found[row["id"]] = Span(instant(children["min"]["start_time"]), instant(ended) if ended else None)
    return found


def _fields(flow_run_id: str) -> str:
    """Of the parents of mapped task runs: how many children have started, and when, and how many have not finished."""
    finished = json.dumps([name for name, state in STATES.items() if issubclass(state, Finished)])
    children = (
        f"flow_run_id: {{_eq: {json.dumps(flow_run_id)}}}, map_index: {{_gte: 0}}, start_time: {{_is_null: false}}"
    )
    return f"""
        id
        task {{
            started: task_runs_aggregate(where: {{{children}}}) {{
                aggregate {{ count min {{ start_time }} max {{ state_timestamp }} }}
            }}
            unfinished: task_runs_aggregate(where: {{{children}, state: {{_nin: {finished}}}}}) {{
                aggregate {{ count }}
            }}
        }}
    """
