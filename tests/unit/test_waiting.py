"""How often, and how long, flow runs are looked at."""

import inspect
from datetime import timedelta
from typing import Any

import pytest
from implementations import PREFECT

import prefect_taskrun_tasks as ours
from prefect_taskrun_tasks import errors, waiting


def test_watching_takes_the_arguments_of_prefects_and_two_more() -> None:
    theirs, mine = [
        [(each.name, each.default) for each in inspect.signature(lib.watch_flow_run).parameters.values()]
        for lib in (PREFECT, ours)
    ]
    assert mine[:-2] == theirs
    assert [name for name, _ in mine[-2:]] == ["before_poll", "timeout"]


def test_looking_for_agents_takes_the_arguments_of_prefects() -> None:
    theirs, mine = [
        [(each.name, each.default) for each in inspect.signature(lib.check_for_compatible_agents).parameters.values()]
        for lib in (PREFECT, ours)
    ]
    assert mine == theirs


def test_the_longest_wait_is_prefects() -> None:
    default = inspect.signature(PREFECT.watch_flow_run).parameters["max_duration"].default
    assert default == waiting.LONGEST_WAIT == timedelta(hours=12)


@pytest.mark.parametrize("timeout", [0, -1, 0.0, float("nan"), timedelta(0), timedelta(seconds=-1)])
def test_a_timeout_that_is_over_before_it_begins_is_refused(timeout: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match="longer than 0 s"):
        waiting.Deadline(None, timeout)


@pytest.mark.parametrize("timeout", ["60", True, [60]])
def test_a_timeout_that_is_no_time_is_refused(timeout: Any) -> None:
    with pytest.raises(errors.WrongType, match="number of seconds or a timedelta"):
        waiting.Deadline(None, timeout)


def test_a_timeout_is_in_seconds_or_a_timedelta_and_goes_before_the_longest_duration() -> None:
    for timeout in (60, 60.0, timedelta(minutes=1)):
        assert 50 < waiting.Deadline(timedelta(hours=12), timeout).left <= 60


def test_no_limit_is_none() -> None:
    assert waiting.Deadline(None).left == float("inf")
