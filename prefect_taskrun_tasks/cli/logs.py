"""``prefect-taskrun logs``."""

import json
import logging
from typing import Iterable, Optional

import click
from rich.text import Text

from ..views import FlowRunLog
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
    $ prefect-taskrun logs --flow-run-name wily-coyote --slug say-hello-1
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
    lines: Iterable[FlowRunLog] = sought.iter_logs()
    if follow:
        task_run_id = getattr(sought, "task_run_id", None)
        lines = watch_flow_run(sought.flow_run_id, stream_states=False, task_run_id=task_run_id)
    terminal = Terminal()
    for line in lines:
        if as_json:
            level = logging.getLevelName(line.level)
            click.echo(json.dumps({"time": line.timestamp.isoformat(), "level": level, "message": line.message}))
        else:
            terminal.print(log_text(line))


def log_text(log: FlowRunLog) -> Text:
    level = logging.getLevelName(log.level)
    return Text(f"{at(log.timestamp)} | {level:<8} | {plain_lines(log.message)}", _COLORS.get(log.level, ""))
