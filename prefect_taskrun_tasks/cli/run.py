"""``prefect-taskrun run``: a flow of a file, once, with everything that it needs."""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import click

from ..agent.process import AgentFailed, AgentProcess
from ..errors import TaskRunError
from ..views import FlowRunLog
from .hangup import treat_hangup_as_termination
from .logs import log_text
from .own_process import OWN_PROCESS
from .result import in_json
from .terminal import Terminal, plain_lines
from .timeline import write_timeline
from .tree import family_tree
from .warm import cold_option, preload_option

EPILOG = """\b
Examples:
    Run a parent flow and its children
    $ prefect-taskrun run examples/parent_child.py --flow parent
\b
    Keep what it returned
    $ prefect-taskrun run flows.py --flow parent --param size=5 --result get_task_run_result-1 > result.json
\b
    Keep the history of its runs
    $ prefect-taskrun run flows.py --flow parent --database-url sqlite:///prefect.db
"""


def _parameters(context: click.Context, option: click.Parameter, values: Tuple[str, ...]) -> Dict[str, Any]:
    from prefect.cli.build_register import TerminalError
    from prefect.cli.run import load_json_key_values

    for value in values:
        if not value.partition("=")[1]:
            raise click.BadParameter(f"{value!r} is not of the form NAME=VALUE.")
    try:
        return load_json_key_values(list(values), "parameter")
    except TerminalError as error:
        raise click.BadParameter(str(error)) from error


@click.command(epilog=EPILOG, short_help="Register the flows of a file and run one of them.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--flow", "flow_name", required=True, help="Name of the flow to run.")
@click.option(
    "--param",
    "parameters",
    multiple=True,
    callback=_parameters,
    metavar="NAME=VALUE",
    help="A parameter of the flow run; the value is read as JSON where it is JSON. May be given several times.",
)
@click.option(
    "--result",
    "task_slug",
    metavar="SLUG",
    help="Print the result of this task of the flow run, as JSON (values that JSON does not have: as their repr), "
    "alone on standard output.",
)
@click.option(
    "--timeline",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page that shows when what ran to this file (HTML).",
)
@click.option("--project", default="default", show_default=True, help="Project to register the flows in.")
@click.option(
    "--database-url",
    help="Where to keep flow runs, such as sqlite:///prefect.db. Default: a temporary file.",
)
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Lowest level of the log lines to show. States are shown at info.",
)
@preload_option
@cold_option
@click.pass_context
def run(
    context: click.Context,
    file: str,
    flow_name: str,
    parameters: Dict[str, Any],
    task_slug: Optional[str],
    timeline: Optional[Path],
    project: str,
    database_url: Optional[str],
    log_level: str,
    preload: Tuple[str, ...],
    cold: bool,
) -> None:
    """Register the flows of FILE and run one of them, with a backend and an agent that live as long as it takes.

    States and logs of the flow run are shown on standard error, and in the end what came out of it as a tree. Flow runs
    that have not finished when this flow run has are cancelled.
    """
    from .server import needs_server_extra

    # before there are sockets, threads and signal handlers, which a forked agent must not have
    agent = context.with_resource(
        AgentProcess([os.path.dirname(file)], warm=not cold, preload=preload, fork=context.obj is OWN_PROCESS)
    )
    with needs_server_extra():
        from ..runner import LocalRunner, RegistrationFailed
        from ..server import DatabaseUnusable

    # so that this process ends what it has started, as it does when it is interrupted
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    treat_hangup_as_termination()
    terminal = Terminal(stderr=True)
    lowest = logging.getLevelName(log_level.upper())

    def show(log: FlowRunLog) -> None:
        if log.level >= lowest:
            terminal.print(log_text(log))

    try:
        with LocalRunner(database_url, agent=agent) as local:
            names = local.register(file, project)
            if flow_name not in names:
                raise click.UsageError(f"There is no flow named {flow_name!r} in {file}. It has: {', '.join(names)}")
            slugs = sorted(local.get_flow(flow_name).slugs.values())
            if task_slug and task_slug not in slugs:
                raise click.UsageError(f"Flow {flow_name!r} has no task {task_slug!r}. It has: {', '.join(slugs)}")
            flow_run = local.run(flow_name, parameters, on_log=show)
            if not flow_run.state.is_successful():
                terminal.print(plain_lines(flow_run.explain_failure()), style="red")
            unread: Optional[TaskRunError] = None
            try:
                if task_slug:
                    click.echo(in_json(flow_run.get_task_run(task_slug).get_result()))
            except TaskRunError as error:
                # most likely for the same reason as all else, which the tree shows
                unread = error
            terminal.print(family_tree(flow_run))
            if timeline:
                write_timeline(flow_run, timeline)
            if unread and flow_run.state.is_successful():
                raise unread
            if unread:
                terminal.print(f"Error: {plain_lines(str(unread))}", style="red")
    except (AgentFailed, RegistrationFailed, DatabaseUnusable) as error:
        raise click.ClickException(str(error)) from error
    if not flow_run.state.is_successful():
        raise SystemExit(1)
