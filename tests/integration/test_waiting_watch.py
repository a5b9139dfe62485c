"""What a watched flow run shows, and when."""

import json
import logging
import re
from datetime import timedelta
from itertools import islice
from typing import Any, Iterator, List, Tuple

import pendulum
import prefect
import pytest
from answering import answering
from driven import DrivenRun, NewUrl, register, shared_backend
from implementations import PREFECT, both
from prefect import Flow, task
from prefect.engine.state import Cancelling, Failed, Queued, Running, Submitted, Success

import prefect_taskrun_tasks as ours
from prefect_taskrun_tasks import errors
from prefect_taskrun_tasks.server import Backend
from prefect_taskrun_tasks.waiting import Deadline, last_lines
from prefect_taskrun_tasks.waiting import watch as watch_module

NOBODY = "4f6b3c1e-0000-4000-8000-000000000000"


@task
def inc() -> int:
    return 1


with Flow("child") as child_flow:
    inc()


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        yield backend


@pytest.fixture(scope="module")
def flow_id(backend: Backend) -> str:
    return register(child_flow)


@pytest.fixture
def run(flow_id: str) -> DrivenRun:
    return DrivenRun(child_flow, flow_id, labels=["there"])


@pytest.fixture(autouse=True)
def no_last_logs(monkeypatch: Any) -> None:
    """Most tests upload no logs after the end."""
    monkeypatch.setattr(last_lines, "QUIET", 0.0)


def messages(logs: Any) -> List[str]:
    return [log.message for log in logs]


@both
def test_a_finished_flow_run_says_only_that_it_has_finished(lib: Any, run: DrivenRun) -> None:
    run.enter(Running()).enter(Success())
    [log] = lib.watch_flow_run(run.id)
    assert isinstance(log, lib.FlowRunLog)
    assert log.level == logging.INFO
    assert log.message.startswith("Your flow run finished ")
    assert list(lib.watch_flow_run(run.id, stream_states=False)) == []


@both
def test_a_flow_run_that_is_not_there_is_a_value_error(lib: Any) -> None:
    with pytest.raises(ValueError, match=NOBODY):
        list(lib.watch_flow_run(NOBODY))


@both
def test_the_first_poll_shows_all_that_has_happened_sorted_by_time(lib: Any, run: DrivenRun) -> None:
    run.enter(Running("Off we go."))
    # the log belongs before the first state
    run.log("Good morning.", timestamp=pendulum.now("utc").subtract(hours=1).isoformat())
    watch = lib.watch_flow_run(run.id)
    first = [next(watch) for _ in range(3)]
    assert messages(first) == [
        "Good morning.",
        "Entered state <Scheduled>: Flow run scheduled.",
        "Entered state <Running>: Off we go.",
    ]
    assert first == sorted(first)


def test_changes_of_state_are_shown_as_they_happen(run: DrivenRun) -> None:
    watch = ours.watch_flow_run(run.id)
    seen = [next(watch).message]
    for state in (Submitted("To an agent."), Running("Off we go."), Cancelling("Stop!")):
        run.enter(state)
        seen.append(next(watch).message)
    run.enter(Failed("Stopped."))
    seen += messages(watch)
    assert seen == [
        "Entered state <Scheduled>: Flow run scheduled.",
        "Entered state <Submitted>: To an agent.",
        "Entered state <Running>: Off we go.",
        "Entered state <Cancelling>: Stop!",
        "Entered state <Failed>: Stopped.",
    ]


def test_a_state_that_comes_again_is_shown_again(run: DrivenRun) -> None:
    for state in (Running("once"), Queued("full"), Running("once")):
        run.enter(state)
    watch = ours.watch_flow_run(run.id)
    assert messages([next(watch) for _ in range(4)])[1:] == [
        "Entered state <Running>: once",
        "Entered state <Queued>: full",
        "Entered state <Running>: once",
    ]


def test_logs_that_are_uploaded_late_are_shown_once(run: DrivenRun) -> None:
    # Prefect's asks only for what is later than the latest it has seen
    run.enter(Running())
    watch = ours.watch_flow_run(run.id, stream_states=False)
    now = pendulum.now("utc")
    run.log("second", timestamp=now.isoformat())
    assert next(watch).message == "second"
    run.log("first", timestamp=now.subtract(seconds=10).isoformat())
    assert next(watch).message == "first"
    run.log("third", timestamp=now.add(seconds=1).isoformat())
    assert next(watch).message == "third"
    run.enter(Success())
    assert messages(watch) == []


def test_a_watch_goes_on_where_it_or_another_was_left(run: DrivenRun) -> None:
    """Also with lines that come late: of one process they come in their order, but states come before them."""
    now = pendulum.now("utc")

    def look(watch: watch_module.Watch, count: int) -> List[str]:
        return messages(islice(watch.until(Deadline(None, 20)), count))

    run.enter(Running())
    run.log("first", timestamp=now.subtract(seconds=5).isoformat())
    watch = watch_module.Watch(run.id, True, True)
    assert sorted(each[:23] for each in look(watch, 3)) == [
        "Entered state <Running>",
        "Entered state <Schedule",
        "first",
    ]
    run.log("before", timestamp=now.subtract(seconds=8).isoformat())
    assert look(watch, 1) == ["before"]
    run.log("second", timestamp=now.subtract(seconds=4).isoformat())
    assert look(watch_module.Watch(run.id, True, True, after=watch.bookmark), 1) == ["second"]
    run.enter(Success())
    assert look(watch_module.Watch(run.id, False, True, after=watch_module.Bookmark()), 9) == [
        "before",
        "first",
        "second",
    ]


def test_a_log_that_is_uploaded_after_the_last_state_is_shown_before_it(run: DrivenRun, monkeypatch: Any) -> None:
    # Prefect's stops at once
    monkeypatch.setattr(last_lines, "QUIET", 20.0)
    run.enter(Running())
    watch = ours.watch_flow_run(run.id)
    assert messages([next(watch), next(watch)])[-1] == "Entered state <Running>: None"
    before = pendulum.now("utc").isoformat()
    run.enter(Success("Done."))
    run.log("Famous last words.", timestamp=before)
    run.log("Flow run SUCCESS: all reference tasks succeeded", timestamp=before)
    assert messages(watch)[0] == "Famous last words."


def test_logs_of_a_clock_that_goes_ahead_are_shown(run: DrivenRun) -> None:
    run.enter(Running())
    run.log("from the future", timestamp=pendulum.now("utc").add(seconds=30).isoformat())
    # at the first poll, and not when its time has come
    watch = ours.watch_flow_run(run.id, stream_states=False, max_duration=timedelta(0))
    assert next(watch).message == "from the future"


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"stream_states": False}, ["hello"]),
        ({"stream_logs": False}, ["Entered state <Scheduled>: Flow run scheduled."]),
    ],
)
def test_only_what_was_asked_for_is_shown(run: DrivenRun, options: Any, seen: Any) -> None:
    run.log("hello", timestamp=pendulum.now("utc").add(seconds=1).isoformat())
    watch = ours.watch_flow_run(run.id, **options)
    assert next(watch).message == seen[0]
    run.enter(Success())
    assert [message for message in messages(watch) if "Success" not in message] == []


def test_watching_without_showing_anything_waits_for_the_end(run: DrivenRun) -> None:
    polls: List[int] = []

    def finish_at_the_third_poll() -> None:
        polls.append(1)
        if len(polls) == 3:
            run.enter(Success())

    watched = ours.watch_flow_run(run.id, stream_states=False, stream_logs=False, before_poll=finish_at_the_third_poll)
    assert list(watched) == []
    assert len(polls) >= 3


@pytest.mark.parametrize("options", [{}, {"stream_states": False}, {"stream_states": False, "stream_logs": False}])
def test_a_watch_that_takes_too_long_is_a_runtime_error(run: DrivenRun, options: Any) -> None:
    with pytest.raises(errors.WaitTimeout, match=f"{run.id}.* within 0:00:00 .* <Scheduled"):
        list(ours.watch_flow_run(run.id, max_duration=timedelta(0), **options))
    assert issubclass(errors.WaitTimeout, RuntimeError)


def test_a_watch_ends_with_what_is_raised_before_a_poll(run: DrivenRun) -> None:
    def fail() -> None:
        raise KeyError("the agent is dead")

    with pytest.raises(KeyError, match="the agent is dead"):
        list(ours.watch_flow_run(run.id, before_poll=fail))


def test_a_flow_run_that_no_agent_takes_is_warned_about(run: DrivenRun, monkeypatch: Any) -> None:
    monkeypatch.setattr(watch_module, "AGENT_WARNING", 0.0)
    watch = ours.watch_flow_run(run.id)
    seen = [next(watch), next(watch)]
    [warning] = [log for log in seen if log.level == logging.WARNING]
    assert re.match(r"It has been \d+ seconds and your flow run has not been submitted by an agent\.", warning.message)
    assert "labels ['there']" in warning.message
    # not again for a while
    run.log("still waiting")
    assert next(watch).message == "still waiting"
    run.enter(Success())
    assert messages(watch) == ["Entered state <Success>: None"]


def test_the_warning_says_how_long_the_flow_run_has_been_watched(run: DrivenRun, monkeypatch: Any) -> None:
    monkeypatch.setattr(watch_module, "AGENT_WARNING", 1.0)
    monkeypatch.setattr(watch_module, "NEXT_AGENT_WARNING", 1.0)
    watch = ours.watch_flow_run(run.id, stream_logs=False, timeout=60)
    warnings = islice((log.message for log in watch if log.level == logging.WARNING), 3)
    waited = [int(re.findall(r"It has been (\d+) seconds", message)[0]) for message in warnings]
    assert waited == sorted(set(waited))
    assert waited[0] >= 1


@pytest.mark.parametrize("state", [Submitted(), Running()], ids=repr)
def test_a_flow_run_that_an_agent_has_taken_is_not_warned_about(run: DrivenRun, monkeypatch: Any, state: Any) -> None:
    monkeypatch.setattr(watch_module, "AGENT_WARNING", 0.0)
    run.enter(state)
    watch = ours.watch_flow_run(run.id, stream_logs=False)
    seen = [next(watch), next(watch)]
    run.enter(Success())
    assert [log.level for log in [*seen, *watch]] == [logging.INFO] * 3


def agent(name: str, *labels: str) -> str:
    """Registers an agent; returns its UUID."""
    client = prefect.Client()
    agent_id: str = client.register_agent("LocalAgent", name, list(labels))
    return agent_id


def said(labels: Any, since_minutes: int = 1) -> Tuple[str, str]:
    """What Prefect and this package say, up to how they write labels."""
    theirs, mine = [lib.check_for_compatible_agents(labels, since_minutes) for lib in (PREFECT, ours)]
    # Prefect writes a set, and once forgets a word
    return theirs.replace("{", "[").replace("}", "]").replace("] deploy your", "] to deploy your"), mine


def test_an_agent_whose_labels_are_null_has_none() -> None:
    """Prefect's fails with a TypeError."""
    answer = {"agent": [{"id": "id", "name": "null", "labels": None, "last_queried": pendulum.now("utc").isoformat()}]}
    with answering(200, json.dumps({"data": answer}).encode()):
        assert "(null) has matching labels" in ours.check_for_compatible_agents([])
        assert "do not have an agent with labels ['x']" in ours.check_for_compatible_agents(["x"])


def test_the_same_is_said_of_agents(backend: Backend) -> None:
    def same(labels: Any, told: str, since_minutes: int = 1) -> None:
        theirs, mine = said(labels, since_minutes)
        assert mine == theirs
        assert told in mine

    # agents cannot be taken away again, so one test goes through all there is to say
    same([], "There are no healthy agents in your tenant")
    same(["x"], "with labels ['x'] to run your flow")
    agent("unlabelled")
    same([], "(unlabelled) has matching labels and last queried")
    same(["x"], "You have 1 healthy agents in your tenant but do not have an agent with labels ['x']")
    same(["x"], "no healthy agents", since_minutes=-1)
    first = agent("one", "x", "y")
    same(["x"], f"Agent {first} (one) has matching labels")
    same(["x"], "It should deploy your flow run.")
    # an agent with labels does not take a flow run without
    same([], "(unlabelled) has matching labels")
    same(["x"], "looks unhealthy. Restart it or start a new agent with labels ['x']", since_minutes=-1)
    same({"y"}, "It should deploy")
    agent("another", "x")
    same(["x"], "Found 2 healthy agents with matching labels. One of them should pick up your flow.")
    same(["x"], "Found 2 agents with matching labels but they have not queried recently", since_minutes=-1)
    same(["x", "y"], f"Agent {first}")
    # of the embedded backend, and so not known to Prefect
    agent("any", "*")
    assert "(any) has matching labels" in ours.check_for_compatible_agents(["nobody-else"])
