"""What goes wrong in a command: messages for people, exit codes for scripts."""

import errno
import os
import signal
import sys
from typing import Any

import click
import requests
from prefect.exceptions import ClientError

from ..errors import (
    Ambiguous,
    BackendUnreachable,
    BadAnswer,
    InvalidArgument,
    NoLocation,
    NoResult,
    NotFound,
    ResultMissing,
    TaskRunError,
)
from .terminal import plain_lines


class NotThere(click.ClickException):
    """There is no such run, or no such result."""

    exit_code = 3


class Unreachable(click.ClickException):
    """The backend does not answer, or only with what is no answer."""

    exit_code = 4


class Group(click.Group):
    """Commands whose errors are told without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # whoever reads has read enough, as `head` does; what is still to be written goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(128 + signal.SIGPIPE) from None
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            raise SystemExit(128 + signal.SIGINT) from None
        except (InvalidArgument, Ambiguous) as error:
            raise click.UsageError(plain_lines(str(error))) from error
        except (NotFound, NoResult, NoLocation, ResultMissing) as error:
            raise NotThere(plain_lines(str(error))) from error
        except (BackendUnreachable, BadAnswer) as error:
            raise Unreachable(plain_lines(str(error))) from error
        except requests.RequestException as error:
            # such as an address that is none, or what a proxy answers; BackendUnreachable is one too
            raise Unreachable(f"The Prefect API cannot be asked: {plain_lines(str(error))}") from error
        except TaskRunError as error:
            raise click.ClickException(plain_lines(str(error))) from error
        except ClientError as error:
            raise click.ClickException(f"The backend refused: {plain_lines(_messages(error))}") from error
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            # nor is what is left to be written when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.ClickException(f"The output cannot be written: {error.strerror}.") from error


def _messages(error: Exception) -> str:
    """The messages of a `ClientError`, whose argument is the list of errors that the backend answered."""
    found = error.args[0] if error.args else ""
    if isinstance(found, list):
        return "; ".join(str(each.get("message", each)) for each in found)
    return str(error)
