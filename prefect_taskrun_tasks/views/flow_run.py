"""A flow run as it was when looked up, its task runs and its logs."""

from dataclasses import InitVar, dataclass, field
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple, Union

import pendulum
from prefect.engine.state import Finished, Pending, State
from prefect.run_configs.base import RunConfig
from prefect.serialization.run_config import RunConfigSchema
from prefect.utilities.graphql import GraphQLResult

from .. import api
from ..errors import InvalidArgument, NotFound
from .arguments import STATES, check_map_index, check_text, state_names
from .deferral import DEFERRED, Deferral
from .flow import NEWEST_FIRST, FlowView
from .history import TimestampedState, history, instant, loaded_state
from .lineage import KEY, Lineage
from .log import FlowRunLog, logs_where
from .prefix import FEWEST_DIGITS, ambiguous, id_begins, name_begins
from .task_run import TaskRunView

#: Parents whose children are looked up by one query
MOST_PARENTS = 100

#: The Hasura filter for flow runs that no flow run has created
TOP_LEVEL: api.Where = {"_or": [{"context": {"_is_null": True}}, {"_not": {"context": {"_contains": {KEY: {}}}}}]}

#: What a candidate is described by
_CANDIDATE = "id name state flow { name } created"

#: Flow runs that are looked at at most, when one is looked for by the beginning of its name or id
MOST_LOOKED_AT = 100

#: Task runs, and lines of the log, that an explanation names at most
MOST_EXPLAINED = 5

#: Characters of one of them
LONGEST_LINE = 600


def _by_start(where: api.Where) -> Iterator[List[api.Row]]:
    """Pages of task runs in the order in which they started, and then of those that have not."""
    last: api.Where = {"_is_null": False}
    for page in api.pages("task_run", {**where, "start_time": last}, by=("start_time", "id")):
        yield page
        last = {"_gt": page[-1]["start_time"]}
    # some may have started meanwhile
    others = {"_and": [where, {"_or": [{"start_time": {"_is_null": True}}, {"start_time": last}]}]}
    yield from api.pages("task_run", others, by=("created", "id"), fields=f"{api.FIELDS['task_run']} created")


def _as_candidate(row: api.Row) -> str:
    return f"{row['id']}  {row['name']}  {row['flow']['name']}  {row['state']}"


def _brief(text: str) -> str:
    """The first line and the last, which of a traceback are what happened where, and why."""
    lines = text.strip().splitlines() or [""]
    brief = lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1]}"
    return brief if len(brief) <= LONGEST_LINE else brief[: LONGEST_LINE - 4] + " ..."


@dataclass(frozen=True, eq=False, repr=False)
class FlowRunView:
    """A frozen picture of a flow run. Drop-in for `prefect.backend.FlowRunView`.

    Its task runs are looked up when asked for. Those that have finished are kept, and shown again.

    Example:
        >>> flow_run = FlowRunView.from_flow_run_id("<id>")
        >>> flow_run.get_task_run(task_slug="create_some_data-1").get_result()
        [0, 1, 2, 3, 4]
    """

    #: UUID of the flow run
    flow_run_id: str
    name: str
    #: UUID of the version of the flow that it is a run of
    flow_id: str
    #: only agents with these labels run it
    labels: List[str]
    parameters: Dict[str, Any]
    context: Dict[str, Any]
    #: its state when looked up
    state: State
    #: all states it has been in so far, oldest first; each with a `timestamp`
    states: List[TimestampedState]
    #: when the backend last wrote to the flow run (heartbeats included)
    updated_at: pendulum.DateTime
    run_config: Optional[RunConfig]

    #: task runs known already; those that have finished are kept
    task_runs: InitVar[Optional[Iterable[TaskRunView]]] = None

    _task_runs: Dict[str, TaskRunView] = field(default_factory=dict, init=False)
    _ids_by_slug: Dict[Tuple[str, int], str] = field(default_factory=dict, init=False)
    _task_run_ids: Optional[Tuple[str, ...]] = field(default=None, init=False)
    _flow: Optional[FlowView] = field(default=None, init=False)
    _flow_name: Optional[str] = field(default=None, init=False)

    def __post_init__(self, task_runs: Optional[Iterable[TaskRunView]]) -> None:
        for task_run in task_runs or ():
            self._keep(task_run)

    @property
    def start_time(self) -> Optional[pendulum.DateTime]:
        """When it was first Running; None if it never was."""
        return next((state.timestamp for state in self.states if state.is_running()), None)

    @property
    def end_time(self) -> Optional[pendulum.DateTime]:
        """When it entered its final state; None if it has not finished."""
        return self.states[-1].timestamp if self.states and self.state.is_finished() else None

    def _kept(self, row: Dict[str, Any]) -> Optional[TaskRunView]:
        """The view that is kept of a task run, unless it has run again since."""
        kept = self._task_runs.get(row["id"])
        return kept if kept and kept._shows(row["version"], row["serialized_state"]) else None

    def _keep(self, task_run: TaskRunView) -> TaskRunView:
        if task_run._is(Finished):
            self._task_runs[task_run.task_run_id] = task_run
            self._ids_by_slug[task_run.task_slug, task_run.map_index] = task_run.task_run_id
        return task_run

    @classmethod
    def from_flow_run_id(
        cls,
        flow_run_id: str,
        load_static_tasks: bool = False,
        _cached_task_runs: Optional[Iterable[TaskRunView]] = None,
    ) -> "FlowRunView":
        """Looks a flow run up by its UUID.

        Args:
            flow_run_id: the flow run's UUID.
            load_static_tasks: look its unmapped task runs up too, all at once.

        Raises:
            NotFound: there is no such flow run (a `ValueError`).
        """
        check_text(flow_run_id=flow_run_id)
        rows = api.find("flow_run", {"id": {"_eq": flow_run_id}})
        if not rows:
            raise NotFound(f"No flow run {flow_run_id!r} was found.")
        task_runs = list(_cached_task_runs or ())
        if load_static_tasks:
            where = {"map_index": {"_eq": -1}, "flow_run_id": {"_eq": flow_run_id}}
            known = {task_run.task_run_id: task_run for task_run in task_runs}
            for row in (row for page in api.pages("task_run", where) for row in page):
                if row["id"] not in known or not known[row["id"]]._shows(row["version"], row["serialized_state"]):
                    known[row["id"]] = TaskRunView._from_task_run_data(row)
            task_runs = list(known.values())
        return cls._from_flow_run_data(rows[0], task_runs)

    @classmethod
    def _from_flow_run_data(
        cls, row: Dict[str, Any], task_runs: Optional[Iterable[TaskRunView]] = None
    ) -> "FlowRunView":
        with api.reading("a flow run", row):
            return cls._of_row(row, task_runs)

    @classmethod
    def _of_row(cls, row: Dict[str, Any], task_runs: Optional[Iterable[TaskRunView]]) -> "FlowRunView":
        # objects of Prefect's client, whose items are attributes too
        row = GraphQLResult(row)
        # a flow run that was created just now may not have its first state yet
        unknown = Pending(message="A state for this flow run is not yet available.")
        view = cls(
            flow_run_id=row["id"],
            name=row["name"],
            flow_id=row["flow_id"],
            labels=row["labels"],
            parameters=row["parameters"],
            context=row["context"],
            state=loaded_state(row["serialized_state"]) if row["serialized_state"] else unknown,
            states=history(row["states"]),
            updated_at=instant(row["updated"]),
            run_config=RunConfigSchema().load(row["run_config"]) if row["run_config"] else None,
            task_runs=task_runs,
        )
        object.__setattr__(view, "_flow_name", row["flow"]["name"])
        return view

    @property
    def flow_name(self) -> str:
        """Name of its flow."""
        return self.get_flow_metadata().name if self._flow_name is None else self._flow_name

    @classmethod
    def find(cls, text: str, by: Iterable[str] = ("id", "name")) -> "FlowRunView":
        """Looks a flow run up by what people call it: its UUID, its name, or the beginning of either.

        Args:
            text: of an id, at least four digits. A whole id goes before names, a name that is just this before those
                that only begin so, and of those, flow runs that no flow run has created before the others: children
                are named after parents.
            by: which of the two it may be.

        Raises:
            NotFound: nothing begins so (a `ValueError`).
            Ambiguous: several do, or have this name; the message lists them (a `ValueError`).

        Example:
            >>> FlowRunView.find("8e445d74")
            >>> FlowRunView.find("brave-ot")
        """
        check_text(flow_run=text)
        wanted = tuple(by)
        id_range = id_begins(text) if "id" in wanted else None
        named: List[api.Where] = []
        if "name" in wanted:
            named = [{"name": {"_eq": text}}, {"name": name_begins(text), **TOP_LEVEL}, {"name": name_begins(text)}]
        if id_range and id_range["_gte"] == id_range["_lte"]:
            lookups: List[List[api.Where]] = [[{"id": id_range}], *([each] for each in named)]
        else:
            by_id = [{"id": id_range}] if id_range else []
            lookups = [named[:1], named[1:2] + by_id, named[2:]]
        for wheres in filter(None, lookups):
            rows = api.find("flow_run", {"_or": wheres}, NEWEST_FIRST, _CANDIDATE, MOST_LOOKED_AT)
            # the Prefect API takes some names for others
            rows = [row for row in rows if any((row[key] or "").lower().startswith(text.lower()) for key in wanted)]
            if len(rows) > 1:
                raise ambiguous("flow runs", text, map(_as_candidate, rows))
            if rows:
                return cls.from_flow_run_id(rows[0]["id"])
        kinds = " or ".join(f"the {key}" for key in wanted)
        digits = f" (of an id, at least {FEWEST_DIGITS} digits)" if "id" in wanted else ""
        raise NotFound(f"No flow run has {kinds} {text!r}, or one that begins so{digits}.")

    @classmethod
    def newest(cls, task_slug: Optional[str] = None) -> "FlowRunView":
        """The flow run that was created last, leaving out those that only a schedule has asked for so far.

        Args:
            task_slug: only of flows that have this task, or else one whose slug begins so. If none is given, only those
                that no flow run has created: a child is newer than its parent, but seldom what is meant.

        Raises:
            NotFound: there is none (a `ValueError`).
        """
        begun: api.Where = {"_or": [{"auto_scheduled": {"_eq": False}}, {"start_time": {"_is_null": False}}]}
        if task_slug is None:
            rows = api.find("flow_run", {"_and": [begun, TOP_LEVEL]}, NEWEST_FIRST, limit=1)
        else:
            check_text(task_slug=task_slug)
            rows = api.find(
                "flow_run", {**begun, "flow": {"tasks": {"slug": {"_eq": task_slug}}}}, NEWEST_FIRST, limit=1
            )
            rows = rows or cls._newest_with(task_slug, begun)
        if not rows:
            of = f" of a flow with a task {task_slug!r}" if task_slug else ""
            raise NotFound(f"There is no flow run{of} yet.")
        return cls._from_flow_run_data(rows[0])

    @classmethod
    def _newest_with(cls, prefix: str, where: api.Where) -> List[api.Row]:
        """The newest flow run of those with a task whose slug begins so, if there is one."""
        slug = name_begins(prefix)
        rows = api.find("flow_run", {**where, "flow": {"tasks": {"slug": slug}}}, NEWEST_FIRST, limit=MOST_LOOKED_AT)
        flows = {"flow_id": {"_in": sorted({row["flow_id"] for row in rows})}, "slug": slug}
        tasks = api.find("task", flows, fields="flow_id slug") if rows else []
        # the Prefect API takes some slugs for others
        having = {task["flow_id"] for task in tasks if task["slug"].startswith(prefix)}
        return [row for row in rows if row["flow_id"] in having][:1]

    def get_latest(self, load_static_tasks: bool = False) -> "FlowRunView":
        """A new view of the same flow run as it is now. Task runs kept by this one are kept by the new one."""
        return self.from_flow_run_id(
            self.flow_run_id, load_static_tasks=load_static_tasks, _cached_task_runs=list(self._task_runs.values())
        )

    def get_logs(
        self, start_time: Optional[pendulum.DateTime] = None, end_time: Optional[pendulum.DateTime] = None
    ) -> List[FlowRunLog]:
        """The flow run's logs, those of its task runs included, oldest first.

        Args:
            start_time: only logs after it; default: from the beginning.
            end_time: only logs up to it; default: `updated_at`.

        Raises:
            WrongType: `start_time` or `end_time` is not a `datetime` (a `TypeError`).
        """
        return list(self.iter_logs(start_time, end_time or self.updated_at))

    def iter_logs(
        self, start_time: Optional[pendulum.DateTime] = None, end_time: Optional[pendulum.DateTime] = None
    ) -> Iterator[FlowRunLog]:
        """The same as `get_logs`, looked up 500 at a time, and if no `end_time` is given up to now.

        Raises:
            WrongType: `start_time` or `end_time` is not a `datetime` (a `TypeError`).
        """
        return logs_where({"flow_run_id": {"_eq": self.flow_run_id}}, start_time, end_time)

    def explain_failure(self, separator: str = "\n  ", max_length: int = 2000) -> str:
        """Why the flow run ended as it did: its state, the task runs that failed, and the last errors of its log.

        Task runs that only followed a failed one are left out, unless there are no others.

        Args:
            separator: what to put between one fact and the next.
            max_length: characters at most.

        Example:
            >>> print(flow_run.explain_failure())
            Flow run 'brave-otter' (8e445d74-...) ended in state Failed: Some reference tasks failed.
              load-1 ended in state Failed: Error during execution of task: ValueError('no such table')
              ERROR: Task 'load': Exception encountered during task execution! ... ValueError: no such table
        """
        name = type(self.state).__name__
        lines = [f"Flow run {self.name!r} ({self.flow_run_id}) ended in state {name}: {self.state.message}"]
        failed = self.get_all_task_runs(state=["Failed", "TimedOut", "ValidationFailed"])
        for task_run in (failed or self.get_all_task_runs(state="TriggerFailed"))[:MOST_EXPLAINED]:
            child = "" if task_run.map_index == -1 else f"[{task_run.map_index}]"
            state = f"{type(task_run.state).__name__}: {_brief(task_run.state.message or '')}"
            lines.append(f"{task_run.task_slug}{child} ended in state {state}")
        if len(failed) > MOST_EXPLAINED:
            lines.append(f"... and {len(failed) - MOST_EXPLAINED} more failed task runs")
        errors = api.find(
            "log",
            {"flow_run_id": {"_eq": self.flow_run_id}, "level": {"_in": ["ERROR", "CRITICAL"]}},
            order_by={"timestamp": "desc"},
            limit=MOST_EXPLAINED,
        )
        lines += [f"{log['level']}: {_brief(log['message'])}" for log in reversed(errors)]
        text = separator.join(lines)
        return text if len(text) <= max_length else text[: max_length - 4] + " ..."

    @property
    def lineage(self) -> Optional[Lineage]:
        """Whose child this flow run is; None if no flow run created it with this package's `create_flow_run`."""
        return Lineage.of(self.context)

    def get_parent(self) -> "Optional[FlowRunView]":
        """The flow run that created this one; None if none has, or it has been deleted.

        Raises:
            BackendUnreachable: the Prefect API does not answer.
        """
        if self.lineage is None:
            return None
        rows = api.find("flow_run", {"id": {"_eq": self.lineage.parent_flow_run_id}})
        return self._from_flow_run_data(rows[0]) if rows else None

    def get_children(self) -> "List[FlowRunView]":
        """The flow runs that tasks of this one have created with this package's `create_flow_run`, oldest first.

        Raises:
            BackendUnreachable: the Prefect API does not answer.

        Example:
            >>> [child.name for child in flow_run.get_children() if child.state.is_failed()]
        """
        return self.children_of([self.flow_run_id])[self.flow_run_id]

    @classmethod
    def children_of(cls, flow_run_ids: Iterable[str]) -> "Dict[str, List[FlowRunView]]":
        """The children of many flow runs, looked up together.

        Args:
            flow_run_ids: UUIDs of the parents.

        Returns:
            UUID of each parent -> its children, oldest first.

        Raises:
            BackendUnreachable: the Prefect API does not answer.
        """
        found: Dict[str, List[FlowRunView]] = {flow_run_id: [] for flow_run_id in flow_run_ids}
        parents = list(found)
        for start in range(0, len(parents), MOST_PARENTS):
            some = parents[start : start + MOST_PARENTS]
            created = [row["created"] for row in api.find("flow_run", {"id": {"_in": some}}, fields="created")]
            if not created:
                continue
            where = {
                "_or": [{"context": {"_contains": {KEY: {"parent_flow_run_id": parent}}}} for parent in some],
                # children are younger, and most other flow runs are not
                "created": {"_gte": min(created)},
            }
            for row in (row for page in api.pages("flow_run", where) for row in page):
                child = cls._from_flow_run_data(row)
                with api.reading("a child", row):
                    assert child.lineage is not None
                    found[child.lineage.parent_flow_run_id].append(child)
        for children in found.values():
            children.sort(key=lambda child: child.states[0].timestamp if child.states else child.updated_at)
        return found

    def iter_descendants(self) -> "Iterator[FlowRunView]":
        """Its children, then theirs, and so on; each generation is looked up when it is come to.

        Raises:
            BackendUnreachable: the Prefect API does not answer.
        """
        seen = {self.flow_run_id}
        parents = [self.flow_run_id]
        while parents:
            born = [child for children in self.children_of(parents).values() for child in children]
            # a context can say anything, also that a flow run is its own ancestor
            generation = [child for child in born if child.flow_run_id not in seen]
            parents = [child.flow_run_id for child in generation]
            seen.update(parents)
            yield from generation

    def get_flow_metadata(self, no_cache: bool = False) -> FlowView:
        """The flow that this is a run of; looked up once, or again with `no_cache`."""
        if self._flow is None or no_cache:
            object.__setattr__(self, "_flow", FlowView.from_flow_id(self.flow_id))
        assert self._flow is not None
        return self._flow

    def get_task_run(
        self,
        task_slug: Optional[str] = None,
        task_run_id: Optional[str] = None,
        map_index: Optional[int] = None,
    ) -> TaskRunView:
        """A task run of this flow run, by its task's slug or by its UUID.

        Args:
            task_slug: the task's name within the flow, usually ``<task name>-1``.
            task_run_id: the task run's UUID; a `task_slug` or `map_index` given too must be its own.
            map_index: which child of a mapped task; default: the task run itself.

        Raises:
            WrongType: one of them is of another type (a `TypeError`).
            InvalidArgument: neither was given, or they contradict each other (a `ValueError`).
            NotFound: there is no such task run (a `ValueError`).
        """
        if task_run_id is not None:
            check_text(task_run_id=task_run_id)
            task_run = self._task_runs.get(task_run_id) or TaskRunView.from_task_run_id(task_run_id)
            if task_run.flow_run_id != self.flow_run_id:
                raise InvalidArgument(
                    f"Task run {task_run_id} belongs to flow run {task_run.flow_run_id}, and not to {self.flow_run_id}."
                )
            for name, given in (("task_slug", task_slug), ("map_index", map_index)):
                found = getattr(task_run, name)
                if given is not None and given != found:
                    raise InvalidArgument(
                        f"Both `{name}` and `task_run_id` were given, but task run {task_run_id} has the {name} "
                        f"{found!r} and not {given!r}."
                    )
            return self._keep(task_run)
        if task_slug is None:
            raise InvalidArgument("One of `task_run_id` or `task_slug` must be provided!")
        check_text(task_slug=task_slug)
        map_index = -1 if map_index is None else map_index
        check_map_index(map_index)
        kept = self._ids_by_slug.get((task_slug, map_index))
        if kept is not None:
            return self._task_runs[kept]
        return self._keep(TaskRunView.from_task_slug(task_slug, self.flow_run_id, map_index))

    def get_all_task_runs(
        self, *, task_slug: Optional[str] = None, state: Union[str, Iterable[str], None] = None
    ) -> List[TaskRunView]:
        """All task runs of this flow run, children of mapped ones included, however many there are.

        Args:
            task_slug: only those of this task.
            state: only those in this state, or one of these, by class name such as ``"Failed"``.

        Raises:
            WrongType: `task_slug` or `state` is of another type (a `TypeError`).
            InvalidArgument: `task_slug` is empty, or there is no such state (a `ValueError`).

        Example:
            >>> flow_run.get_all_task_runs(state=["Failed", "TriggerFailed"])
        """
        return [
            self._kept(row) or self._keep(TaskRunView._from_task_run_data(row))
            for page in api.pages("task_run", self._task_runs_where(task_slug, state))
            for row in page
        ]

    def _task_runs_where(self, task_slug: Optional[str], state: Union[str, Iterable[str], None]) -> api.Where:
        where: api.Where = {"flow_run_id": {"_eq": self.flow_run_id}}
        if task_slug is not None:
            check_text(task_slug=task_slug)
            where["task"] = {"slug": {"_eq": task_slug}}
        if state is not None:
            where["state"] = {"_in": state_names(state)}
        return where

    def find_task_run(self, task_slug: str, map_index: int = -1) -> TaskRunView:
        """A task run of this flow run by its task's slug, or the beginning of it.

        Raises:
            NotFound: no task's slug begins so, or the task has no such child (a `ValueError`).
            Ambiguous: several slugs do; the message lists them (a `ValueError`).
        """
        check_text(task_slug=task_slug)
        tasks = {"flow": {"flow_runs": {"id": {"_eq": self.flow_run_id}}}, "slug": name_begins(task_slug)}
        slugs = sorted({row["slug"] for page in api.pages("task", tasks, fields="id slug") for row in page})
        begins = [slug for slug in slugs if slug.startswith(task_slug)]
        if len(begins) > 1 and task_slug not in begins:
            raise ambiguous("tasks", task_slug, begins)
        return self.get_task_run(task_slug if task_slug in begins or not begins else begins[0], map_index=map_index)

    def iter_task_runs(
        self,
        *,
        task_slug: Optional[str] = None,
        state: Union[str, Iterable[str], None] = None,
        mapped: Optional[bool] = None,
    ) -> Iterator[TaskRunView]:
        """Task runs of this flow run in the order in which they started, looked up 500 at a time; nothing is kept.

        Those that have not started, among them the parents of mapped ones, come last, in the order of their creation.

        Args:
            task_slug: only those of this task.
            state: only those in this state, or one of these, by class name such as ``"Failed"``.
            mapped: only children of mapped task runs, or only the others.

        Raises:
            Like `get_all_task_runs`.
        """
        where = self._task_runs_where(task_slug, state)
        if mapped is not None:
            where["map_index"] = {"_gte" if mapped else "_lt": 0}
        return (TaskRunView._from_task_run_data(row) for page in _by_start(where) for row in page)

    @classmethod
    def count_task_runs(cls, flow_run_ids: Iterable[str]) -> Dict[str, Dict[str, int]]:
        """How many task runs of flow runs are in which state, children of mapped ones included.

        Args:
            flow_run_ids: UUIDs of the flow runs.

        Returns:
            UUID of each flow run -> name of the state -> how many, if any.

        Example:
            >>> FlowRunView.count_task_runs(["<id>"])
            {"<id>": {"Success": 3, "Failed": 1}}
        """
        counts = " ".join(
            f'{name}: task_runs_aggregate(where: {{state: {{_eq: "{name}"}}}}) {{ aggregate {{ count }} }}'
            for name in STATES
        )
        ids = list(flow_run_ids)
        found: Dict[str, Dict[str, int]] = {}
        for start in range(0, len(ids), MOST_PARENTS):
            where = {"id": {"_in": ids[start : start + MOST_PARENTS]}}
            for row in api.find("flow_run", where, fields=f"id {counts}"):
                numbers = {name: int(row[name]["aggregate"]["count"]) for name in STATES}
                found[row["id"]] = {name: number for name, number in numbers.items() if number}
        return found

    @classmethod
    def deferrals_of(cls, flow_run_ids: Iterable[str]) -> Dict[str, List[Deferral]]:
        """What task runs of flow runs wait for without a process.

        Args:
            flow_run_ids: UUIDs of the flow runs.

        Returns:
            UUID of each flow run of which some do -> what for.

        Example:
            >>> FlowRunView.deferrals_of(["<id>"])
            {"<id>": [Deferral(awaits="<id of a child>", since="2026-11-25T00:00:00+00:00")]}
        """
        ids = list(flow_run_ids)
        found: Dict[str, List[Deferral]] = {}
        for start in range(0, len(ids), MOST_PARENTS):
            where = {
                "flow_run_id": {"_in": ids[start : start + MOST_PARENTS]},
                "state": {"_eq": "Scheduled"},
                "serialized_state": {"_contains": DEFERRED},
            }
            for page in api.pages("task_run", where, fields="id flow_run_id serialized_state"):
                for row in page:
                    deferral = Deferral.of(row["serialized_state"])
                    if deferral:
                        found.setdefault(row["flow_run_id"], []).append(deferral)
        return found

    def get_task_run_ids(self) -> List[str]:
        """Return a new list of the UUIDs of all task runs; they are looked up once if the flow run has finished."""
        if self._task_run_ids:
            return list(self._task_run_ids)
        where = {"flow_run_id": {"_eq": self.flow_run_id}}
        ids = [row["id"] for page in api.pages("task_run", where, fields="id") for row in page]
        if self.state.is_finished():
            object.__setattr__(self, "_task_run_ids", tuple(ids))
        return ids

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(flow_run_id={self.flow_run_id!r}, name={self.name!r}, state={self.state!r}, "
            f"labels={self.labels!r}, cached_task_runs={len(self._task_runs)})"
        )

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, FlowRunView):
            return NotImplemented
        return self.flow_run_id == other.flow_run_id and self.states == other.states

    def __hash__(self) -> int:
        return hash(self.flow_run_id)
