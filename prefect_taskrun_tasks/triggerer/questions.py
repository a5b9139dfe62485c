"""What the triggerer asks the Prefect API."""

from datetime import datetime
from typing import List, Sequence, Tuple

from prefect.engine.state import Finished

from .. import api
from ..views.arguments import STATES
from ..views.deferral import DEFERRED, at_work
from .deferred import Deferred

#: Waits in one answer, of which only the ids and versions are asked for; where there are more, the rest takes pages
LISTED = 10 * api.PAGE

_FINISHED = sorted(name for name, state in STATES.items() if issubclass(state, Finished))

#: Of a task run: its process is there
_BUSY = ["Cancelling", "Queued", "Running"]

#: Seconds after which a process that an agent was about to start is taken for lost
STARTING = 600.0

#: The last line in the log of a process that leaves task runs behind for later: engine/flow_runner.py,
#: `determine_final_state`, which stores no state then
LEFT = "Flow run RUNNING: terminal tasks are incomplete."

_WAITING = {"state": {"_eq": "Scheduled"}, "serialized_state": {"_contains": DEFERRED}}

_RUNNING = {"state": {"_eq": "Running"}}

_CANCELLING = {"state": {"_eq": "Cancelling"}, "task_runs": _WAITING}

_LISTED_FIELDS = "id version"

_LOOK = f"""query(
    $deferred: task_run_bool_exp, $ended: flow_run_bool_exp, $awaited: flow_run_bool_exp, $busy: task_run_bool_exp,
    $cancelling: flow_run_bool_exp
) {{
    deferred: task_run(where: $deferred, order_by: {{id: asc}}, limit: {LISTED}) {{ {_LISTED_FIELDS} }}
    task_run_aggregate(where: $deferred) {{ aggregate {{ count }} }}
    ended: flow_run(where: $ended) {{ id name state }}
    flow_run_aggregate(where: $awaited) {{ aggregate {{ count }} }}
    busy: task_run(where: $busy, distinct_on: flow_run_id) {{ flow_run_id }}
    cancelling: flow_run(where: $cancelling, limit: {api.PAGE}) {{ id }}
}}"""

_DETAILS = """query(
    $deferred: task_run_bool_exp, $cancelling: flow_run_bool_exp, $busy: task_run_bool_exp,
    $begun: flow_run_state_bool_exp, $left: log_bool_exp
) {
    deferred: task_run(where: $deferred) {
        id version serialized_state state_start_time flow_run { id name }
    }
    cancelling: flow_run(where: $cancelling) {
        id name version heartbeat
        busy: task_runs(where: $busy, limit: 1) { id }
        changed: task_runs(order_by: {state_timestamp: desc_nulls_last}, limit: 1) { state_timestamp }
        begun: states(where: $begun, order_by: {timestamp: desc}, limit: 1) { timestamp }
        left: logs(where: $left, order_by: {timestamp: desc}, limit: 1) { timestamp }
    }
}"""


def look(after: datetime, awaited: List[str], waiting: List[str]) -> Tuple[str, api.Row]:
    """The query for all waits of running flow runs, for which of the flow runs that are waited for have ended, and for
    which of those that wait have a process nevertheless.

    Args:
        after: only waits that are due later; with a time zone.
        awaited: UUIDs of the flow runs that are waited for.
        waiting: UUIDs of those that wait.
    """
    due = {"state_start_time": {"_gt": after.isoformat()}, "flow_run": _RUNNING}
    among = {"id": {"_in": awaited}}
    return _LOOK, {
        "deferred": {**_WAITING, **due},
        "ended": {**among, "state": {"_in": _FINISHED}},
        "awaited": among,
        "busy": {"flow_run_id": {"_in": waiting}, **at_work(_BUSY, STARTING)},
        "cancelling": _CANCELLING,
    }


def rest(where: api.Where, last: str) -> List[api.Row]:
    """The waits after the last one of an answer to `look`, for which there was no room in it."""
    further = {"_and": [where, {"id": {"_gt": last}}]}
    return [row for page in api.pages("task_run", further, fields=_LISTED_FIELDS) for row in page]


def unchanged(waits: Sequence[Deferred]) -> List[Deferred]:
    """Asks which of some waits are as they were."""
    where = {**_WAITING, "id": {"_in": [wait.id for wait in waits]}, "flow_run": _RUNNING}
    there = {(row["id"], row["version"]) for row in api.find("task_run", where, fields=_LISTED_FIELDS)}
    return [wait for wait in waits if wait.key in there]


def details(task_run_ids: List[str], flow_run_ids: List[str]) -> Tuple[str, api.Row]:
    """The query for all about some waits, and for signs of a process of flow runs that are being cancelled."""
    return _DETAILS, {
        "deferred": {"id": {"_in": task_run_ids}, **_WAITING},
        "cancelling": {"id": {"_in": flow_run_ids}, "state": {"_eq": "Cancelling"}},
        "busy": at_work(_BUSY, STARTING),
        "begun": {"state": {"_in": ["Submitted", "Running"]}},
        "left": {"message": {"_eq": LEFT}},
    }
