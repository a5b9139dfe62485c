"""``prefect-taskrun logs``."""

import json
import logging
from itertools import chain
from typing import Iterator, Optional, Union

import click
from rich.text import Text

from ..views import FlowRunLog, FlowRunView, TaskRunView
from ..waiting import watch_flow_run
from .look import Look, flow_run_argument, sought_flow_run, sought_task_run, task_run_options
from .terminal import Terminal, at, plain_lines

_COLORS = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red"}


@click.command(
    cls=Look,
    short_help="Logs of a task run, or of a flow run.",
    epilog="""\b
Examples:
    Of a task run
    $ prefect-taskrun logs --flow-run-name wily-coyote --slug say_hello-1
\b
    Of the newest flow run, until it has finished
    $ prefect-taskrun logs --follow
""",
)
@flow_run_argument
@task_run_options
@click.option("-f", "--follow", is_flag=True, help="Go on until the flow run has finished.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, one object a line.")
def logs(
    task_run_id: Optional[str],
    slug: Optional[str],
    map_index: Optional[int],
    follow: bool,
    as_json: bool,
    **flow_run: Optional[str],
) -> None:
    """Logs of a task run, or without --id and --slug of all of FLOW_RUN (default: the newest)."""
    is_task_run = any(each is not None for each in (task_run_id, slug, map_index))
    sought = sought_task_run(task_run_id, slug, map_index, **flow_run) if is_task_run else sought_flow_run(**flow_run)
    terminal = Terminal()
    for line in _followed(sought) if follow else sought.iter_logs():
        if as_json:
            level = logging.getLevelName(line.level)
            click.echo(json.dumps({"time": line.timestamp.isoformat(), "level": level, "message": line.message}))
        else:
            terminal.print(log_text(line))


def _followed(sought: Union[FlowRunView, TaskRunView]) -> Iterator[FlowRunLog]:
    task_run_id = sought.task_run_id if isinstance(sought, TaskRunView) else None
    coming = watch_flow_run(sought.flow_run_id, stream_states=False, task_run_id=task_run_id)
    first = next(coming, None)
    if first is None:
        # of a flow run that has finished before, a watch tells nothing
        return sought.iter_logs()
    return chain([first], coming)


def log_text(log: FlowRunLog) -> Text:
    level = logging.getLevelName(log.level)
    return Text(f"{at(log.timestamp)} | {level:<8} | {plain_lines(log.message)}", _COLORS.get(log.level, ""))
