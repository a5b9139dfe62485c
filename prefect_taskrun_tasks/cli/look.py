"""Commands that look at runs: what they have in common, and how people say which run they mean."""

from typing import Any, Callable, ContextManager, Optional, TypeVar

import click
import prefect

from .. import api
from ..views import FlowRunView, TaskRunView
from ..waiting import LONGEST_WAIT
from .failures import Unreachable
from .terminal import Terminal, log_to, plain

F = TypeVar("F", bound=Callable[..., Any])

#: Seconds for which a backend that does not answer is asked again
PATIENCE = 10.0

NO_BACKEND = """No Prefect backend is configured. Point Prefect at the one that you use, for example:
    export PREFECT__BACKEND=server
    export PREFECT__SERVER__ENDPOINT=http://127.0.0.1:4200
or start one with: prefect-taskrun server start"""


class Look(click.Command):
    """A command that asks the Prefect API."""

    def invoke(self, ctx: click.Context) -> Any:
        log_to(Terminal(stderr=True))
        is_cloud = prefect.config.backend == "cloud" and ".prefect.io" in prefect.config.cloud.api
        if is_cloud and not prefect.Client().api_key:
            raise Unreachable(NO_BACKEND)
        with api.patience(PATIENCE):
            return super().invoke(ctx)


def patiently() -> ContextManager[None]:
    """For commands that watch: what is asked within outlasts a backend that is away for a while."""
    return api.patience(LONGEST_WAIT.total_seconds())


def flow_run_argument(command: F) -> F:
    """Adds what says which flow run is meant, for `sought_flow_run`."""
    command = click.option("--flow-run-name", metavar="NAME", help="The flow run by its name.")(command)
    command = click.option("--flow-run-id", metavar="ID", help="The flow run by its id.")(command)
    return click.argument("flow_run", metavar="[FLOW_RUN]", required=False)(command)


def task_run_options(command: F) -> F:
    """Adds what says which task run is meant, for `sought_task_run`."""
    index = click.IntRange(min=0)
    command = click.option("--map-index", type=index, help="A child of a mapped task, from 0.")(command)
    command = click.option("--slug", metavar="SLUG", help="The task run by its task's slug, such as inc-1.")(command)
    return click.option("--id", "task_run_id", metavar="ID", help="The task run by its id.")(command)


def sought_flow_run(
    flow_run: Optional[str], flow_run_id: Optional[str], flow_run_name: Optional[str], slug: Optional[str] = None
) -> FlowRunView:
    """The flow run that is meant; if nothing says which, the newest, of a flow that has the task if a slug is given."""
    given = [each for each in (flow_run, flow_run_id, flow_run_name) if each is not None]
    if len(given) > 1:
        raise click.UsageError("Give one of FLOW_RUN, --flow-run-id and --flow-run-name.")
    if flow_run is not None:
        return FlowRunView.find(flow_run)
    if flow_run_id is not None:
        return FlowRunView.find(flow_run_id, by=["id"])
    if flow_run_name is not None:
        return FlowRunView.find(flow_run_name, by=["name"])
    newest = FlowRunView.newest(slug)
    Terminal(stderr=True).print(f"Flow run {plain(newest.name)} ({newest.flow_run_id}), the newest", style="dim")
    return newest


def sought_task_run(
    task_run_id: Optional[str], slug: Optional[str], map_index: Optional[int], **flow_run: Optional[str]
) -> TaskRunView:
    """The task run that is meant.

    Raises:
        click.UsageError: nothing says which.
    """
    if task_run_id is not None:
        if slug is not None or map_index is not None or any(flow_run.values()):
            raise click.UsageError("--id says which task run is meant; leave out what else would say so.")
        return TaskRunView.find(task_run_id)
    if slug is None:
        raise click.UsageError("Say which task run: --id ID, or --slug SLUG and, unless the newest is meant, FLOW_RUN.")
    return sought_flow_run(**flow_run, slug=slug).find_task_run(slug, -1 if map_index is None else map_index)
