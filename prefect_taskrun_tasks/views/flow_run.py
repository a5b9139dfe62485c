"""A flow run as it was when looked up, its task runs and its logs."""

import logging
from dataclasses import InitVar, dataclass, field
from datetime import datetime
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple, Union, cast

import pendulum
from prefect.engine.state import Finished, Pending, State
from prefect.run_configs.base import RunConfig
from prefect.serialization.run_config import RunConfigSchema
from prefect.utilities.graphql import GraphQLResult

from .. import api
from ..errors import InvalidArgument, NotFound
from .arguments import check_kind, check_map_index, check_text, state_names
from .flow import FlowView
from .lineage import KEY, Lineage
from .task_run import TaskRunView

#: Parents whose children are looked up by one query
MOST_PARENTS = 100

#: Task runs, and lines of the log, that an explanation names at most
MOST_EXPLAINED = 5

#: Characters of one of them
LONGEST_LINE = 600


class FlowRunLog(NamedTuple):
    """A line of a flow run's log. Sorts by time. Drop-in for `prefect.backend.flow_run.FlowRunLog`."""

    timestamp: pendulum.DateTime
    #: of the `logging` module, such as ``logging.INFO``
    level: int
    message: str

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> "FlowRunLog":
        # getLevelName goes both ways; a name that this process does not know comes back as a text
        level = logging.getLevelName(data["level"])
        return cls(
            timestamp=instant(data["timestamp"]),
            level=level if isinstance(level, int) else logging.INFO,
            message=data["message"],
        )


def _brief(text: str) -> str:
    """The first line and the last, which of a traceback are what happened where, and why."""
    lines = text.strip().splitlines() or [""]
    brief = lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1]}"
    return brief if len(brief) <= LONGEST_LINE else brief[: LONGEST_LINE - 4] + " ..."


def instant(text: str) -> pendulum.DateTime:
    """A time, as the Prefect API writes it."""
    parsed = pendulum.parse(text)
    assert isinstance(parsed, pendulum.DateTime)
    return parsed


class TimestampedState(State):
    """For type checkers: the states of a flow run's history, of whatever type, have a time."""

    timestamp: pendulum.DateTime


def _state(row: Dict[str, Any]) -> TimestampedState:
    state = cast(TimestampedState, State.deserialize(row["serialized_state"]))
    state.timestamp = instant(row["timestamp"])
    return state


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
    _task_run_ids: Optional[List[str]] = field(default=None, init=False)
    _flow: Optional[FlowView] = field(default=None, init=False)

    def __post_init__(self, task_runs: Optional[Iterable[TaskRunView]]) -> None:
        for task_run in task_runs or ():
            self._keep(task_run)

    def _kept(self, row: Dict[str, Any]) -> Optional[TaskRunView]:
        """The view that is kept of a task run, unless it has run again since."""
        kept = self._task_runs.get(row["id"])
        return kept if kept and kept._version == row["version"] else None

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
                if row["id"] not in known or known[row["id"]]._version != row["version"]:
                    known[row["id"]] = TaskRunView._from_task_run_data(row)
            task_runs = list(known.values())
        return cls._from_flow_run_data(rows[0], task_runs)

    @classmethod
    def _from_flow_run_data(
        cls, row: Dict[str, Any], task_runs: Optional[Iterable[TaskRunView]] = None
    ) -> "FlowRunView":
        # objects of Prefect's client, whose items are attributes too
        row = GraphQLResult(row)
        states = sorted(map(_state, row["states"]), key=lambda state: state.timestamp)
        # a flow run that was created just now may not have its first state yet
        unknown = Pending(message="A state for this flow run is not yet available.")
        return cls(
            flow_run_id=row["id"],
            name=row["name"],
            flow_id=row["flow_id"],
            labels=row["labels"],
            parameters=row["parameters"],
            context=row["context"],
            state=State.deserialize(row["serialized_state"]) if row["serialized_state"] else unknown,
            states=states,
            updated_at=instant(row["updated"]),
            run_config=RunConfigSchema().load(row["run_config"]) if row["run_config"] else None,
            task_runs=task_runs,
        )

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
        check_kind(datetime, start_time=start_time, end_time=end_time)
        window = {"_lte": (end_time or self.updated_at).isoformat()}
        if start_time:
            window["_gt"] = start_time.isoformat()
        where = {"flow_run_id": {"_eq": self.flow_run_id}, "timestamp": window}
        logs = [FlowRunLog.from_dict(row) for page in api.pages("log", where) for row in page]
        return sorted(logs, key=lambda log: log.timestamp)

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
            where = {
                "_or": [{"context": {"_contains": {KEY: {"parent_flow_run_id": parent}}}} for parent in some],
                # children are younger, and most other flow runs are not
                "created": {"_gte": min(created, default=None)},
            }
            for row in (row for page in api.pages("flow_run", where) for row in page):
                child = cls._from_flow_run_data(row)
                assert child.lineage is not None
                found[child.lineage.parent_flow_run_id].append(child)
        for children in found.values():
            children.sort(key=lambda child: child.states[0].timestamp if child.states else child.updated_at)
        return found

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
        where: Dict[str, Any] = {"flow_run_id": {"_eq": self.flow_run_id}}
        if task_slug is not None:
            check_text(task_slug=task_slug)
            where["task"] = {"slug": {"_eq": task_slug}}
        if state is not None:
            where["state"] = {"_in": state_names(state)}
        return [
            self._kept(row) or self._keep(TaskRunView._from_task_run_data(row))
            for page in api.pages("task_run", where)
            for row in page
        ]

    def get_task_run_ids(self) -> List[str]:
        """UUIDs of all task runs of this flow run; kept once the flow run has finished."""
        if self._task_run_ids:
            return self._task_run_ids
        where = {"flow_run_id": {"_eq": self.flow_run_id}}
        ids = [row["id"] for page in api.pages("task_run", where, fields="id") for row in page]
        if self.state.is_finished():
            object.__setattr__(self, "_task_run_ids", ids)
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
