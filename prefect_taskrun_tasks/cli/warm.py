"""The options of commands that start flow runs."""

import click

#: ``--preload MODULE``, as ``preload``: a tuple of names
preload_option = click.option(
    "--preload",
    multiple=True,
    metavar="MODULE",
    help="A module to import once, before flow runs start, such as pandas. Flow runs share its memory.",
)

#: ``--cold``
cold_option = click.option(
    "--cold", is_flag=True, help="Start each flow run in a new interpreter, as Prefect's agent does."
)
