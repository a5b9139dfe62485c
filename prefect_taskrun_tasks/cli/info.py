"""``prefect-taskrun info``."""

import json
from typing import List, Optional, Tuple

import click
from prefect.engine.state import Retrying
from rich.table import Table
from rich.text import Text

from ..views import FlowRunView, TaskRunView
from ..views.span import spans
from .list import slug_of
from .look import Look, flow_run_argument, sought_task_run, task_run_options
from .record import record
from .terminal import Terminal, at, lasted, plain, state_text, task_state_text


@click.command(
    cls=Look,
    short_help="State, times and result of a task run.",
    epilog="""\b
Examples:
    $ prefect-taskrun info --id c8751f34
    $ prefect-taskrun info --slug say_hello-1 --flow-run-name wily-coyote
    $ prefect-taskrun info --slug load-1 --map-index 2 --json
""",
)
@flow_run_argument
@task_run_options
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def info(
    task_run_id: Optional[str], slug: Optional[str], map_index: Optional[int], as_json: bool, **flow_run: Optional[str]
) -> None:
    """State, times and result of a task run, and what it depends on.

    Name it by --id, or by --slug and its FLOW_RUN (default: the newest that has the task). Of an id, a name or a slug
    the beginning is enough where it is not ambiguous.
    """
    task_run = sought_task_run(task_run_id, slug, map_index, **flow_run)
    states, upstream = task_run.get_states(), task_run.get_upstream()
    span = spans([task_run])[task_run.task_run_id]
    of = FlowRunView.from_flow_run_id(task_run.flow_run_id)
    retries = sum(isinstance(state, Retrying) for state in states)
    if as_json:
        more = {
            "flow_run_name": of.name,
            "retries": retries,
            "states": [{"state": type(each).__name__, "time": each.timestamp.isoformat()} for each in states],
            "upstream": [{"slug": each.task_slug, "state": each.state_name} for each in upstream],
            "parent_flow_run_id": of.lineage and of.lineage.parent_flow_run_id,
        }
        click.echo(json.dumps({**record(task_run, span), **more}, indent=2))
        return
    facts: List[Tuple[str, Text]] = [
        ("State", _state(task_state_text(task_run), task_run.state_message)),
        ("Started", Text(at(span.start))),
        ("Ended", Text(at(span.end))),
        ("Runtime", Text(lasted(span.duration))),
        ("Retries", Text(str(retries))),
        ("Result", Text(_result(task_run))),
        *[("Upstream", Text.assemble(slug_of(each), "  ", state_text(each.state_name))) for each in upstream],
        *[
            ("States", Text.assemble(at(each.timestamp), "  ", _state(state_text(type(each).__name__), each.message)))
            for each in states
        ],
        ("Flow run", _flow_run(of)),
    ]
    if task_run.deferral:
        facts.insert(1, ("Waits for", _flow_run(FlowRunView.from_flow_run_id(task_run.deferral.awaits))))
    if of.lineage:
        facts.append(("Parent", Text(f"flow run {plain(of.lineage.parent_flow_run_id)}")))
    facts.append(("Id", Text(task_run.task_run_id)))
    titles = [title if index == 0 or facts[index - 1][0] != title else "" for index, (title, _) in enumerate(facts)]
    terminal = Terminal()
    terminal.print(Text(slug_of(task_run), "bold"))
    if not terminal.is_terminal:
        # a table would fill each line up with spaces
        for title, (_, value) in zip(titles, facts):
            terminal.print(Text(f"{title:<10}").append(value))
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for title, (_, value) in zip(titles, facts):
        table.add_row(title, value)
    terminal.print(table)


def _state(state: Text, message: Optional[str]) -> Text:
    return Text.assemble(state, f": {plain(message)}" if message else "")


def _result(task_run: TaskRunView) -> str:
    if task_run.result_type is None:
        return "-"
    kept = plain(task_run.result_type)
    if task_run.result_location is None:
        # a task that returned None has nothing to keep
        return f"{kept}, which kept nothing"
    # a PrefectResult is kept in the state itself: its location is its value
    return f"{kept}{':' if kept == 'PrefectResult' else ' at'} {plain(task_run.result_location)}"


def _flow_run(flow_run: FlowRunView) -> Text:
    name = type(flow_run.state).__name__
    return Text.assemble(f"{plain(flow_run.name)} ({flow_run.flow_run_id})  ", state_text(name))
