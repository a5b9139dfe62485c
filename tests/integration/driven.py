"""Flow runs whose states a test writes, with the client and the runner that write those of real ones."""

from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional

import prefect
from prefect import Flow
from prefect.engine.cloud import CloudFlowRunner
from prefect.engine.results import LocalResult
from prefect.engine.state import Mapped, State, Success
from prefect.utilities.configuration import set_temporary_config

from prefect_taskrun_tasks.runner import settings
from prefect_taskrun_tasks.server import Backend

#: The fixture `new_url`
NewUrl = Callable[[], str]


@contextmanager
def shared_backend(new_url: NewUrl) -> Iterator[Backend]:
    """The fixture `backend` for all tests of a module, which then have to give their flows names of their own."""
    with Backend(new_url(), port=0) as backend, set_temporary_config(settings(backend.url)):
        yield backend


def register(flow: Flow, project_name: str = "tests") -> str:
    """Registers a flow; returns the UUID of this version of it."""
    prefect.Client().create_project(project_name)
    flow_id: str = flow.register(project_name, no_url=True, set_schedule_active=False)
    return flow_id


class DrivenRun:
    """A run of a flow, which is registered if it has not been. No agent knows of it: the test says what happens."""

    def __init__(self, flow: Flow, flow_id: Optional[str] = None, flow_run_id: Optional[str] = None, **options: Any):
        self.flow = flow
        self.client = prefect.Client()
        self.flow_id = flow_id or register(flow)
        self.id: str = flow_run_id or self.client.create_flow_run(flow_id=self.flow_id, **options)

    def enter(self, state: State) -> "DrivenRun":
        """The flow run enters a state."""
        self.client.set_flow_run_state(self.id, state)
        return self

    def task_run_id(self, slug: str, map_index: Optional[int] = None) -> str:
        """Of the task run, which is created if it is a mapped child that is not there yet."""
        where = {"slug": {"_eq": slug}, "flow_id": {"_eq": self.flow_id}}
        query = "query($where: task_bool_exp) { task(where: $where) { id } }"
        [task] = self.client.graphql(query, variables={"where": where}).data.task
        task_run_id: str = self.client.get_task_run_info(self.id, task.id, map_index=map_index).id
        return task_run_id

    def task_enters(self, slug: str, state: State, map_index: Optional[int] = None) -> str:
        """A task run enters a state; returns its UUID."""
        task_run_id = self.task_run_id(slug, map_index)
        self.client.set_task_run_state(task_run_id, state)
        return task_run_id

    def task_returns(self, slug: str, value: Any, map_index: Optional[int] = None) -> str:
        """A task run ends in Success, and its value is kept in a file; returns its UUID."""
        return self.task_enters(slug, Success(result=LocalResult().write(value)), map_index)

    def task_maps(self, slug: str, values: List[Any], expected: Optional[int] = None) -> str:
        """A task run was mapped, and its children return `values`; returns the UUID of the parent."""
        for map_index, value in enumerate(values):
            self.task_returns(slug, value, map_index)
        return self.task_enters(slug, mapped(len(values) if expected is None else expected))

    def log(self, message: str, **options: Any) -> None:
        """A line of the flow run's log is uploaded."""
        entry = {"flow_run_id": self.id, "name": "prefect", "level": "INFO", "message": message, **options}
        self.client.write_run_logs([entry])

    def execute(self, context: Optional[Dict[str, Any]] = None) -> State:
        """Runs the flow as `prefect execute flow-run` does, in this process."""
        context = {"flow_run_id": self.id, "flow_id": self.flow_id, "checkpointing": True, **(context or {})}
        quiet = {"cloud.heartbeat_mode": "off", "cloud.send_flow_run_logs": False}
        with set_temporary_config(quiet), prefect.context(context):
            state: State = CloudFlowRunner(flow=self.flow).run()
        return state


def mapped(children: int) -> Mapped:
    """The state of a mapped task run's parent, as a runner writes it."""
    return Mapped(n_map_states=children)
