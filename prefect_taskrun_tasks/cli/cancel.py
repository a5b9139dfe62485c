"""``prefect-taskrun cancel``."""

from time import monotonic
from typing import Optional, Set

import click

from ..tasks import cancel_flow_run
from ..views import FlowRunView
from ..waiting import watch_family
from .look import Look, flow_run_argument, sought_flow_run
from .terminal import plain

#: Seconds for which children of flow runs that are being cancelled are looked for; a process notices within 15
GRACE = 20.0


@click.command(
    cls=Look,
    short_help="Cancel a flow run.",
    epilog="""\b
Examples:
    $ prefect-taskrun cancel brave-otter
    $ prefect-taskrun cancel 8e445d74 --children
""",
)
@flow_run_argument
@click.option("--children", is_flag=True, help="And its children, and theirs, whatever their parent close policy.")
def cancel(children: bool, **flow_run: Optional[str]) -> None:
    """Cancel FLOW_RUN: an id, a name, or the beginning of one.

    A running flow run notices within 15 seconds, and may create children until then: with --children this lasts until
    all of them have ended, or for 20 seconds. Flow runs that have finished stay as they are.
    """
    if not any(flow_run.values()):
        raise click.UsageError("Say which flow run: FLOW_RUN, --flow-run-id or --flow-run-name.")
    sought = sought_flow_run(**flow_run)
    told: Set[str] = set()
    until = monotonic() + GRACE
    for family in watch_family(sought) if children else [[sought]]:
        for each in family:
            if each.flow_run_id not in told:
                told.add(each.flow_run_id)
                _cancel(each)
        if monotonic() > until:
            left = sum(not each.state.is_finished() for each in family)
            click.echo(
                f"After {GRACE:.0f} s, {left:,} of them have not ended yet. Their processes may be gone.", err=True
            )
            return


def _cancel(flow_run: FlowRunView) -> None:
    named = f"Flow run {plain(flow_run.name)} ({plain(flow_run.flow_run_id)})"
    if flow_run.state.is_finished():
        click.echo(f"{named} has finished: {type(flow_run.state).__name__}")
    else:
        cancel_flow_run.run(flow_run_id=flow_run.flow_run_id)
        click.echo(f"{named} is being cancelled")
