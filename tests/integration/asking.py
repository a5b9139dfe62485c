"""The embedded API without a socket: a caller who asks, and the rows that there are to be asked for."""

import json
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional

from sqlalchemy import event

from prefect_taskrun_tasks.server.api import Api
from prefect_taskrun_tasks.server.database import Database


class Caller:
    """Sends GraphQL to an `Api`, with variables as the Prefect client sends them: as JSON inside the JSON."""

    def __init__(self, database: Database) -> None:
        self.api = Api(database)
        self.database = database
        #: as HTTP headers, by lower-case names
        self.headers: Dict[str, str] = {}

    def post(self, query: Any, variables: Any = None) -> Any:
        """Status and answer; that it can be written as JSON is part of every test."""
        body = json.dumps({"query": query, "variables": json.dumps(variables)})
        status, answer = self.api.answer(body.encode(), self.headers)
        json.dumps(answer, allow_nan=False)
        return status, answer

    def ask(self, query: str, **variables: Any) -> Any:
        """The data of an answer without errors."""
        status, answer = self.post(query, variables)
        assert (status, list(answer)) == (200, ["data"]), answer
        return answer["data"]

    def error(self, query: str, **variables: Any) -> str:
        """The message of an answer with one error."""
        _, answer = self.post(query, variables)
        [error] = answer["errors"]
        assert isinstance(error["extensions"]["code"], str)
        return str(error["message"])

    def mutate(self, name: str, payload: str = "id", /, **input: Any) -> Any:
        """What a mutation answers; of an object with one field, that."""
        query = f"mutation($input: {name}_input!) {{ {name}(input: $input) {{ {payload} }} }}"
        answer = self.ask(query, input=input)[name]
        return answer.get(payload, answer)

    def refused(self, name: str, payload: str = "id", /, **input: Any) -> str:
        """The message with which a mutation is refused."""
        return self.error(f"mutation($input: {name}_input!) {{ {name}(input: $input) {{ {payload} }} }}", input=input)

    def count(self, table: str) -> int:
        found: int = self.ask(f"{{ {table}_aggregate {{ aggregate {{ count }} }} }}")[f"{table}_aggregate"][
            "aggregate"
        ]["count"]
        return found

    def tenant_id(self) -> str:
        return str(self.ask("{ tenant { id } }")["tenant"][0]["id"])

    def project_id(self, name: str = "project") -> str:
        """Of the project of that name, which is made if it is not there."""
        found = self.ask("query($n: String) { project(where: {name: {_eq: $n}}) { id } }", n=name)["project"]
        return str(found[0]["id"] if found else self.mutate("create_project", tenant_id=self.tenant_id(), name=name))

    def flow_id(self, name: str = "flow", tasks: Any = ("a", "b"), project: str = "project", **serialized: Any) -> str:
        """Of a flow that is registered now."""
        tasks = [{"slug": slug, "name": slug} for slug in tasks]
        flow = {"name": name, "tasks": tasks, "__version__": "1.4.1", **serialized}
        return str(self.mutate("create_flow", project_id=self.project_id(project), serialized_flow=flow))

    def flow_run_id(self, flow_id: Optional[str] = None, **input: Any) -> str:
        """Of a flow run that is created now, of a new flow unless one is given."""
        return str(self.mutate("create_flow_run", flow_id=flow_id or self.flow_id(), **input))

    def running(self, flow_id: Optional[str] = None) -> str:
        """The id of a flow run that has just begun to run."""
        id = self.flow_run_id(flow_id)
        self.set_state(id, "Running")
        return id

    def set_state(self, flow_run_id: str, type: str, **more: Any) -> Any:
        states = [{"flow_run_id": flow_run_id, "state": {"type": type, **more}}]
        return self.mutate("set_flow_run_states", "states { id status }", states=states)

    def set_task_state(self, task_run_id: str, type: str, **more: Any) -> Any:
        states = [{"task_run_id": task_run_id, "state": {"type": type, **more}}]
        return self.mutate("set_task_run_states", "states { id status }", states=states)

    def flow_run(self, id: str, fields: str) -> Any:
        return self.ask(f"query($id: uuid!) {{ flow_run_by_pk(id: $id) {{ {fields} }} }}", id=id)["flow_run_by_pk"]


@contextmanager
def caller(database_url: str) -> Iterator[Caller]:
    """A caller of an API on a database."""
    database = Database(database_url)
    yield Caller(database)
    database.close()


@contextmanager
def statements(database: Database) -> Iterator[List[str]]:
    """The SQL that a block sends to a database, without what opens connections and transactions, and tells others."""
    sent: List[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if not statement.startswith(("BEGIN", "PRAGMA", "SET", "SELECT pg_notify")):
            sent.append(statement)

    event.listen(database.store.engine, "before_cursor_execute", note)
    yield sent
    event.remove(database.store.engine, "before_cursor_execute", note)
