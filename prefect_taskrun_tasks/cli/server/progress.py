"""How far a command is that takes its time."""

from time import monotonic

import click

#: Seconds until it is said first, and then from one time to the next
INTERVAL = 2.0


class Progress:
    """Says on standard error how many of something are done.

    Args:
        what: is being done, such as ``Deleted flow runs``.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._due = monotonic() + INTERVAL

    def __call__(self, done: int, total: int) -> None:
        if monotonic() >= self._due:
            self._due = monotonic() + INTERVAL
            click.echo(f"{self._what}: {done:,} of {total:,}", err=True)


def size(bytes: int) -> str:
    return f"{bytes / 1_000_000:,.1f} MB"
