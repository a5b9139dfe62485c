"""Growth: what reads take with 1,000 task runs in the database, and with 1,000,000, which are 4 GB on the disk."""

import json
import random
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, Dict, List, Tuple

from prefect_taskrun_tasks.server.api import Api
from prefect_taskrun_tasks.server.database import Database

from . import many_flow_runs
from .many_flow_runs import TASK_RUNS, Known
from .reads import OF_PREFECT, READS, Asked

#: Task runs in the two databases
SIZES = (1_000, 1_000_000)

#: A read is asked so often in a row, of both databases in turn, and again in each round
CALLS, ROUNDS = 40, 10

#: Calls before the first that counts
WARM_UP = 5


class Filled:
    """An API on a database of some size."""

    def __init__(self, path: Path, task_runs: int) -> None:
        self._database = Database(f"sqlite:///{path}")
        self._known = many_flow_runs.create(self._database, task_runs // TASK_RUNS, _show)
        self._api = Api(self._database)
        self._random = random.Random(1)
        print(f"\r  {task_runs:,} task runs: {self._database.store.size() / 1_000_000:,.0f} MB", " " * 40)

    def choose(self) -> Known:
        """One of the flow runs that it knows of; a database of a million has not all of it in its memory."""
        return self._random.choice(self._known)

    def took(self, asked: Asked, agent_id: str) -> Tuple[float, float]:
        """Milliseconds until a request is answered, and of the processor's time."""
        document, variables = asked
        body = json.dumps({"query": document, "variables": variables}).encode()
        begun, worked = perf_counter(), thread_time()
        _, answer = self._api.answer(body, {"x-prefect-agent-id": agent_id})
        took = 1_000 * (perf_counter() - begun), 1_000 * (thread_time() - worked)
        assert list(answer) == ["data"], answer
        return took

    def close(self) -> None:
        self._database.close()


def _show(progress: str) -> None:
    print(f"\r  {progress}", end="", flush=True)


def run(directory: Path) -> Dict[str, Any]:
    databases = [Filled(directory / f"{size}.db", size) for size in SIZES]
    #: read -> for each round the p95 of each database, in both kinds of time
    rounds: Dict[str, List[List[float]]] = {name: [] for name in READS}
    for number in range(ROUNDS):
        _show(f"round {number + 1} of {ROUNDS}")
        for name in READS:
            rounds[name].append(_p95s(databases, name))
    for each in databases:
        each.close()
    few_size, many_size = (f"{size:,}" for size in SIZES)
    print(f"\r  {'p95 in ms':24}{'until answered':^30}{'of the processor':^30}")
    print(f"  {'':24}" + 2 * f"{few_size:>9} {many_size:>10} {'ratio':>8}  ")
    figures: Dict[str, Dict[str, float]] = {}
    for name, p95s in rounds.items():
        # of each the best, because in some rounds others may have had the machine
        few, few_work, many, many_work = (min(each) for each in zip(*p95s))
        figures[name] = {
            "few_ms": round(few, 3),
            "many_ms": round(many, 3),
            "ratio": round(many / few, 2),
            "few_processor_ms": round(few_work, 3),
            "many_processor_ms": round(many_work, 3),
            "processor_ratio": round(many_work / few_work, 2),
        }
        print(f"  {name:24}{few:9.3f} {many:10.3f} {many / few:8.2f}  ", end="")
        print(f"{few_work:9.3f} {many_work:10.3f} {many_work / few_work:8.2f}")
    worst = {
        f"worst_{ratio}{of}": max((figures[name][ratio], name) for name in names)
        for ratio in ("ratio", "processor_ratio")
        for of, names in (("_of_prefect", OF_PREFECT), ("", READS))
    }
    for kind, (ratio, name) in worst.items():
        print(f"  {kind.replace('_', ' '):34} {ratio:6.2f}  {name}")
    return {"sizes": SIZES, "reads": figures, **worst}


def _p95s(databases: List[Filled], name: str) -> List[float]:
    """For each database the p95 of both kinds of time."""
    took: List[List[Tuple[float, float]]] = [[] for _ in databases]
    for _ in range(WARM_UP + CALLS):
        # in turn, so that what disturbs one disturbs the other
        for database, found in zip(databases, took):
            known = database.choose()
            found.append(database.took(READS[name](known), known.agent_id))
    return [sorted(kind)[CALLS * 95 // 100] for found in took for kind in zip(*found[WARM_UP:])]
