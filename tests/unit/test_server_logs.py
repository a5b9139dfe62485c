"""Logs and artifacts of runs."""

from typing import Any, Dict, Iterator, List

import pytest
import stored

from prefect_taskrun_tasks.server import clock, tables
from prefect_taskrun_tasks.server.clock import ago
from prefect_taskrun_tasks.server.errors import Refused
from prefect_taskrun_tasks.server.rules import artifacts, flow_runs, logs
from prefect_taskrun_tasks.server.transaction import Transaction


@pytest.fixture
def tx(database_url: str) -> Iterator[Transaction]:
    with stored.transaction(database_url) as tx:
        yield tx


@pytest.fixture
def run_id(tx: Transaction) -> str:
    return stored.flow_run_id(tx)


def test_a_log_is_stored_as_it_came(tx: Transaction, run_id: str) -> None:
    given = {
        "flow_run_id": run_id,
        "task_run_id": stored.task_runs(tx, run_id)[0]["id"],
        "timestamp": "2026-01-01T00:00:00.123456+00:00",
        "name": "prefect.task",
        "level": "ERROR",
        "message": 'it\'s "quoted"\nand 👋',
        "info": {"a": [1]},
    }
    assert logs.write_run_logs(tx, [given]) == {"success": True}
    [row] = stored.rows(tx, tables.log)
    assert {name: row[name] for name in given} == given


@pytest.mark.parametrize("absent", [{}, {"timestamp": None, "level": None, "task_run_id": None, "name": None}])
def test_what_an_agent_leaves_out_of_a_log_is_filled_in(tx: Transaction, run_id: str, absent: Any) -> None:
    """T12: agents send neither a time nor a task run."""
    logs.write_run_logs(tx, [{"flow_run_id": run_id, "message": "Submitted for execution", **absent}])
    [row] = stored.rows(tx, tables.log)
    assert row["level"] == "INFO"
    assert ago(60) < row["timestamp"] <= ago(0)
    assert row["task_run_id"] is None


@pytest.mark.parametrize("level", ["NOTSET", "TRACE", "Level 25", "Notice"])
def test_a_level_of_any_name_is_kept(tx: Transaction, run_id: str, level: str) -> None:
    """T9: refused, it would block all later logs of its process."""
    assert logs.write_run_logs(tx, [{"flow_run_id": run_id, "level": level, "message": "m"}]) == {"success": True}
    assert stored.rows(tx, tables.log)[0]["level"] == level


def test_a_log_whose_run_is_gone_does_not_keep_out_the_others(tx: Transaction, run_id: str) -> None:
    """T9."""
    deleted = stored.flow_run_id(tx)
    deleted_task_run = stored.task_runs(tx, deleted)[0]["id"]
    flow_runs.delete_flow_run(tx, deleted)
    batch = [
        {"flow_run_id": run_id, "message": "first"},
        {"flow_run_id": deleted, "message": "of a deleted flow run"},
        {"flow_run_id": run_id, "task_run_id": deleted_task_run, "message": "of a deleted task run"},
        {"flow_run_id": run_id, "message": "last"},
    ]
    assert logs.write_run_logs(tx, batch) == {"success": True}
    assert [row["message"] for row in stored.rows(tx, tables.log)] == ["first", "last"]


@pytest.mark.parametrize("message", [None, "", "caf\udce9", "\x00", "x" * 1_000_000])
def test_any_message_is_kept(tx: Transaction, run_id: str, message: Any) -> None:
    """T9: also the name of a file that Python could not decode."""
    assert logs.write_run_logs(tx, [{"flow_run_id": run_id, "message": message}]) == {"success": True}
    # the character 0 may be kept or not
    kept = [
        text and text.replace("\udce9", "?").replace("\0", "?")
        for text in (message, stored.rows(tx, tables.log)[0]["message"])
    ]
    assert kept[0] == kept[1]


def test_logs_that_are_sent_again_with_others_are_stored_once(tx: Transaction, run_id: str) -> None:
    def line(message: str, at: int) -> Dict[str, Any]:
        return {"flow_run_id": run_id, "message": message, "timestamp": clock.normal(f"2026-01-01T00:00:00.{at:06}")}

    # of one microsecond, and of characters that are stored as others
    batch = [line("a", 1), line("b", 1), line("caf\udce9\0", 2)]
    logs.write_run_logs(tx, batch)
    logs.write_run_logs(tx, [*batch, line("c", 1), line("a", 3)])
    kept = [row["message"].replace("\0", "?") for row in stored.rows(tx, tables.log)]
    assert kept == ["a", "b", "caf??", "c", "a"]


def test_logs_of_one_microsecond_by_other_loggers_and_of_other_levels_are_others(tx: Transaction, run_id: str) -> None:
    line = {"flow_run_id": run_id, "message": "m", "timestamp": clock.normal("2026-01-01T00:00:00.000001")}
    batch = [line, {**line, "name": "a"}, {**line, "name": "b"}, {**line, "name": "a", "level": "ERROR"}]
    logs.write_run_logs(tx, batch[:1])
    logs.write_run_logs(tx, batch)
    logs.write_run_logs(tx, batch)
    kept = sorted((row["name"] or "", row["level"]) for row in stored.rows(tx, tables.log))
    assert kept == [("", "INFO"), ("a", "ERROR"), ("a", "INFO"), ("b", "INFO")]


def test_what_lies_between_the_logs_that_are_sent_is_not_read(tx: Transaction, run_id: str) -> None:
    def line(at: int) -> Dict[str, Any]:
        return {"flow_run_id": run_id, "message": str(at), "timestamp": clock.normal(f"2026-01-01T00:00:00.{at:06}")}

    logs.write_run_logs(tx, [line(at) for at in range(3 * logs.CHUNK)])
    read: List[Any] = []
    rows = tx.rows

    def note(*asked: Any) -> Any:
        read.extend(rows(*asked))
        return rows(*asked)

    tx.rows = note  # type: ignore[method-assign]
    logs.write_run_logs(tx, [line(0), line(3 * logs.CHUNK - 1), line(5 * logs.CHUNK)])
    assert len(read) < 10
    # more than fit into one statement
    logs.write_run_logs(tx, [line(at) for at in range(3 * logs.CHUNK + 1)])
    assert stored.count(tx, tables.log) == 3 * logs.CHUNK + 2


def test_no_logs_are_a_success(tx: Transaction) -> None:
    assert logs.write_run_logs(tx, []) == {"success": True}


def test_an_artifact_is_kept_with_the_tenant_of_its_run(tx: Transaction, run_id: str) -> None:
    """T33: also for a mapped child."""
    task_run = stored.task_runs(tx, run_id)[0]
    id = artifacts.create_task_run_artifact(tx, task_run["id"], "link", {"link": "http://x"})["id"]
    [row] = stored.rows(tx, tables.task_run_artifact)
    assert (row["id"], row["kind"], row["data"]) == (id, "link", {"link": "http://x"})
    assert row["tenant_id"] == stored.tenant_id(tx)


def test_an_artifact_that_is_sent_again_is_one(tx: Transaction, run_id: str) -> None:
    first, second = [row["id"] for row in stored.task_runs(tx, run_id)]
    asked = [(first, "link", {"link": "x"}), (first, "link", {"link": "y"}), (second, "link", {"link": "x"})]
    ids = [[artifacts.create_task_run_artifact(tx, *each)["id"] for each in asked] for _ in range(7)]
    assert ids == ids[:1] * 7
    assert len(set(ids[0])) == stored.count(tx, tables.task_run_artifact) == 3
    # much later it is another
    tx.update(tables.task_run_artifact, created=ago(artifacts.RESENT_FOR + 10))
    assert artifacts.create_task_run_artifact(tx, *asked[0])["id"] not in ids[0]


def test_an_artifact_can_be_changed_and_deleted(tx: Transaction, run_id: str) -> None:
    task_run_id = stored.task_runs(tx, run_id)[0]["id"]
    id = artifacts.create_task_run_artifact(tx, task_run_id, "markdown", {"markdown": "# a"})["id"]
    assert artifacts.update_task_run_artifact(tx, id, {"markdown": "# b"}) == {"success": True}
    assert stored.rows(tx, tables.task_run_artifact)[0]["data"] == {"markdown": "# b"}
    assert artifacts.delete_task_run_artifact(tx, id) == {"success": True}
    assert artifacts.delete_task_run_artifact(tx, id) == {"success": False}
    assert artifacts.update_task_run_artifact(tx, id, {}) == {"success": False}


def test_an_artifact_of_an_unknown_run_is_refused_in_words_that_the_client_knows(tx: Transaction) -> None:
    with pytest.raises(Refused, match=r"Task run .* not found"):
        artifacts.create_task_run_artifact(tx, tables.new_id(), "link", {})


def test_an_artifact_may_be_a_megabyte_and_not_more(tx: Transaction, run_id: str) -> None:
    task_run_id = stored.task_runs(tx, run_id)[0]["id"]
    room = "x" * (artifacts.LARGEST_ARTIFACT - 2)
    id = artifacts.create_task_run_artifact(tx, task_run_id, "markdown", room)["id"]
    with pytest.raises(Refused, match="larger"):
        artifacts.create_task_run_artifact(tx, task_run_id, "markdown", room + "x")
    with pytest.raises(Refused, match="larger"):
        artifacts.update_task_run_artifact(tx, id, room + "x")
