"""No line of a watched flow run is lost, and its final state comes after all earlier lines."""

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Iterator, List

import pendulum
import pytest
from driven import DrivenRun, NewUrl, register, shared_backend
from prefect import Flow, task
from prefect.engine.state import Cancelled, Failed, Running, State, Submitted, Success

from prefect_taskrun_tasks import FlowRunLog, FlowRunView, watch_flow_run
from prefect_taskrun_tasks.server import Backend
from prefect_taskrun_tasks.waiting import Bookmark, Deadline, Watch, last_lines

#: Flow runs that are watched at once
AT_ONCE = 8


@task
def one() -> int:
    return 1


with Flow("last-lines") as flow:
    one()


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        yield backend


@pytest.fixture(scope="module")
def flow_id(backend: Backend) -> str:
    return register(flow)


class Uploads:
    """The log of a flow run, and when its lines are uploaded.

    Args:
        run: the flow run.
        seed: of all that is random.
    """

    def __init__(self, run: DrivenRun, seed: int) -> None:
        self._run = run
        self._random = random.Random(seed)
        self._lines: List[Dict[str, Any]] = []
        self._number = 0
        self._pid = seed + 100

    def _line(self, message: str, name: str = "prefect.CloudFlowRunner", **ago: float) -> Dict[str, Any]:
        time = pendulum.now("utc").subtract(**ago).isoformat()
        line = {"flow_run_id": self._run.id, "name": name, "level": "INFO", "message": message, "timestamp": time}
        return line

    def _upload(self, lines: List[Dict[str, Any]]) -> None:
        if lines:
            self._run.client.write_run_logs(lines)

    def log(self) -> None:
        """The process logs some lines, which are uploaded later; clocks of other processes may be behind."""
        for _ in range(self._random.randint(0, 4)):
            self._number += 1
            behind = self._random.choice([0, 0, 0.5, 40])
            self._lines.append(self._line(f"line {self._number}", "prefect.one", seconds=behind))

    def upload_some(self) -> None:
        """Of what was logged, any lines are uploaded, in several uploads and in any order."""
        self._random.shuffle(self._lines)
        for _ in range(self._random.randint(0, 2)):
            count = self._random.randint(0, len(self._lines))
            some, self._lines = self._lines[:count], self._lines[count:]
            self._upload(some)

    def upload_rest(self) -> None:
        self._random.shuffle(self._lines)
        cut = self._random.randint(0, len(self._lines))
        self._upload(self._lines[:cut])
        self._upload(self._lines[cut:])

    def submit(self) -> None:
        self._upload([self._line(f"Submitted for execution: PID: {self._pid}", last_lines.AGENT)])

    def process_ends(self) -> None:
        begins = last_lines.PROCESS_ENDED.format(self._pid)
        self._upload([self._line(f"{begins}has ended with exit code 0.", last_lines.AGENT)])

    def runner_ends(self, state: State) -> None:
        """Prefect's flow runner logs its last line, which it uploads after all others."""
        told = "FAILED" if state.is_failed() else "SUCCESS"
        self._lines.append(self._line(f"Flow run {told}: some reason"))
        last = self._lines.pop()
        self.upload_some()
        self._lines.append(last)

    def upload_last(self) -> None:
        *others, last = self._lines
        self._upload(others)
        self._upload([last])


def _watched(run: DrivenRun) -> List[FlowRunLog]:
    # as `LocalRunner.run` does, which may be late for a flow run that ends soon
    return list(Watch(run.id, True, True, after=Bookmark()).until(Deadline(None, 120)))


def _execute(run: DrivenRun, seed: int) -> None:
    """What the process of a flow run and its agent do, in an order that the seed says."""
    choose = random.Random(seed)
    is_of_our_agent = choose.random() < 0.6
    uploads = Uploads(run, seed)
    run.enter(Submitted())
    if is_of_our_agent:
        uploads.submit()
    uploads.log()
    run.enter(Running())
    for _ in range(choose.randint(1, 3)):
        uploads.log()
        uploads.upload_some()
    state = choose.choice([Success("over"), Failed("over"), *([Cancelled("over")] if is_of_our_agent else [])])
    if is_of_our_agent:
        run.enter(state)
        uploads.log()
        uploads.upload_some()
        uploads.upload_rest()
        uploads.process_ends()
    else:
        uploads.runner_ends(state)
        run.enter(state)
        uploads.upload_last()


def _check(run: DrivenRun, logs: List[FlowRunLog]) -> None:
    said = [log.message for log in logs if not log.message.startswith("Entered state")]
    stored = [log.message for log in FlowRunView.from_flow_run_id(run.id).iter_logs()]
    assert sorted(said) == sorted(stored)
    final = next(index for index, log in enumerate(logs) if log.message.endswith(": over"))
    assert [log.message for log in logs[final:] if log.timestamp < logs[final].timestamp] == []


def test_no_line_is_lost_however_late_and_in_whatever_order_they_are_uploaded(
    flow_id: str, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    """All of it by rule: with limits of time that never come, no watch would end early or late."""
    monkeypatch.setattr(last_lines, "QUIET", 600.0)
    monkeypatch.setattr(last_lines, "LONGEST_EXIT", 600.0)
    runs = pytestconfig.getoption("--watched-runs")

    def one_run(seed: int) -> None:
        run = DrivenRun(flow, flow_id)
        with ThreadPoolExecutor(1) as thread:
            watched = thread.submit(_watched, run)
            _execute(run, seed)
            _check(run, watched.result())

    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(one_run, range(runs)))


def test_the_last_line_of_an_earlier_attempt_is_not_the_last(flow_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = DrivenRun(flow, flow_id)
    run.enter(Running())
    run.log("Flow run FAILED: some reference tasks failed.")
    run.enter(Failed())
    watch = watch_flow_run(run.id)
    run.enter(Running())
    assert "Entered state <Running>" in next(log.message for log in watch if "Running" in log.message)
    run.enter(Success())
    run.log("late")
    run.log("Flow run SUCCESS: all reference tasks succeeded")
    assert "late" in [log.message for log in watch]


def test_a_process_that_never_exits_ends_the_watch_all_the_same(flow_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_lines, "LONGEST_EXIT", 0.5)
    run = DrivenRun(flow, flow_id)
    run.log("Submitted for execution: PID: 7", name=last_lines.AGENT)
    run.enter(Running())
    watch = watch_flow_run(run.id)
    next(watch)
    run.enter(Success("over"))
    assert list(watch)[-1].message == "Entered state <Success>: over"
