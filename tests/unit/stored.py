"""Flows and runs in a database, as the rules of the embedded backend store them, and what became of them."""

from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Sequence

from sqlalchemy import Table, func, select

from prefect_taskrun_tasks.server import tables
from prefect_taskrun_tasks.server.clock import ago
from prefect_taskrun_tasks.server.database import Database
from prefect_taskrun_tasks.server.rules import flow_runs, flows, states, tenants
from prefect_taskrun_tasks.server.transaction import Row, Transaction


@contextmanager
def transaction(database_url: str, **caller: Any) -> Iterator[Transaction]:
    """A write transaction."""
    database = Database(database_url)
    with database.write(**caller) as tx:
        yield tx
    database.close()


def tenant_id(tx: Transaction) -> str:
    return str(rows(tx, tables.tenant)[0]["id"])


def project_id(tx: Transaction, name: str = "project") -> str:
    """Of the project of that name, which is made if it is not there."""
    found = rows(tx, tables.project, name=name)
    return str(found[0]["id"] if found else tenants.create_project(tx, tenant_id(tx), name)["id"])


def flow_id(tx: Transaction, name: str = "flow", tasks: Sequence[str] = ("a", "b"), **options: Any) -> str:
    """Of a flow that is registered now. `options` are those of `create_flow`, or keys of the serialized flow."""
    arguments = {"project_id", "version_group_id", "set_schedule_active", "description", "idempotency_key"}
    serialized = {
        "name": name,
        "__version__": "1.4.1",
        "tasks": [{"slug": slug, "name": slug} for slug in tasks],
        **{key: value for key, value in options.items() if key not in arguments},
    }
    given = {key: value for key, value in options.items() if key in arguments}
    given.setdefault("project_id", project_id(tx))
    return str(flows.create_flow(tx, serialized, **given)["id"])


def flow_run_id(tx: Transaction, **options: Any) -> str:
    """Of a flow run that is created now, of a new flow unless `options` name one."""
    if "flow_id" not in options and "version_group_id" not in options:
        options["flow_id"] = flow_id(tx)
    return str(flow_runs.create_flow_run(tx, **options)["id"])


def running(tx: Transaction, **options: Any) -> str:
    """The id of a flow run that has just begun to run."""
    id = flow_run_id(tx, **options)
    set_state(tx, id, "Running")
    return id


def rows(tx: Transaction, table: Table, **equal: Any) -> List[Row]:
    """In the order of their making."""
    where = [table.c[name] == value for name, value in equal.items()]
    return tx.rows(select(table).where(*where).order_by(table.c.created))


def count(tx: Transaction, table: Table) -> int:
    return int(tx.connection.execute(select(func.count()).select_from(table)).scalar_one())


def flow_run(tx: Transaction, id: str) -> Row:
    return rows(tx, tables.flow_run, id=id)[0]


def task_run(tx: Transaction, id: str) -> Row:
    return rows(tx, tables.task_run, id=id)[0]


def task_runs(tx: Transaction, flow_run_id: str) -> List[Row]:
    return rows(tx, tables.task_run, flow_run_id=flow_run_id)


def history(tx: Transaction, flow_run_id: str) -> List[str]:
    """The names of the states of a flow run, first to last."""
    return [row["state"] for row in rows(tx, tables.flow_run_state, flow_run_id=flow_run_id)]


def task_history(tx: Transaction, task_run_id: str) -> List[str]:
    return [row["state"] for row in rows(tx, tables.task_run_state, task_run_id=task_run_id)]


def set_state(tx: Transaction, flow_run_id: str, type: str, **more: Any) -> Row:
    state: Dict[str, Any] = {"type": type, **more}
    return states.set_flow_run_states(tx, [{"flow_run_id": flow_run_id, "state": state}])


def set_task_state(tx: Transaction, task_run_id: str, type: str, **more: Any) -> Row:
    state: Dict[str, Any] = {"type": type, **more}
    return states.set_task_run_states(tx, [{"task_run_id": task_run_id, "state": state}])


def no_heartbeat_for(tx: Transaction, flow_run_id: str, seconds: float) -> None:
    """The flow run has been silent for so long."""
    tx.update(tables.flow_run, tables.flow_run.c.id == flow_run_id, heartbeat=ago(seconds))
