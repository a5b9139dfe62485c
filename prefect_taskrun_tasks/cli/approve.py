"""``prefect-taskrun approve``."""

from typing import Optional

import click

from ..waiting import approve as approve_task_run
from ..waiting import awaiting_approval
from .look import Look, flow_run_argument, sought_flow_run
from .terminal import plain


@click.command(
    cls=Look,
    short_help="Let a task run go on that waits for approval.",
    epilog="""\b
Examples:
    $ prefect-taskrun approve brave-otter
    $ prefect-taskrun approve brave-otter --slug deploy-1
""",
)
@flow_run_argument
@click.option("--slug", metavar="SLUG", help="Task to approve, such as deploy-1; needed if several tasks wait.")
@click.option("--map-index", type=click.IntRange(min=0), help="Child of a mapped task, from 0. Default: all that wait.")
def approve(slug: Optional[str], map_index: Optional[int], **flow_run: Optional[str]) -> None:
    """Approve the task of FLOW_RUN that waits for approval: an id, a name, or the beginning of one.

    A task with the trigger manual_only waits until it is approved, here or in Prefect's UI.
    """
    if not any(flow_run.values()):
        raise click.UsageError("Say which flow run: FLOW_RUN, --flow-run-id or --flow-run-name.")
    sought = sought_flow_run(**flow_run)
    waiting = awaiting_approval(sought.flow_run_id)
    named = f"Flow run {plain(sought.name)} ({sought.flow_run_id})"
    if not waiting:
        state = type(sought.state).__name__
        raise click.ClickException(f"{named} has no task that waits for approval. It is in state {state}.")
    slugs = sorted({task_run.task_slug for task_run in waiting})
    listed = ", ".join(map(plain, slugs))
    if slug is None and len(slugs) > 1:
        raise click.UsageError(f"Several tasks of {named} wait for approval: {listed}. Choose one with --slug.")
    chosen = [each for each in waiting if each.task_slug == (slug or slugs[0]) and map_index in (None, each.map_index)]
    if not chosen:
        index = "" if map_index is None else f" with map index {map_index}"
        raise click.UsageError(f"No task {slug or slugs[0]!r}{index} of {named} waits for approval. Waiting: {listed}.")
    for task_run in chosen:
        approve_task_run(task_run)
        child = "" if task_run.map_index == -1 else f"[{task_run.map_index}]"
        click.echo(f"Approved {plain(task_run.task_slug)}{child} of flow run {plain(sought.name)}")
