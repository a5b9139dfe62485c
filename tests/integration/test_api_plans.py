"""What the API's reads and writes cost as flow runs pile up: by SQLite's plans, and by its steps, not by the time."""

import json
import re
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

import pytest
from sqlalchemy import event

from benchmarks import many_flow_runs
from benchmarks.many_flow_runs import Known
from benchmarks.reads import READS, Asked
from prefect_taskrun_tasks.server import services, tables
from prefect_taskrun_tasks.server.api import Api
from prefect_taskrun_tasks.server.database import Database
from prefect_taskrun_tasks.server.rules.children import LINEAGE

#: Flow runs in the two databases
FEW, MANY = 40, 160

#: Tables with a row for each tenant, project, agent and hook that somebody has made, of which runs do not make more; an
#: agent that starts again is the one that it was
SMALL = {"tenant", "project", "agent", "agent_config", "cloud_hook"}

#: What is gone through in the order of an index until there are enough rows, which is after the first few
WALKED = {"page, newest": "flow_run"}

_OF_ONE_FLOW_RUN = "what one flow run has, of which there are no more when there are more flow runs"
_OF_THOSE_ASKED_FOR = "what the flow runs have that are asked for"

#: What may be sorted, and why it is bounded
SORTED = {
    "R8 flow by name": "flows of one name that are not archived: one for each project",
    "R8 flow of project": "flows of one name that are not archived: one for each project",
    "queue": "flow runs that wait for an agent, or are at work: sorted, because all those for other labels are skipped",
    "flow of flow run": "one flow",
    "flow run by key": "runs of the versions of one flow with one key: one, or one for each version",
    "children": _OF_ONE_FLOW_RUN,
    "children of several": _OF_THOSE_ASKED_FOR,
    "watch": _OF_THOSE_ASKED_FOR,
    "task runs of several": _OF_THOSE_ASKED_FOR,
    "task runs not begun": _OF_ONE_FLOW_RUN,
    "task runs, changed": _OF_ONE_FLOW_RUN,
    "tasks of a flow run": "the tasks of one flow",
    "logs of a task run": "the lines of one task run",
    "logs of a name": _OF_THOSE_ASKED_FOR,
}

_STATE = {"message": "Done.", "context": {}, "cached_inputs": {}, "__version__": "1.4.1"}

#: Mutations, and their inputs
WRITES: Dict[str, Callable[[Known], Any]] = {
    "create_flow_run": lambda it: {
        "flow_id": it.current_flow_id,
        "idempotency_key": "new",
        "context": {LINEAGE: {"parent_flow_run_id": it.flow_run_id, "parent_close_policy": "cancel"}},
    },
    "set_flow_run_states": lambda it: {
        "states": [{"flow_run_id": it.flow_run_id, "state": {"type": "Running", **_STATE}}]
    },
    "set_task_run_states": lambda it: {
        "states": [{"task_run_id": it.task_run_ids[0], "state": {"type": "Running", **_STATE}}]
    },
    "get_or_create_task_run_info": lambda it: {
        "flow_run_id": it.flow_run_id,
        "task_id": it.mapped_task_id,
        "map_index": many_flow_runs.CHILDREN,
    },
    "update_flow_run_heartbeat": lambda it: {"flow_run_id": it.flow_run_id},
    "update_task_run_heartbeat": lambda it: {"task_run_id": it.task_run_ids[0]},
    "write_run_logs": lambda it: {
        "logs": [{"flow_run_id": it.flow_run_id, "task_run_id": it.task_run_ids[0], "message": "x"}]
    },
    "create_task_run_artifact": lambda it: {"task_run_id": it.task_run_ids[0], "kind": "link", "data": {"link": "x"}},
    # with all children that are to be cancelled too
    "cancel_flow_run": lambda it: {"flow_run_id": it.flow_run_id},
}

_PAYLOADS = {
    "set_flow_run_states": "states { id status }",
    "set_task_run_states": "states { id status }",
    "write_run_logs": "success",
    "update_flow_run_heartbeat": "success",
    "update_task_run_heartbeat": "success",
    "cancel_flow_run": "state",
}


class Statement(NamedTuple):
    sql: str
    parameters: Any


class PiledUp:
    """A database in which so many flow runs have piled up, and what is known of two of them.

    Requests are about the first, and the second is for the one that cancels it, after which others would be refused.
    """

    def __init__(self, database: Database, known: List[Known]) -> None:
        self.database, self._all_known = database, known
        self.known, self.cancelled = known[len(known) // 2 :][:2]
        self._api = Api(database)

    @classmethod
    def new(cls, path: Path, flow_runs: int) -> "PiledUp":
        database = Database(f"sqlite:///{path}")
        return cls(database, many_flow_runs.create(database, flow_runs))

    def copy(self, directory: Path) -> "PiledUp":
        path = directory / Path(self.database.store.path).name
        with self._opened() as here, closing(sqlite3.connect(path)) as there:
            here.backup(there)
        return PiledUp(Database(f"sqlite:///{path}"), self._all_known)

    def ask(self, document: str, variables: Any) -> List[Statement]:
        """The SQL with which a request is answered."""
        body = json.dumps({"query": document, "variables": json.dumps(variables)})
        with self.statements() as sent:
            status, answer = self._api.answer(body.encode(), {"x-prefect-agent-id": self.known.agent_id})
        assert (status, list(answer)) == (200, ["data"]), answer
        assert sent
        return sent

    @contextmanager
    def statements(self) -> Iterator[List[Statement]]:
        """The SQL that a block sends."""
        sent: List[Statement] = []

        def note(connection: Any, cursor: Any, sql: str, parameters: Any, context: Any, is_many: bool) -> None:
            if not sql.startswith(("BEGIN", "PRAGMA", "SAVEPOINT", "RELEASE")):
                sent.append(Statement(sql, parameters[0] if is_many else parameters))

        event.listen(self.database.store.engine, "before_cursor_execute", note)
        yield sent
        event.remove(self.database.store.engine, "before_cursor_execute", note)

    def plan(self, statement: Statement) -> List[str]:
        with self._opened() as connection:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {statement.sql}", statement.parameters)
            return [str(row[3]) for row in plan]

    def steps(self, statement: Statement) -> int:
        """Of SQLite's virtual machine; looking something up by an index is one, whatever the index's size."""
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1

        with self._opened() as connection:
            # reads the schema, which takes steps too
            connection.execute(f"EXPLAIN {statement.sql}", statement.parameters)
            connection.set_progress_handler(count, 1)
            connection.execute(statement.sql, statement.parameters).fetchall()
        return steps

    def _opened(self) -> Any:
        return closing(sqlite3.connect(self.database.store.path))


@pytest.fixture(scope="module")
def few_and_many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuple[PiledUp, PiledUp]]:
    directory = tmp_path_factory.mktemp("plans")
    few, many = (PiledUp.new(directory / f"{flow_runs}.db", flow_runs) for flow_runs in (FEW, MANY))
    yield few, many
    few.database.close()
    many.database.close()


@pytest.fixture(scope="module")
def to_write(
    few_and_many: Tuple[PiledUp, PiledUp], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tuple[PiledUp, PiledUp]]:
    """The same for writes: a flow run that is running, and one that is to be cancelled."""
    directory = tmp_path_factory.mktemp("written")
    few, many = (each.copy(directory) for each in few_and_many)
    for each in few, many:
        each.ask(*_write("set_flow_run_states", each.known))
    yield few, many
    few.database.close()
    many.database.close()


def scanned(plan: List[str]) -> List[str]:
    """The tables that grow and are gone through."""
    found = [re.match(r"SCAN (?:TABLE )?(\w+?)(?:_\d+)?(?: |$)", step) for step in plan]
    names = {match.group(1) for match in found if match}
    return sorted(names & set(tables.metadata.tables) - SMALL)


def is_sorted(plan: List[str]) -> bool:
    return any("USE TEMP B-TREE" in step for step in plan)


def assert_flat(
    databases: Tuple[PiledUp, PiledUp], asked: Callable[[PiledUp], Asked], walked: str, sorts: bool
) -> None:
    """A request goes through no table that grows, but by indexes, and takes as many steps where there is more.

    Args:
        databases: one with less, and one with more in it.
        asked: document and variables.
        walked: a table that it goes through all the same.
        sorts: whether it sorts something.
    """
    costs: List[int] = []
    for each in databases:
        statements = each.ask(*asked(each))
        plans = [each.plan(statement) for statement in statements]
        assert [table for plan in plans for table in scanned(plan) if table != walked] == [], plans
        # what is sorted no more must not be said to be
        assert any(is_sorted(plan) for plan in plans) == sorts, plans
        costs.append(sum(each.steps(statement) for statement in statements if statement.sql.startswith("SELECT")))
    # random ids may take some more or less
    assert costs[1] <= 1.05 * costs[0] + 10, plans


@pytest.mark.parametrize("name", READS)
def test_a_read_costs_as_much_when_there_is_more(few_and_many: Tuple[PiledUp, PiledUp], name: str) -> None:
    assert_flat(few_and_many, lambda it: READS[name](it.known), WALKED.get(name, ""), name in SORTED)


@pytest.mark.parametrize("name", WRITES)
def test_a_write_costs_as_much_when_there_is_more(to_write: Tuple[PiledUp, PiledUp], name: str) -> None:
    """Those that come while a flow runs; registering one is seldom, and looks at all its versions."""
    is_cancelled = name == "cancel_flow_run"
    assert_flat(to_write, lambda it: _write(name, it.cancelled if is_cancelled else it.known), "", False)


def _write(name: str, known: Known) -> Asked:
    document = f"mutation($input: {name}_input!) {{ {name}(input: $input) {{ {_PAYLOADS.get(name, 'id')} }} }}"
    return document, {"input": WRITES[name](known)}


@pytest.mark.parametrize("service", [services.lazarus, services.kill_zombies])
def test_a_service_goes_by_indexes(few_and_many: Tuple[PiledUp, PiledUp], service: services.Pass) -> None:
    _, many = few_and_many
    with many.statements() as sent, many.database.write() as tx:
        service(tx)
    plans = [many.plan(statement) for statement in sent]
    assert plans
    assert [table for plan in plans for table in scanned(plan)] == [], plans


def test_what_is_gone_through_and_what_is_sorted_is_seen(few_and_many: Tuple[PiledUp, PiledUp]) -> None:
    """That this can fail."""
    _, many = few_and_many
    plan = many.plan(Statement("SELECT * FROM task_run AS task_run_1 ORDER BY task_run_1.heartbeat", ()))
    assert scanned(plan) == ["task_run"], plan
    assert is_sorted(plan), plan
    assert scanned(many.plan(Statement("SELECT count(*) FROM flow_run", ()))) == ["flow_run"]
    assert scanned(many.plan(Statement("SELECT * FROM tenant", ()))) == []
