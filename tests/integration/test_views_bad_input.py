"""What cannot be meant, is not there, or is damaged: errors of this package that are also those that Prefect raises."""

import json
import pickle
from pathlib import Path
from typing import Any, Callable, Dict, Iterator

import pendulum
import pytest
import requests
from answering import answering
from driven import DrivenRun, NewUrl, register, shared_backend
from many import map_over_many, returned
from prefect import Flow, task
from prefect.engine.results import LocalResult
from prefect.engine.serializers import JSONSerializer
from prefect.engine.state import Mapped, Running, Success
from prefect.exceptions import ClientError

from prefect_taskrun_tasks import FlowRunView, FlowView, TaskRunView, api, errors, get_task_run_result
from prefect_taskrun_tasks.server import Backend

SOMETHING = "4f6b3c1e-0000-4000-8000-000000000000"


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        yield backend


@task
def get_data() -> Any:
    return [1]


with Flow("child", result=LocalResult()) as child_flow:
    get_data()
    get_data.map()
    task(get_data.run, name="clean_data", result=LocalResult(serializer=JSONSerializer()))()
    task(get_data.run, name="report")()


@pytest.fixture(scope="module")
def flow_id(backend: Backend) -> str:
    return register(child_flow)


@pytest.fixture
def run(flow_id: str) -> DrivenRun:
    return DrivenRun(child_flow, flow_id).enter(Running())


TEXTS: Dict[str, Callable[[Any], Any]] = {
    "flow id": FlowView.from_flow_id,
    "flow group id": FlowView.from_flow_group_id,
    "flow or flow group id": FlowView.from_id,
    "flow name": FlowView.from_flow_name,
    "flow run id": FlowRunView.from_flow_run_id,
    "task run id": TaskRunView.from_task_run_id,
    "slug": lambda it: TaskRunView.from_task_slug(it, SOMETHING),
    "flow run id of a slug": lambda it: TaskRunView.from_task_slug("get_data-1", it),
}
#: the same of a flow run that has been looked up
TEXTS_OF_A_RUN: Dict[str, Callable[[FlowRunView, Any], Any]] = {
    "slug": lambda run, it: run.get_task_run(it) if it is not None else run.get_task_run(),
    "task run id": lambda run, it: run.get_task_run(task_run_id=it),
    "slug of all": lambda run, it: run.get_all_task_runs(task_slug=it),
    "state": lambda run, it: run.get_all_task_runs(state=[it]),
}
no_texts = pytest.mark.parametrize("wrong", [3, 1.5, True, b"bytes", ["a list"], {"a": "dict"}, object], ids=repr)
empty = pytest.mark.parametrize("wrong", ["", " ", "\n\t"], ids=repr)


@no_texts
@pytest.mark.parametrize("look_up", TEXTS.values(), ids=TEXTS)
def test_what_is_no_text_is_of_the_wrong_type(look_up: Any, wrong: Any) -> None:
    with pytest.raises(errors.WrongType, match="expected 'str'") as raised:
        look_up(wrong)
    assert isinstance(raised.value, TypeError)
    assert isinstance(raised.value, ValueError)


@no_texts
@pytest.mark.parametrize("look_up", TEXTS_OF_A_RUN.values(), ids=TEXTS_OF_A_RUN)
def test_what_is_no_text_is_of_the_wrong_type_for_a_flow_run_too(run: DrivenRun, look_up: Any, wrong: Any) -> None:
    with pytest.raises(errors.WrongType, match="expected 'str'"):
        look_up(FlowRunView.from_flow_run_id(run.id), wrong)


@empty
@pytest.mark.parametrize("look_up", TEXTS.values(), ids=TEXTS)
def test_an_empty_text_cannot_be_meant(look_up: Any, wrong: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="is empty"):
        look_up(wrong)


@empty
@pytest.mark.parametrize("look_up", TEXTS_OF_A_RUN.values(), ids=TEXTS_OF_A_RUN)
def test_an_empty_text_cannot_be_meant_for_a_flow_run_either(run: DrivenRun, look_up: Any, wrong: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="is empty"):
        look_up(FlowRunView.from_flow_run_id(run.id), wrong)


MAP_INDEXES: Dict[str, Callable[[DrivenRun, Any], Any]] = {
    "by slug": lambda run, it: TaskRunView.from_task_slug("get_data-2", run.id, it),
    "of a flow run": lambda run, it: FlowRunView.from_flow_run_id(run.id).get_task_run("get_data-2", map_index=it),
}
by_map_index = pytest.mark.parametrize("look_up", MAP_INDEXES.values(), ids=MAP_INDEXES)


@by_map_index
@pytest.mark.parametrize("wrong", ["1", 1.0, True, [1]], ids=repr)
def test_a_map_index_that_is_no_integer_is_of_the_wrong_type(run: DrivenRun, look_up: Any, wrong: Any) -> None:
    with pytest.raises(errors.WrongType, match=r"`map_index`, expected 'int'"):
        look_up(run, wrong)


@by_map_index
@pytest.mark.parametrize("wrong", [-2, -100])
def test_a_map_index_below_minus_one_cannot_be_meant(run: DrivenRun, look_up: Any, wrong: int) -> None:
    with pytest.raises(errors.InvalidArgument, match=rf"`map_index` is {wrong}.*-1 for the task run itself"):
        look_up(run, wrong)


@by_map_index
@pytest.mark.parametrize(("children", "wrong"), [(3, 3), (3, 10**9), (700, 700), (1, 1)])
def test_a_map_index_that_is_too_large_is_told_with_the_number_of_children(
    backend: Backend, run: DrivenRun, look_up: Any, children: int, wrong: int
) -> None:
    map_over_many(backend, run, "get_data-2", children)
    with pytest.raises(errors.NotFound, match=rf"'get_data-2' with map index {wrong} .*There are {children} children"):
        look_up(run, wrong)


@by_map_index
def test_a_map_index_of_a_task_that_has_no_children_is_told(run: DrivenRun, look_up: Any) -> None:
    with pytest.raises(errors.NotFound, match="It is not mapped, or has no children yet"):
        look_up(run, 0)


SLUGS: Dict[str, Callable[[DrivenRun, str], Any]] = {
    "by slug": lambda run, slug: TaskRunView.from_task_slug(slug, run.id),
    "of a flow run": lambda run, slug: FlowRunView.from_flow_run_id(run.id).get_task_run(slug),
    "by the task": lambda run, slug: get_task_run_result.run(run.enter(Success()).id, slug),
}


@pytest.mark.parametrize("look_up", SLUGS.values(), ids=SLUGS)
@pytest.mark.parametrize(
    ("slug", "near"),
    [
        ("get_data", "has 4 tasks, among them: get_data-2, get_data-1"),
        ("get_dta-1", "has 4 tasks, among them: get_data-1, get_data-2"),
        ("report", "has 4 tasks, among them: report-1"),
        # nothing is near, so that all of them are told
        ("x", "has: clean_data-1, get_data-1, get_data-2, report-1"),
    ],
)
def test_a_slug_that_is_not_there_is_told_with_those_that_are_near(
    run: DrivenRun, look_up: Any, slug: str, near: str
) -> None:
    with pytest.raises(errors.NotFound, match=rf"'{slug}' in flow run '{run.id}'.*no task of that slug. It {near}"):
        look_up(run, slug)


def test_a_slug_of_a_flow_run_that_is_not_there_says_so() -> None:
    with pytest.raises(errors.NotFound, match=rf"{SOMETHING}.*There is no such flow run"):
        TaskRunView.from_task_slug("get_data-1", SOMETHING)


def test_a_slug_of_another_flow_is_not_near(run: DrivenRun) -> None:
    with Flow("other") as flow:
        task(lambda: 1, name="get_date")()
    register(flow)
    with pytest.raises(errors.NotFound) as raised:
        TaskRunView.from_task_slug("get_date-1", run.id)
    assert "get_data-1" in str(raised.value)
    assert str(raised.value).count("get_date-1") == 1


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"map_index": 1},
        {"task_run_id": "own", "task_slug": "report-1"},
        {"task_run_id": "own", "map_index": 5},
        {"task_run_id": "of another"},
    ],
    ids=str,
)
def test_identifiers_that_do_not_go_together_cannot_be_meant(run: DrivenRun, given: Dict[str, Any]) -> None:
    other = DrivenRun(run.flow, run.flow_id)
    ids = {"own": run.task_run_id("get_data-1"), "of another": other.task_run_id("get_data-1")}
    if "task_run_id" in given:
        given = {**given, "task_run_id": ids[given["task_run_id"]]}
    with pytest.raises(errors.InvalidArgument):
        FlowRunView.from_flow_run_id(run.id).get_task_run(**given)


@pytest.mark.parametrize("wrong", [3, object()], ids=["number", "object"])
def test_states_are_one_name_or_several(run: DrivenRun, wrong: Any) -> None:
    with pytest.raises(errors.WrongType, match="`state`"):
        FlowRunView.from_flow_run_id(run.id).get_all_task_runs(state=wrong)


@pytest.mark.parametrize("wrong", ["failed", "Sucess", ["Failed", "done"]], ids=str)
def test_a_state_that_there_is_none_of_is_told_with_those_that_there_are(run: DrivenRun, wrong: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"There is no state '(failed|Sucess|done)'.*Failed.*Success"):
        FlowRunView.from_flow_run_id(run.id).get_all_task_runs(state=wrong)


@pytest.mark.parametrize("given", [{"start_time": "today"}, {"end_time": 5}], ids=str)
def test_logs_are_from_one_time_to_another(run: DrivenRun, given: Any) -> None:
    with pytest.raises(errors.WrongType, match="expected 'datetime'"):
        FlowRunView.from_flow_run_id(run.id).get_logs(**given)


def test_a_project_name_is_a_text() -> None:
    with pytest.raises(errors.WrongType, match="project_name"):
        FlowView.from_flow_name("child", project_name=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{"result": "LocalResult"}, {"result": LocalResult}, {"serializer": "json"}], ids=str)
def test_how_to_read_a_result_is_told_by_a_result_and_a_serializer(run: DrivenRun, given: Dict[str, Any]) -> None:
    run.task_returns("get_data-1", 5)
    with pytest.raises(errors.WrongType, match=r"`(result|serializer)`, expected '(Result|Serializer)'"):
        TaskRunView.from_task_slug("get_data-1", run.id).get_result(**given)


def kept(run: DrivenRun, slug: str = "get_data-1", **options: Any) -> Path:
    """The file in which the task run's result is kept."""
    state = returned(list(range(100)), LocalResult(**options))
    run.task_enters(slug, state)
    return Path(state._result.location)


def test_a_deleted_result_file_is_missing(run: DrivenRun) -> None:
    file = kept(run)
    file.unlink()
    with pytest.raises(errors.ResultMissing, match=f"get_data-1.*LocalResult.*{file}") as raised:
        TaskRunView.from_task_slug("get_data-1", run.id).get_result()
    assert isinstance(raised.value, FileNotFoundError)
    assert isinstance(raised.value, ValueError)
    assert isinstance(raised.value.__cause__, FileNotFoundError)


def test_a_result_file_that_is_a_folder_cannot_be_read(run: DrivenRun) -> None:
    file = kept(run)
    file.unlink()
    file.mkdir()
    with pytest.raises(errors.ResultUnreadable, match="IsADirectoryError") as raised:
        TaskRunView.from_task_slug("get_data-1", run.id).get_result()
    assert not isinstance(raised.value, errors.ResultMissing)


DAMAGE: Dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda stored: b"",
    "first byte only": lambda stored: stored[:1],
    "half": lambda stored: stored[: len(stored) // 2],
    "last byte missing": lambda stored: stored[:-1],
    "garbage": lambda stored: b"\x00\xff" * 50,
    "garbage in the middle": lambda stored: stored[:20] + b"\xff" * 20 + stored[40:],
    "HTML": lambda stored: b"<html>not found</html>",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize(
    ("slug", "serializer"), [("get_data-1", "PickleSerializer"), ("clean_data-1", "JSONSerializer")]
)
def test_a_damaged_result_file_is_corrupt(
    run: DrivenRun, damage: Callable[[bytes], bytes], slug: str, serializer: str
) -> None:
    file = kept(run, slug, **({"serializer": JSONSerializer()} if serializer == "JSONSerializer" else {}))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(errors.ResultCorrupt, match=rf"{slug}.*LocalResult.*{file}.*{serializer}.*damaged") as raised:
        TaskRunView.from_task_slug(slug, run.id).get_result()
    assert isinstance(raised.value, ValueError)
    assert raised.value.__cause__ is not None


def test_a_pickle_of_what_cannot_be_imported_is_corrupt_and_says_what_is_missing(run: DrivenRun) -> None:
    kept(run).write_bytes(pickle.dumps(json.JSONDecodeError).replace(b"json.decoder", b"gone.decoder"))
    with pytest.raises(errors.ResultCorrupt, match="No module named 'gone'"):
        TaskRunView.from_task_slug("get_data-1", run.id).get_result()


LOOKUPS: Dict[str, Callable[[], Any]] = {
    "flow": lambda: FlowView.from_flow_id(SOMETHING),
    "flow name": lambda: FlowView.from_flow_name(SOMETHING),
    "flow run": lambda: FlowRunView.from_flow_run_id(SOMETHING),
    "task run": lambda: TaskRunView.from_task_run_id(SOMETHING),
    "slug": lambda: TaskRunView.from_task_slug("get_data-1", SOMETHING),
    "children": lambda: list(mapped_view().iter_mapped()),
    "results of children": lambda: mapped_view().get_result(),
    "all task runs": lambda: flow_run_view().get_all_task_runs(),
    "ids": lambda: flow_run_view().get_task_run_ids(),
    "logs": lambda: flow_run_view().get_logs(),
    "the task": lambda: get_task_run_result.run(SOMETHING, "get_data-1"),
}
lookups = pytest.mark.parametrize("look_up", LOOKUPS.values(), ids=LOOKUPS)


def mapped_view() -> TaskRunView:
    return TaskRunView("id", "task id", "get_data-2", None, Mapped(n_map_states=3), -1, SOMETHING)


def flow_run_view() -> FlowRunView:
    return FlowRunView(SOMETHING, "name", "id", [], {}, {}, Running(), [], pendulum.now("utc"), None)


BODIES: Dict[str, bytes] = {
    "HTML": b"<!DOCTYPE html><html>Bad gateway</html>",
    "nothing": b"",
    "not JSON": b"{data: 5}",
    "ends too early": b'{"data": {"task_run": [{"id": "4f',
    "null": b"null",
    "list": b"[]",
    "list of answers": b'[{"data": {}}]',
    "text": b'"hello"',
    "number": b"5",
    "not UTF-8": b"\xff\xfe\x00",
    "empty object": b"{}",
    "null data": b'{"data": null}',
    "list of data": b'{"data": []}',
    "no rows": b'{"data": {}}',
    "null rows": b'{"data": {"flow": null, "flow_run": null, "task_run": null, "log": null}}',
    "object of rows": b'{"data": {"flow": {}, "flow_run": {}, "task_run": {}, "log": {}}}',
    "row of null": b'{"data": {"flow": [null], "flow_run": [null], "task_run": [null], "log": [null]}}',
}


@lookups
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_an_answer_that_is_none_is_an_error_that_says_what_was_looked_for(look_up: Any, body: bytes) -> None:
    with answering(200, body), pytest.raises(errors.BadAnswer, match=SOMETHING) as raised:
        look_up()
    assert isinstance(raised.value, ValueError)
    # what Prefect raises for HTML
    assert isinstance(raised.value, ClientError)


CHANGES: Dict[str, Callable[[], Any]] = {
    "create": lambda: api.create_flow_run(SOMETHING, flow_id=SOMETHING),
    "cancel": lambda: api.cancel_flow_run(SOMETHING),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize(
    "body",
    [*BODIES.values(), b'{"data": {"create_flow_run": null, "cancel_flow_run": null}}'],
    ids=[*BODIES, "null"],
)
def test_an_answer_that_is_none_is_an_error_that_says_what_was_done(change: Any, body: bytes) -> None:
    with answering(200, body), pytest.raises(errors.BadAnswer, match=rf"(creating|cancelling).*{SOMETHING}"):
        change()


def test_an_answer_that_is_none_is_shown() -> None:
    with answering(200, BODIES["HTML"]), pytest.raises(errors.BadAnswer, match="<html>Bad gateway"):
        FlowView.from_flow_id(SOMETHING)


def test_a_long_answer_that_is_none_is_not_shown_to_its_end() -> None:
    with answering(200, b"<html>" + b"x" * 10_000), pytest.raises(errors.BadAnswer) as raised:
        FlowView.from_flow_id(SOMETHING)
    assert len(str(raised.value)) < 1_000


@lookups
def test_an_answer_that_is_cut_off_is_an_error_that_says_what_was_looked_for(look_up: Any) -> None:
    body = b'{"data": {"task_run": [], "flow": [], "flow_run": [], "log": []}}'
    with answering(200, body, cut_off=20), pytest.raises(errors.AnswerCutOff, match=SOMETHING) as raised:
        look_up()
    assert isinstance(raised.value, errors.BadAnswer)
    # what Prefect raises for it, which requests has made
    assert isinstance(raised.value, requests.exceptions.ChunkedEncodingError)
    assert raised.value.request is None


@pytest.mark.parametrize("count", ["null", '{"aggregate": null}', '{"aggregate": {"count": null}}', "[]"])
def test_rows_that_were_not_counted_are_a_bad_answer(count: str) -> None:
    body = f'{{"data": {{"task_run": [], "task_run_aggregate": {count}}}}}'
    with answering(200, body.encode()), pytest.raises(errors.BadAnswer, match=SOMETHING):
        flow_run_view().get_task_run_ids()


@pytest.mark.parametrize("second", [BODIES["HTML"], BODIES["ends too early"]])
def test_a_bad_answer_after_good_ones_comes_after_their_rows(second: bytes) -> None:
    rows = [
        {
            "id": str(index),
            "name": None,
            "task": {"id": "task id", "slug": "get_data-2"},
            "map_index": index,
            "serialized_state": Success().serialize(),
            "flow_run_id": SOMETHING,
            "version": 3,
            "start_time": None,
            "state_timestamp": None,
        }
        for index in range(500)
    ]
    first = {"data": {"task_run": rows, "task_run_aggregate": {"aggregate": {"count": 501}}}}
    with answering(200, json.dumps(first).encode(), second):
        children = mapped_view().iter_mapped()
        assert [next(children).map_index for _ in range(500)] == list(range(500))
        with pytest.raises(errors.BadAnswer):
            next(children)
