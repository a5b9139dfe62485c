"""``prefect-taskrun result``."""

import json
import pprint
from typing import Any, List, Optional

import click

from ..views import TaskRunView
from .failures import NotThere
from .list import slug_of
from .look import Look, flow_run_argument, sought_task_run, task_run_options
from .terminal import Terminal, plain, plain_lines


@click.command(
    cls=Look,
    short_help="What a task returned, or where that is kept.",
    epilog="""\b
Examples:
    $ prefect-taskrun result --flow-run-id 8e445d74 --slug get_foo_dict-1 --json
    $ prefect-taskrun result --slug load-1 --location
    $ prefect-taskrun result --slug render-1 --output report.pdf
""",
)
@flow_run_argument
@task_run_options
@click.option("--json", "as_json", is_flag=True, help="As JSON; what JSON does not have, as its repr.")
@click.option("--skip-failed", is_flag=True, help="Of a mapped task: None for children that did not succeed.")
@click.option("--location", "location_only", is_flag=True, help="Where it is kept, and nothing else: it is not read.")
@click.option(
    "--output",
    type=click.File("wb", lazy=True, atomic=True),
    help="Write it to a file: bytes and texts as they are, anything else as it would be printed.",
)
def result(
    task_run_id: Optional[str],
    slug: Optional[str],
    map_index: Optional[int],
    as_json: bool,
    skip_failed: bool,
    location_only: bool,
    output: Any,
    **flow_run: Optional[str],
) -> None:
    """What a task returned: read from where it is kept, which has to be within reach.

    Reading it unpickles what is there and, if that does not say enough, the flow. Unpickling runs code that the file
    asks for, so read only results of flows that you trust. A mapped task's is the list of its children's.
    """
    if location_only and (as_json or output):
        raise click.UsageError("--location reads nothing, so there is nothing for --json or --output.")
    task_run = sought_task_run(task_run_id, slug, map_index, **flow_run)
    if location_only:
        _print_locations(task_run)
        return
    terminal = Terminal(stderr=True)
    # otherwise there is nothing to read; and a PrefectResult is JSON, in the state itself
    if task_run.state.is_successful() and task_run.result_type != "PrefectResult":
        what = "results of the children" if task_run.state.is_mapped() else "result"
        kept = plain(task_run.result_location or f"the {what} of {task_run.task_slug}")
        terminal.print(f"Reading {kept}: this unpickles it or the flow, which can run code.")
    with terminal.status("Reading..."):
        value = task_run.get_result(if_failed=None, if_skipped=None) if skip_failed else task_run.get_result()
    if output:
        output.write(value if isinstance(value, bytes) and not as_json else _text(value, as_json).encode())
    else:
        click.echo(in_json(value) if as_json else plain_lines(pprint.pformat(value)))


def _print_locations(task_run: TaskRunView) -> None:
    missing: List[TaskRunView] = []
    for each in task_run.iter_mapped() if task_run.state.is_mapped() else [task_run]:
        if each.result_location is None:
            missing.append(each)
        else:
            click.echo(plain(each.result_location))
    if missing:
        more = f" and of {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise NotThere(
            f"No location is known of the result of {slug_of(missing[0])}, which is in state {missing[0].state_name}"
            f"{more}. Tasks keep none if they returned None, did not succeed, or have no `Result`."
        )


def _text(value: Any, as_json: bool) -> str:
    if as_json:
        return in_json(value)
    return value if isinstance(value, str) else pprint.pformat(value) + "\n"


def in_json(value: Any) -> str:
    """A value as JSON; what JSON does not have, as its repr."""
    try:
        return json.dumps(value, default=repr, allow_nan=False)
    except (TypeError, ValueError):
        # keys that JSON does not have, NaN, or a value that contains itself
        return json.dumps(repr(value))
