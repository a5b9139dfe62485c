"""``prefect-taskrun server``: the embedded backend by itself."""

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional, Tuple

import click
import prefect


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


@click.group(
    short_help="The embedded backend by itself.",
    epilog="""\b
Examples:
    $ prefect-taskrun server start
""",
)
def server() -> None:
    """The embedded backend: Prefect Server's API on SQLite, without Docker."""


@server.command(
    short_help="Start the backend, and serve until interrupted.",
    epilog="""\b
Examples:
    $ prefect-taskrun server start
    $ prefect-taskrun server start --port 4300 --database-url sqlite:///prefect.db
\b
    With an agent that is told of new flow runs at once
    $ prefect-taskrun server start --agent-address http://127.0.0.1:8081
    $ prefect agent local start --agent-address http://127.0.0.1:8081
""",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=4200, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option(
    "--database-url",
    help="Where to keep everything. Default: sqlite:/// and prefect-taskrun.db in Prefect's home folder.",
)
@click.option(
    "--agent-address",
    "agent_addresses",
    multiple=True,
    metavar="URL",
    help="Address of an agent to tell when a flow run is ready. May be given several times.",
)
def start(host: str, port: int, database_url: Optional[str], agent_addresses: Tuple[str, ...]) -> None:
    """Start the backend, and serve until interrupted.

    It prints the environment variables that point Prefect at it. There is no authentication: whoever can reach the
    address can run code through your agents.
    """
    with needs_server_extra():
        from ..server import Backend, DatabaseUnusable, PortUnavailable

    logging.basicConfig(format="[%(asctime)s] %(levelname)s - %(name)s | %(message)s")
    if database_url is None:
        home = Path(prefect.config.home_dir).expanduser()
        home.mkdir(parents=True, exist_ok=True)
        database_url = f"sqlite:///{home / 'prefect-taskrun.db'}"
    try:
        backend = Backend(database_url, host, port, agent_addresses)
    except (DatabaseUnusable, PortUnavailable) as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"Serving the Prefect API at {backend.url}, kept in {database_url}\n\n"
        "Point Prefect at it with:\n"
        "    export PREFECT__BACKEND=server\n"
        f"    export PREFECT__SERVER__ENDPOINT={backend.url}\n"
        f"    export PREFECT__SERVER__UI__ENDPOINT={backend.url}\n\n"
        f"Look at it in a browser: {backend.url}\n\n"
        "Stop it with Ctrl-C."
    )
    try:
        backend.serve()
    except KeyboardInterrupt:
        click.echo("Stopped.")
