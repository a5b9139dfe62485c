"""How often, and how long, flow runs are looked at."""

import inspect
from datetime import timedelta
from queue import SimpleQueue
from typing import Any, Dict

import pendulum
import pytest
from implementations import PREFECT

import prefect_taskrun_tasks as ours
from prefect_taskrun_tasks import errors, waiting
from prefect_taskrun_tasks.waiting import Wait
from prefect_taskrun_tasks.waiting.question import question

NOBODY = "4f6b3c1e-0000-4000-8000-000000000000"


def test_watching_takes_the_arguments_of_prefects_and_three_more() -> None:
    theirs, mine = [
        [(each.name, each.default) for each in inspect.signature(lib.watch_flow_run).parameters.values()]
        for lib in (PREFECT, ours)
    ]
    assert mine[:-3] == theirs
    assert [name for name, _ in mine[-3:]] == ["before_poll", "timeout", "task_run_id"]


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


def row(state: str, version: int) -> Dict[str, Any]:
    return {"id": NOBODY, "version": version, "state": state, "serialized_state": {"type": state}, "context": {}}


def test_two_states_that_have_one_version_are_both_told() -> None:
    # Prefect Server counts versions without a lock
    inbox: Any = SimpleQueue()
    wait = Wait(NOBODY, inbox, slowest=10.0)
    assert wait.see(row("Cancelling", 4), [])
    assert not wait.see(row("Cancelling", 4), [])
    _, variables = question([wait], None)
    [changed] = variables["told"]["_or"]
    assert changed["_or"] == [{"version": {"_neq": 4}}, {"state": {"_neq": "Cancelling"}}]
    assert wait.see(row("Success", 4), [])
    assert inbox.qsize() == 2


def test_logs_are_asked_for_by_what_any_backend_knows_of_them() -> None:
    # Prefect Server's log has no `created` or `updated`
    wait = Wait(NOBODY, SimpleQueue(), slowest=10.0, logs=True)
    for _ in range(2):
        document, variables = question([wait], "2031-01-01T00:00:00+00:00")
        assert "created" not in document + str(variables)
        wait.see(row("Running", 3), [])
    assert {"timestamp": {"_gt": "2031-01-01T00:00:00+00:00"}, "flow_run_id": {"_in": [NOBODY]}} in (
        variables["logs"]["_or"]
    )


@pytest.mark.parametrize("timeout", [None, 1e12, timedelta.max])
def test_a_deadline_that_is_never_over_has_no_end(timeout: Any) -> None:
    assert waiting.Deadline(None, timeout).end is None


def test_a_deadline_ends_by_the_clock_when_its_seconds_are_over() -> None:
    end = waiting.Deadline(None, 60).end
    assert end is not None
    assert 59 < (end - pendulum.now("utc")).total_seconds() <= 60
