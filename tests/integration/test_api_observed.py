"""What a backend tells of itself: whether it is well, what is counted, and what is logged."""

import json
import logging
import re
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

import pytest
import requests

from prefect_taskrun_tasks.server import ApiKey, Backend, Limits, http, services
from prefect_taskrun_tasks.server import endpoint as endpoint_module
from prefect_taskrun_tasks.server.json_lines import JsonLines
from prefect_taskrun_tasks.server.metrics import Metric, text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "observed.db"


@pytest.fixture
def observed(file: Path) -> Iterator[Backend]:
    with Backend(f"sqlite:///{file}", port=0) as backend:
        yield backend


def ask(backend: Backend, query: str, **headers: str) -> Any:
    return requests.post(backend.url, json={"query": query}, headers=headers, timeout=20).json()


def measured(backend: Backend, headers: Optional[Dict[str, str]] = None) -> Dict[str, float]:
    """The samples of /metrics, each line of which has to be one of the format."""
    answer = requests.get(backend.url + "/metrics", headers=headers, timeout=20)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert answer.text.endswith("\n")
    found = {}
    label = r'[a-z]+="(?:[^"\\\n]|\\[\\"n])*"'
    for line in answer.text.splitlines():
        if re.fullmatch(r"# (HELP \w+ .+|TYPE \w+ (counter|gauge|histogram))", line):
            continue
        sample = re.fullmatch(rf"(\w+(?:\{{{label}(?:,{label})*\}})?) (\S+)", line)
        assert sample is not None, line
        found[sample.group(1)] = float(sample.group(2))
    return found


def test_a_backend_is_well_as_long_as_its_database_answers(observed: Backend, file: Path) -> None:
    assert requests.get(observed.url + "/health", timeout=20).status_code == 200
    file.unlink()
    answer = requests.get(observed.url + "/health", timeout=20)
    reason = "The database file was deleted or replaced."
    assert (answer.status_code, answer.json()) == (503, {"status": "unavailable", "reason": reason})


def test_a_backend_whose_database_cannot_be_read_is_not_well(observed: Backend) -> None:
    with observed._database.write() as tx:
        tx.connection.exec_driver_sql("ALTER TABLE tenant RENAME TO gone")
    assert requests.get(observed.url + "/health", timeout=20).status_code == 503


def test_a_backend_whose_database_answers_too_late_is_not_well_until_it_does(
    observed: Backend, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_answer = threading.Event()
    # those who read much do not keep it from saying that it is well
    readers = [observed._readers.submit(may_answer.wait, 20) for _ in range(8)]
    assert requests.get(observed.url + "/health", timeout=20).status_code == 200
    readers.append(observed._upkeep.submit(may_answer.wait, 20))
    monkeypatch.setattr(http, "HEALTHY", 0.2)
    assert requests.get(observed.url + "/health", timeout=20).status_code == 503
    assert "does not answer: not within 0.2 s" in caplog.text
    may_answer.set()
    assert all(reader.result(20) for reader in readers)
    monkeypatch.undo()
    assert requests.get(observed.url + "/health", timeout=20).status_code == 200


def test_to_count_what_is_stored_takes_one_connection_at_a_time(
    observed: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several that each hold one and wait for a second one would wait for each other."""
    store, held = observed._database.store, []

    def size() -> int:
        held.append(store.engine.pool.checkedout())  # type: ignore[attr-defined]
        return 1

    monkeypatch.setattr(store, "size", size)
    assert "prefect_taskrun_database_bytes 1\n" in requests.get(observed.url + "/metrics", timeout=20).text
    assert held == [0]


def test_requests_are_counted_by_kind_and_by_how_they_ended(observed: Backend) -> None:
    create = 'mutation { create_tenant(input: {name: "x", slug: "x"}) { id } }'
    before = measured(observed)
    for query in ("{ hello }", "{ hello }", "{ unheard_of }", create, create, "{ flow(limit: -1) { id } }"):
        ask(observed, query)
    requests.post(observed.url, data=b"x", timeout=20)
    with observed._database.write() as tx:
        tx.connection.exec_driver_sql("ALTER TABLE log RENAME TO gone")
    ask(observed, "{ hello log { id } }")
    after = measured(observed)
    counted = {
        tuple(re.findall('"([^"]+)"', name)): int(value - before.get(name, 0))
        for name, value in after.items()
        if name.startswith("prefect_taskrun_requests_total")
    }
    assert counted == {
        ("query", "ok"): 2,
        ("query", "graphql_validation_failed"): 1,
        ("query", "refused"): 1,
        ("query", "failed"): 1,
        ("mutation", "ok"): 1,
        ("mutation", "refused"): 1,
        ("unread", "bad_request"): 1,
    }


def test_durations_are_a_histogram(observed: Backend) -> None:
    for _ in range(3):
        ask(observed, "{ hello }")
    name = "prefect_taskrun_request_duration_seconds"
    found = measured(observed)
    buckets = [value for key, value in found.items() if key.startswith(f'{name}_bucket{{kind="query"')]
    assert len(buckets) > 10
    assert buckets == sorted(buckets)
    assert (
        buckets[-1] == found[f'{name}_bucket{{kind="query",le="+Inf"}}'] == found[f'{name}_count{{kind="query"}}'] == 3
    )
    assert 0 < found[f'{name}_sum{{kind="query"}}'] < 60


def test_flow_runs_the_queue_and_the_size_are_measured(observed: Backend, file: Path) -> None:
    def mutate(name: str, /, **input: Any) -> str:
        query = f"mutation($input: {name}_input!) {{ {name}(input: $input) {{ id }} }}"
        body = {"query": query, "variables": {"input": input}}
        answer = requests.post(observed.url, json=body, timeout=20).json()
        return str(answer["data"][name]["id"])

    tenant_id = ask(observed, "{ tenant { id } }")["data"]["tenant"][0]["id"]
    project_id = mutate("create_project", tenant_id=tenant_id, name="p")
    flow_id = mutate("create_flow", project_id=project_id, serialized_flow={"name": "f", "tasks": []})
    for start in ("2020-01-01", "2020-01-01", "2099-01-01"):
        mutate("create_flow_run", flow_id=flow_id, scheduled_start_time=f"{start}T00:00:00Z")
    found = measured(observed)
    assert found['prefect_taskrun_flow_runs{state="Scheduled"}'] == 3
    assert found["prefect_taskrun_queue_length"] == 2
    assert found["prefect_taskrun_database_bytes"] >= file.stat().st_size > 0


def test_passes_of_services_and_those_that_failed_are_counted(file: Path) -> None:
    intervals = {services.schedule: 1e6, services.lazarus: 1e6, services.kill_zombies: 1e6}
    with Backend(f"sqlite:///{file}", port=0, intervals=intervals) as backend:
        name = 'prefect_taskrun_service_{}_total{{service="{}"}}'
        found = measured(backend)
        for service in ("schedule", "lazarus", "kill_zombies"):
            assert found[name.format("runs", service)] == found[name.format("failures", service)] == 0
        backend._services.run(services.lazarus)
        with backend._database.write() as tx:
            tx.connection.exec_driver_sql("ALTER TABLE flow RENAME TO gone")
        backend._services.run(services.schedule)
        found = measured(backend)
        assert (found[name.format("runs", "lazarus")], found[name.format("failures", "lazarus")]) == (1, 0)
        assert (found[name.format("runs", "schedule")], found[name.format("failures", "schedule")]) == (1, 1)


def test_metrics_need_the_key(file: Path) -> None:
    with Backend(f"sqlite:///{file}", port=0, api_key=ApiKey("the-key-of-the-test")) as backend:
        refused = requests.get(backend.url + "/metrics", timeout=20)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert "prefect_taskrun_" not in refused.text
        ask(backend, "{ hello }")
        found = measured(backend, {"Authorization": "Bearer the-key-of-the-test"})
        assert found['prefect_taskrun_requests_total{kind="unread",status="unauthenticated"}'] == 1


def test_labels_are_written_so_that_they_can_be_read() -> None:
    metric = Metric("name", "gauge", "Help.", [("", {"state": 'a"b\\c\nd'}, 1)])
    assert text([metric]).splitlines()[-1] == r'name{state="a\"b\\c\nd"} 1'


def lines(caplog: pytest.LogCaptureFixture) -> Any:
    return [(each.levelname, each.getMessage()) for each in caplog.records if each.name == endpoint_module.__name__]


def test_a_request_is_one_line_for_who_wants_to_see_it(observed: Backend, caplog: pytest.LogCaptureFixture) -> None:
    ask(observed, '{ hello } # "s3cret"')
    assert lines(caplog) == []
    caplog.set_level(logging.DEBUG, endpoint_module.__name__)
    ask(observed, '{ hello flow(where: {name: {_eq: "s3cret"}}) { id } }')
    [(level, message)] = lines(caplog)
    assert level == "DEBUG"
    assert re.fullmatch(r"query hello, flow: ok in [\d.]+ ms", message)
    assert "s3cret" not in caplog.text


def test_requests_that_are_slow_or_fail_are_seen_by_everybody(
    observed: Backend, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(observed, "{ flow(limit: -1) { id } }")
    assert lines(caplog) == []
    monkeypatch.setattr(endpoint_module, "SLOW", 0.0)
    ask(observed, "{ hello }")
    monkeypatch.setattr(endpoint_module, "SLOW", 5.0)
    with observed._database.write() as tx:
        tx.connection.exec_driver_sql("ALTER TABLE log RENAME TO gone")
    ask(observed, "{ log { id } }")
    assert [level for level, _ in lines(caplog)] == ["WARNING", "WARNING"]
    assert "query log: failed" in lines(caplog)[1][1]


def test_the_log_for_programs_is_an_object_a_line() -> None:
    request = {"kind": "query", "milliseconds": 1.5}
    record = logging.LogRecord("name", logging.WARNING, __file__, 1, "two\nlines %s", ("x",), None)
    record.request = request
    written = JsonLines().format(record)
    assert "\n" not in written
    line = json.loads(written)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", line.pop("time"))
    assert line == {"level": "WARNING", "logger": "name", "message": "two\nlines x", **request}


def test_the_log_for_programs_has_tracebacks() -> None:
    try:
        raise RuntimeError("as this test wants it")
    except RuntimeError as error:
        record = logging.LogRecord("name", logging.ERROR, __file__, 1, "failed", (), (type(error), error, None))
    assert "RuntimeError: as this test wants it" in json.loads(JsonLines().format(record))["exception"]


def test_answers_that_were_ended_are_no_faults(file: Path) -> None:
    with Backend(f"sqlite:///{file}", port=0, limits=Limits(rows=1)) as backend:
        ask(backend, 'mutation { create_tenant(input: {name: "x", slug: "x"}) { id } }')
        ask(backend, "{ tenant { id } }")
        assert measured(backend)['prefect_taskrun_requests_total{kind="query",status="refused"}'] == 1
