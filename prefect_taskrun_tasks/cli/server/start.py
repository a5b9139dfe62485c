"""``prefect-taskrun server start``."""

import gc
import logging
import os
import re
import shlex
import signal
import sys
from math import isnan
from pathlib import Path
from typing import Any, Dict, Optional, Tuple
from urllib.parse import urlsplit

import click

from ..hangup import treat_hangup_as_termination
from .database_url import database_url_option
from .extra import needs_server_extra

#: The environment variable for a key that is in no file
KEY_VARIABLE = "PREFECT_TASKRUN_API_KEY"

#: Seconds after which a thread that computes lets others run; Python's default is 0.005
SWITCH_INTERVAL = 0.001


#: More than 23 days; threads, and databases, can wait for so long
LONGEST = 2_000_000


class Seconds(click.FloatRange):
    """How long something takes, or comes after something else."""

    def __init__(self) -> None:
        super().__init__(0, LONGEST, min_open=True)

    def convert(self, value: Any, option: Optional[click.Parameter], context: Optional[click.Context]) -> Any:
        seconds = super().convert(value, option, context)
        # what is no number is neither too small nor too large
        return self.fail(f"{value!r} is no number of seconds.", option, context) if isnan(seconds) else seconds


SECONDS = Seconds()


def _given(options: Dict[Any, Any]) -> Dict[Any, Any]:
    """Those that are not left to their defaults."""
    return {name: value for name, value in options.items() if value is not None}


def _origins(context: click.Context, option: click.Parameter, urls: Tuple[str, ...]) -> Tuple[str, ...]:
    for url in urls:
        # compared with what browsers say, to the letter
        if not re.fullmatch(r"https?://[^/\s*?#@]+/?", url):
            raise click.BadParameter(
                f"{url!r} is not a site's address, such as https://runs.example or http://host:8080."
            )
    return tuple(url.rstrip("/").lower() for url in urls)


def _addresses(context: click.Context, option: click.Parameter, urls: Tuple[str, ...]) -> Tuple[str, ...]:
    for url in urls:
        try:
            parts = urlsplit(url)
            # a port that is none is an error
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_address = False
        if not is_address or re.search(r"[\s?#@]", url):
            raise click.BadParameter(f"{url!r} is not an agent's address, such as http://127.0.0.1:8081.")
    return urls


def _stopped(number: int, frame: Any) -> None:
    """Says that the backend has ended, which is when it passes the signal on, and ends the process by it."""
    click.echo("Stopped.")
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


@click.command(
    short_help="Start the backend, and serve until interrupted.",
    epilog="""\b
Examples:
    $ prefect-taskrun server start
    $ prefect-taskrun server start --port 4300 --database-url sqlite:///prefect.db
    $ prefect-taskrun server start --database-url postgresql://prefect@db.example/prefect
\b
    With an agent that is told of new flow runs at once
    $ prefect-taskrun server start --agent-address http://127.0.0.1:8081
    $ prefect agent local start --agent-address http://127.0.0.1:8081
\b
    For a team, with a key
    $ (umask 077; python -c 'import secrets; print(secrets.token_urlsafe(32))' > key)
    $ prefect-taskrun server start --host 0.0.0.0 --api-key-file key
""",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; another needs a key.")
@click.option("--port", default=4200, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@database_url_option("Where to keep everything.")
@click.option(
    "--agent-address",
    "agent_addresses",
    multiple=True,
    callback=_addresses,
    metavar="URL",
    help="Address of an agent to tell when a flow run is ready. May be given several times.",
)
@click.option(
    "--api-key-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"File with the key that callers must know; nobody else may be able to read it. Default: the key in the "
    f"environment variable {KEY_VARIABLE}, if there is one.",
)
@click.option(
    "--unguarded", is_flag=True, help="Listen on another address without a key: whoever can reach it can run code."
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="Name by which requests without a key may call the backend, besides those of this machine. "
    "May be given several times.",
)
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    callback=_origins,
    metavar="URL",
    help="Site whose pages may use the API from a browser. May be given several times.",
)
@click.option("--max-body", "body", type=click.IntRange(1), help="Bytes of a request. Default: 32 MiB.")
@click.option("--max-depth", "depth", type=click.IntRange(1), help="Levels of fields in a query. Default: 15.")
@click.option("--max-fields", "fields", type=click.IntRange(1), help="Fields of a query. Default: 2,000.")
@click.option("--max-rows", "rows", type=click.IntRange(1), help="Rows of an answer. Default: 250,000.")
@click.option("--max-answer", "answer", type=click.IntRange(1), help="Characters of an answer. Default: 64 MiB.")
@click.option(
    "--query-timeout",
    "seconds",
    type=SECONDS,
    help="Seconds in which the queries of a request read, and its mutations begin. Default: 30.",
)
@click.option("--scheduler-interval", type=SECONDS, help="Seconds between looks at schedules. Default: 150.")
@click.option("--zombie-killer-interval", type=SECONDS, help="Seconds between looks for dead tasks. Default: 120.")
@click.option("--lazarus-interval", type=SECONDS, help="Seconds between looks for lost flow runs. Default: 600.")
@click.option("--log-level", default="warning", show_default=True, type=click.Choice(["debug", "info", "warning"]))
@click.option(
    "--log-format",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json"]),
    help="Of what goes to standard error: lines for people, or JSON objects, one a line.",
)
def start(
    host: str,
    port: int,
    database_url: str,
    agent_addresses: Tuple[str, ...],
    api_key_file: Optional[Path],
    unguarded: bool,
    allowed_hosts: Tuple[str, ...],
    cors_origins: Tuple[str, ...],
    scheduler_interval: Optional[float],
    zombie_killer_interval: Optional[float],
    lazarus_interval: Optional[float],
    log_level: str,
    log_format: str,
    **limits: Any,
) -> None:
    """Start the backend, and serve until interrupted.

    It prints the environment variables that point Prefect at it. Whoever can use it can run code through your agents:
    without a key, that is whoever is on this machine.
    """
    with needs_server_extra():
        from ...server import (
            ApiKey,
            ApiKeyUnusable,
            Backend,
            DatabaseUnusable,
            Limits,
            PortUnavailable,
            Unguarded,
            memory,
            services,
        )
        from ...server.connection import open_as_many_as_possible
        from ...server.json_lines import JsonLines
        from ...server.text_lines import TextLines

    lines = logging.StreamHandler()
    lines.setFormatter(JsonLines() if log_format == "json" else TextLines())
    logging.basicConfig(level=logging.WARNING, handlers=[lines])
    # what others have to say at these levels would drown it
    logging.getLogger("prefect_taskrun_tasks").setLevel(log_level.upper())
    intervals = {
        services.schedule: scheduler_interval,
        services.kill_zombies: zombie_killer_interval,
        services.lazarus: lazarus_interval,
    }
    try:
        if api_key_file:
            key: Optional[ApiKey] = ApiKey.of_file(api_key_file)
        else:
            # one that is set to nothing is meant to guard, and does not
            key = ApiKey(os.environ[KEY_VARIABLE]) if KEY_VARIABLE in os.environ else None
        if key and unguarded:
            raise click.UsageError("With a key, it is not --unguarded. Leave one of them out.")
        if key and allowed_hosts:
            raise click.UsageError("With a key, requests may call the backend by any name. Leave --allowed-host out.")
        backend = Backend(
            database_url,
            host,
            port,
            agent_addresses,
            api_key=key,
            unguarded=unguarded,
            allowed_hosts=allowed_hosts,
            cors_origins=cors_origins,
            limits=Limits(**_given(limits)),
            intervals=_given(intervals),
        )
    except (ApiKeyUnusable, DatabaseUnusable, PortUnavailable, Unguarded) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Serving the Prefect API at {backend.url}, kept in {backend.kept_in}\n")
    if unguarded:
        click.echo("It is unguarded: whoever can reach this address can run code through your agents.\n", err=True)
    click.echo(
        "Point Prefect at it with:\n"
        "    export PREFECT__BACKEND=server\n"
        f"    export PREFECT__SERVER__ENDPOINT={backend.url}\n"
        f"    export PREFECT__SERVER__UI__ENDPOINT={backend.url}\n"
        # for agents: a heartbeat process would outlive a flow run that is killed, see docs/backend.md
        "    export PREFECT__CLOUD__HEARTBEAT_MODE=thread"
    )
    if key:
        # where to find it, and not the key, which would stay on the screen and in logs
        source = f"$(cat {shlex.quote(str(api_key_file.resolve()))})" if api_key_file else f"${KEY_VARIABLE}"
        click.echo(f'    export PREFECT__CLOUD__API_KEY="{source}"')
    if host == "0.0.0.0":
        click.echo("\nOn other machines, with the name of this one in the place of 0.0.0.0.")
    click.echo(f"\nLook at it in a browser: {backend.url}\n\nStop it with Ctrl-C.")
    # what is there by now stays; looking through all of it again and again would hold every request up each time
    gc.collect()
    gc.freeze()
    # a request waits for the interpreter lock some ten times, each time for as long as this while others compute
    sys.setswitchinterval(SWITCH_INTERVAL)
    memory.give_back_large_at_once()
    open_as_many_as_possible()
    signal.signal(signal.SIGTERM, _stopped)
    treat_hangup_as_termination()
    try:
        backend.serve()
    except KeyboardInterrupt:
        click.echo("Stopped.")
