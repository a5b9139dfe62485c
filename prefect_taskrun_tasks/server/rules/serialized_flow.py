"""What Prefect serializes of a flow: the shape that the rules rely on, and its refusal where it is another."""

from typing import Any, Callable, Dict, Iterable, List, Tuple

from ..errors import Refused
from ..transaction import LONGEST_KEY

#: What parts of a serialized flow are, if they are there
_PARTS: Dict[type, Tuple[str, ...]] = {
    dict: ("environment", "run_config", "storage", "schedule"),
    list: ("tasks", "edges", "parameters"),
    str: ("__version__",),
}

#: The largest integer of PostgreSQL
_LARGEST = 2**31 - 1

#: Seconds in a century. A task that was to be retried later than the last year of the calendar could never be
_CENTURY = 100 * 366 * 24 * 3600


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, type(None)))


def _is_storable(value: Any) -> bool:
    """Whether it is text that every database keeps as it is: others would be found again under another slug."""
    return isinstance(value, str) and "\0" not in value and value.encode("utf-8", "ignore").decode() == value


def _is_count(value: Any) -> bool:
    return value is None or (isinstance(value, int) and 0 <= value <= _LARGEST)


def _is_delay(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and abs(value) <= _CENTURY)


def _is_trigger(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and _is_text(value.get("fn")))


def _is_key(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value.encode("utf-8", "replace")) <= LONGEST_KEY)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, type(None)))


#: Keys of a serialized task -> whether a value can be one of Prefect's
_OF_A_TASK: Dict[str, Callable[[Any], bool]] = {
    "name": _is_text,
    "type": _is_text,
    "max_retries": _is_count,
    "retry_delay": _is_delay,
    "trigger": _is_trigger,
    "cache_key": _is_key,
    "tags": _is_list,
}


def check(flow: Any) -> None:
    """Refuses what could be stored, but would stand in the way of every run of the flow."""
    name = flow.get("name") if isinstance(flow, dict) else None
    if not isinstance(name, str) or not name:
        raise Refused("A serialized flow must be an object with a name.")
    for kind, parts in _PARTS.items():
        for part in parts:
            if not isinstance(flow.get(part), (kind, type(None))):
                raise Refused(f"Flow {name!r} is not one of Prefect's: its {part} is {flow[part]!r}.")
    for part in _PARTS[list]:
        if not all(isinstance(each, dict) for each in flow.get(part) or []):
            raise Refused(f"Flow {name!r} is not one of Prefect's: some of its {part} are no objects.")
    for each in flow.get("parameters") or []:
        if not isinstance(each.get("name"), str):
            raise Refused(f"Flow {name!r} is not one of Prefect's: a parameter has the name {each.get('name')!r}.")
    for part in ("run_config", "environment"):
        labels(flow.get(part) or {}, f"the {part} of flow {name!r}")


def check_tasks(flow_name: str, tasks: Iterable[Any]) -> None:
    """Refuses tasks that are not one of Prefect's."""
    for task in tasks:
        slug = task.get("slug") if isinstance(task, dict) else None
        if not slug or not isinstance(slug, str):
            raise Refused(f"Every task of flow {flow_name!r} needs a slug.")
        if not _is_storable(slug):
            raise Refused(f"The slug {slug!r} of a task of flow {flow_name!r} has characters that are no text.")
        for key, is_one in _OF_A_TASK.items():
            if not is_one(task.get(key)):
                raise Refused(f"The task {slug!r} of flow {flow_name!r} cannot have the {key} {task[key]!r}.")


def ends(flow_name: str, edge: Any) -> Tuple[Any, Any]:
    """The slugs of the tasks that an edge goes from and to."""
    if not isinstance(edge, dict) or not _is_text(edge.get("key")):
        raise Refused(f"An edge of flow {flow_name!r} must be an object, with text for its key, not {edge!r}.")
    upstream, downstream = (
        end.get("slug") if isinstance(end, dict) else end
        for end in (edge.get("upstream_task"), edge.get("downstream_task"))
    )
    return upstream, downstream


def labels(config: Any, whose: str) -> List[str]:
    """The labels of a run config or an environment.

    Raises:
        Refused: they are not text. An agent that asks what to run has text, which they would be compared with.
    """
    found = config.get("labels") or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise Refused(f"The labels of {whose} must be a list of text, not {found!r}.")
    return found
