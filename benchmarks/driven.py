"""Data: flow runs that no process runs, whose states are written straight into a backend when their time has come."""

import time
from contextlib import contextmanager
from typing import Callable, Iterable, Iterator, List, Mapping, NamedTuple, Optional
from unittest.mock import patch
from urllib.parse import urlsplit

from prefect_taskrun_tasks.server import Backend, endpoint, tables
from prefect_taskrun_tasks.server.news import preferred_hold
from prefect_taskrun_tasks.server.rules import flow_runs, flows, states, tenants


class Entry(NamedTuple):
    """A flow run enters a state."""

    #: when, as `time.time` says it
    at: float
    flow_run_id: str
    #: the state's type, such as ``"Running"``
    state: str


def create(backend: Backend, name: str, count: int) -> List[str]:
    """Creates flow runs of a flow of that name, which no agent knows of; returns their ids."""
    with backend._database.write() as tx:
        tenant = tx.rows(tables.tenant.select())[0]["id"]
        project = tenants.create_project(tx, tenant, name)["id"]
        # as Prefect serializes a flow, as far as the views read it
        flow = {"name": name, "tasks": [{"slug": "nothing-1", "name": "nothing"}], "__version__": "1.4.1"}
        flow_id = flows.create_flow(tx, flow, project)["id"]
        return [str(flow_runs.create_flow_run(tx, flow_id)["id"]) for _ in range(count)]


def drive(backend: Backend, plan: Iterable[Entry], tell: Callable[[int], None] = lambda entered: None) -> None:
    """Has flow runs enter their states, each at its time; returns after the last.

    Args:
        backend: of this process, whose callers are told at once.
        plan: what is to happen.
        tell: called every ten seconds, with how many states have been entered.
    """
    told = time.time()
    for entered, entry in enumerate(sorted(plan)):
        while time.time() < entry.at:
            time.sleep(max(0.0, min(1.0, entry.at - time.time())))
            if time.time() > told + 10:
                told = time.time()
                tell(entered)
        enter(backend, [entry.flow_run_id], entry.state)


def enter(backend: Backend, flow_run_ids: Iterable[str], state: str) -> None:
    """Flow runs enter a state now."""
    entered = {
        "type": state,
        "message": f"Entered {state}.",
        "context": {},
        "cached_inputs": {},
        "__version__": "1.4.1",
    }
    with backend._database.write() as tx:
        states.set_flow_run_states(tx, [{"flow_run_id": each, "state": entered} for each in flow_run_ids])


@contextmanager
def polled(backend: Backend) -> Iterator[str]:
    """Another address of the backend, where it answers at once, like backends that do not know the header `Prefer`."""

    def hold_unless_polled(headers: Mapping[str, str]) -> Optional[int]:
        return None if headers["host"].startswith("localhost") else preferred_hold(headers)

    with patch.object(endpoint, "preferred_hold", hold_unless_polled):
        yield f"http://localhost:{urlsplit(backend.url).port}"
