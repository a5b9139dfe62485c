"""Data: flow runs that have piled up, written straight into a backend's database.

Whatever their number, each is of the same size, those that are at work or waiting are as many, and all else grows with
it: versions of flows, children of flow runs, what failed, was cached, or was left behind.
"""

import random
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Callable, Dict, Iterator, List, Tuple
from uuid import UUID

from sqlalchemy import Table

from prefect_taskrun_tasks.server import tables
from prefect_taskrun_tasks.server.clock import instant, now
from prefect_taskrun_tasks.server.database import Database
from prefect_taskrun_tasks.server.rules.children import LINEAGE
from prefect_taskrun_tasks.server.sqlite_file import SqliteFile
from prefect_taskrun_tasks.server.transaction import Transaction

Row = Dict[str, Any]

#: Tasks of each flow, one after the other, the last of which is mapped, and its children
TASKS, CHILDREN = 10, 40

#: Task runs of each flow run
TASK_RUNS = TASKS + CHILDREN

#: Flow runs at the end of which some wait, some are at work, and some are to start much later
WAITING, WORKING, LATER = 3, 3, 3

#: Flow runs that have not finished, and those of which somebody who follows has not heard
BUSY, LATELY = WAITING + WORKING + LATER, 10

#: Flow runs in which a parent has children, itself included
FAMILY = 4

#: Every so many flow runs, one has failed and left a task run behind that was to be tried again, and one was cached
FAILED, CACHED = 10, 7

#: Versions of most flows; one flow is registered anew for every so many flow runs
VERSIONS, RUNS_PER_VERSION = 3, 10

#: Flow runs for each of the other flows
RUNS_PER_FLOW = 40

#: Agents that have ever been started
AGENTS = 20

#: Seconds from one flow run to the next
APART = 60

#: Flow runs that are written at once
CHUNK = 200

#: SQLite's memory while it writes, in KB: ids are random, and so would be its way through the file
CACHE = 1_000_000

PROJECT, OTHER_PROJECT = "reports", "models"
OFTEN_REGISTERED = "daily"
MAPPED, PLAIN = f"inc-{TASKS}", "inc-1"
CACHE_KEY = "by-day"

_VERSION = {"__version__": "1.4.1"}
_STORAGE = {"type": "Local", "directory": "/flows", "secrets": [], "flows": {}, **_VERSION}
_RUN_CONFIG = {"type": "UniversalRun", "env": {}, "labels": ["reports"], **_VERSION}


@dataclass(frozen=True)
class Known:
    """One finished flow run with children, and all that somebody who asks for it may know."""

    tenant_id: str
    project_id: str
    agent_id: str
    flow_id: str
    flow_group_id: str
    #: that of the flow with the most versions
    often_registered_id: str
    #: the version of that flow which is not archived
    current_flow_id: str
    flow_run_id: str
    flow_run_name: str
    idempotency_key: str
    #: of its children
    child_ids: List[str]
    #: of a task that is not mapped, and of one that is
    task_id: str
    mapped_task_id: str
    #: of its task runs, those of tasks before those of children
    task_run_ids: List[str]
    #: when it began, in the middle of its log, and when it had ended
    created: str
    middle: str
    ended: str
    #: when nearly all that there is was over
    lately: str
    #: flow runs that an agent may start, and that it is told the more of
    queued_ids: List[str]


def _serialized(name: str) -> Row:
    """A state as Prefect serializes it, with what most of them have."""
    result = {"type": "LocalResult", "dir": "/results", "location": f"day/{name}.prefect", **_VERSION}
    return {
        "type": name,
        "message": "Done.",
        "context": {"tags": []},
        "cached_inputs": {},
        "_result": result,
        **_VERSION,
    }


class _Ids:
    """Random ids that are the same each time."""

    def __init__(self) -> None:
        self._random = random.Random(1)

    def __call__(self) -> str:
        return str(UUID(int=self._random.getrandbits(128), version=4))


@dataclass(frozen=True)
class _Flow:
    """A version of a flow."""

    id: str
    group_id: str
    #: ids of its tasks
    tasks: List[str]


@dataclass(frozen=True)
class _Family:
    """A flow run and its children."""

    number: int
    flow: _Flow
    run: Row
    task_run_ids: List[str]
    child_ids: List[str]


def create(database: Database, flow_runs: int, report: Callable[[str], Any] = lambda line: None) -> List[Known]:
    """Writes so many flow runs with 50 task runs each.

    Args:
        database: a new one.
        flow_runs: how many.
        report: called with how far it has come.

    Returns:
        What is known of each of them that has finished and whose children have.
    """
    begun = time.perf_counter()
    with database.write() as tx:
        tx.connection.exec_driver_sql(f"PRAGMA cache_size = -{CACHE}")
        made = _Made(tx, flow_runs)
        # made at the end, they take half as long
        indexes = [index for table in tables.metadata.sorted_tables for index in table.indexes]
        for index in indexes:
            index.drop(tx.connection)
        made.insert_flows()
        for start in range(0, flow_runs, CHUNK):
            numbers = range(start, min(start + CHUNK, flow_runs))
            made.insert_flow_runs(numbers)
            report(f"{numbers.stop * TASK_RUNS:,} task runs after {time.perf_counter() - begun:.0f} s")
        for index in indexes:
            index.create(tx.connection)
        report(f"{flow_runs * TASK_RUNS:,} task runs, and indexes, after {time.perf_counter() - begun:.0f} s")
    assert isinstance(database.store, SqliteFile)
    database.store.checkpoint()
    return made.known()


class _Made:
    def __init__(self, tx: Transaction, flow_runs: int) -> None:
        self._tx = tx
        self._new_id = _Ids()
        self._count = flow_runs
        self._end = datetime.now(timezone.utc)
        self._tenant_id = tx.rows(tables.tenant.select())[0]["id"]
        self._flows: List[_Flow] = []
        self._families: List[_Family] = []
        self._queued: List[str] = []

    def _at(self, number: int, seconds: float = 0) -> str:
        """An instant in the course of a flow run."""
        ago = (self._count - number) * APART - seconds
        return instant(self._end - timedelta(seconds=ago))

    def insert_flows(self) -> None:
        projects = {name: self._new_id() for name in (PROJECT, OTHER_PROJECT)}
        self._project_id = projects[PROJECT]
        self._tx.insert_many(
            tables.project,
            [{"id": id, "tenant_id": self._tenant_id, "name": name} for name, id in projects.items()],
        )
        self._agents = [self._new_id() for _ in range(AGENTS)]
        self._tx.insert_many(
            tables.agent,
            [
                {
                    "id": id,
                    "tenant_id": self._tenant_id,
                    "name": f"agent-{number}",
                    "type": "LocalAgent",
                    "core_version": "1.4.1",
                    "labels": ["reports"],
                    "last_queried": now(),
                }
                for number, id in enumerate(self._agents)
            ],
        )
        self._often_registered = self._insert_versions(OFTEN_REGISTERED, 1 + self._count // RUNS_PER_VERSION)[-1]
        for number in range(2 + self._count // RUNS_PER_FLOW):
            self._flows += self._insert_versions(f"flow-{number}", VERSIONS)

    def _insert_versions(self, name: str, versions: int) -> List[_Flow]:
        group_id, version_group_id = self._new_id(), self._new_id()
        settings = {"heartbeat_enabled": True, "lazarus_enabled": True, "version_locking_enabled": False}
        self._tx.insert(
            tables.flow_group, id=group_id, tenant_id=self._tenant_id, name=version_group_id, settings=settings
        )
        slugs = [f"inc-{number}" for number in range(1, TASKS + 1)]
        serialized = {
            "name": name,
            "tasks": [{"slug": slug, "name": "inc", "type": "flows.Inc", **_VERSION} for slug in slugs],
            "edges": [],
            "parameters": [],
            "storage": _STORAGE,
            **_VERSION,
        }
        made = [_Flow(self._new_id(), group_id, [self._new_id() for _ in slugs]) for _ in range(versions)]
        self._tx.insert_many(
            tables.flow,
            [
                {
                    "id": flow.id,
                    "tenant_id": self._tenant_id,
                    "project_id": self._project_id,
                    "flow_group_id": group_id,
                    "name": name,
                    "version": version,
                    "version_group_id": version_group_id,
                    "archived": version < versions,
                    "serialized_flow": serialized,
                    "storage": _STORAGE,
                    "run_config": _RUN_CONFIG,
                    "core_version": "1.4.1",
                    "created": self._at(version * RUNS_PER_VERSION % self._count),
                }
                for version, flow in enumerate(made, 1)
            ],
        )
        self._tx.insert_many(
            tables.task,
            [
                {
                    "id": id,
                    "tenant_id": self._tenant_id,
                    "flow_id": flow.id,
                    "name": "inc",
                    "slug": slug,
                    "mapped": slug == MAPPED,
                    "cache_key": CACHE_KEY if slug == PLAIN else None,
                }
                for flow in made
                for slug, id in zip(slugs, flow.tasks)
            ],
        )
        self._tx.insert_many(
            tables.edge,
            [
                {
                    "tenant_id": self._tenant_id,
                    "flow_id": flow.id,
                    "upstream_task_id": upstream,
                    "downstream_task_id": downstream,
                    "key": "x",
                }
                for flow in made
                for upstream, downstream in zip(flow.tasks, flow.tasks[1:])
            ],
        )
        return made

    def insert_flow_runs(self, numbers: range) -> None:
        rows: Dict[Table, List[Row]] = {
            table: []
            for table in (
                tables.flow_run,
                tables.flow_run_state,
                tables.task_run,
                tables.task_run_state,
                tables.log,
            )
        }
        for number in numbers:
            self._add_flow_run(rows, number)
        for table, added in rows.items():
            self._tx.insert_many(table, added)

    def _add_flow_run(self, rows: Dict[Table, List[Row]], number: int) -> None:
        left, flow = self._count - number, self._flows[number % len(self._flows)]
        names, due = ["Scheduled", "Submitted", "Running", "Success" if number % FAILED else "Failed"], None
        if left <= LATER:
            names, due = names[:1], self._at(number, 365 * 24 * 3600)
        elif left <= LATER + WAITING:
            names, due = names[:1], self._at(number)
        elif left <= BUSY:
            names = names[:3]
        is_child = number % FAMILY > 0
        parent = self._families[-1] if is_child else None
        run = {
            **self._run(names, number, 30),
            "flow_id": flow.id,
            "agent_id": None,
            "name": f"brave-otter-{number}",
            "context": {LINEAGE: {"parent_flow_run_id": parent.run["id"]}} if parent else {},
            "parameters": {"day": number},
            "labels": ["reports"],
            "run_config": _RUN_CONFIG,
            "state_start_time": due,
            "scheduled_start_time": due or self._at(number),
            "auto_scheduled": False,
            "idempotency_key": f"{parent.task_run_ids[0]}-{number}" if parent else f"run-{number}",
            "times_resurrected": 0,
        }
        rows[tables.flow_run].append(run)
        rows[tables.flow_run_state] += self._states("flow_run_id", run, names, number, 30)
        ids: List[str] = []
        for task_run, history in self._task_runs(number, flow, run):
            ids.append(task_run["id"])
            rows[tables.task_run].append(task_run)
            rows[tables.task_run_state] += self._states("task_run_id", task_run, history, number, 10)
        rows[tables.log] += self._logs(number, run["id"], ids)
        if parent:
            parent.child_ids.append(run["id"])
        else:
            self._families.append(_Family(number, flow, run, ids, []))
        if LATER < left <= BUSY:
            self._queued.append(run["id"])

    def known(self) -> List[Known]:
        return [
            Known(
                tenant_id=self._tenant_id,
                project_id=self._project_id,
                agent_id=self._agents[0],
                flow_id=family.flow.id,
                flow_group_id=family.flow.group_id,
                often_registered_id=self._often_registered.group_id,
                current_flow_id=self._often_registered.id,
                flow_run_id=family.run["id"],
                flow_run_name=family.run["name"],
                idempotency_key=family.run["idempotency_key"],
                child_ids=family.child_ids,
                task_id=family.flow.tasks[0],
                mapped_task_id=family.flow.tasks[-1],
                task_run_ids=family.task_run_ids,
                created=family.run["created"],
                middle=self._at(family.number, TASK_RUNS / 4),
                ended=self._at(family.number, APART),
                lately=self._at(self._count - LATELY),
                queued_ids=self._queued,
            )
            for family in self._families
            if family.number + FAMILY <= self._count - BUSY
        ]

    def _run(self, names: List[str], number: int, seconds: float) -> Row:
        """What a run of either kind has, after a history of states with so many seconds between them."""
        at = [self._at(number, seconds * index / 4) for index in range(len(names))]
        has_begun, has_ended = "Running" in names, names[-1] in ("Success", "Failed", "Cached", "Mapped")
        return {
            "id": self._new_id(),
            "tenant_id": self._tenant_id,
            "version": len(names),
            "heartbeat": at[-1] if has_begun else None,
            "start_time": at[names.index("Running")] if has_begun else None,
            "end_time": at[-1] if has_ended else None,
            "state": names[-1],
            "state_message": "Done.",
            "state_timestamp": at[-1],
            "serialized_state": _serialized(names[-1]),
            "created": at[0],
            "updated": at[-1],
        }

    def _states(self, key: str, run: Row, names: List[str], number: int, seconds: float) -> Iterator[Row]:
        for version, name in enumerate(names, 1):
            timestamp = self._at(number, seconds * (version - 1) / 4)
            yield {
                "id": self._new_id(),
                "tenant_id": self._tenant_id,
                key: run["id"],
                "timestamp": timestamp,
                "state": name,
                "message": "Done.",
                "start_time": None,
                "serialized_state": _serialized(name),
                "version": version,
                "created": timestamp,
                "updated": timestamp,
            }

    def _task_runs(self, number: int, flow: _Flow, run: Row) -> Iterator[Tuple[Row, List[str]]]:
        places = [(task_id, -1) for task_id in flow.tasks] + [(flow.tasks[-1], index) for index in range(CHILDREN)]
        for place, (task_id, map_index) in enumerate(places):
            due = None
            if run["state"] == "Scheduled":
                names = ["Pending"]
            elif run["state"] == "Failed" and place == len(places) - 1:
                # its process was killed
                names, due = ["Pending", "Running", "Retrying"], self._at(number, 20)
            elif place == 0 and number % CACHED == 0:
                names = ["Pending", "Running", "Cached"]
            elif place == TASKS - 1:
                names = ["Pending", "Mapped"]
            else:
                names = ["Pending", "Running", "Success"]
            task_run = {
                **self._run(names, number, 10),
                "flow_run_id": run["id"],
                "task_id": task_id,
                "map_index": map_index,
                "name": None,
                "state_start_time": due,
                "cache_key": CACHE_KEY if place == 0 else None,
            }
            yield task_run, names

    def _logs(self, number: int, flow_run_id: str, task_run_ids: List[str]) -> Iterator[Row]:
        for line in range(TASK_RUNS // 2):
            timestamp = self._at(number, line)
            yield {
                "id": self._new_id(),
                "tenant_id": None,
                "flow_run_id": flow_run_id,
                "task_run_id": task_run_ids[line] if line % 2 else None,
                "timestamp": timestamp,
                "name": "prefect.CloudTaskRunner",
                "level": "INFO",
                "message": f"Task 'inc': finished task run for task with final state: 'Success' ({line})",
                "info": None,
                "is_loaded_from_archive": None,
                "created": timestamp,
                "updated": timestamp,
            }
