"""
What can go wrong, as one tree. Each is also the type that Prefect 1.4.1 raises in its place, so that existing `except`
clauses keep working::

    TaskRunError
    +-- WrongType             TypeError, ValueError      an argument of the wrong type
    +-- InvalidArgument       ValueError                 an argument that cannot be meant
    |   +-- WrongParameters   ClientError                parameters that the flow does not know, or lacks
    +-- BackendUnreachable    requests.ConnectionError,  no answer from the Prefect API, however often it is asked
    |                         requests' RetryError
    +-- BadAnswer             ValueError, ClientError    an answer that is none
    |   +-- AnswerCutOff      ChunkedEncodingError       an answer that ends too early
    +-- NotFound              ValueError                 no such flow, flow run or task run
    +-- Ambiguous             ValueError                 more than one where one was meant
    +-- NotMapped             TypeError                  children were asked for of a task run that has none
    +-- NotFinished           ValueError                 the run has not finished, so there is no result yet
    +-- WaitCycle             ValueError                 the run waits, in turn, for the one that waits for it
    +-- WaitTimeout           RuntimeError               the run did not finish in time
    +-- ChildFailed           RuntimeError               a child flow run did not succeed
    +-- ResultUnavailable
        +-- NoResult          TypeError                  the task kept no result
        +-- NoLocation        ValueError                 it is not known where the result is kept
        +-- UnknownResultType TypeError                  kept in a way that only the flow knows, which cannot be loaded
        +-- IncompleteMap     ValueError                 children of a mapped task run are missing
        +-- ResultUnreadable  ValueError                 its location cannot be read
            +-- ResultMissing FileNotFoundError          there is no such file
            +-- ResultCorrupt ValueError                 what is there cannot be decoded
"""

from typing import Any, Tuple

import requests
from prefect.exceptions import ClientError
from requests.exceptions import ChunkedEncodingError, RetryError


class TaskRunError(Exception):
    """Any error of this package."""


class WrongType(TaskRunError, TypeError, ValueError):
    """An argument is of the wrong type."""


class InvalidArgument(TaskRunError, ValueError):
    """An argument cannot be meant as it is."""


class WrongParameters(InvalidArgument, ClientError):
    """The flow has no such parameters, or needs others."""


class BackendUnreachable(TaskRunError, requests.ConnectionError, RetryError):
    """The Prefect API does not answer, or only that it cannot, however often it is asked."""

    #: seconds after which it wants to be asked again; 0 if it has not said so
    retry_after = 0.0


class BadAnswer(TaskRunError, ClientError, ValueError):
    """The Prefect API answered with something that is not an answer.

    Args:
        message: what is wrong with it.
        may_pass: whether the next answer may be another.
    """

    def __init__(self, *message: Any, may_pass: bool = True, **options: Any) -> None:
        super().__init__(*message, **options)
        self.may_pass = may_pass


# in this order, so that it is set up as an error of requests
class AnswerCutOff(ChunkedEncodingError, BadAnswer):
    """The Prefect API's answer ended before it was complete."""


class NotFound(TaskRunError, ValueError):
    """There is no such flow, flow run or task run."""


class Ambiguous(TaskRunError, ValueError):
    """More than one fits where one was meant."""


class NotMapped(TaskRunError, TypeError):
    """The task run is not that of a mapped task."""


class NotFinished(TaskRunError, ValueError):
    """The run has not finished."""


class WaitCycle(TaskRunError, ValueError):
    """The flow run that is waited for waits, in turn, for the one that waits for it."""


class WaitTimeout(TaskRunError, RuntimeError):
    """The flow run did not finish in time."""


class ChildFailed(TaskRunError, RuntimeError):
    """A child flow run did not succeed.

    Args:
        message: why.
        flow_run: a `FlowRunView` of it.
    """

    def __init__(self, message: str, flow_run: Any = None) -> None:
        super().__init__(message)
        #: a `FlowRunView` of the child
        self.flow_run = flow_run

    def __reduce__(self) -> Tuple[Any, ...]:
        return type(self), (self.args[0], self.flow_run)


class ResultUnavailable(TaskRunError):
    """A task run's result cannot be loaded."""


class NoResult(ResultUnavailable, TypeError):
    """The task kept no result."""


class NoLocation(ResultUnavailable, ValueError):
    """The state does not say where the result is kept."""


class UnknownResultType(ResultUnavailable, TypeError):
    """Only the flow knows how the result was kept, and the flow cannot be loaded."""


class IncompleteMap(ResultUnavailable, ValueError):
    """Children of a mapped task run are missing."""


class ResultUnreadable(ResultUnavailable, ValueError):
    """The result's location cannot be read; the cause is the exception that says why."""


class ResultMissing(ResultUnreadable, FileNotFoundError):
    """There is no file at the result's location."""


class ResultCorrupt(ResultUnreadable):
    """What is at the result's location cannot be decoded."""
