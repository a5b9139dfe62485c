"""Text on a terminal, or for another program: colours, widths, and nothing that a name can do to either."""

import logging
import sys
from datetime import datetime, timedelta
from typing import Any, Iterator, List, Mapping, Optional, Tuple

from prefect.engine.state import Cancelled, Cancelling, Failed, Running, Scheduled, Skipped, Submitted, Success
from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.text import Text

from ..views import TaskRunView
from ..views.arguments import STATES

#: The first that fits a state's class has the colour, of the sixteen that people choose to be legible
_COLORS = (
    (Failed, "red"),
    (Skipped, "cyan"),
    (Success, "green"),
    ((Cancelled, Cancelling), "magenta"),
    ((Running, Submitted), "blue"),
    (Scheduled, "yellow"),
)

#: Characters of a line for another program, which has no edge to keep to
NO_EDGE = 100_000


class Terminal(Console):
    """Standard output or standard error. What is printed is text, and not markup or an escape sequence."""

    def __init__(self, stderr: bool = False) -> None:
        stream = sys.stderr if stderr else sys.stdout
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=False)
        if not self.is_terminal:
            self.width, self.soft_wrap = NO_EDGE, True

    def render(self, renderable: Any, options: Optional[ConsoleOptions] = None) -> Iterator[Segment]:
        # all that is printed passes through here, whoever has made it: names, ids and messages come from a backend
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                lines = (plain(line) for line in segment.text.split("\n"))
                yield Segment("\n".join(lines), segment.style)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def log_to(terminal: Terminal) -> None:
    """What Prefect's loggers say goes there, and not to standard output, where a result may be."""
    logging.getLogger("prefect").handlers = [_Lines(terminal)]


class _Lines(logging.Handler):
    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        self._terminal.print(plain_lines(record.getMessage()), style="yellow")


def plain(text: str) -> str:
    """A text on one line; what would move the cursor, or turn the direction of writing, as an escape sequence."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in _whole(text))


def plain_lines(text: str) -> str:
    """The same, on as many lines as it has."""
    return "\n".join(map(plain, _whole(text).expandtabs().splitlines()))


def _whole(text: str) -> str:
    # halves of surrogate pairs cannot be written
    return text.encode("utf-8", "backslashreplace").decode()


def state_text(state: str) -> Text:
    kind = STATES.get(state, object)
    return Text(plain(state), next((color for kinds, color in _COLORS if issubclass(kind, kinds)), ""))


def task_state_text(task_run: TaskRunView) -> Text:
    """The same of a task run, which may be put off: then it waits for a flow run without a process."""
    return Text("Deferred", "yellow") if task_run.deferral else state_text(task_run.state_name)


def most_first(counts: Mapping[str, int]) -> List[Tuple[str, int]]:
    """Names of states and how many runs are in them, if any are."""
    return sorted(((state, number) for state, number in counts.items() if number), key=lambda it: (-it[1], it[0]))


def counted(counts: Mapping[str, int]) -> str:
    """The same as a text."""
    return ", ".join(f"{number:,} {plain(state)}" for state, number in most_first(counts))


def at(time: Optional[datetime]) -> str:
    """A time, as the clock on the wall shows it."""
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}" if time else "-"


def lasted(duration: Optional[timedelta]) -> str:
    """A duration in its two largest units, such as ``1m 05s``."""
    if duration is None:
        return "-"
    seconds = max(0.0, duration.total_seconds())
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}h"
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m {rest:02}s" if minutes else f"{rest}s"
