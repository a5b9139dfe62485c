"""A task run as it was when looked up."""

from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Optional

from prefect.engine.state import Scheduled, State

from .. import api, results
from ..errors import Ambiguous, IncompleteMap, NotFinished, NotFound


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
    methods here.

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

    def get_result(self) -> Any:
        """The value that the task returned, loaded on the first call and then kept.

        Returns:
            The value; for the parent of a mapped task run a list with the values of all children, in map order.

        Raises:
            NotFinished: the task run, or a child of it, has not finished (a `ValueError`).
            ResultUnavailable: there is no result, or it cannot be found (a `TypeError` or `ValueError`).
            Exception: whatever the `Result` raises when it cannot read its location.
        """
        if not self.state.is_finished():
            raise NotFinished(
                f"The result of {self._described()} cannot be loaded: it is not finished but in state "
                f"{type(self.state).__name__}."
            )
        if self._result is NotLoaded:
            value = (
                [child.get_result() for child in self._children()]
                if self.state.is_mapped()
                else results.load(self.state, self._described())
            )
            object.__setattr__(self, "_result", value)
        return self._result

    def _children(self) -> "List[TaskRunView]":
        children = [
            self._from_task_run_data(row)
            for row in api.find("task_run", self._where_child({"_neq": -1}), order_by={"map_index": "asc"})
        ]
        # a deserialised Mapped state holds a None for each child
        expected = len(self.state.map_states)
        if len(children) < expected or [child.map_index for child in children] != list(range(len(children))):
            raise IncompleteMap(
                f"Of the {expected} children of {self._described()} some are missing: {len(children)} were found. Is "
                "the flow run finished?"
            )
        return children

    def _where_child(self, map_index: Dict[str, Any]) -> Dict[str, Any]:
        return {
            "task": {"slug": {"_eq": self.task_slug}},
            "flow_run_id": {"_eq": self.flow_run_id},
            "map_index": map_index,
        }

    def iter_mapped(self) -> "Iterator[TaskRunView]":
        """The children of a mapped task run, one after the other, each looked up when it is asked for.

        Raises:
            TypeError: the task run is not mapped.
        """
        if not self.state.is_mapped():
            raise TypeError(f"Task run {self.task_run_id!r} ({self.task_slug}) is not a mapped task.")
        map_index = 0
        while True:
            rows = api.find("task_run", self._where_child({"_eq": map_index}))
            if not rows:
                return
            yield self._from_task_run_data(rows[0])
            map_index += 1

    def get_latest(self) -> "TaskRunView":
        """A new view of the same task run as it is now. A loaded result is kept."""
        latest = self.from_task_run_id(self.task_run_id)
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
        if not isinstance(task_run_id, str):
            raise TypeError(f"Unexpected type {type(task_run_id)!r} for `task_run_id`, expected 'str'.")
        return cls._one({"id": {"_eq": task_run_id}}, f"task run {task_run_id!r}")

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
        where = {
            "task": {"slug": {"_eq": task_slug}},
            "flow_run_id": {"_eq": flow_run_id},
            "map_index": {"_eq": map_index},
        }
        child = "" if map_index == -1 else f" with map index {map_index}"
        return cls._one(where, f"task run of {task_slug!r}{child} in flow run {flow_run_id!r}")

    @classmethod
    def _one(cls, where: Dict[str, Any], sought: str) -> "TaskRunView":
        rows = api.find("task_run", where)
        if not rows:
            raise NotFound(f"No {sought} was found.")
        if len(rows) > 1:
            raise Ambiguous(f"Found {len(rows)} where one {sought} was looked for: {rows}")
        return cls._from_task_run_data(rows[0])

    @classmethod
    def _from_task_run_data(cls, row: Dict[str, Any]) -> "TaskRunView":
        return cls(
            task_run_id=row["id"],
            task_id=row["task"]["id"],
            task_slug=row["task"]["slug"],
            name=row["name"],
            # the backend may not have given a new child of a mapped task its first state yet
            state=State.deserialize(row["serialized_state"] or Scheduled().serialize()),
            map_index=row["map_index"],
            flow_run_id=row["flow_run_id"],
        )

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
