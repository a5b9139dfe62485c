"""``prefect-taskrun cancel``."""

from itertools import chain

import click

from ..tasks import cancel_flow_run
from ..views import FlowRunView
from .look import Look
from .terminal import plain


@click.command(
    cls=Look,
    short_help="Cancel a flow run.",
    epilog="""\b
Examples:
    $ prefect-taskrun cancel brave-otter
    $ prefect-taskrun cancel 8e445d74 --children
""",
)
@click.argument("flow_run", metavar="FLOW_RUN")
@click.option("--children", is_flag=True, help="And its children, and theirs, whatever their parent close policy.")
def cancel(flow_run: str, children: bool) -> None:
    """Cancel FLOW_RUN: an id, a name, or the beginning of one.

    A running flow run notices within 15 seconds. One that has finished stays as it is.
    """
    sought = FlowRunView.find(flow_run)
    # children are looked up once their parent creates no more
    for each in chain([sought], sought.iter_descendants() if children else ()):
        if each.state.is_finished():
            click.echo(f"Flow run {plain(each.name)} ({each.flow_run_id}) has finished: {type(each.state).__name__}")
        else:
            cancel_flow_run.run(flow_run_id=each.flow_run_id)
            click.echo(f"Flow run {plain(each.name)} ({each.flow_run_id}) is being cancelled")
