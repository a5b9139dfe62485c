"""Pictures of flow runs that never ran."""

from typing import Any, Dict, List, Optional, Sequence

#: When flow runs start
START = 1_700_000_000_000


def flow_run(name: str = "otter", id: str = "flow-run", **more: Any) -> Dict[str, Any]:
    return {
        "id": id,
        "name": name,
        "flow": "nightly",
        "state": "Success",
        "message": "All reference tasks succeeded.",
        "start": START,
        "end": START + 60_000,
        "parent_flow_run_id": None,
        "parent_task_run_id": None,
        "parent_map_index": None,
        **more,
    }


def task_run(
    slug: str,
    start: Optional[float] = 0,
    end: Optional[float] = None,
    state: str = "Success",
    map_index: int = -1,
    message: Optional[str] = "Task run succeeded.",
) -> List[Any]:
    """From and until the seconds after the flow run's start; by its slug and map index one knows its id."""
    id = slug if map_index < 0 else f"{slug}[{map_index}]"
    times = [None if seconds is None else START + int(1000 * seconds) for seconds in (start, end)]
    return [f"id of {id}", slug, map_index, state, message, *times]


def picture(
    task_runs: Sequence[List[Any]], *descendants: Dict[str, Any], taken_after: float = 60, **more: Any
) -> Dict[str, Any]:
    """Of a flow run, which `more` describes, after so many seconds."""
    return {
        "taken_at": START + int(1000 * taken_after),
        "flow_runs": [flow_run(**more), *descendants],
        "task_runs": list(task_runs),
    }


def mapped(slug: str, children: int, failing: Sequence[int] = (), at_once: int = 64) -> List[List[Any]]:
    """A task run that was mapped, and its children: each takes a second, and `at_once` start together."""
    return [
        task_run(slug, 0, 0.1, "Mapped"),
        *[
            task_run(slug, index // at_once, index // at_once + 1, "Failed" if index in failing else "Success", index)
            for index in range(children)
        ],
    ]
