"""
What happens without being asked: the rules on a clock.

Each service is a plain function on a transaction, which does one pass; `Services` calls them at their intervals.
Conditions and numbers are those of Prefect Server's scheduler, lazarus and zombie killer.
"""

import logging
import math
import threading
import time
from collections import Counter
from typing import Any, Callable, Dict, List, Optional, Set

from sqlalchemy import Select, and_, or_, select

from . import tables
from .clock import ago
from .database import Database
from .rules import logs, schedules, states
from .transaction import Row, Transaction

logger = logging.getLogger(__name__)

#: Seconds without a heartbeat after which a flow run's process is taken for dead
HEARTBEAT_TIMEOUT = 600

#: Seconds that passes under way may take when the backend stops
GRACE = 5.0

#: Seconds that a pass writes, until others may
TURN = 0.25

#: Seconds that flow runs have for a heartbeat when the machine is awake again after it was suspended: two of Prefect's
#: intervals
AWAKE = 60.0

#: How often lazarus starts one flow run again
RESURRECTIONS = 3

_NOT_LOST = ("Scheduled", "Paused", "Resume", "Retrying", "Running", "Cancelling")


def _silent(statement: "Select[tuple[Row]]") -> "Select[tuple[Row]]":
    """Of the runs selected, those whose flow run has stopped sending heartbeats."""
    return statement.where(tables.flow_run.c.heartbeat <= ago(HEARTBEAT_TIMEOUT))


def _is_enabled(tx: Transaction, flow_run: Row, *settings: str) -> bool:
    flow = tx.get(tables.flow, flow_run["flow_id"])
    group = tx.get(tables.flow_group, flow["flow_group_id"]) if flow else None
    return group is not None and all(group["settings"].get(name, True) for name in settings)


def _log(tx: Transaction, level: str, message: str, flow_run_id: str, task_run_id: Optional[str] = None) -> None:
    row = {"flow_run_id": flow_run_id, "task_run_id": task_run_id, "level": level, "message": message}
    logs.write_run_logs(tx, [{**row, "name": "prefect-taskrun server"}])


def _each(tx: Transaction, statement: Any, work: Callable[[Row], Any], done: Optional[Set[str]]) -> bool:
    """Does the work for each row; one that fails, such as a flow with a broken schedule, does not stop the others.

    Args:
        tx: the transaction.
        statement: which selects the rows.
        work: what to do with each.
        done: the ids of those that are done, to which others are added until it is the turn of others to write; None
            to do all at once.

    Returns:
        Whether some may be left.
    """
    until = math.inf if done is None else time.monotonic() + TURN
    known = set() if done is None else done
    for row in tx.rows(statement):
        if row["id"] in known:
            continue
        known.add(row["id"])
        try:
            with tx.attempt():
                work(row)
        except Exception:
            if tx.connection.invalidated:
                # none of the others can be done either
                raise
            logger.exception("%s was left out", row["id"])
        # after one at least, however long it took to find
        if time.monotonic() > until:
            return True
    return False


def schedule(tx: Transaction, done: Optional[Set[str]] = None) -> bool:
    """Creates the flow runs that active schedules ask for next."""
    flows = tables.flow
    active = select(flows.c.id).where(flows.c.is_schedule_active.is_(True), flows.c.archived.is_(False))
    return _each(tx, active, lambda flow: schedules.schedule_flow_runs(tx, flow["id"]), done)


def lazarus(tx: Transaction, done: Optional[Set[str]] = None) -> bool:
    """Starts flow runs again whose process has gone and whose task runs will not bring them back."""
    runs, task_runs = tables.flow_run, tables.task_run
    alive = select(task_runs.c.flow_run_id).where(task_runs.c.state.in_(_NOT_LOST))
    # what else may bring it back would not bring back what is Submitted
    stuck = select(task_runs.c.flow_run_id).where(
        task_runs.c.state == "Submitted", task_runs.c.state_timestamp <= ago(HEARTBEAT_TIMEOUT)
    )
    running = select(task_runs.c.flow_run_id).where(task_runs.c.state == "Running")
    is_lost = or_(runs.c.id.not_in(alive), and_(runs.c.id.in_(stuck), runs.c.id.not_in(running)))
    lost = select(runs).where(runs.c.state.in_(("Running", "Submitted")), is_lost)
    return _each(tx, _silent(lost).order_by(runs.c.updated).limit(500), lambda run: _resurrect(tx, run), done)


def _resurrect(tx: Transaction, run: Row) -> None:
    if not _is_enabled(tx, run, "heartbeat_enabled", "lazarus_enabled"):
        return
    if run["times_resurrected"] < RESURRECTIONS:
        attempt = run["times_resurrected"] + 1
        tx.update(tables.flow_run, tables.flow_run.c.id == run["id"], times_resurrected=attempt)
        states.set_start(tx, run["id"], "Rescheduled by a Lazarus process.")
        _log(tx, "INFO", f"Rescheduled by a Lazarus process. This is attempt {attempt}.", run["id"])
    else:
        message = f"Flow run was rescheduled {RESURRECTIONS} times by a Lazarus process, and was lost each time."
        _fail(tx, run["id"], message)


def kill_zombies(tx: Transaction, done: Optional[Set[str]] = None) -> bool:
    """Ends what was running in a process that has gone: task runs are retried or failed, cancelling is finished."""
    runs, task_runs = tables.flow_run, tables.task_run
    orphans = select(task_runs).join(runs, runs.c.id == task_runs.c.flow_run_id).where(task_runs.c.state == "Running")
    cancelling = _silent(select(runs).where(runs.c.state == "Cancelling"))
    return _each(tx, _silent(orphans).limit(5000), lambda task_run: _end_zombie(tx, task_run), done) or _each(
        tx, cancelling, lambda run: _end_cancelling(tx, run), done
    )


def _end_cancelling(tx: Transaction, run: Row) -> None:
    if _is_enabled(tx, run, "heartbeat_enabled"):
        _fail(tx, run["id"], "No heartbeat detected from the flow run while it was being cancelled.")


def _end_zombie(tx: Transaction, task_run: Row) -> None:
    flow_run = tx.get(tables.flow_run, task_run["flow_run_id"])
    task = tx.get(tables.task, task_run["task_id"])
    if flow_run is None or task is None or not _is_enabled(tx, flow_run, "heartbeat_enabled"):
        return
    retries = states.count_of(tx, states.TASK_RUN, task_run["id"], "Retrying")
    message = "No heartbeat detected from the remote task"
    if flow_run["state"] == "Running" and retries < (task["max_retries"] or 0):
        hours, minutes, seconds = (int(part) for part in (task["retry_delay"] or "0:0:0").split(":"))
        state: states.State = {
            "type": "Retrying",
            "message": f"{message}; retrying.",
            "run_count": retries + 1,
            "start_time": ago(-(hours * 3600 + minutes * 60 + seconds)),
        }
    else:
        state = {"type": "Failed", "message": f"{message}; marking the run as failed."}
    states.record(tx, states.TASK_RUN, task_run, state)
    _log(tx, "ERROR", state["message"], flow_run["id"], task_run["id"])


def _fail(tx: Transaction, flow_run_id: str, message: str) -> None:
    states.set_flow_run_states(tx, [{"flow_run_id": flow_run_id, "state": {"type": "Failed", "message": message}}])
    _log(tx, "ERROR", message, flow_run_id)


Pass = Callable[[Transaction, Optional[Set[str]]], bool]

#: Seconds between the starts of two passes
INTERVALS: Dict[Pass, float] = {schedule: 150, lazarus: 600, kill_zombies: 120}


class Services:
    """Runs each service at its interval in a thread, until stopped.

    Args:
        database: what they work on.
        intervals: service -> seconds.
    """

    def __init__(self, database: Database, intervals: Dict[Pass, float]) -> None:
        self._database = database
        self._stopped = threading.Event()
        self.names = [service.__name__ for service in intervals]
        #: passes by name, each of which only the service's own thread counts
        self.runs: Counter[str] = Counter()
        #: those that failed
        self.failures: Counter[str] = Counter()
        self._threads: List[threading.Thread] = [
            threading.Thread(target=self._loop, args=item, name=item[0].__name__, daemon=True)
            for item in intervals.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        until = time.monotonic() + GRACE
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def run(self, service: Pass) -> None:
        """One pass, in short transactions between which others can write. A failure undoes the last of them."""
        self.runs[service.__name__] += 1
        done: Set[str] = set()
        is_more = True
        try:
            while is_more and not self._stopped.is_set():
                begun = time.monotonic()
                with self._database.write() as tx:
                    is_more = service(tx, done)
                if is_more:
                    self._stopped.wait(time.monotonic() - begun)
        except Exception:
            self.failures[service.__name__] += 1
            logger.exception("A pass of the service %r failed; the next one is due as ever", service.__name__)

    def _loop(self, service: Pass, interval: float) -> None:
        due, asleep = time.monotonic() + interval, _asleep()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            if _asleep() > asleep + AWAKE:
                # flow runs that slept as well have not been able to say that they are alive
                due, asleep = time.monotonic() + AWAKE, _asleep()
                continue
            due = time.monotonic() + interval
            self.run(service)


def _asleep() -> float:
    """Seconds that the machine has been suspended for, but for a constant, or by which its clock was set ahead."""
    return time.time() - time.monotonic()
