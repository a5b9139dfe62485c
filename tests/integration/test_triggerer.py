"""The triggerer, on a backend that wakes nobody by itself."""

import json
import logging
import threading
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional
from uuid import uuid4

import prefect
import pytest
import requests
from conftest import eventually
from driven import NewUrl, shared_backend
from prefect.exceptions import AuthorizationError
from prefect.utilities.configuration import set_temporary_config
from pytest_mock import MockerFixture

from benchmarks import silent
from benchmarks.driven import create
from prefect_taskrun_tasks import Lineage, api
from prefect_taskrun_tasks.errors import InvalidArgument
from prefect_taskrun_tasks.runner import settings
from prefect_taskrun_tasks.server import ApiKey, Backend, tables
from prefect_taskrun_tasks.server.clock import ago, now
from prefect_taskrun_tasks.triggerer import Tick, Triggerer, questions, triggerer
from prefect_taskrun_tasks.views.deferral import Deferral
from prefect_taskrun_tasks.views.history import instant
from prefect_taskrun_tasks.waiting import cancel_children


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        yield backend


@pytest.fixture(autouse=True)
def _nothing_is_left(backend: Backend) -> Iterator[None]:
    """What one test leaves waiting, or in the queue, is not for the next."""
    yield
    unfinished = {"state": {"_in": ["Scheduled", "Running", "Cancelling"]}}
    silent.enter(backend, [row["id"] for row in api.find("flow_run", unfinished, fields="id")], "Success")


def some(backend: Backend, count: int) -> List[str]:
    """New flow runs of a new flow with one task."""
    return create(backend, str(uuid4()), count)


class Waiting:
    """A flow run that waits for another without a process, and is due in a minute.

    Args:
        backend: of this process.
        awaits: the flow run that it waits for; default: a new one.
        seconds: until it is due.
        limit: seconds until its time is over; None for without end.
    """

    def __init__(
        self, backend: Backend, awaits: Optional[str] = None, seconds: float = 60, limit: Optional[float] = None
    ) -> None:
        self.backend = backend
        self.id, child = some(backend, 2)
        #: the flow run that it waits for
        self.child = awaits or child
        [self.task_run_id] = silent.defer(backend, [self.id], [self.child], seconds, limit)
        self.before = self.task_run()

    def task_run(self) -> Dict[str, Any]:
        [row] = api.find("task_run", {"id": {"_eq": self.task_run_id}}, fields="version state serialized_state")
        return row

    @property
    def is_due(self) -> bool:
        return self.due_in < 1

    @property
    def due_in(self) -> float:
        """Seconds from now."""
        start: float = instant(self.task_run()["serialized_state"]["start_time"]).timestamp()
        return start - time.time()

    def other_task_run(self, state: str, **more: Any) -> str:
        """Another task run of the flow run that waits is in a state; returns its id."""
        [run] = api.find("flow_run", {"id": {"_eq": self.id}}, fields="flow_id")
        [task] = api.find("task", {"flow_id": {"_eq": run["flow_id"]}}, fields="id")
        task_run_id: str = prefect.Client().get_task_run_info(self.id, task["id"], map_index=0).id
        silent.task_run_enters(self.backend, task_run_id, {"type": state, **more})
        return task_run_id


@pytest.fixture
def waiting(backend: Backend) -> Waiting:
    return Waiting(backend)


def ticked(times: int = 2, by: Optional[Triggerer] = None) -> Tick:
    """What the last of some looks has led to: at the first a triggerer learns of what there is."""
    by = by or Triggerer()
    *_, last = [by.tick() for _ in range(times)]
    return last


def due(task_run_ids: List[str]) -> List[str]:
    """Those of some task runs that are due."""
    where = {"id": {"_in": task_run_ids}, "state_start_time": {"_lte": now()}}
    return [row["id"] for row in api.find("task_run", where, fields="id")]


def state_of(flow_run_id: str) -> str:
    [row] = api.find("flow_run", {"id": {"_eq": flow_run_id}}, fields="state")
    return str(row["state"])


def queue() -> List[str]:
    """The flow runs that an agent would be given now."""
    client = prefect.Client()
    return list(
        client.graphql(
            "mutation($input: get_runs_in_queue_input!) { get_runs_in_queue(input: $input) { flow_run_ids } }",
            variables={"input": {"tenant_id": client.tenant_id}},
        ).data.get_runs_in_queue.flow_run_ids
    )


@pytest.mark.parametrize("state", ["Success", "Failed", "Cancelled", "TimedOut"])
def test_a_wait_is_due_as_soon_as_its_flow_run_has_ended(waiting: Waiting, state: str) -> None:
    watch = Triggerer()
    assert ticked(3, watch) == Tick(waits=1)
    assert waiting.task_run() == waiting.before
    assert waiting.id not in queue()
    silent.enter(waiting.backend, [waiting.child], state)
    [wake] = watch.tick().woken
    assert (wake.task_run_id, wake.flow_run_id) == (waiting.task_run_id, waiting.id)
    after, before = waiting.task_run(), waiting.before
    assert waiting.is_due
    assert after["version"] == before["version"] + 1
    assert after["serialized_state"]["message"] == wake.reason
    assert f"({waiting.child}) has ended as {state}." in wake.reason
    changed = ("start_time", "message")
    assert {name: value for name, value in after["serialized_state"].items() if name not in changed} == {
        name: value for name, value in before["serialized_state"].items() if name not in changed
    }
    assert waiting.id in queue()
    # once
    assert ticked(3, watch) == Tick(waits=0)
    assert waiting.task_run() == after


def test_a_wait_that_began_when_its_flow_run_had_ended_is_due_too(backend: Backend) -> None:
    [child] = some(backend, 1)
    silent.enter(backend, [child], "Success")
    waiting = Waiting(backend, child)
    assert len(ticked().woken) == 1
    assert waiting.is_due


def test_a_wait_is_due_when_its_flow_run_is_deleted(waiting: Waiting) -> None:
    other = Waiting(waiting.backend)
    watch = Triggerer()
    ticked(1, watch)
    with waiting.backend._database.write() as tx:
        tx.delete(tables.flow_run, tables.flow_run.c.id == waiting.child)
    assert watch.tick() == Tick(waits=2, is_more=True)
    [wake] = watch.tick().woken
    assert wake.reason == f"There is no flow run {waiting.child}."
    assert waiting.is_due
    assert not other.is_due
    assert ticked(1, watch).woken == ()


def test_many_waits_for_one_flow_run_are_due_together(backend: Backend) -> None:
    [child] = some(backend, 1)
    waits = [Waiting(backend, child) for _ in range(3)]
    silent.enter(backend, [child], "Failed")
    assert len(ticked().woken) == 3
    assert all(waiting.is_due for waiting in waits)


@pytest.mark.parametrize("state", ["Running", "Submitted", "Retrying"])
def test_a_flow_run_whose_process_is_at_work_is_woken_when_it_is_not(waiting: Waiting, state: str) -> None:
    # until then, a process sleeps
    start = {"start_time": ago(-300)} if state == "Retrying" else {}
    others = [each.other_task_run(state, **start) for each in (waiting, Waiting(waiting.backend))]
    silent.enter(waiting.backend, [waiting.child], "Success")
    watch = Triggerer()
    assert ticked(3, watch).woken == ()
    silent.task_run_enters(waiting.backend, others[0], {"type": "Success"})
    assert [wake.flow_run_id for wake in ticked(1, watch).woken] == [waiting.id]


def test_what_is_due_anyway_is_left_alone(backend: Backend) -> None:
    waiting = Waiting(backend, seconds=4)
    silent.enter(backend, [waiting.child], "Success")
    assert ticked(3) == Tick(waits=0)
    assert waiting.task_run() == waiting.before


@pytest.mark.parametrize("state", ["Scheduled", "Submitted", "Failed", "Cancelled"])
def test_waits_of_flow_runs_that_are_not_running_are_left_alone(waiting: Waiting, state: str) -> None:
    silent.enter(waiting.backend, [waiting.child], "Success")
    silent.enter(waiting.backend, [waiting.id], state)
    assert ticked(3) == Tick(waits=0)
    assert waiting.task_run() == waiting.before


def test_other_states_with_a_start_time_are_left_alone(waiting: Waiting) -> None:
    silent.enter(waiting.backend, [waiting.child], "Success")
    state = waiting.before["serialized_state"]
    for other in ({**state, "type": "Retrying"}, {**state, "context": {}}, {**state, "context": None}):
        silent.task_run_enters(waiting.backend, waiting.task_run_id, other)
        assert ticked(3) == Tick(waits=0)


@pytest.mark.parametrize("awaits", ["nobody", "", 5, None, ["x"]])
def test_a_wait_that_does_not_say_for_what_does_not_spoil_it_for_others(waiting: Waiting, awaits: Any) -> None:
    odd = Waiting(waiting.backend)
    silent.task_run_enters(waiting.backend, odd.task_run_id, silent.deferred(awaits))
    silent.enter(waiting.backend, [waiting.child], "Success")
    assert [wake.flow_run_id for wake in ticked().woken] == [waiting.id]


def test_what_has_nearly_come_due_during_a_look_is_left_alone(waiting: Waiting, mocker: MockerFixture) -> None:
    watch = Triggerer()
    ticked(1, watch)
    silent.enter(waiting.backend, [waiting.child], "Success")
    seen = watch._look()
    mocker.patch.object(watch, "_look", return_value=seen)
    mocker.patch.object(triggerer, "LEAD", timedelta(seconds=61))
    assert watch.tick().woken == ()
    mocker.patch.object(triggerer, "LEAD", timedelta(seconds=55))
    assert len(watch.tick().woken) == 1


def test_a_state_that_has_come_meanwhile_stays(waiting: Waiting, mocker: MockerFixture) -> None:
    watch = Triggerer()
    ticked(1, watch)
    silent.enter(waiting.backend, [waiting.child], "Success")
    # an answer that takes longer than what it says is true: meanwhile an agent has taken the flow run
    mocker.patch.object(triggerer, "FRESH", 0.0)
    look = mocker.patch.object(watch, "_look", wraps=watch._look)

    def look_slowly() -> Any:
        look.side_effect = None
        seen = watch.__class__._look(watch)
        submitted = {"type": "Submitted", "state": waiting.before["serialized_state"]}
        silent.task_run_enters(waiting.backend, waiting.task_run_id, submitted)
        return seen

    look.side_effect = look_slowly
    assert watch.tick().woken == ()
    assert waiting.task_run()["state"] == "Submitted"


class Mutations:
    """The mutations of this process, whose answers may be lost on the way."""

    def __init__(self, mocker: MockerFixture) -> None:
        self.sent: List[str] = []
        self.are_answers_lost = False
        send = requests.adapters.HTTPAdapter.send

        def sent(adapter: Any, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            query = json.loads(request.body or "{}")["query"]
            response = send(adapter, request, **options)
            if query.startswith("mutation"):
                self.sent.append(query)
                if self.are_answers_lost:
                    raise requests.ReadTimeout("the answer was lost")
            return response

        mocker.patch.object(requests.adapters.HTTPAdapter, "send", sent)


def test_a_wake_is_sent_once_even_if_nobody_knows_whether_it_came(waiting: Waiting, mocker: MockerFixture) -> None:
    mutations = Mutations(mocker)
    watch = Triggerer()
    ticked(1, watch)
    silent.enter(waiting.backend, [waiting.child], "Success")
    mutations.are_answers_lost = True
    with pytest.raises(requests.ConnectionError, match="the answer was lost"):
        watch.tick()
    ticked(3, watch)
    assert len(mutations.sent) == 1
    assert waiting.is_due


def test_a_wake_that_was_lost_is_sent_again_after_a_while(waiting: Waiting, mocker: MockerFixture) -> None:
    watch = Triggerer()
    ticked(1, watch)
    silent.enter(waiting.backend, [waiting.child], "Success")
    store = mocker.patch.object(triggerer, "store")
    ticked(3, watch)
    assert store.call_count == 1
    mocker.patch.object(triggerer, "AGAIN", 0.0)
    ticked(1, watch)
    assert store.call_count == 2
    mocker.stop(store)
    assert len(watch.tick().woken) == 1
    assert waiting.is_due


def test_one_that_cannot_be_woken_does_not_keep_the_others_from_it(backend: Backend) -> None:
    [child] = some(backend, 1)
    silent.enter(backend, [child], "Success")
    waits = [Waiting(backend, child) for _ in range(4)]
    # so large that a longer message is too much
    large: Mapping[str, Any] = {**silent.deferred(child), "message": ""}
    room = 1_000_000 - len(json.dumps({**large, "filler": ""}))
    silent.task_run_enters(backend, waits[1].task_run_id, {**large, "filler": "x" * room})
    watch = Triggerer()
    ticks = [watch.tick() for _ in range(8)]
    assert [waiting.is_due for waiting in waits] == [True, False, True, True]
    assert sum(len(tick.woken) for tick in ticks) == 3
    # which are not asked to wait
    assert [tick.is_more for tick in ticks[1:4]] == [True, True, True]


@pytest.mark.parametrize(("limit", "seconds"), [(None, 600), (3_600, 600), (120, 120)])
def test_a_wait_that_is_about_to_look_is_put_off(backend: Backend, limit: Optional[float], seconds: float) -> None:
    waiting, watch = Waiting(backend, seconds=40, limit=limit), Triggerer()
    assert ticked(2, watch) == Tick(waits=1)
    after, before = waiting.task_run(), waiting.before
    assert seconds - 10 < waiting.due_in <= seconds
    assert after["version"] == before["version"] + 1
    assert {**after["serialized_state"], "start_time": ""} == {**before["serialized_state"], "start_time": ""}
    # once
    assert ticked(3, watch) == Tick(waits=1)
    assert waiting.task_run() == after
    silent.enter(backend, [waiting.child], "Success")
    assert len(watch.tick().woken) == 1
    assert waiting.is_due


@pytest.mark.parametrize(("seconds", "limit"), [(60, None), (40, 40), (30, 44), (4, None)])
def test_one_that_is_not_or_whose_time_is_nearly_over_is_not(
    backend: Backend, seconds: float, limit: Optional[float]
) -> None:
    waiting = Waiting(backend, seconds=seconds, limit=limit)
    ticked(3)
    assert waiting.task_run() == waiting.before


@pytest.mark.parametrize("limit", ["soon", 7, ["x"]])
def test_one_whose_limit_is_no_time_counts_as_without(backend: Backend, limit: Any) -> None:
    waiting = Waiting(backend, seconds=40)
    context = Deferral(waiting.child, now(), until=limit).as_context()
    silent.task_run_enters(backend, waiting.task_run_id, {**waiting.before["serialized_state"], "context": context})
    ticked()
    assert waiting.due_in > 500


def test_a_put_off_of_which_nobody_knows_whether_it_came_is_no_harm(backend: Backend, mocker: MockerFixture) -> None:
    waiting, watch, mutations = Waiting(backend, seconds=40), Triggerer(), Mutations(mocker)
    ticked(1, watch)
    mutations.are_answers_lost = True
    with pytest.raises(requests.ConnectionError, match="the answer was lost"):
        watch.tick()
    mutations.are_answers_lost = False
    assert ticked(3, watch) == Tick(waits=1)
    assert len(mutations.sent) == 1
    silent.enter(backend, [waiting.child], "Success")
    assert len(watch.tick().woken) == 1
    assert waiting.is_due


def test_waits_that_cannot_be_put_off_look_for_themselves(backend: Backend, mocker: MockerFixture) -> None:
    waits, watch = [Waiting(backend, seconds=40) for _ in range(3)], Triggerer()
    ticked(1, watch)
    store = mocker.patch.object(triggerer, "store", side_effect=prefect.exceptions.ClientError("read only"))
    assert watch.tick() == Tick(waits=3)
    Waiting(backend)
    # they do not keep others from being seen, and woken
    ticked(2, watch)
    assert store.call_count == 1
    mocker.stop(store)
    silent.enter(backend, [waits[0].child], "Success")
    mocker.patch.object(triggerer, "AGAIN", 0.0)
    assert len(watch.tick().woken) == 1
    ticked(1, watch)
    assert [waiting.due_in > 500 for waiting in waits] == [False, True, True]


def test_two_triggerers_at_once_wake_everything_and_nothing_wrongly(backend: Backend) -> None:
    ids = some(backend, 300)
    parents, children = ids[:150], ids[150:]
    task_run_ids = silent.defer(backend, parents, children)
    silent.enter(backend, children[:100], "Success")
    watches = [Triggerer(0.01), Triggerer(0.01)]

    def watch(each: Triggerer) -> None:
        for _ in each.ticks():
            pass

    threads = [threading.Thread(target=watch, args=(each,)) for each in watches]
    try:
        for thread in threads:
            thread.start()
        eventually(lambda: len(due(task_run_ids[:100])) == 100)
    finally:
        for each in watches:
            each.stop()
        for thread in threads:
            thread.join()
    assert due(task_run_ids[100:]) == []
    rows = api.find("task_run", {"id": {"_in": task_run_ids}}, fields="state version")
    assert {row["state"] for row in rows} == {"Scheduled"}
    # the first states, and a wake by each at most
    assert max(row["version"] for row in rows) <= 4


def test_a_thousand_waits_take_one_query_a_look_and_two_while_they_are_new(
    backend: Backend, mocker: MockerFixture
) -> None:
    ids = some(backend, 2_000)
    parents, children = ids[:1_000], ids[1_000:]
    task_run_ids = silent.defer(backend, parents, children)
    send = mocker.spy(requests.adapters.HTTPAdapter, "send")

    def requests_of(watch: Triggerer) -> int:
        before = send.call_count
        watch.tick()
        return int(send.call_count - before)

    watch = Triggerer()
    assert [requests_of(watch) for _ in range(5)] == [2, 2, 1, 1, 1]
    silent.enter(backend, children, "Success")
    counts = []
    while len(due(task_run_ids)) < 1_000:
        counts.append(requests_of(watch))
    assert counts == [2] * 10
    assert requests_of(watch) == 1


def test_no_look_takes_more_than_two_requests(backend: Backend, mocker: MockerFixture) -> None:
    """Also when there is all at once: waits that are new, are to be woken, and are to be put off."""
    send, watch = mocker.spy(requests.adapters.HTTPAdapter, "send"), Triggerer()
    counts, waits = [], 0
    for _ in range(3):
        ids = some(backend, 300)
        silent.defer(backend, ids[:150], ids[150:], seconds=40)
        silent.enter(backend, ids[150:190], "Success")
        with backend._database.write() as tx:
            tx.delete(tables.flow_run, tables.flow_run.c.id.in_(ids[190:200]))
        is_more = True
        while is_more:
            before = send.call_count
            tick = watch.tick()
            counts.append(send.call_count - before)
            is_more = tick.is_more
        waits += 100
    assert max(counts) == 2
    ticked(5, watch)
    assert ticked(1, watch) == Tick(waits=waits)
    where = {"state_start_time": {"_gt": ago(-500)}, "flow_run": {"state": {"_eq": "Running"}}}
    assert len(api.find("task_run", where, fields="id")) == waits


def test_waits_for_which_there_is_no_room_in_one_answer_are_found_too(backend: Backend, mocker: MockerFixture) -> None:
    ids = some(backend, 20)
    parents, children = ids[:10], ids[10:]
    task_run_ids = silent.defer(backend, parents, children)
    silent.enter(backend, children, "Success")
    mocker.patch.object(questions, "_LOOK", questions._LOOK.replace(f"limit: {questions.LISTED}", "limit: 3"))
    mocker.patch.object(api, "PAGE", 4)
    watch = Triggerer()
    assert watch.tick() == Tick(waits=10, is_more=True)
    ticked(5, watch)
    assert len(due(task_run_ids)) == 10


def test_looks_go_on_when_the_backend_has_been_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = f"sqlite:///{tmp_path / 'prefect.db'}"
    with ExitStack() as stack:
        backend = stack.enter_context(Backend(url, port=0))
        port = int(backend.url.rpartition(":")[2])
        stack.enter_context(set_temporary_config(settings(backend.url)))
        waiting = Waiting(backend)
        watch = Triggerer(0.05)
        ticks = watch.ticks()
        assert next(ticks).waits == 1
        silent.enter(backend, [waiting.child], "Success")
        backend.__exit__()
        restart = threading.Timer(1, lambda: stack.enter_context(Backend(url, port=port)))
        restart.start()
        with caplog.at_level(logging.WARNING):
            assert len(next(ticks).woken) == 1
        restart.join()
        assert len([line for line in caplog.messages if "does not answer" in line]) == 1
        assert waiting.is_due


def test_a_first_look_that_is_refused_is_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'prefect.db'}"
    with Backend(url, port=0, api_key=ApiKey("the-key-of-the-test")) as backend, set_temporary_config(
        settings(backend.url)
    ):
        ticks = Triggerer().ticks()
        with pytest.raises(AuthorizationError):
            next(ticks)


def test_a_refusal_later_is_told_once_and_outlasted(
    waiting: Waiting, mocker: MockerFixture, caplog: pytest.LogCaptureFixture
) -> None:
    watch = Triggerer(0.01)
    ticks = watch.ticks()
    next(ticks)
    refusals = [prefect.exceptions.ClientError("no room")] * 3
    looked = watch._look
    mocker.patch.object(watch, "_look", side_effect=[*refusals, looked()])
    with caplog.at_level(logging.WARNING):
        assert next(ticks).waits == 1
    assert len([line for line in caplog.messages if "no room" in line]) == 1


@pytest.mark.parametrize("interval", [0, -1, 16, float("nan")])
def test_an_interval_with_which_waits_would_be_missed_is_refused(interval: float) -> None:
    with pytest.raises(InvalidArgument, match="at most 15 s"):
        Triggerer(interval)


def test_it_stops_when_it_is_told_to() -> None:
    watch = Triggerer(15)
    ticks = watch.ticks()
    next(ticks)
    threading.Timer(0.2, watch.stop).start()
    assert list(ticks) == []


@pytest.fixture
def _unhelpful(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend leaves the children of what it cancels alone, as Prefect Server does."""
    monkeypatch.setattr("prefect_taskrun_tasks.server.rules.states._cancel_children", lambda tx, parent: None)


def child_of(parent: str, policy: str) -> str:
    context = Lineage(parent, parent_close_policy=policy).as_context()
    [row] = api.find("flow_run", {"id": {"_eq": parent}}, fields="flow_id")
    flow_run_id: str = prefect.Client().create_flow_run(flow_id=row["flow_id"], context=context)
    return flow_run_id


def is_cancelled_by(waiting: Waiting) -> None:
    silent.enter(waiting.backend, [waiting.id], "Cancelling")


@pytest.mark.usefixtures("_unhelpful")
def test_a_flow_run_without_a_process_that_is_cancelled_ends_with_its_children(waiting: Waiting) -> None:
    spared, cancelled = child_of(waiting.id, "abandon"), child_of(waiting.id, "cancel")
    # which waits without a process too
    deep = Waiting(waiting.backend)
    grandchild = child_of(cancelled, "cancel")
    silent.enter(waiting.backend, [cancelled], "Running")
    is_cancelled_by(waiting)
    silent.beats(waiting.backend, waiting.id, seconds=59)
    watch = Triggerer()
    assert watch.tick().cancelled == ()
    silent.beats(waiting.backend, waiting.id, seconds=61)
    [cancellation] = watch.tick().cancelled
    assert cancellation.flow_run_id == waiting.id
    assert set(cancellation.children) == {cancelled, grandchild}
    assert state_of(waiting.id) == "Cancelled"
    assert waiting.task_run()["state"] == "Cancelled"
    assert [state_of(id) for id in (spared, cancelled, grandchild, deep.id)] == [
        "Scheduled",
        "Cancelling",
        "Cancelled",
        "Running",
    ]
    assert watch.tick().cancelled == ()


@pytest.mark.parametrize("state", ["Running", "Submitted"])
def test_a_cancelled_flow_run_that_has_a_process_is_left_to_it(waiting: Waiting, state: str) -> None:
    other = waiting.other_task_run(state)
    is_cancelled_by(waiting)
    silent.beats(waiting.backend, waiting.id, seconds=3600)
    assert ticked().cancelled == ()
    silent.task_run_enters(waiting.backend, other, {"type": "Failed"})
    assert len(ticked(1).cancelled) == 1


def leaves(flow_run_id: str) -> None:
    """The process of a flow run writes its last line, and ends."""
    line = {"flow_run_id": flow_run_id, "level": "INFO", "message": questions.LEFT}
    prefect.Client().write_run_logs([line])


def test_a_process_that_has_said_that_it_ends_is_not_waited_for(waiting: Waiting) -> None:
    leaves(waiting.id)
    is_cancelled_by(waiting)
    assert [each.flow_run_id for each in ticked(1).cancelled] == [waiting.id]


@pytest.mark.parametrize("again", ["task run", "flow run"])
def test_a_process_that_came_after_one_had_ended_is_waited_for(waiting: Waiting, again: str) -> None:
    leaves(waiting.id)
    if again == "task run":
        silent.task_run_enters(waiting.backend, waiting.task_run_id, silent.deferred(waiting.child))
    else:
        silent.enter(waiting.backend, [waiting.id], "Running")
    is_cancelled_by(waiting)
    assert ticked().cancelled == ()


@pytest.mark.usefixtures("_unhelpful")
def test_a_cancelling_that_was_given_up_half_way_is_finished(waiting: Waiting, mocker: MockerFixture) -> None:
    child = child_of(waiting.id, "cancel")
    leaves(waiting.id)
    is_cancelled_by(waiting)

    def is_killed(flow_run_id: str) -> List[str]:
        cancel_children(flow_run_id)
        raise KeyboardInterrupt

    killed = mocker.patch("prefect_taskrun_tasks.triggerer.cancelling.cancel_children", is_killed)
    with pytest.raises(KeyboardInterrupt):
        Triggerer().tick()
    mocker.stop(killed)
    assert (state_of(child), state_of(waiting.id)) == ("Cancelled", "Cancelling")
    assert len(Triggerer().tick().cancelled) == 1
    assert state_of(waiting.id) == "Cancelled"


def test_a_restart_of_a_flow_run_while_it_is_being_cancelled_stays(waiting: Waiting, mocker: MockerFixture) -> None:
    leaves(waiting.id)
    is_cancelled_by(waiting)

    def restart(flow_run_id: str) -> List[str]:
        silent.enter(waiting.backend, [flow_run_id], "Scheduled")
        return []

    mocker.patch("prefect_taskrun_tasks.triggerer.cancelling.cancel_children", restart)
    assert ticked(1).cancelled == ()
    assert state_of(waiting.id) == "Scheduled"
