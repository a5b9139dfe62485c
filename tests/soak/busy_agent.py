"""An agent and the flow runs that it starts, as the backend sees them: their requests, and what became of each."""

import json
import random
from collections import Counter, defaultdict
from threading import Event
from time import monotonic, sleep
from typing import Any, Dict, Iterable, List, NamedTuple, Tuple
from typing import Counter as CounterOf

import requests

from prefect_taskrun_tasks.server.clock import ago, now
from prefect_taskrun_tasks.server.rules.states import FINISHED, SCHEDULED

#: Flow runs whose states are sent together: as many as the queue names, and as a batch holds operations
AT_ONCE = 25

#: What can happen to a flow run, and to how many of a hundred
FATES = {
    "succeeds": 73,
    "fails": 8,
    "retries": 6,
    "is cancelled": 4,
    "is cancelled before it runs": 4,
    "is lost": 4,
    "is long": 1,
}

#: Slugs of the tasks, in the order in which they run; the second may be mapped. The first is tried again when its
#: process was lost.
TASKS = ("extract", "each", "load")

#: Tasks during which a flow run may meet its fate
FATEFUL = ("extract", "load")

#: Children of a mapped task run, and the share of flow runs that have some
MOST_CHILDREN, MAPPED = 3, 0.15

#: Days after which a long flow run goes on
LONG = 2

#: Name of the logger whose lines flow runs send; the backend writes others
LOGGER = "prefect.busy"

#: Seconds for a request, in which an agent finds lost flow runs again, and between two polls of one that has no work
PATIENCE, SEARCH, POLL = 60, 120, 0.2

METADATA = """query($ids: [uuid!]) { flow_run(where: {id: {_in: $ids}}) { id version state serialized_state parameters
    scheduled_start_time run_config name flow { id name environment storage version core_version }
    task_runs(where: {map_index: {_eq: -1}}) { id version task_id state serialized_state task { id slug } } } }"""
INFO = """query($id: uuid!) { flow_run_by_pk(id: $id) { id name flow_id parameters context version serialized_state
    task_runs(where: {map_index: {_eq: -1}}) { id version serialized_state task { id slug } }
    flow { project { id name } } } }"""
#: Views write ids into the document, so that it is another one each time
VIEW = """query {{ task_run(where: {{flow_run_id: {{_eq: "{id}"}}, id: {{_nin: {known}}}}}) {{ id name
    task {{ id slug }} map_index serialized_state flow_run_id }} }}"""

Ids = Iterable[str]


class Ended(NamedTuple):
    """How a flow run has ended, and when."""

    day: int
    state: str


class _TaskRun(NamedTuple):
    id: str
    task_id: str
    state: str


class BusyAgent:
    """Creates flow runs, takes them from the queue as an agent does, and sends what their processes would.

    Args:
        url: of the backend.
        flow_id: of a flow with the tasks `TASKS`.
        name: of the agent, its label, and the seed of all that happens to its flow runs.
    """

    def __init__(self, url: str, flow_id: str, name: str) -> None:
        self._url, self._flow_id, self._name = url, flow_id, name
        self._choose = random.Random(name)
        self._session = requests.Session()
        [tenant] = self._ask("{ tenant { id } }")["tenant"]
        self._tenant_id = tenant["id"]
        agent = {"type": "LocalAgent", "name": name, "labels": [name], "tenant_id": self._tenant_id}
        agent_id = self._mutate("register_agent", "id", agent)["id"]
        self._session.headers["X-PREFECT-AGENT-ID"] = agent_id
        self._number = 0
        #: flow run -> what is still to happen to it, and during which task
        self._fates: Dict[str, Tuple[str, str]] = {}
        #: day -> long flow runs that go on then
        self._long: Dict[int, List[str]] = defaultdict(list)
        self._day = 0
        #: flow runs that have not ended
        self.alive: set[str] = set()
        #: those of them whose processes are lost, and that nobody has found yet
        self.silent: set[str] = set()
        self.ended: Dict[str, Ended] = {}
        #: flow run -> how many task runs it has
        self.task_runs: Dict[str, int] = {}
        #: flow run -> how many lines of logs it has sent
        self.lines: CounterOf[str] = Counter()
        self.met: CounterOf[str] = Counter()

    def work(self, day: int, count: int) -> None:
        """Creates so many flow runs, and lets them run until they end, are long, or are lost."""
        self._day = day
        self._run(self._long.pop(day, []))
        # each at least once a day
        fates = [*FATES, *self._choose.choices(list(FATES), list(FATES.values()), k=count)][:count]
        for first in range(0, count, AT_ONCE):
            created = self._create(fates[first : first + AT_ONCE])
            while created:
                taken = self._poll()
                self._start(taken)
                created -= set(taken)
            self._beat(self.alive - self.silent)

    def find_lost(self) -> None:
        """Takes the lost flow runs from the queue, into which the backend puts them again, and lets them run."""
        until = monotonic() + SEARCH
        while self.silent:
            assert monotonic() < until, f"Nobody has found {self.silent}."
            self._start(self._poll())
            self._beat(self.alive - self.silent)
            sleep(POLL)

    def watch(self, over: Event) -> None:
        """Only polls, looks at flow runs, and keeps the long ones alive."""
        while not over.wait(POLL):
            assert self._poll() == []
            self._beat(self.alive)
            assert self._types(self.alive) <= {"Running"}
            for id in self.alive:
                self._ask(VIEW.format(id=id, known=json.dumps([id])))

    def forget(self, before: int) -> None:
        """Forgets flow runs that have ended before a day."""
        for id in [id for id, ended in self.ended.items() if ended.day < before]:
            del self.ended[id], self.task_runs[id], self.lines[id]

    def _create(self, fates: List[str]) -> "set[str]":
        """Ids of the new flow runs that are in the queue."""
        asked = []
        for _ in fates:
            self._number += 1
            key = f"{self._name}/{self._number}"
            parameters, context = {"n": self._number, "day": f"{self._day}"}, {"source": self._name}
            asked.append(
                {
                    "flow_id": self._flow_id,
                    "idempotency_key": key,
                    "flow_run_name": key,
                    "parameters": parameters,
                    "context": context,
                    "labels": [self._name],
                }
            )
        ids = [answer["id"] for answer in self._mutate_all("create_flow_run", "id", asked)]
        self.alive.update(ids)
        self.met.update(fates)
        for id, fate in zip(ids, fates):
            self._fates[id] = fate, self._choose.choice(FATEFUL)
            self.task_runs[id] = len(TASKS)
        unwanted = [id for id in ids if self._fates[id][0] == "is cancelled before it runs"]
        self._mutate_all("cancel_flow_run", "state", [{"flow_run_id": id} for id in unwanted])
        self._end("Cancelled", unwanted)
        return set(ids) - set(unwanted)

    def _poll(self) -> List[str]:
        asked = {"tenant_id": self._tenant_id, "before": ago(-10), "labels": [self._name]}
        found: List[str] = self._mutate("get_runs_in_queue", "flow_run_ids", asked)["flow_run_ids"]
        return found

    def _start(self, ids: List[str]) -> None:
        """What an agent does with flow runs from the queue, and then what their processes do."""
        if not ids:
            return
        self.silent -= set(ids)
        found = self._ask(METADATA, ids=ids)["flow_run"]
        self._set_flow_run_states(_submitted(found))
        self._set_task_run_states(_submitted([each for row in found for each in row["task_runs"]]))
        self._log(ids, "Submitted for execution: PID: 4711")
        self._run(ids)

    def _run(self, ids: List[str]) -> None:
        """What the processes of flow runs do, which go on where others have ended."""
        if not ids:
            return
        found = self._ask(METADATA, ids=ids)["flow_run"]
        self._set_flow_run_states(
            {row["id"]: _state("Running", "Running flow.") for row in found if row["state"] != "Running"}
        )
        self._beat(ids)
        task_runs = {
            row["id"]: {
                each["task"]["slug"]: _TaskRun(each["id"], each["task_id"], each["state"]) for each in row["task_runs"]
            }
            for row in found
        }
        going = set(ids)
        broken: set[str] = set()
        for slug in TASKS:
            broken |= {id for id in going if task_runs[id][slug].state in ("Failed", "TriggerFailed")}
            due = {id: task_runs[id][slug] for id in going if task_runs[id][slug].state not in FINISHED}
            failed = [due.pop(id).id for id in broken if id in due]
            self._set_task_run_states(dict.fromkeys(failed, _state("TriggerFailed", "Trigger was not successful.")))
            begun, gone = self._run_task(slug, due)
            broken |= begun
            going -= gone
        assert self._types(going) <= {"Running"}
        for state, those in (("Failed", going & broken), ("Success", going - broken)):
            self._set_flow_run_states(dict.fromkeys(those, _state(state, f"{state}: all reference tasks have ended.")))
            self._end(state, those)
        # at the exit of the interpreter, when the last state has been sent
        self._log(going, *(f"Task '{slug}': finished task run with its final state, {slug * 8}" for slug in TASKS))
        for id in list(going)[:1]:
            self._ask(VIEW.format(id=id, known=json.dumps([each.id for each in task_runs[id].values()])))

    def _run_task(self, slug: str, due: Dict[str, _TaskRun]) -> "Tuple[set[str], set[str]]":
        """One task of some flow runs: those whose task run has failed, and those that do not go on."""
        self._set_task_run_states(
            {each.id: _state("Running", "Starting task run.") for each in due.values() if each.state != "Running"}
        )
        met: Dict[str, List[str]] = defaultdict(list)
        for id in due:
            fate, when = self._fates[id]
            if when == slug:
                met[fate].append(id)
                # it meets it once
                self._fates[id] = "succeeds", ""
        self._mutate_all("cancel_flow_run", "state", [{"flow_run_id": id} for id in met["is cancelled"]])
        assert self._types(met["is cancelled"]) <= {"Cancelling"}
        cancelled_state = _state("Cancelled", "Flow run is cancelled")
        self._set_flow_run_states(dict.fromkeys(met["is cancelled"], cancelled_state))
        self._end("Cancelled", met["is cancelled"])
        self.silent.update(met["is lost"])
        self._long[self._day + LONG] += met["is long"]
        gone = {id for fate in ("is cancelled", "is lost", "is long") for id in met[fate]}

        again = [due[id].id for id in met["retries"]]
        retrying = _state("Retrying", "Retrying Task (after attempt 1 of 2)", run_count=1, start_time=now())
        self._set_task_run_states(dict.fromkeys(again, retrying))
        self._set_task_run_states(dict.fromkeys(again, _state("Running", "Starting task run.")))

        failed = set(met["fails"])
        ends = {due[id].id: _state("Failed", "Error during execution of task: ValueError('no')") for id in failed}
        succeeded = [id for id in due if id not in failed | gone]
        mapped = [id for id in succeeded if slug == "each" and self._choose.random() < MAPPED]
        ends.update((due[id].id, _succeeded(id, slug)) for id in set(succeeded) - set(mapped))
        self._set_task_run_states(ends)
        self._map({id: due[id] for id in mapped})
        return failed, gone

    def _map(self, mapped: Dict[str, _TaskRun]) -> None:
        asked = []
        parents = {}
        for id, each in mapped.items():
            count = self._choose.randint(1, MOST_CHILDREN)
            parents[each.id] = _state("Mapped", "Mapped tasks submitted for execution.", n_map_states=count)
            asked += [{"flow_run_id": id, "task_id": each.task_id, "map_index": index} for index in range(count)]
            self.task_runs[id] += count
        self._set_task_run_states(parents)
        children = self._mutate_all("get_or_create_task_run_info", "id version serialized_state", asked)
        ids = [child["id"] for child in children]
        self._set_task_run_states(dict.fromkeys(ids, _state("Running", "Starting task run.")))
        self._set_task_run_states({id: _succeeded(id, "each") for id in ids})

    def _types(self, ids: Ids) -> "set[str]":
        """Of the states that flow runs are in, as their processes see it."""
        answers = self._ask_all(INFO, [{"id": id} for id in ids])
        return {answer["flow_run_by_pk"]["serialized_state"]["type"] for answer in answers}

    def _end(self, state: str, ids: Ids) -> None:
        for id in ids:
            self.ended[id] = Ended(self._day, state)
            self.alive.remove(id)
            del self._fates[id]

    def _beat(self, ids: Ids) -> None:
        self._mutate_all("update_flow_run_heartbeat", "success", [{"flow_run_id": id} for id in ids])

    def _log(self, ids: Ids, *lines: str) -> None:
        logs = [
            {"flow_run_id": id, "timestamp": now(), "name": LOGGER, "level": "INFO", "message": line}
            for id in ids
            for line in lines
        ]
        if logs:
            self._mutate("write_run_logs", "success", {"logs": logs})
            self.lines.update({id: len(lines) for id in ids})

    def _set_flow_run_states(self, states: Dict[str, Any]) -> None:
        self._set_states("set_flow_run_states", "flow_run_id", states)

    def _set_task_run_states(self, states: Dict[str, Any]) -> None:
        self._set_states("set_task_run_states", "task_run_id", states)

    def _set_states(self, mutation: str, key: str, states: Dict[str, Any]) -> None:
        if states:
            given = [{key: id, "state": state, "version": None} for id, state in states.items()]
            answer = self._mutate(mutation, "states { id status message }", {"states": given})
            assert [each["status"] for each in answer["states"]] == ["SUCCESS"] * len(states)

    def _mutate(self, mutation: str, fields: str, input: Dict[str, Any]) -> Any:
        return self._ask(_document(mutation, fields), input=input)[mutation]

    def _mutate_all(self, mutation: str, fields: str, inputs: List[Dict[str, Any]]) -> List[Any]:
        answers = self._ask_all(_document(mutation, fields), [{"input": input} for input in inputs])
        return [answer[mutation] for answer in answers]

    def _ask_all(self, document: str, variables: List[Dict[str, Any]]) -> List[Any]:
        answers = []
        for first in range(0, len(variables), AT_ONCE):
            answers += self._post([_operation(document, each) for each in variables[first : first + AT_ONCE]])
        return [_data(answer) for answer in answers]

    def _ask(self, document: str, **variables: Any) -> Any:
        return _data(self._post(_operation(document, variables)))

    def _post(self, body: Any) -> Any:
        return self._session.post(self._url, json=body, timeout=PATIENCE).json()


def _document(mutation: str, fields: str) -> str:
    return f"mutation($input: {mutation}_input!) {{ {mutation}(input: $input) {{ {fields} }} }}"


def _operation(document: str, variables: Dict[str, Any]) -> Dict[str, Any]:
    # as Prefect's client does: JSON in the JSON
    return {"query": document, "variables": json.dumps(variables)}


def _data(answer: Any) -> Any:
    assert "errors" not in answer, answer
    return answer["data"]


def _state(type: str, message: str, **more: Any) -> Dict[str, Any]:
    return {"type": type, "message": message, "context": {"tags": []}, "__version__": "1.4.1", **more}


def _submitted(runs: List[Any]) -> Dict[str, Any]:
    """States for the runs that wait for an agent."""
    return {
        run["id"]: _state("Submitted", "Submitted for execution", state=run["serialized_state"])
        for run in runs
        if run["state"] in SCHEDULED
    }


def _succeeded(flow_run_id: str, slug: str) -> Dict[str, Any]:
    result = {"type": "LocalResult", "location": f"/results/{flow_run_id}/{slug}", "__version__": "1.4.1"}
    return _state("Success", "Task run succeeded.", _result=result, cached_inputs={})
