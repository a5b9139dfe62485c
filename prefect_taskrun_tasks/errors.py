"""
What can go wrong, as one tree. Each is also the built-in type that Prefect 1.4.1 raises in its place, so that existing
`except` clauses keep working::

    TaskRunError
    +-- BackendUnreachable    requests.ConnectionError   no answer from the Prefect API
    +-- BadAnswer             ValueError                 an answer that is none
    +-- NotFound              ValueError                 no such flow, flow run or task run
    +-- Ambiguous             ValueError                 more than one where one was meant
    +-- NotFinished           ValueError                 the run has not finished, so there is no result yet
    +-- WaitTimeout           RuntimeError               the run did not finish in time
    +-- ResultUnavailable
        +-- NoResult          TypeError                  the task kept no result
        +-- NoLocation        ValueError                 it is not known where the result is kept
        +-- UnknownResultType TypeError                  kept by a `Result` class that is not Prefect's
        +-- IncompleteMap     ValueError                 children of a mapped task run are missing
"""

import requests


class TaskRunError(Exception):
    """Any error of this package."""


class BackendUnreachable(TaskRunError, requests.ConnectionError):
    """The Prefect API does not answer."""


class BadAnswer(TaskRunError, ValueError):
    """The Prefect API answered with something that is not an answer."""


class NotFound(TaskRunError, ValueError):
    """There is no such flow, flow run or task run."""


class Ambiguous(TaskRunError, ValueError):
    """More than one fits where one was meant."""


class NotFinished(TaskRunError, ValueError):
    """The run has not finished."""


class WaitTimeout(TaskRunError, RuntimeError):
    """The flow run did not finish in time."""


class ResultUnavailable(TaskRunError):
    """A task run's result cannot be loaded."""


class NoResult(ResultUnavailable, TypeError):
    """The task kept no result."""


class NoLocation(ResultUnavailable, ValueError):
    """The state does not say where the result is kept."""


class UnknownResultType(ResultUnavailable, TypeError):
    """The result was kept by a `Result` class that is not one of Prefect's."""


class IncompleteMap(ResultUnavailable, ValueError):
    """Children of a mapped task run are missing."""
