"""``prefect-taskrun timeline``."""

from pathlib import Path
from typing import Optional

import click
from rich.progress import track

from ..timeline import timeline_page
from ..views import FlowRunView
from .look import Look, flow_run_argument, sought_flow_run
from .terminal import Terminal, plain


@click.command(
    cls=Look,
    short_help="When which task run ran, as a page for your browser.",
    epilog="""\b
Examples:
    $ prefect-taskrun timeline -o newest.html
    $ prefect-taskrun timeline brave-otter -o brave-otter.html
""",
)
@flow_run_argument
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The HTML file.")
def timeline(output: Path, **flow_run: Optional[str]) -> None:
    """When the task runs of FLOW_RUN (default: the newest) ran, and the flow runs that it created: one HTML file, which
    needs nothing else.
    """
    write_timeline(sought_flow_run(**flow_run), output)


def write_timeline(flow_run: FlowRunView, output: Path) -> None:
    """Writes the page, and says where."""
    terminal = Terminal(stderr=True)
    total = sum(FlowRunView.count_task_runs([flow_run.flow_run_id]).get(flow_run.flow_run_id, {}).values())
    is_shown = terminal.is_terminal
    task_runs = track(
        flow_run.iter_task_runs(), "Task runs", total, console=terminal, transient=True, disable=not is_shown
    )
    try:
        output.write_text(timeline_page(flow_run, task_runs), encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error.strerror}") from error
    terminal.print(f"Timeline: {plain(str(output.resolve()))}")
