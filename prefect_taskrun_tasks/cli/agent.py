"""``prefect-taskrun agent``."""

from typing import Any, Tuple

import click

from .warm import cold_option, preload_option


@click.group(
    epilog="""\b
Examples:
    $ prefect-taskrun agent start
""",
)
def agent() -> None:
    """Execute flow runs on this machine."""


@agent.command(
    short_help="Start a local agent whose flow runs are warm.",
    epilog="""\b
Examples:
    $ prefect-taskrun agent start
    $ prefect-taskrun agent start --label prod --preload pandas
    $ prefect-taskrun agent start --api http://10.0.0.5:4200 --show-flow-logs
""",
)
@click.option("-k", "--key", help="An API key. Default: the one in Prefect's configuration.")
@click.option("--tenant-id", help="The ID of a tenant. Default: that of the key.")
@click.option("-a", "--api", help="The address of the Prefect API. Default: the one in Prefect's configuration.")
@click.option("--agent-config-id", help="The ID of an agent configuration of the backend.")
@click.option("-n", "--name", help="The name of the agent.")
@click.option("-l", "--label", multiple=True, help="A label of flow runs to execute. May be given several times.")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="An environment variable for all flow runs.")
@click.option("--max-polls", type=int, help="How often to ask for flow runs. Default: without limit.")
@click.option("--agent-address", help="Where to serve health checks, such as http://127.0.0.1:8080. Default: nowhere.")
@click.option("--no-cloud-logs", is_flag=True, default=None, help="Do not send the logs of flow runs to the backend.")
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    help="The log level of the agent. Default: the one in Prefect's configuration.",
)
@click.option(
    "-p", "--import-path", "import_paths", multiple=True, metavar="FOLDER", help="A folder that flow runs import from."
)
@click.option("-f", "--show-flow-logs", is_flag=True, help="Print what flow runs print.")
@click.option(
    "--hostname-label/--no-hostname-label", default=True, help="Whether the name of this machine is a label too."
)
@preload_option
@cold_option
def start(import_paths: Tuple[str, ...], preload: Tuple[str, ...], cold: bool, **options: Any) -> None:
    """Start a local agent, with the options of ``prefect agent local start``.

    It works with any Prefect 1 backend. Its flow runs are warm: their processes are forked from one that has imported
    Prefect. A flow run that needs a new interpreter gets one, for example if its run config sets PYTHONHASHSEED.

    A flow run whose process is killed fails or is retried within seconds. Flow runs go on when the agent ends.
    """
    from prefect.cli.agent import start_agent

    from ..agent.warm_agent import WarmAgent
    from ..warm import NotPreloaded, Template, can_fork

    for each in options["env"]:
        if "=" not in each:
            raise click.BadParameter(f"{each!r} is not of the form NAME=VALUE.", param_hint="--env")
    template = None
    warnings = []
    if can_fork() and not cold:
        template = Template(preload, shows_output=options["show_flow_logs"])
        try:
            warnings = template.imported()
        except NotPreloaded as error:
            raise click.ClickException(str(error)) from error

    def warm_agent(**options: Any) -> WarmAgent:
        agent = WarmAgent(template, **options)
        for warning in warnings:
            agent.logger.warning(warning)
        return agent

    start_agent(warm_agent, import_paths=list(import_paths), **options)
