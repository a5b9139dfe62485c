"""``prefect-taskrun watch``."""

from time import monotonic
from typing import Optional

import click
import pendulum
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..views.span import Span
from ..waiting import Progress
from .look import Look, flow_run_argument, patiently, sought_flow_run
from .terminal import Terminal, at, counted, lasted, log_to, most_first, plain, plain_lines, state_text

#: Seconds between two lines about task runs at least, where the output is no terminal
QUIET = 10.0


@click.command(
    cls=Look,
    short_help="How far a flow run has come, live.",
    epilog="""\b
Examples:
    $ prefect-taskrun watch
    $ prefect-taskrun watch brave-otter && echo done
""",
)
@flow_run_argument
def watch(**flow_run: Optional[str]) -> None:
    """How far FLOW_RUN (default: the newest) has come, until it has finished: a bar for all its task runs and one for
    each mapped task, and how many are in which state.

    The exit code is 1 if it did not succeed. Ctrl-C ends the watching, and not the flow run.
    """
    progress = Progress(sought_flow_run(**flow_run))
    terminal = Terminal()
    if terminal.is_terminal:
        with Live(console=terminal, auto_refresh=False) as live:
            log_to(terminal)
            for _ in progress.looks():
                live.update(_drawn(progress), refresh=True)
    else:
        _tell_changes(progress, terminal)
    if not progress.flow_run.state.is_successful():
        with patiently():
            Terminal(stderr=True).print(plain_lines(progress.flow_run.explain_failure()), style="red")
        raise SystemExit(1)


def _drawn(progress: Progress) -> RenderableType:
    flow_run = progress.flow_run
    title = Text.assemble(
        (plain(flow_run.name), "bold"),
        f"  {plain(flow_run.flow_name)}  ",
        state_text(type(flow_run.state).__name__),
        f"  {lasted(Span(flow_run.start_time, flow_run.end_time).duration)}",
    )
    bars = Table.grid(padding=(0, 1, 0, 0))
    bars.add_column(no_wrap=True, overflow="ellipsis")
    bars.add_column(ratio=1)
    bars.add_column(justify="right", no_wrap=True)
    bars.add_column(style="red", no_wrap=True)
    _add_bar(bars, "task runs", progress.finished, progress.expected, 0)
    for slug, task in progress.mapped.items():
        _add_bar(bars, plain(slug), task.finished, task.expected, task.failed)
    states = Text("  ").join(
        Text.assemble(f"{number:,} ", state_text(state)) for state, number in most_first(progress.counts)
    )
    return Group(title, bars, states)


def _add_bar(bars: Table, name: str, finished: int, expected: int, failed: int) -> None:
    number = f"{finished:,}/{expected:,}" if expected else f"{finished:,}"
    style = "red" if failed else "green"
    bar = ProgressBar(total=max(expected, 1), completed=finished, complete_style=style, finished_style=style)
    bars.add_row(name, bar, number, f"{failed:,} failed" if failed else "")


def _tell_changes(progress: Progress, terminal: Terminal) -> None:
    state, told, last = "", "", -QUIET
    for _ in progress.looks():
        now = type(progress.flow_run.state).__name__
        counts = counted(progress.counts)
        is_due = now != state or (counts != told and monotonic() > last + QUIET)
        if is_due:
            line = f"{at(pendulum.now())}  {plain(progress.flow_run.name)}  {now}"
            terminal.print(f"{line}  {progress.finished:,}/{progress.expected:,} task runs: {counts}")
            state, told, last = now, counts, monotonic()
