"""Schedules: of flows and their groups, and the flow runs that they ask for."""

import hashlib
import json
import re
from typing import Any, Dict, List, Optional, Tuple

from sqlalchemy import func, or_, select

from .. import tables
from ..clock import instant, moment, now
from ..deadline import within
from ..errors import Refused, TookTooLong
from ..transaction import Row, Transaction
from . import flow_groups, states
from .flow_runs import create_flow_run

#: Flow runs that are created ahead, per flow
AHEAD = 10

#: Seconds in which a schedule has to say when they are. Nobody else can write meanwhile, and some look at every second
#: of years for it.
LONGEST_SEARCH = 5.0

#: Name of a zone at a fixed offset, as Prefect serializes it
_OFFSET = re.compile(r"([+-])([01]\d|2[0-3]):([0-5]\d)")


def _flow(tx: Transaction, flow_id: str) -> Row:
    flow = tx.get(tables.flow, flow_id)
    if flow is None:
        raise Refused(f"Flow {flow_id} not found.")
    return flow


def _schedule(tx: Transaction, flow: Row) -> Optional[Dict[str, Any]]:
    group = tx.get(tables.flow_group, flow["flow_group_id"])
    assert group is not None
    schedule: Optional[Dict[str, Any]] = group["schedule"] or flow["schedule"]
    return schedule


def set_schedule_active(tx: Transaction, flow_id: str) -> Row:
    flow = tx.get(tables.flow, flow_id)
    if flow is None or _schedule(tx, flow) is None:
        return {"success": False}
    missing = missing_parameters(tx, flow_id)
    if missing:
        raise Refused(
            f"The schedule of flow {flow['name']!r} cannot be active: a clock gives no value for the required "
            f"parameters {missing}."
        )
    tx.update(tables.flow, tables.flow.c.id == flow_id, is_schedule_active=True)
    schedule_flow_runs(tx, flow_id)
    return {"success": True}


def missing_parameters(tx: Transaction, flow_id: str) -> List[str]:
    """Required parameters without a value in some run that the flow's own schedule will ask for."""
    flow = _flow(tx, flow_id)
    if flow["schedule"] is None:
        return []
    group = tx.get(tables.flow_group, flow["flow_group_id"])
    assert group is not None
    required = {each["name"] for each in flow["parameters"] or [] if each.get("required")}
    missing = required - set(group["default_parameters"] or {})
    return sorted({name for clock in _clocks(flow) for name in missing - set(clock.get("parameter_defaults") or {})})


def _clocks(flow: Row) -> List[Dict[str, Any]]:
    clocks = flow["schedule"].get("clocks") or []
    for clock in clocks if isinstance(clocks, list) else [clocks]:
        if not isinstance(clock, dict) or not isinstance(clock.get("parameter_defaults"), (dict, type(None))):
            raise Refused(f"The schedule of flow {flow['name']!r} cannot be used: {clock!r} is none of its clocks.")
    found: List[Dict[str, Any]] = clocks
    return found


def set_schedule_inactive(tx: Transaction, flow_id: str) -> Row:
    found = tx.update(tables.flow, tables.flow.c.id == flow_id, is_schedule_active=False)
    delete_scheduled_runs(tx, flow_id)
    return {"success": found > 0}


def delete_scheduled_runs(tx: Transaction, flow_id: str) -> None:
    """Deletes the flow runs that a schedule has asked for and that have not started."""
    runs = tables.flow_run
    states.delete(tx, runs, runs.c.flow_id == flow_id, runs.c.auto_scheduled.is_(True), runs.c.state == "Scheduled")


def schedule_flow_runs(tx: Transaction, flow_id: str) -> List[str]:
    """Creates the next flow runs of an active schedule, those that are not there yet. Returns their ids."""
    flow = _flow(tx, flow_id)
    serialized = _schedule(tx, flow)
    if serialized is None or flow["archived"] or not flow["is_schedule_active"]:
        return []
    runs = tables.flow_run
    latest = select(func.max(runs.c.scheduled_start_time)).where(
        runs.c.flow_id == flow_id,
        runs.c.auto_scheduled.is_(True),
        # not one that was cancelled long before its time, for a schedule that was another then
        or_(runs.c.state == "Scheduled", runs.c.scheduled_start_time <= now()),
    )
    after = tx.connection.execute(latest).scalar() or now()
    created = []
    for start, event in _events(flow, serialized):
        key = f"auto-scheduled:{start}"
        if event.parameter_defaults or event.labels:
            # several clocks may ask for different runs at one time
            identity = json.dumps([event.parameter_defaults, event.labels], sort_keys=True, default=str)
            key += ":" + hashlib.md5(identity.encode()).hexdigest()
        elif moment(start) <= moment(after):
            continue
        run = create_flow_run(
            tx,
            flow_id=flow_id,
            scheduled_start_time=start,
            parameters=event.parameter_defaults or None,
            labels=event.labels or None,
            idempotency_key=key,
            auto_scheduled=True,
        )
        created.append(run["id"])
    return created


def _events(flow: Row, serialized: Dict[str, Any]) -> List[Tuple[str, Any]]:
    """What a schedule asks for next, and when."""
    # only here: a backend without schedules does without Prefect's clocks, and the memory for them
    from prefect.serialization.schedule import ScheduleSchema

    try:
        with within(LONGEST_SEARCH):
            schedule = ScheduleSchema().load(_with_fixed_offsets(serialized))
            return [(instant(event.start_time), event) for event in schedule.next(AHEAD, return_events=True)]
    except TookTooLong as error:
        raise Refused(
            f"The schedule of flow {flow['name']!r} cannot be used: its next runs were not found in {LONGEST_SEARCH:g} "
            "seconds. Let it start later, or run less often."
        ) from error
    except Exception as error:
        # its clocks fail with errors of any kind, such as for a date that there is not, or beyond the year 9999
        reason = f"{type(error).__name__}: {error}"
        raise Refused(f"The schedule of flow {flow['name']!r} cannot be used: {reason}") from error


def _with_fixed_offsets(serialized: Any) -> Any:
    """A serialized schedule in which zones such as ``+02:00`` are zones that Prefect can load.

    Prefect writes the zone of a start date by its name, and cannot read the name of one at a fixed offset, such as
    `datetime.now(timezone.utc)` has (`DateTimeTZ` in prefect 1.4.1's utilities/serialization.py).
    """
    if isinstance(serialized, list):
        return [_with_fixed_offsets(each) for each in serialized]
    if not isinstance(serialized, dict):
        return serialized
    zone = serialized.get("tz")
    found = _OFFSET.fullmatch(zone) if "dt" in serialized and isinstance(zone, str) else None
    if found:
        return {**serialized, "tz": _zone(int(f"{found[1]}1"), int(found[2]), int(found[3]))}
    return {key: _with_fixed_offsets(value) for key, value in serialized.items()}


def _zone(sign: int, hours: int, minutes: int) -> Any:
    """The name of a zone at a fixed offset, or its `tzinfo` if it has no name: then a `CronClock` cannot use it."""
    from pendulum.tz import fixed_timezone

    if minutes or not -12 <= sign * hours <= 14:
        return fixed_timezone(sign * (hours * 3600 + minutes * 60))
    # in these names the signs are the other way round
    return f"Etc/GMT{-sign * hours:+}" if hours else "UTC"


def set_flow_group_schedule(
    tx: Transaction,
    flow_group_id: str,
    cron_clocks: Optional[List[Dict[str, Any]]] = None,
    interval_clocks: Optional[List[Dict[str, Any]]] = None,
    timezone: Optional[str] = None,
) -> Row:
    """Gives a flow group a schedule of its own, which replaces that of its flows."""
    import pendulum
    from prefect.serialization.schedule import ScheduleSchema

    if not (cron_clocks or interval_clocks):
        raise Refused("A schedule needs at least one clock.")
    try:
        start = pendulum.now(timezone or "UTC")
        common = {"start_date": {"dt": start.naive().isoformat(), "tz": start.timezone_name}}
        # as Prefect Server stores it, which is what the web UI reads
        clocks = [{"type": "CronClock", **each, **common} for each in cron_clocks or []]
        for each in interval_clocks or []:
            clocks.append({"type": "IntervalClock", **each, "interval": each["interval"] * 1_000_000, **common})
        serialized = {"type": "Schedule", "clocks": clocks}
        ScheduleSchema().load(serialized)
    except Exception as error:
        raise Refused(f"This schedule cannot be used: {error}") from error
    return _replace(tx, flow_group_id, serialized)


def delete_flow_group_schedule(tx: Transaction, flow_group_id: str) -> Row:
    """From now on each flow of the group has its own schedule again, if it has one."""
    return _replace(tx, flow_group_id, None)


def _replace(tx: Transaction, flow_group_id: str, schedule: Any) -> Row:
    for flow in tx.rows(select(tables.flow.c.id).where(tables.flow.c.flow_group_id == flow_group_id)):
        delete_scheduled_runs(tx, flow["id"])
    return flow_groups.update(tx, flow_group_id, schedule=schedule)
