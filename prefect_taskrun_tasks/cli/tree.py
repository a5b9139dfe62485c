"""``prefect-taskrun tree``."""

from typing import Dict, List, Optional

import click
from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from ..views import FlowRunView
from ..views.span import Span
from ..waiting import watch_family
from .look import Look, flow_run_argument, patiently, sought_flow_run
from .terminal import Terminal, at, counted, lasted, log_to, plain, state_text


@click.command(
    cls=Look,
    short_help="A flow run, its children, and theirs.",
    epilog="""\b
Examples:
    $ prefect-taskrun tree
    $ prefect-taskrun tree brave-otter --watch
""",
)
@flow_run_argument
@click.option("-w", "--watch", is_flag=True, help="Go on until all of them have finished.")
def tree(watch: bool, **flow_run: Optional[str]) -> None:
    """FLOW_RUN (default: the newest), the flow runs that it created, and those that they did, with their states.

    With --watch the exit code is 1 if FLOW_RUN did not succeed.
    """
    root = sought_flow_run(**flow_run)
    terminal = Terminal()
    if not watch:
        terminal.print(family_tree(root))
        return
    family = _draw_again(root, terminal) if terminal.is_terminal else _tell_changes(root, terminal)
    if not family[0].state.is_successful():
        raise SystemExit(1)


def family_tree(root: FlowRunView) -> Tree:
    """A flow run, its children, and theirs, as a picture."""
    return _drawn([root, *root.iter_descendants()])


def _draw_again(root: FlowRunView, terminal: Terminal) -> List[FlowRunView]:
    with Live(console=terminal, auto_refresh=False) as live:
        log_to(terminal)
        for family in watch_family(root):
            with patiently():
                live.update(_drawn(family), refresh=True)
    return family


def _tell_changes(root: FlowRunView, terminal: Terminal) -> List[FlowRunView]:
    """A line for each change, for a file or another program."""
    seen: Dict[str, str] = {}
    for family in watch_family(root):
        for each in family:
            state = type(each.state).__name__
            if seen.get(each.flow_run_id) != state:
                time = at(each.states[-1].timestamp if each.states else None)
                terminal.print(f"{time}  {plain(each.name)}  {plain(each.flow_name)}  {state}")
            seen[each.flow_run_id] = state
    return family


def _drawn(family: List[FlowRunView]) -> Tree:
    counts = FlowRunView.count_task_runs([each.flow_run_id for each in family])
    running = [each.flow_run_id for each in family if each.state.is_running()]
    deferrals = FlowRunView.deferrals_of(running) if running else {}
    names = {each.flow_run_id: each.name for each in family}
    nodes: Dict[str, Tree] = {}
    for each in family:
        label = _label(each, counts.get(each.flow_run_id, {}))
        awaited = [names.get(it.awaits, it.awaits) for it in deferrals.get(each.flow_run_id, ())]
        if awaited:
            label.append(f"  Deferred: waits for {', '.join(map(plain, awaited))}", "yellow")
        parent = nodes.get(each.lineage.parent_flow_run_id) if each.lineage else None
        nodes[each.flow_run_id] = parent.add(label) if parent else Tree(label, guide_style="dim")
    return nodes[family[0].flow_run_id]


def _label(flow_run: FlowRunView, counts: Dict[str, int]) -> Text:
    text = Text.assemble(
        (plain(flow_run.name), "bold"),
        f"  {plain(flow_run.flow_name)}  ",
        state_text(type(flow_run.state).__name__),
        f"  {lasted(Span(flow_run.start_time, flow_run.end_time).duration)}",
    )
    if counts:
        total = sum(counts.values())
        text.append(f"  {total:,} task run{'s' * (total != 1)}: {counted(counts)}", "dim")
    return text
