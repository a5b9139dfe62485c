"""
What is asked of a backend, as GraphQL: every read that Prefect 1.4.1 needs, and those of this package's own views.

The numbers of Prefect's are those of "Every read the Python side makes" in docs; each is sent with variables, so that
a backend keeps the parsed document, and what is left to do is to read.
"""

from typing import Any, Callable, Dict, Optional, Sequence, Tuple

from prefect_taskrun_tasks.api import FIELDS, PAGE
from prefect_taskrun_tasks.server.rules.children import LINEAGE

from .many_flow_runs import CACHE_KEY, MAPPED, OFTEN_REGISTERED, PLAIN, PROJECT, Known

#: Document and variables
Asked = Tuple[str, Dict[str, Any]]

Where = Dict[str, Any]
Order = Any

_CREATED = {"created": "desc"}
_VERSION = {"version": "desc"}

#: What Prefect's own views ask for; this package's, in `FIELDS`, ask for some more
_FLOW = FIELDS["flow"]
_FLOW_RUN = (
    "id name flow_id serialized_state states { timestamp serialized_state } "
    "labels parameters context updated run_config"
)
_TASK_RUN = "id name task { id slug } map_index serialized_state flow_run_id"


def _rows(table: str, fields: str, where: Optional[Where] = None, order: Order = None, limit: Any = None) -> Asked:
    document = (
        f"query($where: {table}_bool_exp, $order: [{table}_order_by!], $limit: Int) "
        f"{{ {table}(where: $where, order_by: $order, limit: $limit) {{ {fields} }} }}"
    )
    return document, {"where": where, "order": order, "limit": limit}


def _page(table: str, where: Where, *by: str, after: Sequence[Where] = (), fields: str = "") -> Asked:
    """A page as this package's `api.pages` asks for it: with how many rows there are, and maybe after another page."""
    document, variables = _rows(
        table, fields or FIELDS[table], {"_and": [where, *after]}, [{each: "asc"} for each in by or ["id"]], PAGE
    )
    # beside the rows
    count = f" {table}_aggregate(where: $where) {{ aggregate {{ count }} }} }}"
    return document[:-2] + count, variables


def _by_id(table: str, fields: str, id: str) -> Asked:
    return f"query($id: uuid!) {{ {table}_by_pk(id: $id) {{ {fields} }} }}", {"id": id}


def _queue(it: Known) -> Asked:
    document = "mutation($input: get_runs_in_queue_input!) { get_runs_in_queue(input: $input) { flow_run_ids } }"
    return document, {"input": {"tenant_id": it.tenant_id, "labels": ["reports"]}}


def _offered(it: Known) -> Asked:
    """Prefect's agent, after it has looked at the queue."""
    waiting = {"state_start_time": {"_lte": it.lately}}
    document = """query($where: flow_run_bool_exp, $waiting: task_run_bool_exp) { flow_run(where: $where) {
        id version state serialized_state parameters scheduled_start_time run_config name
        flow { id name environment storage version core_version }
        task_runs(where: $waiting) { id version task_id serialized_state } } }"""
    states = [{"state": {"_eq": "Scheduled"}}, {"state": {"_eq": "Running"}, "task_runs": waiting}]
    return document, {"where": {"id": {"_in": it.queued_ids}, "_or": states}, "waiting": waiting}


def _logs_of_flow_run(it: Known) -> Asked:
    document = """query($id: uuid!, $from: timestamptz, $to: timestamptz) { flow_run(where: {id: {_eq: $id}}) {
        logs(order_by: {timestamp: asc}, where: {_and: [{timestamp: {_lte: $to}}, {timestamp: {_gt: $from}}]}) {
            timestamp message level } } }"""
    return document, {"id": it.flow_run_id, "from": it.created, "to": it.ended}


def _cached(**by: str) -> Callable[[Known], Asked]:
    def asked(it: Known) -> Asked:
        where = {name: {"_eq": value.format(it=it)} for name, value in by.items()}
        where.update(state={"_eq": "Cached"}, state_timestamp={"_gte": it.lately})
        return _rows("task_run", "serialized_state", where, {"state_timestamp": "desc"}, 100)

    return asked


def _watched(*ids: str) -> Where:
    return {"id": {"_in": list(ids)}, "_or": [{"version": {"_neq": 4}}, {"state": {"_neq": "Success"}}]}


def _watch(it: Known) -> Asked:
    """What this package's watcher asks while it waits for flow runs, of some of which it follows the logs."""
    document = f"""query($told: flow_run_bool_exp, $logs: log_bool_exp, $ids: flow_run_bool_exp) {{
        told: flow_run(where: $told) {{ {FIELDS["flow_run"]} version state }}
        logs: log(where: $logs, order_by: {{timestamp: asc}}, limit: {PAGE}) {{
            {FIELDS["log"]} flow_run_id task_run_id }}
        flow_run_aggregate(where: $ids) {{ aggregate {{ count }} }} }}"""
    known, new = it.child_ids[:1], it.child_ids[1:]
    logs = [{"flow_run_id": {"_in": known}, "timestamp": {"_gt": it.middle}}, {"flow_run_id": {"_in": new}}]
    ids = {"id": {"_in": it.child_ids}}
    return document, {"told": {"_or": [_watched(*known), _watched(*new)]}, "logs": {"_or": logs}, "ids": ids}


def _counts(it: Known) -> Asked:
    fields = " ".join(
        f'{name}: task_runs_aggregate(where: {{state: {{_eq: "{name}"}}}}) {{ aggregate {{ count }} }}'
        for name in ("Success", "Failed", "Running", "Mapped")
    )
    return _rows("flow_run", f"id {fields}", {"id": {"_in": [it.flow_run_id, *it.child_ids]}})


def _changes(table: str, fields: str, since: str, where: Where) -> Asked:
    """What a page of the backend asks again and again: all that has changed."""
    wheres = [where, {"updated": {"_gt": since}}]
    return _rows(table, fields, {"_and": wheres}, [{"updated": "asc"}, {"id": "asc"}], 1_000)


def _of(it: Known) -> Where:
    return {"flow_run_id": {"_eq": it.flow_run_id}}


def _child_of(*ids: str) -> Where:
    return {"_or": [{"context": {"_contains": {LINEAGE: {"parent_flow_run_id": id}}}} for id in ids]}


def _named(name: str, archived: Optional[bool] = False, /, **project: Any) -> Where:
    where: Where = {"name": {"_eq": name}}
    if archived is not None:
        where["archived"] = {"_eq": archived}
    return {**where, "project": {key: {"_eq": value} for key, value in project.items()}} if project else where


#: By its number, and who asks or for what
OF_PREFECT: Dict[str, Callable[[Known], Asked]] = {
    "R1 tenant": lambda it: ("{ tenant { id } }", {}),
    "R2 address": lambda it: ("{ tenant { id slug } }", {}),
    "R5 project": lambda it: _rows("project", "id", {"name": {"_eq": PROJECT}}),
    "R6 latest version": lambda it: _rows(
        "flow", "id version", {"_and": _named(OFTEN_REGISTERED, None, id=it.project_id)}, _VERSION, 1
    ),
    "R7 flow group": lambda it: _by_id("flow", "flow_group_id", it.flow_id),
    "R8 flow": lambda it: _rows("flow", _FLOW, {"id": {"_eq": it.flow_id}}, _CREATED),
    "R8 flow by group": lambda it: _rows("flow", _FLOW, {"flow_group_id": {"_eq": it.flow_group_id}}, _CREATED),
    "R8 flow by name": lambda it: _rows("flow", _FLOW, _named(OFTEN_REGISTERED), _CREATED),
    "R8 flow of project": lambda it: _rows("flow", _FLOW, _named(OFTEN_REGISTERED, name=PROJECT), _CREATED),
    "R9 StartFlowRun": lambda it: _rows("flow", "id", _named(OFTEN_REGISTERED, name=PROJECT), _VERSION, 1),
    "R10 flow run": lambda it: _rows("flow_run", _FLOW_RUN, {"id": {"_eq": it.flow_run_id}}),
    "R11 logs": _logs_of_flow_run,
    "R12 execute": lambda it: _rows(
        "flow_run", "flow { name storage run_config } version", {"id": {"_eq": it.flow_run_id}}
    ),
    "R13 flow run info": lambda it: _by_id(
        "flow_run",
        "id name flow_id parameters context version scheduled_start_time serialized_state "
        "task_runs(where: {map_index: {_eq: -1}}) { id version serialized_state task { id slug } } "
        "flow { project { id name } }",
        it.flow_run_id,
    ),
    "R14 settings": lambda it: _by_id("flow_run", "flow { settings }", it.flow_run_id),
    "R15 state": lambda it: _by_id("flow_run", "serialized_state", it.flow_run_id),
    "queue": _queue,
    "R16 offered": _offered,
    "R17 task run": lambda it: _rows("task_run", _TASK_RUN, {"id": {"_eq": it.task_run_ids[0]}}),
    "R17 by slug": lambda it: _rows(
        "task_run", _TASK_RUN, {"task": {"slug": {"_eq": PLAIN}}, **_of(it), "map_index": {"_eq": -1}}
    ),
    "R17 child": lambda it: _rows(
        "task_run", _TASK_RUN, {"task": {"slug": {"_eq": MAPPED}}, **_of(it), "map_index": {"_eq": 7}}
    ),
    "R17 children": lambda it: _rows(
        "task_run",
        _TASK_RUN,
        {"task": {"slug": {"_eq": MAPPED}}, **_of(it), "map_index": {"_neq": -1}},
        {"map_index": "asc"},
    ),
    "R17 all but known": lambda it: _rows(
        "task_run", _TASK_RUN, {**_of(it), "map_index": {"_eq": -1}, "id": {"_nin": it.task_run_ids[:3]}}
    ),
    "R18 task run ids": lambda it: _rows("task_run", "id", _of(it)),
    "R19 cached by task": _cached(task_id="{it.task_id}"),
    "R19 cached by key": _cached(cache_key=CACHE_KEY),
    "R20 agents": lambda it: _rows("agent", FIELDS["agent"]),
}

OF_THIS_PACKAGE: Dict[str, Callable[[Known], Asked]] = {
    "flow of flow run": lambda it: _rows("flow", _FLOW, {"flow_runs": {"id": {"_eq": it.flow_run_id}}}, _CREATED, 1),
    "newest of group": lambda it: _rows("flow", _FLOW, {"flow_group_id": {"_eq": it.often_registered_id}}, _CREATED, 1),
    "flow run by name": lambda it: _rows(
        "flow_run",
        "id name state flow { name } created",
        {"_or": [{"name": {"_eq": it.flow_run_name}}]},
        _CREATED,
        100,
    ),
    "flow run by key": lambda it: _rows(
        "flow_run",
        "id",
        {
            "idempotency_key": {"_eq": it.idempotency_key},
            "flow": {"flow_group": {"flows": {"id": {"_eq": it.flow_id}}}},
        },
        {"created": "asc"},
        1,
    ),
    "flow runs by keys": lambda it: _rows(
        "flow_run", "id idempotency_key", {"idempotency_key": {"_in": [it.idempotency_key, "none"]}}
    ),
    "children": lambda it: _page("flow_run", {**_child_of(it.flow_run_id), "created": {"_gte": it.created}}),
    "children of several": lambda it: _page(
        "flow_run", {**_child_of(it.flow_run_id, *it.child_ids), "created": {"_gte": it.created}}
    ),
    "counts by state": _counts,
    "watch": _watch,
    "task runs": lambda it: _page("task_run", _of(it)),
    "task runs, next page": lambda it: _page("task_run", _of(it), after=[{"id": {"_gt": sorted(it.task_run_ids)[25]}}]),
    "task runs in a state": lambda it: _page("task_run", {**_of(it), "state": {"_in": ["Failed", "TimedOut"]}}),
    "task runs of a task": lambda it: _page("task_run", {**_of(it), "task": {"slug": {"_eq": MAPPED}}}),
    "task runs of several": lambda it: _page(
        "task_run",
        {"task": {"slug": {"_eq": PLAIN}}, "flow_run_id": {"_in": it.child_ids}, "map_index": {"_eq": -1}},
    ),
    "task runs by start": lambda it: _page(
        "task_run", {**_of(it), "start_time": {"_is_null": False}}, "start_time", "id"
    ),
    "task runs not begun": lambda it: _page(
        "task_run",
        {"_and": [_of(it), {"_or": [{"start_time": {"_is_null": True}}, {"start_time": {"_gt": it.middle}}]}]},
        "created",
        "id",
        fields=f"{FIELDS['task_run']} created",
    ),
    "children of a task": lambda it: _page(
        "task_run", {**_of(it), "task_id": {"_eq": it.mapped_task_id}, "map_index": {"_gte": 0}}, "map_index"
    ),
    "task runs, changed": lambda it: _page(
        "task_run", {**_of(it), "updated": {"_gte": it.middle}}, fields="id map_index state updated task { slug }"
    ),
    "task run by beginning": lambda it: _rows(
        "task_run", _TASK_RUN, {"id": {"_gte": it.task_run_ids[0], "_lte": it.task_run_ids[0]}}, None, 11
    ),
    "states of a task run": lambda it: _rows(
        "task_run", "states { timestamp serialized_state }", {"id": {"_eq": it.task_run_ids[0]}}
    ),
    "upstream": lambda it: _page(
        "task_run",
        {
            **_of(it),
            "map_index": {"_eq": -1},
            "task": {"downstream_edges": {"downstream_task_id": {"_eq": it.mapped_task_id}}},
        },
    ),
    "tasks of a flow run": lambda it: _page(
        "task", {"flow": {"flow_runs": {"id": {"_eq": it.flow_run_id}}}}, fields="id slug"
    ),
    "logs": lambda it: _page("log", {**_of(it), "timestamp": {"_lte": it.ended}}, "timestamp", "id"),
    "logs, next page": lambda it: _page(
        "log",
        _of(it),
        "timestamp",
        "id",
        after=[
            {"timestamp": {"_gte": it.middle}},
            {"_or": [{"timestamp": {"_gt": it.middle}}, {"id": {"_gt": it.flow_run_id}}]},
        ],
    ),
    "logs by id": lambda it: _page("log", {"flow_run_id": {"_in": [it.flow_run_id]}}),
    "logs of a task run": lambda it: _page("log", {"task_run_id": {"_eq": it.task_run_ids[1]}}, "timestamp", "id"),
    "logs of a name": lambda it: _page(
        "log", {"flow_run_id": {"_in": it.child_ids}, "name": {"_eq": "prefect.none"}}, fields="id message"
    ),
    "last errors": lambda it: _rows(
        "log", FIELDS["log"], {**_of(it), "level": {"_in": ["ERROR", "CRITICAL"]}}, {"timestamp": "desc"}, 5
    ),
    "page, newest": lambda it: _rows("flow_run", "id name created flow { name }", {}, _CREATED, 10),
    "page, changed flow runs": lambda it: _changes(
        "flow_run",
        "id updated context flow { name }",
        it.lately,
        {"_or": [{"id": {"_eq": it.flow_run_id}}, {"context": {"_contains": {LINEAGE: {}}}}]},
    ),
    "page, changed task runs": lambda it: _changes("task_run", "id updated task { slug }", it.created, _of(it)),
    "page, changed logs": lambda it: _changes("log", "id message", it.middle, _of(it)),
    "page, newest logs": lambda it: _rows("log", "id message", _of(it), [{"timestamp": "desc"}, {"id": "desc"}], 500),
}

READS = {**OF_PREFECT, **OF_THIS_PACKAGE}
