"""Flow runs that wait for each other, which would never end.

A wait that lasts says in its flow run's log what it waits for, where the waits of other processes read it.
"""

import re
from datetime import timedelta
from typing import Dict, Iterable, List, NamedTuple, Optional, Set

import pendulum

from .. import api
from ..errors import WaitCycle
from ..views.history import instant

#: Steps from one flow run to what it waits for that are looked at
LONGEST_CYCLE = 20

#: The name of the logger whose lines say what is waited for
LOGGER = "prefect_taskrun_tasks.waiting"

_MESSAGE = "Waiting for flow run {}, until {}"
_AWAITED = re.compile("Waiting for flow run ([0-9a-f-]{36}), until (.+)")

#: A wait whose time is over within so long is not one that never ends
SOON = timedelta(minutes=10)


class Edge(NamedTuple):
    """A task run waits for a flow run."""

    #: UUIDs of the flow run and the task run that wait
    flow_run_id: str
    task_run_id: Optional[str]
    #: UUID of the flow run that is awaited
    awaited: str
    #: when the wait gives up; None if never
    until: Optional[pendulum.DateTime] = None

    @property
    def is_lasting(self) -> bool:
        return self.until is None or self.until > pendulum.now("utc") + SOON


def declare(edges: Iterable[Edge]) -> Dict[Edge, WaitCycle]:
    """Says in the log what is waited for, and finds the waits that would never end, with what is wrong with them.

    Takes one request for the log, however many waits there are, and two for each step from flow runs to what they wait
    for themselves.

    Raises:
        BackendUnreachable: the Prefect API does not answer.
    """
    edges = [edge for edge in edges if edge.is_lasting]
    if not edges:
        return {}
    api.write_logs(
        [
            {
                "flow_run_id": edge.flow_run_id,
                "task_run_id": edge.task_run_id,
                "name": LOGGER,
                "level": "DEBUG",
                "message": _MESSAGE.format(edge.awaited, edge.until.isoformat() if edge.until else "it ends"),
            }
            for edge in edges
        ]
    )
    # only after that: of two that begin to wait for each other at once, one at least sees the other
    awaited: Dict[str, Set[str]] = {}
    frontier = {edge.awaited for edge in edges}
    for _ in range(LONGEST_CYCLE):
        if not frontier:
            break
        found = _awaited_by(frontier)
        awaited.update(found)
        frontier = set().union(*found.values()) - set(awaited)
    paths = {edge: _path(edge.awaited, edge.flow_run_id, awaited) for edge in edges}
    return {edge: _error(edge, path) for edge, path in paths.items() if path}


def _awaited_by(flow_run_ids: Set[str]) -> Dict[str, Set[str]]:
    """Flow run -> those that its task runs have said to wait for, of task runs that still do."""
    where = {"flow_run_id": {"_in": sorted(flow_run_ids)}, "name": {"_eq": LOGGER}}
    said = [log for page in api.pages("log", where, fields="id flow_run_id task_run_id message") for log in page]
    task_run_ids = sorted({log["task_run_id"] for log in said if log["task_run_id"]})
    # one that waits without a process is Scheduled
    waiting = {"id": {"_in": task_run_ids}, "state": {"_in": ["Running", "Scheduled", "Submitted"]}}
    pages = api.pages("task_run", waiting, fields="id") if said else ()
    are_waiting = {row["id"] for page in pages for row in page}
    found: Dict[str, Set[str]] = {flow_run_id: set() for flow_run_id in flow_run_ids}
    for log in said:
        match = _AWAITED.match(log["message"] or "")
        if match and log["task_run_id"] in are_waiting:
            until = None if match[2] == "it ends" else instant(match[2])
            edge = Edge(log["flow_run_id"], log["task_run_id"], match[1], until)
            if edge.is_lasting:
                found[edge.flow_run_id].add(edge.awaited)
    return found


def _path(start: str, goal: str, awaited: Dict[str, Set[str]]) -> List[str]:
    """Flow runs each of which waits for the next, from one to another; none if there is no such way."""
    paths, seen = [[start]], {start}
    # grows while it is gone through
    for path in paths:
        if path[-1] == goal:
            return path
        following = sorted(awaited.get(path[-1], set()) - seen)
        seen.update(following)
        paths += [[*path, each] for each in following]
    return []


def _error(edge: Edge, path: List[str]) -> WaitCycle:
    return WaitCycle(
        f"Flow run {edge.flow_run_id} cannot wait for flow run {edge.awaited}, which waits for it: "
        f"{' -> '.join([edge.flow_run_id, *path])}. None of them would ever end."
    )
