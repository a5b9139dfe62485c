"""Answers that the embedded backend holds until there is something to say."""

import threading
from time import monotonic
from typing import Any, Dict, List

import prefect
import pytest
import requests
import urllib3
from conftest import eventually
from driven import DrivenRun
from prefect import Flow, task
from prefect.engine.state import Running, Success

from prefect_taskrun_tasks import api
from prefect_taskrun_tasks.server import Backend, news

FINISHED = 'query($id: uuid) { flow_run(where: {id: {_eq: $id}, state: {_eq: "Success"}}) { id } hello }'


@task
def one() -> int:
    return 1


@pytest.fixture
def run(backend: Backend) -> DrivenRun:
    with Flow("held") as flow:
        one()
    return DrivenRun(flow).enter(Running())


def ask(backend: Backend, run: DrivenRun, prefer: str, query: str = FINISHED) -> requests.Response:
    body: Dict[str, Any] = {"query": query, "variables": {"id": run.id}}
    return requests.post(backend.url, json=body, headers={"Prefer": prefer} if prefer else {}, timeout=60)


def test_an_empty_answer_is_held_until_there_is_news(backend: Backend, run: DrivenRun) -> None:
    finish = threading.Timer(0.3, run.enter, [Success()])
    finish.start()
    answer = ask(backend, run, "wait=30")
    finish.join()
    assert answer.json()["data"] == {"flow_run": [{"id": run.id}], "hello": "👋"}
    assert answer.headers["Preference-Applied"] == "wait=30"


def test_an_empty_answer_is_held_no_longer_than_was_asked_for(backend: Backend, run: DrivenRun) -> None:
    start = monotonic()
    assert ask(backend, run, "wait=1").json()["data"]["flow_run"] == []
    assert monotonic() - start >= 1


@pytest.mark.parametrize(
    ("prefer", "query", "applied"),
    [
        ("", FINISHED, None),
        ("return=minimal", FINISHED, None),
        ("wait=0", FINISHED, "wait=0"),
        ("wait=999", "{ hello flow_run(limit: 0) { id } }", "wait=30"),
        ("wait=30", "{ flow_run { id } }", "wait=30"),
        ("respond-async, wait=30", "{ flow_run { id } }", "wait=30"),
    ],
)
def test_only_an_answer_whose_first_field_is_empty_is_held(
    backend: Backend, run: DrivenRun, prefer: str, query: str, applied: Any
) -> None:
    start = monotonic()
    answer = ask(backend, run, prefer, query)
    assert answer.headers.get("Preference-Applied") == applied
    # an answer that is held by mistake takes 30 s
    assert monotonic() - start < 20


def test_a_query_that_cannot_be_executed_is_refused_at_once(backend: Backend, run: DrivenRun) -> None:
    assert ask(backend, run, "wait=30", "{ unheard_of }").status_code == 400


def test_a_mutation_is_not_held(backend: Backend, run: DrivenRun) -> None:
    answer = ask(backend, run, "wait=30", 'mutation { create_tenant(input: {name: "t", slug: "t"}) { id } }')
    assert "Preference-Applied" not in answer.headers


def test_a_query_with_the_word_mutation_in_a_value_is_held(backend: Backend, run: DrivenRun) -> None:
    query = "query($where: flow_run_bool_exp) { flow_run(where: $where) { id } }"
    variables = {"where": {"name": {"_eq": "mutation"}}}
    headers = {"Prefer": "wait=1"}
    answer = requests.post(backend.url, json={"query": query, "variables": variables}, headers=headers, timeout=20)
    assert answer.headers["Preference-Applied"] == "wait=1"


def test_others_are_answered_while_many_answers_are_held(backend: Backend, run: DrivenRun) -> None:
    threads = [threading.Thread(target=ask, args=(backend, run, "wait=30")) for _ in range(50)]
    for thread in threads:
        thread.start()
    assert prefect.Client().graphql("{ hello }").data.hello
    run.enter(Success())
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)


def test_a_backend_stops_while_answers_are_held(backend: Backend, run: DrivenRun) -> None:
    answers: List[requests.Response] = []
    thread = threading.Thread(target=lambda: answers.append(ask(backend, run, "wait=30")))
    thread.start()
    # by then the request has come in
    assert ask(backend, run, "wait=1").status_code == 200
    backend.__exit__()
    thread.join(20)
    assert answers[0].json()["data"]["flow_run"] == []


def test_an_answer_is_asked_again_only_for_what_its_request_names(
    backend: Backend, run: DrivenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: List[bytes] = []
    steps = backend._endpoint._api.steps
    monkeypatch.setattr(
        backend._endpoint._api, "steps", lambda body, headers: asked.append(body) or steps(body, headers)
    )
    other = DrivenRun(Flow("other"))
    thread = threading.Thread(target=ask, args=(backend, run, "wait=30"))
    thread.start()
    eventually(lambda: backend._news._held and asked)
    of_run = [body for body in asked if run.id.encode() in body]
    for _ in range(5):
        other.enter(Running())
        other.enter(Success())
    assert [body for body in asked if b"Success" in body and run.id.encode() in body] == of_run
    run.enter(Success())
    thread.join(20)
    assert not thread.is_alive()
    assert not backend._news._held


@pytest.mark.parametrize(
    "query",
    [
        'query($id: uuid) { flow_run(where: {flow_id: {_eq: $id}, state: {_eq: "Success"}}) { id } }',
        'query { flow_run(where: {state: {_eq: "Success"}}) { id } }',
    ],
    ids=["of a flow", "of anything"],
)
def test_an_answer_about_other_things_than_a_flow_run_is_told_too(
    backend: Backend, client: prefect.Client, run: DrivenRun, query: str
) -> None:
    [found] = client.graphql("{ flow { id } }").data.flow
    body = {"query": query, "variables": {"id": found.id}}
    finish = threading.Timer(0.3, run.enter, [Success()])
    finish.start()
    begun = monotonic()
    answer = requests.post(backend.url, json=body, headers={"Prefer": "wait=30"}, timeout=60)
    assert answer.json()["data"] == {"flow_run": [{"id": run.id}]}
    assert monotonic() - begun < news.RECHECK
    finish.join()


def test_an_answer_about_what_is_related_to_a_change_comes_a_little_later(
    backend: Backend, run: DrivenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "RECHECK", 0.5)
    project = prefect.Client().graphql("{ project { id } }").data.project[0].id
    query = 'query($id: uuid) { flow_run(where: {flow: {project_id: {_eq: $id}}, state: {_eq: "Success"}}) { id } }'
    finish = threading.Timer(0.3, run.enter, [Success()])
    finish.start()
    body = {"query": query, "variables": {"id": project}}
    begun = monotonic()
    answer = requests.post(backend.url, json=body, headers={"Prefer": "wait=30"}, timeout=60)
    assert answer.json()["data"] == {"flow_run": [{"id": run.id}]}
    assert monotonic() - begun < 20
    finish.join()


def test_a_held_request_is_released_by_another_thread(backend: Backend, run: DrivenRun) -> None:
    hold = api.Hold(30)
    raised: List[BaseException] = []

    def ask_and_wait() -> None:
        try:
            api.ask(FINISHED, {"id": run.id}, "waiting", hold)
        except api.Released as released:
            raised.append(released)

    thread = threading.Thread(target=ask_and_wait)
    thread.start()
    threading.Timer(0.3, hold.release).start()
    thread.join(20)
    assert not thread.is_alive()
    # a version of urllib3 that cannot release it holds it for a second at most
    assert len(raised) == hasattr(urllib3.HTTPResponse, "shutdown")


def test_a_request_that_was_released_before_it_was_sent_is_not_waited_for(backend: Backend, run: DrivenRun) -> None:
    hold = api.Hold(30)
    hold.release()
    with pytest.raises(api.Released):
        api.ask(FINISHED, {"id": run.id}, "waiting", hold)
    assert hold.is_applied
