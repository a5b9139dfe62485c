"""Instants in the backend's one text form."""

import time
from datetime import datetime, timedelta, timezone
from typing import List

import pytest

from prefect_taskrun_tasks.server import clock


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T07:18:51.5+00:00",
        "2026-11-22T07:18:51.500000Z",
        "2026-11-22T07:18:51.500Z",
        "2026-11-22T07:18:51.500",
        "2026-11-22 07:18:51.500000",
        "2026-11-22T08:18:51.500000+01:00",
        "2026-11-21T23:18:51.5-08:00",
    ],
)
def test_every_way_to_write_an_instant_becomes_one_text(text: str) -> None:
    """T13, T14: offsets, a Z or neither, and fractions of any length."""
    assert clock.normal(text) == "2026-11-22T07:18:51.500000+00:00"


@pytest.mark.parametrize("text", ["", "soon", "P1D", "2026-13-01", "12:00:99", "2026-01-01T00:00:00+99:00"])
def test_what_is_no_instant_is_an_error(text: str) -> None:
    # each parser has words of its own
    with pytest.raises((ValueError, OverflowError)):
        clock.normal(text)


def test_texts_sort_like_the_instants_they_stand_for() -> None:
    """T13: the client compares them as text."""
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    moments = [start + timedelta(microseconds=each) for each in (0, 1, 10, 999_999, 1_000_000, 500_000, 86_400_000_000)]
    assert sorted(map(clock.instant, moments)) == list(map(clock.instant, sorted(moments)))


def test_a_naive_moment_is_utc_whatever_the_zone_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert clock.instant(datetime(2026, 1, 1, 12)) == "2026-01-01T12:00:00.000000+00:00"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_two_readings_of_the_clock_are_never_the_same() -> None:
    """T19: a history whose timestamps were equal could be read in the wrong order."""
    readings: List[str] = [clock.now() for _ in range(2000)]
    assert readings == sorted(set(readings))


def test_a_clock_that_is_set_back_goes_forward_unless_it_was_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's clock cannot be set by a test, hence the replaced one."""

    noon = datetime(2026, 1, 2, 12, tzinfo=timezone.utc)

    class SetBack(datetime):
        # a little, and so far that nothing would begin until then
        moments = iter([noon, noon - timedelta(seconds=2), noon - timedelta(hours=1)])

        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return next(cls.moments)

    reading = clock.Clock()
    monkeypatch.setattr(clock, "datetime", SetBack)
    read = [reading()[11:] for _ in range(3)]
    assert read == ["12:00:00.000000+00:00", "12:00:00.000001+00:00", "11:00:00.000000+00:00"]


def test_ago_counts_back_from_a_given_instant_and_forward_for_a_negative_number() -> None:
    since = "2026-01-01T00:00:10.000000+00:00"
    assert clock.ago(10, since) == "2026-01-01T00:00:00.000000+00:00"
    assert clock.ago(-1.5, since) == "2026-01-01T00:00:11.500000+00:00"
