"""Prefect's schedules when the clocks change, against the rules of pytz. They are the same on every Python."""

import json
from datetime import datetime, time, timedelta
from importlib.metadata import version
from itertools import islice
from typing import Any, Iterator, List

import pendulum
import pytest
import pytz
from prefect.schedules import Schedule, adjustments, filters
from prefect.schedules.clocks import Clock, CronClock, DatesClock, IntervalClock
from prefect.serialization.schedule import ScheduleSchema

#: north and south, at midnight, at other hours, by half an hour, with rules that are newer than 2020
ZONES = [
    "Europe/Berlin",
    "Europe/Lisbon",
    "America/New_York",
    "America/St_Johns",
    "America/Santiago",
    "Africa/Cairo",
    "Asia/Jerusalem",
    "Australia/Sydney",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
]
QUARTER = timedelta(minutes=15)

#: croniter 6, the last release for Python 3.8, also has an event when clocks skip half an hour, as they do there
HALF_HOUR = "Australia/Lord_Howe" if version("croniter").startswith("6.") else ""


def changes(zone: str) -> List[datetime]:
    """When the clocks of a zone change in 2027, in UTC."""
    found = [at for at in pytz.timezone(zone)._utc_transition_times if at.year == 2027]
    assert len(found) == 2
    return found


def wall_clock(zone: str, at: datetime) -> datetime:
    return pytz.timezone(zone).fromutc(at).replace(tzinfo=None)


def cron_times(zone: str, start: datetime, is_due: Any) -> Iterator[datetime]:
    """When cron is due, in UTC: once for each time on the clocks; if they show it twice, at the second."""
    latest = {}
    for step in range(5 * 24 * 4):
        shown = wall_clock(zone, start + step * QUARTER)
        if is_due(shown):
            latest[shown] = start + step * QUARTER
    return iter(sorted(latest.values()))


def events(clock: Clock, after: datetime, count: int) -> List[datetime]:
    after = pendulum.instance(after, tz="UTC") - timedelta(seconds=1)
    found = islice(clock.events(after=after), count)
    return [datetime.fromisoformat(event.start_time.in_timezone("UTC").naive().isoformat()) for event in found]


@pytest.mark.parametrize("zone", ZONES)
def test_an_hourly_cron_clock_follows_the_clocks_of_its_zone(zone: str) -> None:
    for change in changes(zone):
        start = (change - timedelta(hours=30)).replace(minute=0)
        clock = CronClock("0 * * * *", start_date=pendulum.instance(start, tz="UTC").in_timezone(zone))
        expected = islice(cron_times(zone, start, lambda shown: shown.minute == 0), 60)
        found = [at for at in events(clock, start, 61) if zone != HALF_HOUR or at != change]
        assert found[:60] == list(expected)


@pytest.mark.parametrize("zone", ZONES)
def test_a_daily_cron_clock_keeps_its_hour(zone: str) -> None:
    for change in changes(zone):
        start = (change - timedelta(hours=30)).replace(minute=0)
        clock = CronClock("0 6 * * *", start_date=pendulum.instance(start, tz="UTC").in_timezone(zone))
        expected = islice(cron_times(zone, start, lambda shown: shown.time() == time(6)), 4)
        assert events(clock, start, 4) == list(expected)


@pytest.mark.parametrize("zone", ZONES)
def test_an_interval_of_an_hour_has_equal_steps_and_one_of_a_day_keeps_its_hour(zone: str) -> None:
    for change in changes(zone):
        before = change - timedelta(hours=6)
        hours = IntervalClock(timedelta(hours=1), start_date=pendulum.instance(before, tz="UTC").in_timezone(zone))
        assert events(hours, before, 12) == [before + timedelta(hours=hour) for hour in range(12)]
        noon = pendulum.instance(before, tz="UTC").in_timezone(zone).start_of("day").add(hours=12).subtract(days=2)
        start = datetime.fromisoformat(noon.in_timezone("UTC").naive().isoformat())
        shown = [wall_clock(zone, at) for at in events(IntervalClock(timedelta(days=1), start_date=noon), start, 5)]
        assert shown == [wall_clock(zone, start) + timedelta(days=day) for day in range(5)]


SCHEDULES = {
    "interval": lambda start: Schedule([IntervalClock(timedelta(minutes=90), start_date=start)]),
    "interval that ends": lambda start: Schedule(
        [IntervalClock(timedelta(days=1), start_date=start, end_date=start.add(days=30))]
    ),
    "cron": lambda start: Schedule([CronClock("*/20 3 * * *", start_date=start, labels=["a"])]),
    "cron of days and weekdays": lambda start: Schedule([CronClock("0 9 1-7 * 5", start_date=start, day_or=False)]),
    "dates": lambda start: Schedule([DatesClock([start.add(days=day) for day in (1, 2, 40)])]),
    "several clocks": lambda start: Schedule(
        [
            IntervalClock(timedelta(hours=5), start_date=start, parameter_defaults={"x": 1}),
            CronClock("30 7 * * 1-5", start_date=start, parameter_defaults={"x": 2}),
        ]
    ),
    "filters": lambda start: Schedule(
        [IntervalClock(timedelta(hours=1), start_date=start)],
        filters=[filters.is_weekday],
        or_filters=[
            filters.between_times(pendulum.time(9), pendulum.time(9)),
            filters.between_times(pendulum.time(17), pendulum.time(17)),
        ],
        not_filters=[filters.between_dates(3, 29, 4, 1), filters.is_month_end],
    ),
    "adjustments": lambda start: Schedule(
        [IntervalClock(timedelta(days=1), start_date=start)], adjustments=[adjustments.next_weekday]
    ),
}


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_schedule_that_was_serialized_has_the_same_events(kind: str, zone: str) -> None:
    start = pendulum.datetime(2027, 3, 10, 9, tz=zone)
    schedule = SCHEDULES[kind](start)
    loaded = ScheduleSchema().load(json.loads(json.dumps(ScheduleSchema().dump(schedule))))
    found = schedule.next(20, after=start, return_events=True)
    assert found
    assert loaded.next(20, after=start, return_events=True) == found
    assert [event.labels for event in loaded.next(2, after=start, return_events=True)] == [
        event.labels for event in found[:2]
    ]
