"""Views: results of mapped tasks, iteration over children, all task runs, single lookups."""

import time
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

import prefect.backend
from prefect.engine.results import LocalResult

import prefect_taskrun_tasks
from prefect_taskrun_tasks.server import Backend

from . import mapped_run
from .measure import measure, ratios

SIDES = {"ours": prefect_taskrun_tasks, "prefect": prefect.backend}

#: Seconds that a read from the slow store takes
SLOW = 0.02


def get_result(side: str, flow_run_id: str, children: int) -> None:
    view = SIDES[side].TaskRunView.from_task_slug("inc-1", flow_run_id)
    assert view.get_result() == list(range(1, children + 1))


def get_result_from_slow_store(side: str, flow_run_id: str, children: int) -> None:
    read = LocalResult.read

    def slow_read(self: LocalResult, location: str) -> Any:
        time.sleep(SLOW)
        return read(self, location)

    # in a process that is there for this one measurement; a class of its own could not be loaded by Prefect's views
    LocalResult.read = slow_read  # type: ignore[method-assign]
    get_result(side, flow_run_id, children)


def iter_mapped(side: str, flow_run_id: str, children: int) -> None:
    view = SIDES[side].TaskRunView.from_task_slug("inc-1", flow_run_id)
    assert sum(1 for _ in view.iter_mapped()) == children


def get_all_task_runs(side: str, flow_run_id: str, children: int) -> None:
    assert len(SIDES[side].FlowRunView.from_flow_run_id(flow_run_id).get_all_task_runs()) == children + 1


def single_lookups(side: str, flow_run_id: str, children: int) -> None:
    for index in range(200):
        view = SIDES[side].TaskRunView.from_task_slug("inc-1", flow_run_id, map_index=index % children)
        assert view.get_result() == index % children + 1


#: what is measured -> function, children, why Prefect's own cannot do it
CASES: Dict[str, Tuple[Callable[..., None], int, Optional[str]]] = {
    "get_result of 10 children": (get_result, 10, None),
    "get_result of 1,000 children": (get_result, 1_000, None),
    "get_result of 10,000 children": (get_result, 10_000, None),
    "get_result of 1,000 children, 20 ms store": (get_result_from_slow_store, 1_000, None),
    "iter_mapped of 10,000 children": (iter_mapped, 10_000, None),
    "get_all_task_runs of 900": (get_all_task_runs, 899, None),
    "get_all_task_runs of 20,000": (get_all_task_runs, 19_999, "refuses more than 1,000 task runs"),
    "200 single lookups with results": (single_lookups, 1_000, None),
}


def run(directory: Path) -> Dict[str, Any]:
    database_url = f"sqlite:///{directory / 'prefect.db'}"
    flow_run_ids = {
        children: mapped_run.create(database_url, children, directory / "results")
        for children in sorted({children for _, children, _ in CASES.values()})
    }
    figures: Dict[str, Any] = {"ours": {}, "prefect": {}, "ratio": {}}
    with Backend(database_url, port=0) as backend:
        for case, (function, children, refusal) in CASES.items():
            for side in SIDES:
                if side == "prefect" and refusal:
                    figures[side][case] = refusal
                    continue
                figures[side][case] = measure(backend.url, function, side, flow_run_ids[children], children)
            if not refusal:
                figures["ratio"][case] = ratios(figures["ours"][case], figures["prefect"][case])
            print(
                f"  {case}",
                *(f"{side}: {values.get(case)}" for side, values in figures.items()),
                sep="\n    ",
                flush=True,
            )
    return figures
