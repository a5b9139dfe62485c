"""``prefect-taskrun completion``."""

import click
from click.shell_completion import get_completion_class


@click.command(
    short_help="What makes your shell complete commands and options.",
    epilog="""\b
Examples:
    $ prefect-taskrun completion bash >> ~/.bashrc
    $ prefect-taskrun completion zsh >> ~/.zshrc
    $ prefect-taskrun completion fish > ~/.config/fish/completions/prefect-taskrun.fish
""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes SHELL complete commands, options and names of states."""
    kind = get_completion_class(shell)
    assert kind is not None
    root = context.find_root()
    click.echo(kind(root.command, {}, "prefect-taskrun", "_PREFECT_TASKRUN_COMPLETE").source())
