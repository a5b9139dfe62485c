"""Data: a finished flow run with a task mapped over many, written straight into a backend's database."""

from pathlib import Path

from prefect.engine.results import LocalResult

from prefect_taskrun_tasks.server import tables
from prefect_taskrun_tasks.server.clock import now
from prefect_taskrun_tasks.server.database import Database
from prefect_taskrun_tasks.server.rules import flow_runs, flows, tenants


def create(database_url: str, children: int, results: Path) -> str:
    """Creates it and returns the flow run's id. The mapped task's slug is ``inc-1``; child i returned i + 1."""
    database = Database(database_url)
    with database.write() as tx:
        tenant = tx.rows(tables.tenant.select())[0]["id"]
        project = tenants.create_project(tx, tenant, f"{children} children")["id"]
        # as Prefect serializes a flow, as far as the views read it
        flow = {
            "name": "mapped",
            "tasks": [{"slug": "inc-1", "name": "inc"}],
            "storage": {"type": "Local", "directory": str(results), "__version__": "1.4.1"},
        }
        flow_id = flows.create_flow(tx, flow, project)["id"]
        flow_run_id = str(flow_runs.create_flow_run(tx, flow_id)["id"])
        run, task = (
            tx.rows(table.select().where(table.c.flow_id == flow_id))[0] for table in (tables.flow_run, tables.task)
        )
        success = {"type": "Success", "message": "Done.", "cached_inputs": {}, "context": {}, "__version__": "1.4.1"}
        mapped = {**success, "type": "Mapped", "n_map_states": children}
        tx.update(tables.flow_run, tables.flow_run.c.id == run["id"], state="Success", serialized_state=success)
        tx.update(tables.task_run, tables.task_run.c.flow_run_id == run["id"], state="Mapped", serialized_state=mapped)
        kept = LocalResult(dir=str(results))
        locations = [kept.copy().write(index + 1, location=f"{children}-{index}").location for index in range(children)]
        result = {"type": "LocalResult", "dir": str(results), "__version__": "1.4.1"}
        tx.insert_many(
            tables.task_run,
            [
                {
                    "flow_run_id": run["id"],
                    "task_id": task["id"],
                    "map_index": index,
                    "state": "Success",
                    "serialized_state": {**success, "_result": {**result, "location": location}},
                    "state_timestamp": now(),
                    "version": 3,
                }
                for index, location in enumerate(locations)
            ],
        )
    database.close()
    return flow_run_id
