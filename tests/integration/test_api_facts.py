"""Queries that are not tables: states, the children of a mapped task run, what the backend says of itself."""

from typing import Any, Iterator

import prefect
import pytest
from asking import Caller, caller

CHILDREN = "query($id: UUID!) { mapped_children(task_run_id: $id) { min_start_time max_end_time state_counts } }"


@pytest.fixture
def api(database_url: str) -> Iterator[Caller]:
    with caller(database_url) as api:
        yield api


def test_the_backend_says_which_prefect_it_is_for(api: Caller) -> None:
    answer = api.ask("{ api { backend mode version core_version release_timestamp } }")["api"]
    assert answer.pop("version")
    expected = {"backend": "SERVER", "mode": "normal", "core_version": prefect.__version__, "release_timestamp": None}
    assert answer == expected


def test_reference_data_is_what_prefect_says_of_its_states(api: Caller) -> None:
    data = api.ask("{ reference_data { state_hierarchy state_info } }")["reference_data"]
    assert set(data["state_hierarchy"]["Running"]) == {"Running", "Cancelling"}
    assert set(data["state_hierarchy"]["Success"]) == {"Success", "Cached", "Mapped", "Skipped"}
    assert data["state_hierarchy"]["Paused"] == ["Paused"]
    assert set(data["state_hierarchy"]["State"]) == set(data["state_hierarchy"]) == set(data["state_info"])
    assert data["state_info"]["Success"] == {"color": prefect.engine.state.Success.color}


@pytest.fixture
def mapped(api: Caller) -> Any:
    """The task run of a mapped task with four children, of which one runs and one has ended."""
    run_id = api.running(api.flow_id(tasks=["a", "b"]))
    [task, _] = api.ask("{ task(order_by: {slug: asc}) { id } }")["task"]
    ids = [
        api.mutate("get_or_create_task_run_info", flow_run_id=run_id, task_id=task["id"], map_index=index)
        for index in (-1, 0, 1, 2, 3)
    ]
    api.set_task_state(ids[1], "Running")
    api.set_task_state(ids[2], "Running")
    api.set_task_state(ids[2], "Success")
    return ids


def test_children_of_a_mapped_task_run_are_summed_up(api: Caller, mapped: Any) -> None:
    answer = api.ask(CHILDREN, id=mapped[0])["mapped_children"]
    assert answer["state_counts"] == {"Pending": 2, "Running": 1, "Success": 1}
    runs = api.ask("{ task_run(where: {map_index: {_gte: 0}}) { start_time end_time } }")["task_run"]
    assert answer["min_start_time"] == min(run["start_time"] for run in runs if run["start_time"])
    assert answer["max_end_time"] == max(run["end_time"] for run in runs if run["end_time"])


def test_what_has_no_children_has_nothing_to_sum_up(api: Caller, mapped: Any) -> None:
    [other] = api.ask('{ task_run(where: {task: {slug: {_eq: "b"}}}) { id } }')["task_run"]
    for id in (mapped[1], other["id"], "00000000-0000-0000-0000-000000000000"):
        nothing = {"min_start_time": None, "max_end_time": None, "state_counts": {}}
        assert api.ask(CHILDREN, id=id)["mapped_children"] == nothing


def test_many_task_runs_are_asked_for_their_children_at_once(api: Caller, mapped: Any) -> None:
    """As the chart of a flow run does: each under a name of its own."""
    query = f'{{ a: mapped_children(task_run_id: "{mapped[0]}") {{ state_counts }} hello '
    query += f'b: mapped_children(task_run_id: "{mapped[1]}") {{ state_counts }} }}'
    answer = api.ask(query)
    assert sum(answer["a"]["state_counts"].values()) == 4
    assert answer["b"] == {"state_counts": {}}
