"""What the embedded backend needs besides this package."""

from contextlib import contextmanager
from typing import Iterator

import click


@contextmanager
def needs_server_extra() -> Iterator[None]:
    """Ends the command with what to install where the embedded backend cannot be imported."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise click.ClickException(str(error)) from error
