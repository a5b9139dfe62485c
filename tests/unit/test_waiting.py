"""How often, and how long, flow runs are looked at."""

import inspect
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, List

import pytest
from implementations import PREFECT

import prefect_taskrun_tasks as ours
from prefect_taskrun_tasks import waiting


def intervals(slowest: float, polls: int) -> List[float]:
    wait: Any = waiting._poll_interval(slowest)
    return [wait(SimpleNamespace(attempt_number=attempt)) for attempt in range(1, polls + 1)]


@pytest.mark.parametrize("slowest", [10, 5, 0.5, 0.01])
def test_polls_start_close_together_and_never_get_further_apart_than_was_asked_for(slowest: float) -> None:
    found = intervals(slowest, 200)
    assert found[0] <= 0.1
    assert found == sorted(found)
    assert found[-1] == slowest


def test_no_time_between_polls_is_allowed() -> None:
    assert set(intervals(0, 50)) == {0}


def test_a_long_wait_does_not_overflow() -> None:
    assert intervals(10, 100_000)[-1] == 10


def test_watching_takes_the_arguments_of_prefects_and_one_more() -> None:
    theirs, mine = [
        [(each.name, each.default) for each in inspect.signature(lib.watch_flow_run).parameters.values()]
        for lib in (PREFECT, ours)
    ]
    assert mine[:-1] == theirs
    assert mine[-1][0] == "before_poll"


def test_looking_for_agents_takes_the_arguments_of_prefects() -> None:
    theirs, mine = [
        [(each.name, each.default) for each in inspect.signature(lib.check_for_compatible_agents).parameters.values()]
        for lib in (PREFECT, ours)
    ]
    assert mine == theirs


def test_the_longest_wait_is_prefects() -> None:
    default = inspect.signature(PREFECT.watch_flow_run).parameters["max_duration"].default
    assert default == waiting.LONGEST_WAIT == timedelta(hours=12)
