"""Flow runs that are being cancelled, and have no process that would see to it."""

from datetime import timedelta
from typing import List

import pendulum
from prefect.engine.state import Cancelled

from .. import api
from ..views.history import instant
from ..waiting import cancel_children
from .deferred import SENDING
from .tick import Cancellation

#: How long there is no heartbeat until the process of a flow run counts as gone: two of Prefect's intervals. One that
#: is there has a heartbeat when it is cancelled, and the next within 30 s
SILENCE = timedelta(seconds=60)

_SET_FLOW_RUN_STATES = (
    "mutation($input: set_flow_run_states_input!) "
    "{ set_flow_run_states(input: $input) { states { id status message } } }"
)


def has_process(row: api.Row) -> bool:
    """Whether a process of a flow run may be there.

    Args:
        row: of the answer to `questions.details`.
    """
    if row["busy"]:
        return True
    heartbeat = row["heartbeat"]
    if heartbeat and instant(heartbeat) < pendulum.now("utc") - SILENCE:
        return False
    # the last line of its log, if nothing has happened since
    left = [instant(log["timestamp"]) for log in row["left"]]
    changes = [instant(run["state_timestamp"]) for run in row["changed"] if run["state_timestamp"]]
    changes += [instant(state["timestamp"]) for state in row["begun"]]
    return not left or left[0] < max(changes, default=left[0])


def finish(row: api.Row) -> List[Cancellation]:
    """Cancels what is to be cancelled with a flow run, and then ends it.

    It may be done twice, or be given up in between and begun again.

    Args:
        row: of the answer to `questions.details`.

    Returns:
        What was done; empty if the flow run is no longer being cancelled.

    Raises:
        BackendUnreachable, BadAnswer: no answer.
        prefect.exceptions.ClientError: the API refused.
    """
    flow_run_id, version = row["id"], row["version"]
    children = cancel_children(flow_run_id)
    still = {"id": {"_eq": flow_run_id}, "state": {"_eq": "Cancelling"}, "version": {"_eq": version}}
    if not api.find("flow_run", still, fields="id"):
        return []
    # the backend cancels its task runs
    state = Cancelled("Cancelled by the triggerer: the flow run had no process.").serialize()
    states = [{"flow_run_id": flow_run_id, "version": version, "state": state}]
    with api.sent_once(SENDING):
        api.ask(_SET_FLOW_RUN_STATES, {"input": {"states": states}}, f"cancelling flow run {flow_run_id!r}")
    return [Cancellation(flow_run_id, row["name"], tuple(children))]
