"""Parents and children under faults: no child is lost, and none is there twice."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, List
from typing import Counter as CounterOf

import pytest
from faulted_run import FaultedRun, Tally
from installation import Installation

#: Runs at a time, each in an installation of its own
AT_ONCE = 3


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--seed"))


@pytest.fixture
def faulted_runs(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--faulted-runs"))


def test_no_child_is_lost_or_duplicated_while_requests_fail_and_processes_are_killed(
    tmp_path: Path, seed: int, faulted_runs: int, capsys: "pytest.CaptureFixture[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    # waits without a process are left to the triggerer, as on Prefect Server
    deferrals = "prefect_taskrun_tasks.server.rules.deferrals"
    monkeypatch.setattr(f"{deferrals}.awaiting", lambda tx, flow_run_id: [])
    monkeypatch.setattr(f"{deferrals}.asleep", lambda state: state)
    started = monotonic()
    numbers = iter(range(1, faulted_runs + 1))
    tallies: List[Tally] = []
    over = Event()

    def work(installation: Installation) -> None:
        try:
            for number in numbers:
                begun = monotonic()
                tally = FaultedRun(installation, f"{seed}/{number}").run()
                tallies.append(tally)
                print(f"Run {number} of {faulted_runs}: {monotonic() - begun:.1f} s, {_described([tally])}", flush=True)
                if over.is_set():
                    return
        finally:
            # after a failure the other installation only ends what it has begun
            over.set()

    with capsys.disabled(), ExitStack() as stack:
        print()
        installations = [
            stack.enter_context(Installation(tmp_path / str(number))) for number in range(min(AT_ONCE, faulted_runs))
        ]
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        stack.callback(over.set)
        working = [pool.submit(work, installation) for installation in installations]
        wait(working)
        print(f"Seed {seed}, {len(tallies)} runs in {monotonic() - started:.0f} s: {_described(tallies)}")
    for each in working:
        each.result()
    assert all(tally.faults for tally in tallies)


def _described(tallies: List[Tally]) -> str:
    faults: CounterOf[str] = sum((tally.faults for tally in tallies), Counter())
    kills: CounterOf[str] = sum((tally.kills for tally in tallies), Counter())
    return (
        f"{sum(tally.requests for tally in tallies)} requests, {sum(faults.values())} faults ({_counts(faults)}), "
        f"{sum(kills.values())} kills ({_counts(kills)}), {sum(tally.restarts for tally in tallies)} restarts"
    )


def _counts(counter: "CounterOf[Any]") -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items())) or "none"
