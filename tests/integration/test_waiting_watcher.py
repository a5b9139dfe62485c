"""Many waits of one process: one loop that asks for all their flow runs at once."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, List

import pendulum
import prefect
import pytest
import requests
from answering import serving
from conftest import eventually
from driven import DrivenRun, NewUrl, register, shared_backend
from prefect import Flow, task
from prefect.engine.state import Cancelling, Failed, Running, Submitted, Success

from prefect_taskrun_tasks import FlowRunView, create_flow_run, errors, get_task_run_result, wait_for_flow_run
from prefect_taskrun_tasks.server import Backend
from prefect_taskrun_tasks.waiting import Deadline, Wait, Waits, cancelling, cycles, waits, watch_flow_run, watcher

NOBODY = "4f6b3c1e-0000-4000-8000-000000000000"


@task
def one() -> int:
    return 1


with Flow("watched") as flow:
    one()


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        yield backend


@pytest.fixture(scope="module")
def flow_id(backend: Backend) -> str:
    return register(flow)


@pytest.fixture(params=["pushed", "polled"])
def sent(backend: Backend, request: Any) -> Iterator[List[Dict[str, Any]]]:
    """Requests to the backend: one that holds answers, or one that does not know how, such as Prefect Server."""
    is_pushed = request.param == "pushed"
    with between(backend, lambda headers: headers if is_pushed else {**headers, "Prefer": ""}) as sent:
        yield sent


@contextmanager
def between(backend: Backend, passed_on: Callable[[Dict[str, str]], Dict[str, str]]) -> Iterator[List[Dict[str, Any]]]:
    """What stands between this process and its backend. Yields the requests' headers and bodies."""
    sent: List[Dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent.append({"prefer": self.headers.get("Prefer"), "body": body.decode()})
            headers = passed_on({"Content-Type": "application/json", "Prefer": self.headers.get("Prefer") or ""})
            answer = requests.post(backend.url, data=body, headers=headers, timeout=60)
            try:
                self.send_response(answer.status_code)
                for name in ("Content-Type", "Preference-Applied"):
                    if name in answer.headers:
                        self.send_header(name, answer.headers[name])
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)
            except OSError:
                # who asked did not want the answer any more
                self.close_connection = True

        def log_message(self, *args: Any) -> None:
            pass

    with serving(Handler):
        yield sent


def watching(sent: List[Dict[str, Any]]) -> List[str]:
    return [each["body"] for each in sent if "$told" in each["body"]]


def running(flow_id: str, count: int) -> List[DrivenRun]:
    return [DrivenRun(flow, flow_id).enter(Running()) for _ in range(count)]


def test_each_of_many_waits_ends_with_its_own_flow_run(flow_id: str, sent: Any) -> None:
    runs = running(flow_id, 30)
    with ThreadPoolExecutor(len(runs)) as threads:
        waiting = {run.id: threads.submit(wait_for_flow_run.run, run.id, timeout=60) for run in runs}
        eventually(lambda: runs[-1].id in "".join(watching(sent)))
        for index, run in enumerate(runs):
            run.enter(Success(f"number {index}"))
        found = [waiting[run.id].result(60) for run in runs]
    assert [view.flow_run_id for view in found] == [run.id for run in runs]
    assert [view.state.message for view in found] == [f"number {index}" for index in range(len(runs))]


def test_many_waits_ask_together(flow_id: str, sent: Any) -> None:
    runs = running(flow_id, 30)
    with ThreadPoolExecutor(len(runs)) as threads:
        waiting = [threads.submit(wait_for_flow_run.run, run.id, timeout=60) for run in runs]
        eventually(lambda: watching(sent) and all(run.id in watching(sent)[-1] for run in runs))
        for run in runs:
            run.enter(Success())
        for each in waiting:
            each.result(60)
    # the driven runs' own requests go to the same address
    by_waits = [each for each in sent if "mutation" not in each["body"]]
    assert len(by_waits) == len(watching(sent)) < len(runs)


def test_a_wait_that_joins_others_is_told_at_once(flow_id: str, sent: Any) -> None:
    first, second = running(flow_id, 2)
    second.enter(Success())
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(wait_for_flow_run.run, first.id, timeout=60)
        eventually(lambda: len(watching(sent)) >= 2)
        # would take until the held request is over otherwise
        assert wait_for_flow_run.run(second.id, timeout=5).state.is_successful()
        first.enter(Failed())
        assert waiting.result(60).state.is_failed()


def test_waits_for_the_same_flow_run_all_end(flow_id: str, sent: Any) -> None:
    [run] = running(flow_id, 1)
    with ThreadPoolExecutor(5) as threads:
        waiting = [threads.submit(wait_for_flow_run.run, run.id, timeout=60) for _ in range(5)]
        eventually(lambda: watching(sent))
        run.enter(Success())
        assert all(each.result(60).state.is_successful() for each in waiting)


@pytest.mark.parametrize("slowest", [0.0, 0.5])
def test_polls_are_not_further_apart_than_was_asked_for(flow_id: str, backend: Backend, slowest: float) -> None:
    pauses: List[float] = []
    [run] = running(flow_id, 1)
    loop = watcher.Watcher()
    pause = loop._pause
    loop._pause = lambda seconds: (pauses.append(seconds), pause(seconds))[1]  # type: ignore[method-assign,func-returns-value]
    with between(backend, lambda headers: {**headers, "Prefer": ""}) as sent, Waits(Deadline(None, 60), slowest) as own:
        own._watcher = loop
        own.add(run.id)
        eventually(lambda: len(watching(sent)) > 15)
    assert max(pauses) <= slowest
    assert pauses[0] <= watcher.FASTEST * 2


def test_polls_get_further_apart_while_nothing_happens_but_never_too_far() -> None:
    loop = watcher.Watcher()
    loop._since = 0.0
    loop._waits = {Wait(NOBODY, waits.queue.SimpleQueue(), slowest=10.0)}

    def pace(quiet: float) -> float:
        state: Any = SimpleNamespace(seconds_since_start=quiet)
        return loop._pace()(state)

    assert pace(0) < pace(5) < pace(8) <= 2.0
    assert pace(100) <= 2.0 < pace(200) < pace(600) <= 10.0
    assert pace(1_000_000) <= 10.0


def test_a_wait_for_nobody_leaves_the_others_alone(flow_id: str, sent: Any) -> None:
    [run] = running(flow_id, 1)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(wait_for_flow_run.run, run.id, timeout=60)
        eventually(lambda: watching(sent))
        with pytest.raises(errors.NotFound, match=NOBODY):
            wait_for_flow_run.run(NOBODY, timeout=60)
        with pytest.raises(Exception, match="not-a-uuid"):
            wait_for_flow_run.run("not-a-uuid", timeout=60)
        run.enter(Success())
        assert waiting.result(60).state.is_successful()


def test_a_uuid_may_be_written_in_any_way(flow_id: str) -> None:
    [run] = running(flow_id, 1)
    run.enter(Success())
    assert wait_for_flow_run.run(run.id.upper(), timeout=60).flow_run_id == run.id


def test_nothing_goes_on_after_the_last_wait(flow_id: str, sent: Any) -> None:
    [run] = running(flow_id, 1)
    with pytest.raises(errors.WaitTimeout):
        wait_for_flow_run.run(run.id, timeout=0.5)
    eventually(lambda: not [each for each in threading.enumerate() if each.name == "watcher"])


def test_a_process_that_was_forked_while_others_wait_has_a_watcher_of_its_own(flow_id: str) -> None:
    run, other = running(flow_id, 2)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(wait_for_flow_run.run, run.id, timeout=60)
        eventually(lambda: watcher.watcher()._waits)
        other.enter(Success())
        child = os.fork()
        if child == 0:
            # nothing of pytest's must run twice
            ended = False
            try:
                ended = wait_for_flow_run.run(other.id, timeout=30).state.is_successful()
            finally:
                os._exit(0 if ended else 1)
        _, status = os.waitpid(child, 0)
        run.enter(Success())
        assert waiting.result(60).state.is_successful()
    assert status == 0


def test_logs_of_many_flow_runs_are_told_once_each_to_whom_they_belong(flow_id: str, sent: Any) -> None:
    runs = running(flow_id, 3)
    for run in runs:
        run.log(f"early in {run.id}")
    seen: Dict[str, List[str]] = {run.id: [] for run in runs}

    def watch(run: DrivenRun) -> None:
        for log in watch_flow_run(run.id, stream_states=False, timeout=60):
            seen[run.id].append(log.message)

    with ThreadPoolExecutor(3) as threads:
        watching_runs = [threads.submit(watch, run) for run in runs]
        eventually(lambda: all(seen.values()))
        same_time = "2031-01-01T00:00:00+00:00"
        for run in runs:
            run.log(f"first in {run.id}", timestamp=same_time)
            run.log(f"second in {run.id}", timestamp=same_time)
        eventually(lambda: all(len(each) == 3 for each in seen.values()))
        for run in runs:
            run.enter(Success())
        for each in watching_runs:
            each.result(60)
    assert seen == {run.id: [f"{word} in {run.id}" for word in ("early", "first", "second")] for run in runs}


def test_logs_that_come_much_later_than_their_time_are_told_in_the_end(flow_id: str, sent: Any) -> None:
    # Prefect keeps what it could not upload, and sends it with what comes next
    [run] = running(flow_id, 1)
    now = pendulum.now("utc")
    run.log("in time", timestamp=now.isoformat())
    watch = watch_flow_run(run.id, stream_states=False, timeout=60)
    assert next(watch).message == "in time"
    run.log("late", timestamp=now.subtract(minutes=2).isoformat())
    # the last line, after which nobody waits for more
    run.log("last", timestamp=pendulum.now("utc").add(seconds=1).isoformat())
    run.enter(Success())
    assert sorted(log.message for log in watch) == ["last", "late"]


def test_more_logs_than_fit_into_one_answer_are_told(flow_id: str, sent: Any) -> None:
    [run] = running(flow_id, 1)
    # of one batch, which a backend may give one time
    run.client.write_run_logs(
        [{"flow_run_id": run.id, "name": "n", "level": "INFO", "message": str(index)} for index in range(1200)]
    )
    run.enter(Submitted())
    watch = watch_flow_run(run.id, stream_states=False, timeout=60)
    assert sorted(int(next(watch).message) for _ in range(1200)) == list(range(1200))
    watch.close()  # type: ignore[attr-defined]


def waiting_run(flow_id: str, name: str = "waits") -> DrivenRun:
    """A run of a flow that waits for another, as far as the backend knows."""
    run = DrivenRun(flow, flow_id).enter(Running())
    run.task_enters("one-1", Running())
    return run


@contextmanager
def within(run: DrivenRun) -> Iterator[None]:
    with prefect.context(flow_run_id=run.id, task_run_id=run.task_run_id("one-1"), task_run_version=1):
        yield


def wait_within(run: DrivenRun, awaited: str) -> FlowRunView:
    with within(run):
        found: FlowRunView = wait_for_flow_run.run(awaited, timeout=1000)
    return found


@pytest.fixture
def looking_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_taskrun_tasks.waiting.wait.LASTING", 0.2)


@pytest.mark.usefixtures("looking_soon")
@pytest.mark.parametrize("length", [2, 3])
def test_flow_runs_that_wait_for_each_other_are_told_so(flow_id: str, sent: Any, length: int) -> None:
    runs = [waiting_run(flow_id) for _ in range(length)]
    with ThreadPoolExecutor(length) as threads:
        waiting = [threads.submit(wait_within, run, awaited.id) for run, awaited in zip(runs, [*runs[1:], runs[0]])]
        # one at least sees that; the others wait for it
        eventually(lambda: any(each.done() for each in waiting))
        [ended, *_] = [run for run, each in zip(runs, waiting) if each.done()]
        for run in runs:
            run.enter(Failed())
        raised = [each.exception(60) for each in waiting]
    found = [error for error in raised if isinstance(error, errors.WaitCycle)]
    assert found
    assert all(run.id in str(found[0]) for run in runs)
    assert "None of them would ever end" in str(found[0])
    assert ended in runs


@pytest.mark.usefixtures("looking_soon")
def test_a_wait_that_gives_up_soon_is_part_of_no_cycle(flow_id: str) -> None:
    parent, helper = waiting_run(flow_id), waiting_run(flow_id)
    soon = pendulum.now("utc").add(minutes=5)
    assert cycles.declare([cycles.Edge(parent.id, parent.task_run_id("one-1"), helper.id, soon)]) == {}
    for until, are_more in ((soon, False), (soon.add(minutes=20), True), (None, True)):
        cycles.declare([cycles.Edge(helper.id, helper.task_run_id("one-1"), parent.id, until)])
        assert bool(cycles._awaited_by({helper.id})[helper.id]) == are_more


@pytest.mark.usefixtures("looking_soon")
def test_a_child_may_wait_for_its_parent_that_does_not_wait_for_it(flow_id: str) -> None:
    parent, child, other = (waiting_run(flow_id) for _ in range(3))
    with ThreadPoolExecutor(2) as threads:
        # what the parent waits for is not the child, and what it has waited for once is over
        waits_for_other = threads.submit(wait_within, parent, other.id)
        eventually(lambda: cycles._awaited_by({parent.id})[parent.id])
        other.enter(Success())
        assert waits_for_other.result(60)
        cycles.declare([cycles.Edge(parent.id, parent.task_run_id("one-1"), child.id)])
        parent.task_enters("one-1", Success())
        waits_for_parent = threads.submit(wait_within, child, parent.id)
        eventually(lambda: cycles._awaited_by({child.id})[child.id])
        parent.enter(Success())
        assert waits_for_parent.result(60).state.is_successful()


def test_a_wait_that_is_over_soon_asks_for_nothing_else(flow_id: str, sent: Any) -> None:
    run, other = waiting_run(flow_id), waiting_run(flow_id)
    other.enter(Success())
    before = len(sent)
    assert wait_within(run, other.id).state.is_successful()
    # one of them by `wait_within` itself
    assert len(sent) - before <= 3


@pytest.fixture
def leaving_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_taskrun_tasks.server.rules.states._cancel_children", lambda tx, parent: None)


@pytest.mark.usefixtures("leaving_children")
@pytest.mark.parametrize("policy", ["cancel", "abandon"])
def test_a_wait_cancels_the_child_when_its_flow_run_is_cancelled(flow_id: str, sent: Any, policy: str) -> None:
    parent = waiting_run(flow_id)
    with within(parent):
        child = DrivenRun(flow, flow_id, create_flow_run.run(flow_name="watched", parent_close_policy=policy))
    child.enter(Running())
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(wait_within, parent, child.id)
        eventually(lambda: len(watching(sent)) >= 2)
        parent.enter(Cancelling())
        if policy == "cancel":
            eventually(lambda: type(child.client.get_flow_run_state(child.id)).__name__ == "Cancelling")
        child.enter(Success("in the end"))
        assert waiting.result(60).state.message == "in the end"
    assert (child.id in cancelling._cancelled) == (policy == "cancel")


def _all_news(flow_run_id: str, before_poll: Callable[[], None]) -> None:
    with Waits(Deadline(None, 60), before_poll=before_poll) as own:
        own.add(flow_run_id)
        list(own.news())


@pytest.mark.usefixtures("leaving_children")
def test_a_wait_that_is_interrupted_since_its_flow_run_is_cancelled_cancels_the_child(flow_id: str) -> None:
    parent = waiting_run(flow_id)
    with within(parent):
        child = DrivenRun(flow, flow_id, create_flow_run.run(flow_name="watched", parent_close_policy="cancel"))
        child.enter(Running())

        def interrupt() -> None:
            # Prefect interrupts the main thread, once it has seen the state
            if not_yet.pop(0) == "second":
                parent.enter(Cancelling())
                raise KeyboardInterrupt

        not_yet = ["first", "second"]
        with pytest.raises(KeyboardInterrupt):
            _all_news(child.id, interrupt)
    assert type(child.client.get_flow_run_state(child.id)).__name__ == "Cancelling"


def test_an_interrupt_by_itself_leaves_the_child_alone(flow_id: str) -> None:
    parent = waiting_run(flow_id)
    with within(parent):
        child = DrivenRun(flow, flow_id, create_flow_run.run(flow_name="watched", parent_close_policy="cancel"))
        child.enter(Running())

        def interrupt() -> None:
            if not_yet.pop(0) == "second":
                raise KeyboardInterrupt

        not_yet = ["first", "second"]
        with pytest.raises(KeyboardInterrupt):
            _all_news(child.id, interrupt)
    assert child.client.get_flow_run_state(child.id).is_running()


def test_an_error_that_is_definite_ends_all_waits_at_once(flow_id: str, backend: Backend) -> None:
    runs = running(flow_id, 3)
    refuses: List[bool] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = requests.post(backend.url, data=body, headers={"Content-Type": "application/json"}, timeout=60)
            self.send_response(401 if refuses else answer.status_code)
            self.end_headers()
            self.wfile.write(b"{}" if refuses else answer.content)

        def log_message(self, *args: Any) -> None:
            pass

    with serving(Handler), ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(get_task_run_result.run, run.id, "one-1", timeout=60) for run in runs]
        eventually(lambda: len(watcher.watcher()._waits) == 3)
        refuses.append(True)
        assert all(isinstance(each.exception(60), requests.HTTPError) for each in waiting)
