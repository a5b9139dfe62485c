"""``prefect-taskrun run``: a flow of a file, once, with everything that it needs."""

import json
import logging
import os
import signal
import sys
from typing import Any, Dict, Optional, Tuple

import click

from ..errors import InvalidArgument, TaskRunError
from ..views import FlowRunLog

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
@click.option("--project", default="default", show_default=True, help="Project to register the flows in.")
@click.option(
    "--database-url",
    help="Where to keep flow runs, such as sqlite:///prefect.db. Default: a temporary file.",
)
def run(
    file: str,
    flow_name: str,
    parameters: Dict[str, Any],
    task_slug: Optional[str],
    project: str,
    database_url: Optional[str],
) -> None:
    """Register the flows of FILE and run one of them, with a backend and an agent that live as long as it takes.

    States and logs of the flow run are shown on standard error. Flow runs that have not finished when this flow run
    has are cancelled. Exits with 0 if the flow run succeeded, with 1 if it did not, with 2 if it was called
    wrongly.
    """
    from .server import needs_server_extra

    with needs_server_extra():
        from ..runner import AgentFailed, LocalRunner, RegistrationFailed
        from ..server import DatabaseUnusable
    from prefect.exceptions import ClientError

    # so that this process ends what it has started, as it does when it is interrupted
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with LocalRunner(database_url, import_paths=[os.path.dirname(file)]) as local:
            names = local.register(file, project)
            if flow_name not in names:
                raise click.UsageError(f"There is no flow named {flow_name!r} in {file}. It has: {', '.join(names)}")
            slugs = sorted(local.get_flow(flow_name).slugs.values())
            if task_slug and task_slug not in slugs:
                raise click.UsageError(f"Flow {flow_name!r} has no task {task_slug!r}. It has: {', '.join(slugs)}")
            flow_run = local.run(flow_name, parameters, on_log=_show)
            if not flow_run.state.is_successful():
                click.secho(flow_run.explain_failure(), fg="red", err=True)
            if task_slug:
                click.echo(_as_json(flow_run.get_task_run(task_slug).get_result()))
    except KeyboardInterrupt:
        click.echo("Interrupted.", err=True)
        raise SystemExit(128 + signal.SIGINT) from None
    except InvalidArgument as error:
        raise click.UsageError(str(error)) from error
    except (TaskRunError, AgentFailed, RegistrationFailed, DatabaseUnusable) as error:
        raise click.ClickException(str(error)) from error
    except ClientError as error:
        raise click.ClickException(f"The backend refused: {_messages(error)}") from error
    if not flow_run.state.is_successful():
        raise SystemExit(1)


def _show(log: FlowRunLog) -> None:
    color = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red"}.get(log.level)
    time = log.timestamp.in_tz("local")
    click.secho(f"{time:%H:%M:%S} | {logging.getLevelName(log.level):<7} | {log.message}", fg=color, err=True)


def _as_json(value: Any) -> str:
    try:
        return json.dumps(value, default=repr, allow_nan=False)
    except (TypeError, ValueError):
        # keys that JSON does not have, NaN, or a value that contains itself
        return json.dumps(repr(value))


def _messages(error: Exception) -> str:
    """The messages of a `ClientError`, whose argument is the list of errors that the backend answered."""
    found = error.args[0] if error.args else ""
    if isinstance(found, list):
        return "; ".join(str(each.get("message", each)) for each in found)
    return str(error)
