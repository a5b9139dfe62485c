"""Which database a command is about."""

from pathlib import Path
from typing import Any, Callable, TypeVar

import click
import prefect

#: The environment variable for a URL that is not in a command line
VARIABLE = "PREFECT_TASKRUN_DATABASE_URL"

Command = TypeVar("Command", bound=Callable[..., Any])


def _default() -> str:
    home = Path(prefect.config.home_dir).expanduser()
    home.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{home / 'prefect-taskrun.db'}"


def database_url_option(help: str) -> Callable[[Command], Command]:
    """The option ``--database-url``."""
    place = (
        f"sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/DATABASE. Default: what is in the environment variable "
        f"{VARIABLE}, where others do not see a password, or prefect-taskrun.db in Prefect's home folder."
    )
    return click.option("--database-url", default=_default, envvar=VARIABLE, metavar="URL", help=f"{help} {place}")
