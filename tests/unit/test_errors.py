"""Callers' `except` clauses for Prefect's errors keep working."""

from typing import Type

import pytest
import requests
from prefect.exceptions import ClientError

from prefect_taskrun_tasks import errors


@pytest.mark.parametrize(
    ("error", "raised_by_prefect"),
    [
        (errors.BackendUnreachable, requests.ConnectionError),
        (errors.BadAnswer, ValueError),
        (errors.BadAnswer, ClientError),
        (errors.AnswerCutOff, requests.exceptions.ChunkedEncodingError),
        (errors.AnswerCutOff, errors.BadAnswer),
        (errors.NotFound, ValueError),
        (errors.Ambiguous, ValueError),
        (errors.NotMapped, TypeError),
        (errors.NotFinished, ValueError),
        (errors.WaitTimeout, RuntimeError),
        (errors.NoResult, TypeError),
        (errors.NoLocation, ValueError),
        (errors.UnknownResultType, TypeError),
        (errors.IncompleteMap, ValueError),
    ],
)
def test_an_error_is_also_the_one_that_prefect_raises_in_its_place(
    error: Type[Exception], raised_by_prefect: Type[Exception]
) -> None:
    assert issubclass(error, raised_by_prefect)
    assert issubclass(error, errors.TaskRunError)


@pytest.mark.parametrize("error", [errors.NoResult, errors.NoLocation, errors.UnknownResultType, errors.IncompleteMap])
def test_a_result_that_cannot_be_had_is_one_kind_of_error(error: Type[Exception]) -> None:
    assert issubclass(error, errors.ResultUnavailable)


def test_the_tree_at_the_top_of_the_module_names_every_error() -> None:
    defined = [name for name, it in vars(errors).items() if isinstance(it, type) and issubclass(it, Exception)]
    assert defined
    assert [name for name in defined if name not in str(errors.__doc__)] == []
