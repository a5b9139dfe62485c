"""What the embedded backend needs besides this package."""

from contextlib import contextmanager
from typing import Iterator

import click


@contextmanager
def needs_server_extra() -> Iterator[None]:
    """Says what to install where the embedded backend's dependencies are missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"The embedded backend needs {error.name}, which is not installed. Install it with:\n"
            "    pip install 'prefect-taskrun-tasks[server]'"
        ) from error
