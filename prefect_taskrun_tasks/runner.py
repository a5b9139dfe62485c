"""Backend and agent for one machine, for as long as a block lasts: to register flows and to run them."""

import os
import runpy
import shutil
import socket
import sys
import tempfile
import traceback
from contextlib import ExitStack, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterable, List, Mapping, Optional, Tuple, Union

import pendulum
import prefect
from prefect.engine.state import Cancelled
from prefect.utilities.configuration import set_temporary_config

from . import api
from .agent.process import AgentFailed as AgentFailed
from .agent.process import AgentProcess
from .errors import NotFound
from .server import Backend
from .views import FlowRunLog, FlowRunView, FlowView
from .waiting import LONGEST_WAIT, Bookmark, Deadline, Watch


class RegistrationFailed(Exception):
    """The flows of a file could not be registered. What went wrong was printed."""


class LocalRunner:
    """An embedded backend and a Prefect local agent, both of which stop when the block ends.

    Within the block this process's Prefect talks to that backend. Flow runs that were started or created in it and are
    unfinished when it ends are stopped and marked as Cancelled. Needs the extra ``[server]``. While it lasts, anybody
    on this machine can run code through it: it listens on 127.0.0.1 without authentication.

    A process that is forked within the block, such as a worker of `multiprocessing`, may use the backend and run flows.
    It leaves both to its parent: they stop when the block ends there, or when the parent is killed.

    Args:
        database_url: where the backend keeps everything, such as ``sqlite:///prefect.db``; default: a temporary file.
        port: of the backend, on 127.0.0.1; default: a free one.
        import_paths: folders from which flow runs may import modules, besides the current one.
        warm: whether processes of flow runs are forked from one that has imported Prefect (on Linux). If not, each is
            a new interpreter, as with Prefect's agents.
        preload: names of modules that are imported once, before the first fork, such as ``["pandas"]``. Flow runs do
            not see changes of these until the next `LocalRunner`.
        agent: one that was started already, for one block, with `import_paths`, `warm` and `preload` of its own.

    Raises:
        BackendNotInstalled: when this module is imported without the extra ``[server]`` (a `ModuleNotFoundError`).
        DatabaseUnusable: the database cannot be opened.
        PortUnavailable: something else listens there.

    Example:
        >>> with LocalRunner() as local:
        ...     local.register("flows.py")
        ...     flow_run = local.run("parent", parameters={"size": 5})
        ...     flow_run.get_task_run("get_task_run_result-1").get_result()
    """

    def __init__(
        self,
        database_url: Optional[str] = None,
        port: int = 0,
        import_paths: Iterable[str] = (),
        warm: bool = True,
        preload: Iterable[str] = (),
        agent: Optional[AgentProcess] = None,
    ) -> None:
        self._database_url = database_url
        self._port = port
        self._started_agent = agent
        self._agent_options = list(import_paths), warm, list(preload)
        self._stack = ExitStack()
        self._flows: Dict[str, Tuple[str, prefect.Flow]] = {}
        self._pid = os.getpid()

    def __enter__(self) -> "LocalRunner":
        self._pid = os.getpid()
        with ExitStack() as stack:
            directory = Path(tempfile.mkdtemp(prefix="prefect-taskrun-"))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            address = f"http://127.0.0.1:{_free_port()}"
            database_url = self._database_url or f"sqlite:///{directory / 'prefect.db'}"
            # the backend starts while the agent starts, and stops after the agent
            with ExitStack() as agent:
                self._agent = agent.enter_context(self._started_agent or AgentProcess(*self._agent_options))
                #: the embedded backend
                self.backend = stack.enter_context(Backend(database_url, port=self._port, agent_addresses=[address]))
                stack.enter_context(set_temporary_config(settings(self.backend.url)))
                stack.callback(_cancel_unfinished, pendulum.now("utc").isoformat())
                stack.push(agent.pop_all())
            self._agent.configure(address, variables(self.backend.url))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        if os.getpid() != self._pid:
            # of a process that was forked within the block
            self._stack.pop_all()
        self._stack.close()

    @property
    def environment(self) -> Dict[str, str]:
        """This process's environment, with the variables that point other processes' Prefect at the backend."""
        return {**os.environ, **variables(self.backend.url)}

    def get_flow(self, flow_name: str) -> prefect.Flow:
        """A flow that was registered here.

        Raises:
            KeyError: there is none of that name.
        """
        return self._flows[flow_name][1]

    def _configured(self) -> ContextManager[Any]:
        """This process's Prefect talks to this backend, also within the block of another one."""
        if prefect.config.cloud.api == self.backend.url:
            # to set and restore the configuration is not for threads, which may run flows at once
            return nullcontext()
        configured: ContextManager[Any] = set_temporary_config(settings(self.backend.url))
        return configured

    def register(
        self, source: Union[str, "os.PathLike[str]", prefect.Flow], project_name: str = "default"
    ) -> List[str]:
        """Registers a flow, or all flows of a file, as `prefect.Flow.register` does. It prints to standard error.

        Args:
            source: a Python file, or a flow.
            project_name: created if it is not there yet.

        Returns:
            The flows' names.

        Raises:
            RegistrationFailed: the file cannot be loaded, has no flows, or a flow cannot be registered.
        """
        flows = [source] if isinstance(source, prefect.Flow) else _flows_of(os.fspath(source))
        with self._configured(), redirect_stdout(sys.stderr):
            prefect.Client().create_project(project_name)
            for flow in flows:
                try:
                    # the flow as it is now is stored, with a result location for its tasks; its schedule stays as it
                    # is, which in a new database is inactive
                    is_active = _is_schedule_active(flow.name, project_name)
                    flow_id = flow.register(project_name, set_schedule_active=is_active, no_url=True)
                except Exception as error:
                    raise RegistrationFailed(
                        f"The flow {flow.name!r} of {source} cannot be registered: {error}"
                    ) from error
                self._flows[flow.name] = (str(flow_id), flow)
        return [flow.name for flow in flows]

    def run(
        self,
        flow_name: str,
        parameters: Optional[Mapping[str, Any]] = None,
        on_log: Callable[[FlowRunLog], None] = lambda log: None,
    ) -> FlowRunView:
        """Runs a flow that was registered, until it has finished.

        Args:
            flow_name: name of the flow.
            parameters: parameter name -> value.
            on_log: called with each change of state and each log, as they come.

        Returns:
            A view of the finished flow run.

        Raises:
            NotFound: no flow of that name was registered here (a `ValueError`).
            WrongParameters: the flow needs another parameter, or has none of that name (a `ValueError`).
            AgentFailed: the agent has ended.
            prefect.exceptions.ClientError: the backend refused.
        """
        if flow_name not in self._flows:
            raise NotFound(f"There is no flow named {flow_name!r}. Registered are: {', '.join(self._flows)}")
        flow_id = self._flows[flow_name][0]
        with self._configured():
            FlowView.from_flow_id(flow_id).check_parameters(parameters or {})
            flow_run_id = api.create_flow_run(flow_name, flow_id=flow_id, parameters=dict(parameters or {}))
            # from the beginning, also if the flow run has finished before the first poll
            watch = Watch(flow_run_id, True, True, before_poll=self._agent.check, after=Bookmark())
            for log in watch.until(Deadline(LONGEST_WAIT)):
                on_log(log)
            return FlowRunView.from_flow_run_id(flow_run_id)


def _flows_of(path: str) -> List[prefect.Flow]:
    """The flows that a file defines. It is run as ``prefect register`` runs it."""
    folder = str(Path(path).resolve().parent)
    sys.path.insert(0, folder)
    try:
        with prefect.context(loading_flow=True, local_script_path=os.path.abspath(path)), redirect_stdout(sys.stderr):
            namespace = runpy.run_path(path, run_name="<flow>")
    except (Exception, SystemExit) as error:
        raise RegistrationFailed(f"{path} cannot be loaded:\n{traceback.format_exc()}") from error
    finally:
        sys.path.remove(folder)
    # a flow may have several names in the file; flows compare by their tasks, so they are told apart by identity
    flows = list({id(value): value for value in namespace.values() if isinstance(value, prefect.Flow)}.values())
    if not flows:
        raise RegistrationFailed(
            f"There is no flow in {path}. A flow must have a name at the top of the file, as in: "
            "with Flow(...) as flow:"
        )
    return flows


def _is_schedule_active(flow_name: str, project_name: str) -> bool:
    where = {"name": {"_eq": flow_name}, "archived": {"_eq": False}, "project": {"name": {"_eq": project_name}}}
    return any(row["is_schedule_active"] for row in api.find("flow", where, fields="is_schedule_active"))


def settings(url: str) -> Dict[str, str]:
    """Prefect's configuration for the backend at `url`. An account with Prefect Cloud must not get in the way."""
    return {
        "backend": "server",
        "server.endpoint": url,
        "server.ui.endpoint": url,
        "cloud.api": url,
        "cloud.api_key": "",
        "cloud.tenant_id": "",
    }


def variables(url: str) -> Dict[str, str]:
    """`settings`, as environment variables."""
    return {f"PREFECT__{key.upper().replace('.', '__')}": value for key, value in settings(url).items()}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _cancel_unfinished(since: str) -> None:
    """Marks flow runs as Cancelled whose processes have been stopped, or that were to be run from here."""
    started = {"state": {"_in": ["Submitted", "Running", "Cancelling"]}}
    # what a schedule asks for was there before, or will be asked for again
    waiting = {
        "state": {"_in": ["Scheduled", "Pending", "Queued", "Paused", "Resume", "Retrying"]},
        "created": {"_gte": since},
        "auto_scheduled": {"_eq": False},
    }
    client = prefect.Client()
    for row in api.find("flow_run", {"_or": [started, waiting]}, fields="id name state"):
        print(f"Stopped flow run {row['name']!r} ({row['id']}), which was {row['state']}.", file=sys.stderr)
        client.set_flow_run_state(row["id"], Cancelled("Stopped together with the backend and agent that ran it."))
