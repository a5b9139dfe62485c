"""``prefect-taskrun list``."""

import json
from itertools import islice
from typing import Callable, Iterator, List, NamedTuple, Optional, Tuple

import click
from rich.text import Text

from ..views import TaskRunView
from ..views.arguments import STATES
from ..views.span import Span, spans
from .look import Look, flow_run_argument, sought_flow_run
from .record import record
from .terminal import Terminal, at, lasted, plain, task_state_text

#: Task runs that are laid out together
PAGE = 500

#: Of an id on a terminal that is not wide; nearly always enough to name a task run by
FEW_DIGITS = 8

#: In which a run can be
_STATES = sorted(name for name in STATES if name not in ("State", "_MetaState", "Finished"))


class Column(NamedTuple):
    title: str
    shows: Callable[[TaskRunView, Span], Text]
    #: characters that a terminal must be wide for it
    at_width: int = 0


_SLUG = Column("SLUG", lambda it, span: Text(slug_of(it)))
_STATE = Column("STATE", lambda it, span: task_state_text(it))
_STARTED = Column("STARTED", lambda it, span: Text(at(span.start)), 64)
_RUNTIME = Column("RUNTIME", lambda it, span: Text(lasted(span.duration)), 40)
_SHORT_ID = Column("ID", lambda it, span: Text(it.task_run_id[:FEW_DIGITS]), 50)
_ID = Column("ID", lambda it, span: Text(it.task_run_id))
_MESSAGE = Column("MESSAGE", lambda it, span: Text(plain(it.state_message or "")))

NARROW = (_SLUG, _STATE, _STARTED, _RUNTIME, _SHORT_ID)
WIDE = (_SLUG, _STATE, _STARTED, _RUNTIME, _ID, _MESSAGE)

#: Characters from which on a terminal is wide
WIDE_ENOUGH = 140


@click.command(
    "list",
    cls=Look,
    short_help="Task runs of a flow run.",
    epilog="""\b
Examples:
    What the newest flow run is doing
    $ prefect-taskrun list --state Running
\b
    Children of a mapped task that failed, by the beginning of the flow run's name
    $ prefect-taskrun list brave --slug load-1 --mapped --state Failed
\b
    For scripts
    $ prefect-taskrun list 8e445d74 --json | jq '.[].runtime'
    $ prefect-taskrun list -o name | xargs -n 1 prefect-taskrun info --id
""",
)
@flow_run_argument
@click.option(
    "--state",
    "states",
    multiple=True,
    metavar="STATE",
    type=click.Choice(_STATES, case_sensitive=False),
    help="Only those in this state, such as Failed. May be given several times.",
)
@click.option("--slug", metavar="SLUG", help="Only those of this task.")
@click.option("--mapped/--not-mapped", default=None, help="Only children of mapped tasks, or only the others.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "json", "name"]),
    default="table",
    show_default=True,
    help="How: wide adds ids and messages, name prints ids alone.",
)
@click.option("--json", "output", flag_value="json", help="The same as --output json.")
def list_task_runs(
    flow_run: Optional[str],
    flow_run_id: Optional[str],
    flow_run_name: Optional[str],
    states: Tuple[str, ...],
    slug: Optional[str],
    mapped: Optional[bool],
    output: str,
) -> None:
    """Task runs of FLOW_RUN, in the order in which they started.

    FLOW_RUN is an id, a name, or the beginning of one; default: the newest flow run.
    """
    sought = sought_flow_run(flow_run, flow_run_id, flow_run_name, slug)
    if slug:
        slug = sought.find_task_run(slug).task_slug
    task_runs = sought.iter_task_runs(task_slug=slug, state=states or None, mapped=mapped)
    if output == "json":
        _print_json(task_runs)
    elif output == "name":
        for task_run in task_runs:
            click.echo(plain(task_run.task_run_id))
    else:
        _print_table(task_runs, is_wide=output == "wide")


def slug_of(task_run: TaskRunView) -> str:
    """Its task's slug, and which child it is."""
    return plain(task_run.task_slug) + ("" if task_run.map_index < 0 else f"[{task_run.map_index}]")


def _pages(task_runs: Iterator[TaskRunView]) -> Iterator[List[Tuple[TaskRunView, Span]]]:
    """Task runs with the times that are shown of them, in pages; the first may be empty."""
    page = list(islice(task_runs, PAGE))
    while True:
        known = spans(page)
        yield [(task_run, known[task_run.task_run_id]) for task_run in page]
        page = list(islice(task_runs, PAGE))
        if not page:
            return


def _print_json(task_runs: Iterator[TaskRunView]) -> None:
    # one array, written as it comes
    separator = "["
    for page in _pages(task_runs):
        for task_run, span in page:
            click.echo(separator + json.dumps(record(task_run, span)), nl=False)
            separator = ",\n "
    click.echo("]" if separator != "[" else "[]")


def _print_table(task_runs: Iterator[TaskRunView], is_wide: bool) -> None:
    terminal = Terminal()
    known = WIDE if is_wide or terminal.width >= WIDE_ENOUGH else NARROW
    columns = [column for column in known if terminal.width >= column.at_width]
    widths = [0] * len(columns)
    rows = [[Text(column.title) for column in columns]]
    for page in _pages(task_runs):
        rows += [[column.shows(task_run, span) for column in columns] for task_run, span in page]
        # columns grow from page to page where they must
        widths = _widths(rows, widths, terminal.width)
        lines = [_line(row, widths) for row in rows]
        terminal.print(Text("\n").join(lines), no_wrap=True, overflow="ellipsis")
        rows = []


def _line(row: List[Text], widths: List[int]) -> Text:
    slug, *cells, last = row
    cells = [_cut(slug, widths[0]), *cells]
    for cell, width in zip(cells, widths):
        cell.pad_right(width - cell.cell_len)
    line = Text("  ").join([*cells, last])
    line.rstrip()
    return line


def _cut(slug: Text, width: int) -> Text:
    """At its end it says which child it is, so that it is cut before that."""
    if slug.cell_len <= width:
        return slug
    name, bracket, index = slug.plain.rpartition("[")
    end = bracket + index if bracket else ""
    cut = Text(name if bracket else slug.plain)
    cut.truncate(max(1, width - len(end)), overflow="ellipsis")
    return cut.append(end)


def _widths(rows: List[List[Text]], before: List[int], edge: int) -> List[int]:
    slug, *others, last = (max(width, *(cell.cell_len for cell in cells)) for width, cells in zip(before, zip(*rows)))
    # the last column has what is left, and the slug gives way, down to where it says nothing any more
    left = edge - sum(others) - min(last, FEW_DIGITS) - 2 * (len(others) + 1)
    return [max(min(slug, left), 8), *others, last]
