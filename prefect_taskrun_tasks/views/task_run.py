"""A task run as it was when looked up."""

import difflib
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Type

import pendulum
from prefect.engine.result import NoResultType, Result
from prefect.engine.serializers import Serializer
from prefect.engine.state import Finished, Mapped, Scheduled, Skipped, State, Success

from .. import api, results
from ..errors import Ambiguous, IncompleteMap, NotFinished, NotFound, NotMapped
from ..results import RAISE, Loader, Stored
from .arguments import check_count, check_kind, check_map_index, check_text
from .deferral import Deferral
from .flow import FlowView
from .history import TimestampedState, history, instant, loaded_state
from .log import FlowRunLog, logs_where
from .prefix import MOST_CANDIDATES, ambiguous, id_begins


class _NotLoaded:
    """Says that no result has been loaded yet; a loaded one may be None."""

    def __repr__(self) -> str:
        return "<not loaded>"

    def __reduce__(self) -> str:
        # one object in every process, so that `is` works after pickling
        return "NotLoaded"


NotLoaded = _NotLoaded()


@dataclass(frozen=True, eq=False, repr=False)
class TaskRunView:
    """A frozen picture of a task run, which loads the task's result on demand.

    Drop-in for `prefect.backend.TaskRunView`. Usually made by `FlowRunView.get_task_run` or by one of the class
    methods here. Views are equal if they show the same task run in the same state; they can be hashed, pickled (with
    the result, once it is loaded), and shared between threads.

    Example:
        >>> task_run = TaskRunView.from_task_slug("create_some_data-1", flow_run_id="<id>")
        >>> task_run.get_result()
        [0, 1, 2, 3, 4]
    """

    #: UUID of the task run
    task_run_id: str
    #: UUID of its task
    task_id: str
    #: name of its task within the flow, such as ``"inc-1"``
    task_slug: str
    #: name of the task run; usually None
    name: Optional[str]
    #: its state when looked up
    state: State
    #: position among the children of a mapped task, from 0; -1 for all others
    map_index: int
    #: UUID of the flow run it belongs to
    flow_run_id: str

    _result: Any = field(default=NotLoaded, init=False)
    #: counts its states, in the backend; -1 if unknown
    _version: int = field(default=-1, init=False)
    #: what `state` is made of when it is first asked for
    _serialized_state: Any = field(default=None, init=False)
    #: when it started, and when it entered its state, as the Prefect API writes it
    _started: Optional[str] = field(default=None, init=False)
    _since: Optional[str] = field(default=None, init=False)

    @property
    def state_name(self) -> str:
        """Name of its state's class, such as ``"Success"``."""
        return str(self._serialized_state["type"]) if self._serialized_state else type(self.state).__name__

    @property
    def state_message(self) -> Optional[str]:
        """What its state says."""
        message = self._serialized_state.get("message") if self._serialized_state else self.state.message
        return None if message is None else str(message)

    @property
    def deferral(self) -> Optional[Deferral]:
        """What it waits for without a process; None if it does not."""
        return Deferral.of(self._serialized_state or self.state.serialize())

    @property
    def start_time(self) -> Optional[pendulum.DateTime]:
        """When it was first Running; None if it never was, or if this view was not looked up."""
        return instant(self._started) if self._started else None

    @property
    def end_time(self) -> Optional[pendulum.DateTime]:
        """When it entered its final state; None if it has not finished, or if this view was not looked up."""
        # not the `end_time` that the API has: Prefect Server sets none for some final states, and keeps that of one
        # that was not the last
        return instant(self._since) if self._since and self._is(Finished) else None

    @property
    def result_type(self) -> Optional[str]:
        """Name of the `Result` class that keeps what the task returned, with its module if it is not one of Prefect's.

        None if nothing does.
        """
        result = self._stored().result
        if result is None or isinstance(result, NoResultType) or not self._is(Success):
            return None
        # a class that is not one of Prefect's is read as a plain `Result`
        kept = (self._serialized_state or {}).get("_result") or {}
        return str(kept.get("type") or type(result).__name__)

    @property
    def result_location(self) -> Optional[str]:
        """Where what the task returned is kept; None if nothing is, or if it is kept without a location."""
        return self._stored().location

    def get_result(
        self,
        *,
        result: Optional[Result] = None,
        serializer: Optional[Serializer] = None,
        workers: int = results.WORKERS,
        if_failed: Any = RAISE,
        if_skipped: Any = RAISE,
    ) -> Any:
        """The value that the task returned, loaded on the first call and then kept.

        Args:
            result: what reads the value, instead of the `Result` that the state names.
            serializer: what decodes it, instead of the serializer of that `Result`. Where neither is given and the
                state does not say enough, the task's own `Result` is looked up in its flow, loaded from its storage.
            workers: of a mapped task run, how many children's results to read at once.
            if_failed: of a mapped task run, the value of children that failed; default: raise for the first.
            if_skipped: of a mapped task run, the value of children that were skipped; default: raise for the first.

        Returns:
            The value; for the parent of a mapped task run a list with the values of all children, each at its map
            index. A value that was loaded with other arguments than the default ones is not kept.

        Raises:
            NotFinished: the task run, or a child of it, has not finished (a `ValueError`).
            ResultUnavailable: there is no result, or it cannot be read (a `TypeError` or `ValueError`).
            WrongType: `result` is not a `Result`, `serializer` not a `Serializer`, or `workers` not a number.
            InvalidArgument: `workers` is less than 1 (a `ValueError`).
        """
        _check_loading(result, serializer, workers)
        as_usual = result is None and serializer is None and if_failed is RAISE and if_skipped is RAISE
        if as_usual and self._result is not NotLoaded:
            return self._result
        self._check_finished()
        if self._is(Mapped):
            values = self.iter_results(
                result=result, serializer=serializer, workers=workers, if_failed=if_failed, if_skipped=if_skipped
            )
            value: Any = list(values)
        else:
            value = self._loader(result, serializer).load(self._stored())
        if as_usual:
            object.__setattr__(self, "_result", value)
        return value

    def iter_results(
        self,
        *,
        result: Optional[Result] = None,
        serializer: Optional[Serializer] = None,
        workers: int = results.WORKERS,
        if_failed: Any = RAISE,
        if_skipped: Any = RAISE,
    ) -> Iterator[Any]:
        """The values of a mapped task run's children, in map order, read ahead of use; nothing is kept.

        For maps whose values do not all fit into memory. Arguments and errors are those of `get_result`; an error comes
        when its child's turn has come.

        Raises:
            NotMapped: the task run is not mapped (a `TypeError`).

        Example:
            >>> for value in inc_parent.iter_results(if_failed=None):
            ...     print(value)
        """
        _check_loading(result, serializer, workers)
        self._check_mapped()
        self._check_finished()
        load = partial(_load, self._loader(result, serializer), if_failed, if_skipped)
        stored = map(self._stored_child, self._children())
        return results.in_order(load, stored, workers, expected=self._number_of_children())

    def iter_mapped(self) -> "Iterator[TaskRunView]":
        """The children of a mapped task run, in map order, looked up 500 at a time and ahead of use.

        Raises:
            NotMapped: the task run is not mapped (a `TypeError`).
            IncompleteMap: when the iteration comes to a child that is missing (a `ValueError`).

        Example:
            >>> for child in inc_parent.iter_mapped():
            ...     print(child.map_index, child.get_result())
        """
        self._check_mapped()
        return map(self._from_task_run_data, self._children())

    def _children(self) -> Iterator[api.Row]:
        """The rows of the children, in map order.

        Raises:
            IncompleteMap: when it comes to one that is missing.
        """
        where = {
            "task_id": {"_eq": self.task_id},
            "flow_run_id": {"_eq": self.flow_run_id},
            "map_index": {"_gte": 0},
        }
        due = 0
        for page in _ahead(api.pages("task_run", where, by="map_index")):
            for row in page:
                if row["map_index"] != due:
                    raise self._incomplete(due, row["map_index"])
                due += 1
                yield row
        if due < self._number_of_children():
            raise self._incomplete(due, self._number_of_children())

    def _incomplete(self, first: int, end: int) -> IncompleteMap:
        which = f"Child {first}" if end == first + 1 else f"Children {first} to {end - 1}"
        return IncompleteMap(
            f"{which} of the {self._number_of_children()} of {self._described()} cannot be found. Is the flow run "
            "finished?"
        )

    def _number_of_children(self) -> int:
        # a deserialised Mapped state holds a None for each child
        if self._serialized_state is not None:
            return int(self._serialized_state.get("n_map_states") or 0)
        return len(self.state.map_states)

    def _stored(self) -> Stored:
        if self._serialized_state is not None:
            return Stored.from_serialized(self._serialized_state, self._described())
        return Stored.from_state(self.state, self._described())

    def _stored_child(self, row: api.Row) -> Stored:
        child = self._from_task_run_data(row)
        child._check_finished()
        return child._stored()

    def _loader(self, result: Optional[Result], serializer: Optional[Serializer]) -> Loader:
        return Loader(result, serializer, self._task_result)

    def _task_result(self) -> Optional[Result]:
        """The task's own `Result`, or else that of its flow; the flow is loaded from its storage, once per flow."""
        flow = FlowView.of_flow_run(self.flow_run_id).get_flow()
        for task, slug in flow.slugs.items():
            if slug == self.task_slug:
                found: Optional[Result] = task.result or flow.result
                return found
        raise NotFound(f"The flow {flow.name!r} that was loaded has no task {self.task_slug!r}. Has it changed?")

    def get_states(self) -> List[TimestampedState]:
        """All states it has been in so far, oldest first; each with a `timestamp`. Looked up with each call."""
        where = {"id": {"_eq": self.task_run_id}}
        rows = api.find("task_run", where, fields="states { timestamp serialized_state }")
        return history(rows[0]["states"] if rows else ())

    def get_upstream(self) -> "List[TaskRunView]":
        """The task runs whose results or states it depends on; of mapped ones, the parents."""
        where = {
            "flow_run_id": {"_eq": self.flow_run_id},
            "map_index": {"_eq": -1},
            "task": {"downstream_edges": {"downstream_task_id": {"_eq": self.task_id}}},
        }
        return [self._from_task_run_data(row) for page in api.pages("task_run", where) for row in page]

    def iter_logs(
        self, start_time: Optional[pendulum.DateTime] = None, end_time: Optional[pendulum.DateTime] = None
    ) -> Iterator[FlowRunLog]:
        """Its lines of the flow run's log, oldest first, looked up 500 at a time.

        Args:
            start_time: only lines after it; default: from the beginning.
            end_time: only lines up to it; default: up to now.

        Raises:
            WrongType: `start_time` or `end_time` is not a `datetime` (a `TypeError`).
        """
        return logs_where({"task_run_id": {"_eq": self.task_run_id}}, start_time, end_time)

    def get_latest(self) -> "TaskRunView":
        """A new view of the same task run as it is now. A loaded result is kept, unless the task has run again."""
        latest = self.from_task_run_id(self.task_run_id)
        if self._shows(latest._version, latest._serialized_state):
            object.__setattr__(latest, "_result", self._result)
        return latest

    @classmethod
    def from_task_run_id(cls, task_run_id: str) -> "TaskRunView":
        """Looks a task run up by its UUID.

        Raises:
            TypeError: `task_run_id` is not a string.
            NotFound: there is no such task run (a `ValueError`).

        Example:
            >>> TaskRunView.from_task_run_id("c8751f34-9d5e-4ea7-aead-8b50978dabb7")
        """
        check_text(task_run_id=task_run_id)
        return cls._one({"id": {"_eq": task_run_id}}, f"task run {task_run_id!r}")

    @classmethod
    def find(cls, task_run_id: str) -> "TaskRunView":
        """Looks a task run up by its UUID, or the beginning of it, of four digits at least.

        Raises:
            NotFound: no id begins so (a `ValueError`).
            Ambiguous: several do; the message lists them (a `ValueError`).
        """
        check_text(task_run_id=task_run_id)
        begins = id_begins(task_run_id)
        rows = api.find("task_run", {"id": begins}, limit=MOST_CANDIDATES + 1) if begins else []
        if not rows:
            raise NotFound(f"No task run has the id {task_run_id!r}, or one that begins so.")
        found = [cls._from_task_run_data(row) for row in rows]
        if len(found) > 1:
            raise ambiguous("task runs", task_run_id, (f"{each.task_run_id}  {each._described()}" for each in found))
        return found[0]

    @classmethod
    def from_task_slug(cls, task_slug: str, flow_run_id: str, map_index: int = -1) -> "TaskRunView":
        """Looks a task run up by its task's slug.

        Args:
            task_slug: the task's name within the flow, usually ``<task name>-1``.
            flow_run_id: UUID of the flow run.
            map_index: which child of a mapped task; -1 for the task run itself.

        Raises:
            NotFound: there is no such task run (a `ValueError`).

        Example:
            >>> TaskRunView.from_task_slug("inc-1", flow_run_id="<id>", map_index=2).get_result()
            3
        """
        check_text(task_slug=task_slug, flow_run_id=flow_run_id)
        check_map_index(map_index)
        where = {
            "task": {"slug": {"_eq": task_slug}},
            "flow_run_id": {"_eq": flow_run_id},
            "map_index": {"_eq": map_index},
        }
        child = "" if map_index == -1 else f" with map index {map_index}"
        sought = f"task run of {task_slug!r}{child} in flow run {flow_run_id!r}"
        return cls._one(where, sought, lambda: _near(task_slug, flow_run_id, map_index))

    @classmethod
    def of_flow_runs(cls, task_slug: str, flow_run_ids: Iterable[str]) -> "Dict[str, TaskRunView]":
        """Looks the task runs of one task up in many flow runs, together.

        Args:
            task_slug: the task's name within its flow, usually ``<task name>-1``.
            flow_run_ids: UUIDs of the flow runs.

        Returns:
            UUID of each flow run that has the task -> its task run; of a mapped task, the parent's.

        Example:
            >>> TaskRunView.of_flow_runs("inc-1", [child.flow_run_id for child in flow_run.get_children()])
        """
        check_text(task_slug=task_slug)
        where = {
            "task": {"slug": {"_eq": task_slug}},
            "flow_run_id": {"_in": list(flow_run_ids)},
            "map_index": {"_eq": -1},
        }
        rows = (row for page in api.pages("task_run", where) for row in page)
        return {row["flow_run_id"]: cls._from_task_run_data(row) for row in rows}

    @classmethod
    def _one(cls, where: Dict[str, Any], sought: str, hint: Callable[[], str] = lambda: "") -> "TaskRunView":
        rows = api.find("task_run", where)
        if not rows:
            raise NotFound(f"No {sought} was found. {hint()}".strip())
        if len(rows) > 1:
            raise Ambiguous(f"Found {len(rows)} where one {sought} was looked for: {rows}")
        return cls._from_task_run_data(rows[0])

    @classmethod
    def _from_task_run_data(cls, row: api.Row) -> "TaskRunView":
        view: TaskRunView = object.__new__(cls)
        # the backend may not have given a new child of a mapped task its first state yet
        state = row["serialized_state"] or Scheduled().serialize()
        with api.reading("a task run", row):
            task, _ = row["task"], results.state_class(state["type"])
        # `state` is left out: most of the time of making a view would go into deserialising it, see __getattr__
        view.__dict__.update(
            task_run_id=row["id"],
            task_id=task["id"],
            task_slug=task["slug"],
            name=row["name"],
            map_index=row["map_index"],
            flow_run_id=row["flow_run_id"],
            _version=row["version"],
            _serialized_state=state,
            _started=row["start_time"],
            _since=row["state_timestamp"],
        )
        return view

    def __getattr__(self, name: str) -> Any:
        # called for what is not there; `_serialized_state` itself is not while a view is being unpickled or copied
        if name != "state" or "_serialized_state" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        # the same for all threads that ask at once
        return self.__dict__.setdefault("state", loaded_state(self._serialized_state))

    def _shows(self, version: int, serialized_state: Any) -> bool:
        """Whether this view shows the task run in a state; Prefect Server may give two states the same version."""
        return bool(self._version == version and self._serialized_state == serialized_state)

    def _is(self, kind: Type[State]) -> bool:
        """Whether its state is of a kind, without deserialising it."""
        if self._serialized_state is not None:
            return issubclass(results.state_class(self._serialized_state["type"]), kind)
        return isinstance(self.state, kind)

    def _check_finished(self) -> None:
        if not self._is(Finished):
            raise NotFinished(
                f"The result of {self._described()} cannot be loaded: it is not finished but in state "
                f"{type(self.state).__name__}."
            )

    def _check_mapped(self) -> None:
        if not self._is(Mapped):
            raise NotMapped(f"Task run {self.task_run_id!r} ({self.task_slug}) is not a mapped task.")

    def _described(self) -> str:
        child = "" if self.map_index == -1 else f"[{self.map_index}]"
        return f"task run '{self.task_slug}{child}' of flow run {self.flow_run_id}"

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(task_run_id={self.task_run_id!r}, task_id={self.task_id!r}, "
            f"task_slug={self.task_slug!r}, state={self.state!r}, result={self._result!r})"
        )

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, TaskRunView):
            return NotImplemented
        return self.task_run_id == other.task_run_id and self.state == other.state

    def __hash__(self) -> int:
        return hash(self.task_run_id)


def _near(task_slug: str, flow_run_id: str, map_index: int) -> str:
    """Why there is no such task run, as far as the backend knows."""
    of_its_flow = {"flow": {"flow_runs": {"id": {"_eq": flow_run_id}}}}
    slugs = sorted(task["slug"] for page in api.pages("task", of_its_flow, fields="id slug") for task in page)
    if not slugs:
        return "There is no such flow run, or its flow has no tasks."
    if task_slug not in slugs:
        near = difflib.get_close_matches(task_slug, slugs, n=5, cutoff=0.5) or slugs[:20]
        which = "" if len(near) == len(slugs) else f" {len(slugs)} tasks, among them"
        return f"Its flow has no task of that slug. It has{which}: {', '.join(near)}."
    if map_index == -1:
        return ""
    where = {
        "task": {"slug": {"_eq": task_slug}},
        "flow_run_id": {"_eq": flow_run_id},
        "map_index": {"_gte": 0},
    }
    children = sum(len(page) for page in api.pages("task_run", where, by="map_index", fields="map_index"))
    return f"There are {children} children." if children else "It is not mapped, or has no children yet."


def _check_loading(result: Any, serializer: Any, workers: Any) -> None:
    check_kind(Result, result=result)
    check_kind(Serializer, serializer=serializer)
    check_count(workers=workers)


def _load(loader: Loader, if_failed: Any, if_skipped: Any, stored: Stored) -> Any:
    if if_failed is not RAISE and not issubclass(stored.state, Success):
        return if_failed
    if if_skipped is not RAISE and issubclass(stored.state, Skipped):
        return if_skipped
    return loader.load(stored)


def _ahead(pages: Iterator[List[api.Row]]) -> Iterator[List[api.Row]]:
    """Pages, the next of which is fetched while one is used."""

    def following() -> Optional[List[api.Row]]:
        return next(pages, None)

    page = following()
    with results.threads_as_this(1, "page") as thread:
        while page is not None:
            # a page that is not full is most likely the last, and its successor not worth a thread
            coming = thread.submit(copy_context().run, following) if len(page) >= api.PAGE else None
            yield page
            page = coming.result() if coming else following()
