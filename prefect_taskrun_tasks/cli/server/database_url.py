"""Which database a command is about."""

from pathlib import Path
from typing import Any, Callable, TypeVar

import click
import prefect

Command = TypeVar("Command", bound=Callable[..., Any])


def _default() -> str:
    home = Path(prefect.config.home_dir).expanduser()
    home.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{home / 'prefect-taskrun.db'}"


def database_url_option(help: str) -> Callable[[Command], Command]:
    """The option ``--database-url``."""
    place = "Default: sqlite:/// and prefect-taskrun.db in Prefect's home folder."
    return click.option("--database-url", default=_default, help=f"{help} {place}")
