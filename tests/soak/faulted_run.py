"""One run of a parent and its children while faults are injected and processes are killed."""

import random
import re
from collections import Counter, defaultdict
from time import monotonic, sleep
from typing import Counter as CounterOf
from typing import Dict, List, NamedTuple, Optional

import flows
from installation import Installation

from prefect_taskrun_tasks.server.rules.states import FINISHED
from prefect_taskrun_tasks.server.transaction import Row
from prefect_taskrun_tasks.views import Lineage

#: Seconds for a run on a machine that is busy with other things; alone it takes about ten
LONGEST = 600.0

#: Lazarus brings a flow run back three times
MOST_KILLS = 3

#: Requests of a run without kills, of which each kill awaits one
REQUESTS = 180

#: Seconds between two looks
PAUSE = 0.05


class Tally(NamedTuple):
    """What has happened in a run."""

    requests: int
    faults: CounterOf[str]
    kills: CounterOf[str]
    restarts: int


class FaultedRun:
    """A parent flow run in an installation: all that happens to it follows from the seed.

    Args:
        installation: where; nothing else runs there meanwhile.
        seed: of the faults and kills.
    """

    def __init__(self, installation: Installation, seed: str) -> None:
        self._installation = installation
        choose = random.Random(seed)
        self._parent_flow = choose.choice(sorted(installation.parents))
        kills = choose.choices(["parent", "agent", "child", "triggerer"], [5, 3, 3, 3], k=choose.randint(1, MOST_KILLS))
        #: number of the request at which to kill, and what
        self._coming = sorted((choose.randint(1, REQUESTS), victim) for victim in kills)
        self._seed = seed
        self._kills: CounterOf[str] = Counter()
        self._restarts = 0
        #: flow run id -> how often it was lost with a process
        self._lost: CounterOf[str] = Counter()
        self._parent_id = ""

    def run(self) -> Tally:
        """Runs, until parent and children have finished.

        Raises:
            AssertionError: a child was lost or is there twice, or the parent does not end as it should.
        """
        self._installation.proxy.begin(self._seed)
        deadline = monotonic() + LONGEST
        self._parent_id = self._installation.create_flow_run(self._installation.parents[self._parent_flow])
        try:
            while not self._is_over():
                assert monotonic() < deadline, "It does not end."
                self._kill_what_is_due()
                sleep(PAUSE)
            self._check()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._described()}") from error
        proxy = self._installation.proxy
        return Tally(proxy.requests, proxy.faults, self._kills, self._restarts)

    def _is_over(self) -> bool:
        parent = self._installation.flow_run(self._parent_id)
        if parent["state"] not in FINISHED:
            return False
        if parent["state"] != "Success":
            # the old process may still be about to end
            if self._parent_id not in self._installation.processes():
                reasons = self._kills["parent"] + self._kills["child"]
                assert self._restarts < reasons, "It failed, and not because a process was killed."
                self._installation.restart(self._parent_id)
                self._restarts += 1
            return False
        return all(row["state"] in FINISHED for row in self._children()) and not self._installation.processes()

    def _kill_what_is_due(self) -> None:
        if not self._coming or self._installation.proxy.requests < self._coming[0][0]:
            return
        victim = self._coming[0][1]
        if victim == "agent":
            self._lost.update(self._installation.kill_agent())
        elif victim == "triggerer":
            self._installation.kill_triggerer()
        else:
            victims = self._victims(victim)
            if not victims:
                # as soon as there is one
                return
            self._lost.update(self._installation.kill_flow_run(victims[0]))
        self._kills[victim] += 1
        self._coming.pop(0)

    def _victims(self, kind: str) -> List[str]:
        """Flow runs with a process, of which the first is to be killed."""
        with_process = self._installation.processes()
        if kind == "parent":
            return [self._parent_id] if self._parent_id in with_process else []
        # one that has begun fails, and another takes its place; before that it would only begin again
        return [row["id"] for row in self._children() if row["state"] == "Running" and row["id"] in with_process]

    def _children(self) -> List[Row]:
        return [row for row in self._installation.flow_runs() if _parent_of(row) == self._parent_id]

    def _check(self) -> None:
        by_key: Dict[str, List[Row]] = defaultdict(list)
        for child in self._children():
            by_key[self._first_key(child)].append(child)
        assert set(by_key) == self._keys(), f"Children are there for {sorted(by_key)}, and not for {self._keys()}."
        executed = Counter(self._installation.executions())
        for key, children in by_key.items():
            *failed, last = children
            first = children[0]["idempotency_key"]
            assert first.startswith(key), f"The first child for {key} is for {first}."
            assert len({child["idempotency_key"] for child in children}) == len(children), f"{key} is there twice."
            assert last["state"] == "Success", f"The last child for {key} has not succeeded."
            again = [child["id"] for child in failed if child["state"] == "Success"]
            assert not again, f"{again} succeeded, and ran anew all the same."
            assert executed[last["id"]], f"{last['id']} has succeeded without being executed."
        for child in self._children():
            most = 1 + self._lost[child["id"]]
            assert executed[child["id"]] <= most, f"{child['id']} was executed {executed[child['id']]} times."

    def _first_key(self, child: Row) -> str:
        """The key of the child in whose place one runs, or its own; without the digest that `map_flow_run` adds."""
        first, *rerun = child["idempotency_key"].split("-rerun-")
        key = self._installation.flow_run(first)["idempotency_key"] if rerun else first
        return re.sub("-[0-9a-f]{16}$", "", key)

    def _keys(self) -> "set[str]":
        """The idempotency keys of the children that there should be."""
        keys = set()
        for row in self._installation.task_runs(self._parent_id):
            if row["slug"] == "map-1":
                keys |= {f"{row['id']}-0", f"{row['id']}-1"}
            elif row["slug"].startswith("create-") and row["state"] != "Mapped":
                keys.add(row["id"] if row["map_index"] == -1 else f"{row['id']}-{row['map_index']}")
        assert len(keys) == flows.CHILDREN
        return keys

    def _described(self) -> str:
        lines = [
            f"Seed {self._seed!r}, flow {self._parent_flow!r}, {dict(self._kills)} killed, {self._restarts} restarts"
        ]
        for run in [self._installation.flow_run(self._parent_id), *self._children()]:
            history = [f"{row['timestamp']} {row['state']}" for row in self._installation.history(run["id"])]
            lines.append(f"{run['id']} {run['name']!r} {run['idempotency_key']}: {'; '.join(history)}")
            for log in self._installation.logs(run["id"]):
                lines.append(f"    {log['timestamp']} {log['level']} {log['name']}: {log['message']}")
        for run in self._installation.task_runs(self._parent_id):
            lines.append(
                f"task run {run['slug']} [{run['map_index']}] {run['id']} {run['state']}: {run['state_message']}"
            )
        return "\n".join([*lines, "agent:", self._installation.agent_log()[-3000:]])


def _parent_of(flow_run: Row) -> Optional[str]:
    lineage = Lineage.of(flow_run["context"])
    return lineage.parent_flow_run_id if lineage else None
