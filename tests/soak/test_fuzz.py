"""Whatever is sent to the API, it answers: in its own form, before long, and without a fault of its own."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, List, Tuple
from typing import Counter as CounterOf
from zlib import crc32

import pytest
import requests
from asked import Asked
from asking import Caller, caller
from hypothesis import HealthCheck, given, seed, settings
from snapshot import snapshot

from prefect_taskrun_tasks.server import Backend, Limits
from prefect_taskrun_tasks.server.api import Api

#: Seconds in which a request is answered, however busy the machine is
LONGEST = 20

#: Of the examples, one is sent over HTTP
ONE_OVER_HTTP = 20

SCHEDULE = {
    "type": "Schedule",
    "clocks": [
        {"type": "IntervalClock", "interval": 3_600_000_000, "start_date": {"dt": "2024-01-01T00:00:00", "tz": "UTC"}},
        {"type": "CronClock", "cron": "0 5 * * *", "parameter_defaults": {"x": 1}, "labels": ["a"]},
    ],
    "filters": [],
}
FLOW = {
    "name": "other",
    "tasks": [{"slug": "a", "name": "a", "max_retries": 1, "retry_delay": 60, "cache_for": 1, "tags": ["x"]}],
    "edges": [{"upstream_task": {"slug": "a"}, "downstream_task": {"slug": "a"}, "key": "x", "mapped": False}],
    "parameters": [{"name": "x", "slug": "x", "required": False, "default": 1}],
    "schedule": SCHEDULE,
    "storage": {"type": "Local", "flows": {}},
    "run_config": {"type": "LocalRun", "labels": ["b"]},
    "environment": {"labels": []},
    "__version__": "1.4.1",
}
HOOK = {"url": "http://127.0.0.1:1/"}


def _ids(api: Caller) -> List[str]:
    """Of one thing of each kind, which are made here."""
    flow_id = api.flow_id(**{**FLOW, "tasks": ("a", "b")})
    flow_run_id = api.running(flow_id)
    [flow] = api.ask("{ flow { id flow_group_id project_id tenant_id } }")["flow"]
    task, *_ = api.ask("{ task { id } }")["task"]
    task_run, *_ = api.ask(f'{{ task_run(where: {{flow_run_id: {{_eq: "{flow_run_id}"}}}}) {{ id }} }}')["task_run"]
    api.mutate("write_run_logs", "success", logs=[{"flow_run_id": flow_run_id, "message": "here"}])
    tenant = {"tenant_id": flow["tenant_id"]}
    return [
        *flow.values(),
        flow_run_id,
        task["id"],
        task_run["id"],
        api.mutate("register_agent", **tenant, type="LocalAgent", labels=["b"]),
        api.mutate("create_cloud_hook", **tenant, type="WEBHOOK", states=["Failed"], config=HOOK),
        api.mutate("create_task_run_artifact", task_run_id=task_run["id"], kind="link", data={"link": "x"}),
    ]


def _check(status: int, answer: Any) -> str:
    """How it ended, in a word."""
    assert status in (200, 400)
    json.dumps(answer, allow_nan=False)
    assert status == 200 or isinstance(answer, dict)
    for each in answer if isinstance(answer, list) else [answer]:
        assert set(each) <= {"data", "errors"}, each
        assert "data" in each or each["errors"], each
        for error in each.get("errors") or ():
            assert isinstance(error["message"], str), error
            assert error["message"], error
            # those of an introspection are graphql-core's own
            extensions = error.get("extensions", {"code": ""})
            assert isinstance(extensions["code"], str), error
            # the number under which the log has an exception that nobody foresaw
            assert "id" not in extensions, error
    if isinstance(answer, list):
        return "batches"
    return "not executed" if status == 400 else "with " + " and ".join(sorted(answer))


def test_every_request_is_answered_in_the_apis_own_form(
    database_url: str, request: pytest.FixtureRequest, capsys: "pytest.CaptureFixture[str]"
) -> None:
    examples = int(request.config.getoption("--examples"))
    endings: CounterOf[str] = Counter()
    with caller(database_url) as first:
        ids = _ids(first)
    with Backend(database_url, port=0, limits=Limits(seconds=2)) as backend, snapshot(
        backend._database, database_url
    ) as restore, ThreadPoolExecutor(1) as thread:
        api = Api(backend._database, limits=Limits(seconds=2))

        def answer(body: bytes) -> Tuple[int, Any]:
            if crc32(body) % ONE_OVER_HTTP:
                return api.answer(body, {"x-prefect-core-version": "1.4.1"})
            found = requests.post(backend.url, body, headers={"Content-Type": "application/json"}, timeout=60)
            return found.status_code, found.json()

        @seed(int(request.config.getoption("--seed")))
        @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(Asked(ids, [FLOW, SCHEDULE, HOOK, {"x": 1}, ["a"]]).bodies())
        def ask(body: bytes) -> None:
            endings[_check(*thread.submit(answer, body).result(LONGEST))] += 1
            if b"mutation" in body:
                # so that what one example does is not the reason why another fails
                restore()

        ask()
    with capsys.disabled():
        print("\nAnswers: " + "; ".join(f"{count} {ending}" for ending, count in endings.most_common()))
