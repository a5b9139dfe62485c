"""``prefect-taskrun version``."""

import json
from importlib import metadata

import click

from ..environment import environment


@click.command(
    short_help="Versions of Python, Prefect and pendulum, and repairs.",
    epilog="""\b
Examples:
    $ prefect-taskrun version
    $ prefect-taskrun version --json
""",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def version(as_json: bool) -> None:
    """Print what a bug report needs: versions, time zone rules, active repairs of Prefect, and the backend."""
    facts = {"prefect-taskrun-tasks": metadata.version("prefect-taskrun-tasks"), **environment()}
    if as_json:
        names = {name: name.replace(" ", "_").replace("-", "_") for name in facts}
        click.echo(json.dumps({names[name]: fact for name, fact in facts.items()}, indent=2))
        return
    width = max(map(len, facts))
    for name, fact in facts.items():
        click.echo(f"{name:<{width}}  {fact}")
