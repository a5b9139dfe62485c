"""``prefect-taskrun triggerer``."""

import signal
from typing import Any

import click
import pendulum

from ..triggerer import LONGEST_INTERVAL, Triggerer
from .hangup import treat_hangup_as_termination
from .look import Look
from .terminal import Terminal, at, plain


@click.command(
    cls=Look,
    short_help="Wake flow runs that wait without a process.",
    epilog="""\b
Examples:
    $ prefect-taskrun triggerer
    $ prefect-taskrun triggerer --interval 5 >> triggerer.log 2>&1
""",
)
@click.option(
    "--interval",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, LONGEST_INTERVAL, min_open=True),
    help="Seconds between two looks.",
)
def triggerer(interval: float) -> None:
    """Watch all deferred waits, and make each due when the flow run that it waits for has ended: an agent then takes up
    the flow run that waits. Flow runs that are cancelled while they have no process are ended, and their children
    cancelled as their policies say.

    For Prefect Server; the embedded backend does this by itself. It runs until it is interrupted or terminated (exit
    code 0), outlasts a backend that is away, may be killed at any moment, and run twice. Without it, each deferred wait
    looks for itself, once a minute, or ten minutes after it was put off.
    """
    watch = Triggerer(interval)

    def stop(number: int, frame: Any) -> None:
        watch.stop()
        # also out of a request; whatever that was, it may be left as it is
        raise SystemExit(0)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    treat_hangup_as_termination()
    terminal = Terminal()

    def tell(line: str) -> None:
        terminal.print(f"{at(pendulum.now())}  {line}")

    is_told = False
    for tick in watch.ticks():
        if not is_told:
            tell(f"Watching. Deferred waits: {tick.waits:,}")
            is_told = True
        for wake in tick.woken:
            tell(f"{plain(wake.flow_run_name)} ({wake.flow_run_id}) is woken. {plain(wake.reason)}")
        for each in tick.cancelled:
            children = f" Cancelled with it: {len(each.children):,}" if each.children else ""
            tell(f"{plain(each.flow_run_name)} ({each.flow_run_id}) had no process, and is Cancelled.{children}")
