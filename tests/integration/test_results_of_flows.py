"""Results of which the state does not say enough: how to read them is found in the flow, or told by the caller."""

import base64
import os
import signal
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

import boto3
import moto
import pendulum
import prefect
import prefect.utilities.aws
import pytest
from driven import DrivenRun, NewUrl, shared_backend
from many import map_over_many, returned
from prefect import Flow, Task, task
from prefect.engine.result import Result
from prefect.engine.results import (
    AzureResult,
    ConstantResult,
    GCSResult,
    LocalResult,
    PrefectResult,
    S3Result,
)
from prefect.engine.serializers import (
    CompressedSerializer,
    DateTimeSerializer,
    JSONSerializer,
    PickleSerializer,
    Serializer,
)
from prefect.engine.state import Success
from prefect.storage import Local
from prefect.tasks.secrets import EnvVarSecret, PrefectSecret

from prefect_taskrun_tasks import FlowView, TaskRunView, errors, get_task_run_result
from prefect_taskrun_tasks.server import Backend


@pytest.fixture(scope="module", autouse=True)
def backend(new_url: NewUrl) -> Iterator[Backend]:
    with shared_backend(new_url) as backend:
        yield backend


class ShoutingSerializer(Serializer):
    """A user's own: a text, in capitals."""

    def serialize(self, value: Any) -> bytes:
        return str(value).upper().encode()

    def deserialize(self, value: bytes) -> str:
        return value.decode().lower()


class CompanyResult(Result):
    """A user's own: everything is kept here."""

    KEPT: Dict[str, bytes] = {}

    def read(self, location: str) -> Result:
        new = self.copy()
        new.value = self.serializer.deserialize(self.KEPT[location])
        return new

    def write(self, value_: Any, **kwargs: Any) -> Result:
        new = self.format(**kwargs)
        new.location = f"company-{len(self.KEPT)}"
        self.KEPT[new.location] = self.serializer.serialize(value_)
        return new


class CompanyFile(LocalResult):
    """A user's own: a file, by a class that Prefect does not know."""


def flow_returning(value: Any, on_task: Optional[Result] = None, on_flow: Optional[Result] = None) -> Flow:
    with Flow("child", result=on_flow) as flow:
        task(lambda: value, name="get", result=on_task)()
    return flow


def ran(flow: Flow, **context: Any) -> DrivenRun:
    """A run of the flow by Prefect's own runner, which has kept the results."""
    run = DrivenRun(flow)
    assert run.execute(context).is_successful()
    return run


def get(run: DrivenRun, slug: str = "get-1") -> TaskRunView:
    return TaskRunView.from_task_slug(slug, run.id)


NOON = pendulum.datetime(2021, 5, 12, 12)
RESULTS = {
    "JSON": (lambda: LocalResult(serializer=JSONSerializer()), {"a": [1, None, "ä"]}),
    "date and time": (lambda: LocalResult(serializer=DateTimeSerializer()), NOON),
    "compressed": (lambda: LocalResult(serializer=CompressedSerializer(PickleSerializer(), "zlib")), {"a": NOON}),
    "compressed JSON": (lambda: LocalResult(serializer=CompressedSerializer(JSONSerializer(), "bz2")), [1, 2]),
    "a user's serializer": (lambda: LocalResult(serializer=ShoutingSerializer()), "hello"),
    "a user's class": (CompanyResult, {"a": NOON}),
    "a user's class with a serializer": (lambda: CompanyResult(serializer=JSONSerializer()), {"a": 1}),
    "a user's class of files": (CompanyFile, {"a": NOON}),
    "a user's class of files with a serializer": (lambda: CompanyFile(serializer=ShoutingSerializer()), "hello"),
}
kinds = pytest.mark.parametrize(("result", "value"), RESULTS.values(), ids=RESULTS)


@kinds
def test_the_result_of_the_task_is_found_in_the_flow(result: Any, value: Any) -> None:
    assert get(ran(flow_returning(value, on_task=result()))).get_result() == value


@kinds
def test_the_result_of_the_flow_is_that_of_tasks_without_their_own(result: Any, value: Any) -> None:
    assert get(ran(flow_returning(value, on_flow=result()))).get_result() == value


def test_the_result_of_the_task_comes_before_that_of_the_flow() -> None:
    flow = flow_returning(
        "hello", on_task=LocalResult(serializer=ShoutingSerializer()), on_flow=LocalResult(serializer=JSONSerializer())
    )
    assert get(ran(flow)).get_result() == "hello"


@pytest.mark.parametrize("result", [LocalResult, PrefectResult])
def test_the_flow_is_not_loaded_where_the_state_says_enough(result: Any, mocker: Any) -> None:
    run = ran(flow_returning([1], on_task=result()))
    load = mocker.spy(Local, "get_flow")
    assert get(run).get_result() == [1]
    assert load.call_count == 0


def test_a_constant_result_is_found_in_the_flow() -> None:
    with Flow("constant") as flow:
        flow.add_task(Task(name="get", result=ConstantResult(value=[7]), checkpoint=False))
    assert get(ran(flow)).get_result() == [7]


def test_a_secret_result_is_asked_of_the_secret_again() -> None:
    with Flow("secret") as flow:
        flow.add_task(PrefectSecret("PASSWORD"))
    run = ran(flow, secrets={"PASSWORD": "open sesame"})
    with prefect.context(secrets={"PASSWORD": "changed"}):
        assert get(run, "PASSWORD-1").get_result() == "changed"


def test_a_secret_of_the_environment_is_asked_of_the_environment_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "open sesame")
    with Flow("environment") as flow:
        flow.add_task(EnvVarSecret("PASSWORD"))
    assert get(ran(flow), "PASSWORD-1").get_result() == "open sesame"


def test_a_secret_that_is_not_there_any_more_is_an_error_that_names_it() -> None:
    with Flow("lost secret") as flow:
        flow.add_task(PrefectSecret("PASSWORD"))
    run = ran(flow, secrets={"PASSWORD": "open sesame"})
    with pytest.raises(errors.ResultUnreadable, match=r"PASSWORD-1.*SecretResult.*PASSWORD"):
        get(run, "PASSWORD-1").get_result()


@pytest.fixture
def run_of_json(backend: Backend) -> DrivenRun:
    """A task that was mapped over 100, and keeps JSON."""
    with Flow("many", result=LocalResult(serializer=JSONSerializer())) as flow:
        task(lambda it: it, name="get").map([1])
    run = DrivenRun(flow)
    states = {index: returned({"index": index}, LocalResult(serializer=JSONSerializer())) for index in range(100)}
    map_over_many(backend, run, "get-1", 100, states)
    return run


def test_the_flow_is_loaded_once_for_all_children(run_of_json: DrivenRun, mocker: Any) -> None:
    load = mocker.spy(Local, "get_flow")
    assert get(run_of_json).get_result() == [{"index": index} for index in range(100)]
    assert [child.get_result() for child in get(run_of_json).iter_mapped()][99] == {"index": 99}
    assert load.call_count == 1


def test_the_flow_is_looked_up_once_for_all_children(run_of_json: DrivenRun, mocker: Any) -> None:
    view = get(run_of_json)
    look_up = mocker.spy(FlowView, "of_flow_run")
    view.get_result()
    assert look_up.call_count == 1


def test_a_flow_that_cannot_be_loaded_is_tried_once_for_all_children(run_of_json: DrivenRun, mocker: Any) -> None:
    load = mocker.patch.object(Local, "get_flow", side_effect=ModuleNotFoundError("company"))
    with pytest.raises(errors.UnknownResultType, match=r"get-1\[0\].*ModuleNotFoundError"):
        get(run_of_json).get_result()
    assert load.call_count == 1


def test_a_process_that_was_forked_while_a_flow_was_loaded_loads_it_itself(run_of_json: DrivenRun, mocker: Any) -> None:
    load, begun, forked = Local.get_flow, threading.Event(), threading.Event()

    def get_flow(storage: Local, name: str) -> Flow:
        begun.set()
        assert forked.wait(60)
        return load(storage, name)

    mocker.patch.object(Local, "get_flow", get_flow)
    view = FlowView.of_flow_run(run_of_json.id)
    with ThreadPoolExecutor(1) as thread:
        loading = thread.submit(view.get_flow)
        assert begun.wait(60)
        child = os.fork()
        if child == 0:
            # nothing of pytest's must run twice
            signal.alarm(30)
            forked.set()
            try:
                name = view.get_flow().name
            finally:
                os._exit(0 if name == view.name else 1)
        forked.set()
        _, status = os.waitpid(child, 0)
        assert loading.result(60).name == view.name
    assert status == 0


def test_another_version_of_the_flow_is_another_flow() -> None:
    in_json = ran(flow_returning({"a": 1}, on_task=LocalResult(serializer=JSONSerializer())))
    shouted = ran(flow_returning("hello", on_task=LocalResult(serializer=ShoutingSerializer())))
    assert (get(in_json).get_result(), get(shouted).get_result()) == ({"a": 1}, "hello")


SCRIPT = """
from prefect import Flow, task
from prefect.engine.results import LocalResult
from prefect.engine.serializers import Serializer

class Reversed(Serializer):
    def serialize(self, value):
        return value[::-1].encode()

    def deserialize(self, value):
        return value.decode()[::-1]

@task(result=LocalResult(serializer=Reversed()))
def get():
    return "hello"

with Flow("script") as flow:
    get()
"""


def flow_of_script(directory: Path, script: str) -> Flow:
    path = directory / "flow.py"
    path.write_text(script)
    flow: Flow = prefect.utilities.storage.extract_flow_from_file(str(path))
    flow.storage = Local(path=str(path), stored_as_script=True)
    return flow


def test_the_flow_is_loaded_from_a_script(tmp_path: Path) -> None:
    assert get(ran(flow_of_script(tmp_path, SCRIPT))).get_result() == "hello"


def test_the_code_of_a_flow_may_itself_use_results(tmp_path: Path) -> None:
    run = ran(flow_returning({"a": 1}, on_task=LocalResult(serializer=JSONSerializer())))
    use = f"from prefect_taskrun_tasks import TaskRunView\nTaskRunView.from_task_slug('get-1', {run.id!r}).get_result()"
    assert get(ran(flow_of_script(tmp_path, f"{use}\n{SCRIPT}"))).get_result() == "hello"


@pytest.mark.parametrize("value", [0, "Ti4x", "KS4=", "iS4x", [1, {"a": "b"}]], ids=repr)
@pytest.mark.parametrize("serializer", [JSONSerializer(), PickleSerializer()], ids=lambda it: type(it).__name__)
def test_json_is_not_taken_for_a_pickle_nor_a_pickle_for_json(serializer: Serializer, value: Any) -> None:
    # Prefect's PickleSerializer also reads pickles in base64, of which the texts here are some: None, () and False
    run = ran(flow_returning(value, on_task=LocalResult(serializer=serializer)))
    assert get(run).get_result() == value


def test_a_pickle_in_base64_by_an_old_version_of_prefect_is_read(mocker: Any) -> None:
    run = ran(flow_returning([1, 2], on_task=LocalResult()))
    location = Path(get(run).state._result.location)
    location.write_bytes(base64.b64encode(location.read_bytes()))
    load = mocker.spy(Local, "get_flow")
    assert get(run).get_result() == [1, 2]
    assert load.call_count == 0


GIVEN = {
    "a serializer": {"serializer": JSONSerializer()},
    "a result": {"result": LocalResult(serializer=JSONSerializer())},
    "a serializer for a result": {"result": LocalResult(), "serializer": JSONSerializer()},
}
given = pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)


@pytest.fixture
def lost_run() -> DrivenRun:
    """Of a flow that keeps JSON, and whose storage is gone."""
    run = ran(flow_returning({"a": 1}, on_task=LocalResult(serializer=JSONSerializer()))).enter(Success())
    Path(run.flow.storage.flows["child"]).unlink()
    return run


def test_the_error_says_what_would_help_where_the_flow_cannot_be_loaded(lost_run: DrivenRun) -> None:
    with pytest.raises(
        errors.UnknownResultType, match=r"get-1.*could not be loaded.*No module named.*`result=`.*`serializer=`"
    ):
        get(lost_run).get_result()


@given
def test_a_caller_can_say_how_to_read_a_result(lost_run: DrivenRun, given: Dict[str, Any]) -> None:
    assert get(lost_run).get_result(**given) == {"a": 1}


@given
def test_a_caller_of_the_task_can_say_how_to_read_a_result(lost_run: DrivenRun, given: Dict[str, Any]) -> None:
    assert get_task_run_result.run(lost_run.id, "get-1", **given) == {"a": 1}


def test_a_task_that_was_given_a_serializer_uses_it(lost_run: DrivenRun) -> None:
    ready_made = type(get_task_run_result)(serializer=JSONSerializer(), max_duration=timedelta(minutes=1))
    assert ready_made.run(lost_run.id, "get-1") == {"a": 1}


@given
def test_a_caller_can_say_how_to_read_results_of_children(run_of_json: DrivenRun, given: Any, mocker: Any) -> None:
    load = mocker.spy(Local, "get_flow")
    assert get(run_of_json).get_result(**given)[99] == {"index": 99}
    assert next(get(run_of_json).iter_results(**given)) == {"index": 0}
    assert load.call_count == 0


def test_a_serializer_of_the_caller_is_given_to_a_users_class() -> None:
    run = ran(flow_returning({"a": 1}, on_task=CompanyResult(serializer=JSONSerializer())))
    assert get(run).get_result(serializer=ShoutingSerializer()) == '{"a": 1}'


def test_a_users_class_can_be_given_by_the_caller(mocker: Any) -> None:
    run = ran(flow_returning([1], on_task=CompanyResult()))
    load = mocker.spy(Local, "get_flow")
    assert get(run).get_result(result=CompanyResult()) == [1]
    assert load.call_count == 0


def test_a_location_can_be_given_by_the_caller_where_the_state_has_none() -> None:
    run = DrivenRun(flow_returning([1]))
    run.task_enters("get-1", Success())
    location = LocalResult().write([1]).location
    assert get(run).get_result(result=LocalResult(location=location)) == [1]


@pytest.mark.parametrize("wrong", [{"serializer": ShoutingSerializer()}, {"result": LocalResult()}], ids=list)
def test_what_the_caller_says_is_not_made_up_for_by_the_flow(wrong: Dict[str, Any]) -> None:
    run = ran(
        flow_returning(b"\xff\xfe", on_task=LocalResult(serializer=CompressedSerializer(PickleSerializer(), "zlib")))
    )
    with pytest.raises(errors.ResultCorrupt, match=r"get-1.*LocalResult.*`serializer=`"):
        get(run).get_result(**wrong)


def test_a_value_that_was_read_another_way_is_not_kept() -> None:
    run = ran(flow_returning({"a": 1}, on_task=LocalResult(serializer=JSONSerializer())))
    view = get(run)
    assert view.get_result(serializer=ShoutingSerializer()) == '{"a": 1}'
    assert view.get_result() == {"a": 1}
    assert view.get_result(serializer=ShoutingSerializer()) == '{"a": 1}'


def test_a_flow_that_does_not_say_either_is_an_error_that_says_what_would_help(tmp_path: Path) -> None:
    # one that is loaded from a pickle has the `Result` of its storage at least
    flow = flow_of_script(tmp_path, SCRIPT.replace("@task(result=LocalResult(serializer=Reversed()))", "@task"))
    run = DrivenRun(flow)
    run.task_enters("get-1", Success(result=CompanyResult().write([1])))
    with pytest.raises(errors.UnknownResultType, match=r"neither the task nor its flow has a `Result`.*`result=`"):
        get(run).get_result()


def test_a_flow_that_has_lost_the_task_is_an_error_that_says_so(mocker: Any) -> None:
    run = DrivenRun(flow_returning([1], on_task=CompanyResult()))
    run.task_enters("get-1", Success(result=CompanyResult().write([1])))
    mocker.patch.object(Local, "get_flow", return_value=Flow("changed"))
    with pytest.raises(errors.UnknownResultType, match=r"has no task 'get-1'\. Has it changed"):
        get(run).get_result()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """In an S3 of this process, to which the environment has the key."""
    # Prefect's clients live on while an error refers to them, with the key that they were made with
    monkeypatch.setattr(prefect.utilities.aws, "_CLIENT_CACHE", weakref.WeakValueDictionary())
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    # its session, which has found the keys of an earlier test
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with moto.mock_aws(config={"core": {"mock_credentials": False}}):
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield "bucket"


@pytest.fixture
def run_with_own_key(bucket: str, monkeypatch: pytest.MonkeyPatch) -> DrivenRun:
    """Of a flow that has a key to its bucket, which the environment has not any more."""
    own = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "region_name": "us-east-1"}
    run = ran(flow_returning([1], on_flow=S3Result(bucket, boto3_kwargs=own)))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    # clients and sessions that have found the keys already
    prefect.utilities.aws._CLIENT_CACHE.clear()
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    return run


@pytest.mark.parametrize("serializer", [PickleSerializer(), JSONSerializer()], ids=lambda it: type(it).__name__)
def test_a_result_in_s3_is_loaded(bucket: str, serializer: Serializer) -> None:
    run = ran(flow_returning({"a": [1]}, on_task=S3Result(bucket, serializer=serializer)))
    assert get(run).get_result() == {"a": [1]}


def test_many_results_in_s3_are_loaded_over_one_client(backend: Backend, bucket: str, mocker: Any) -> None:
    with Flow("many in S3", result=S3Result(bucket)) as flow:
        task(lambda it: it, name="get").map([1])
    run = DrivenRun(flow)
    result = S3Result(bucket)
    map_over_many(backend, run, "get-1", 40, {index: returned([index], result) for index in range(40)})
    clients = mocker.spy(prefect.utilities.aws, "get_boto_client")
    assert get(run).get_result(workers=1) == [[index] for index in range(40)]
    assert clients.call_count == 1


def test_a_key_to_s3_is_found_in_the_flow(run_with_own_key: DrivenRun) -> None:
    assert get(run_with_own_key).get_result() == [1]


def test_a_deleted_object_in_s3_is_missing(bucket: str) -> None:
    run = ran(flow_returning([1], on_task=S3Result(bucket, location="here")))
    boto3.client("s3").delete_object(Bucket=bucket, Key="here")
    with pytest.raises(errors.ResultMissing, match=r"get-1.*S3Result.*'here'"):
        get(run).get_result()


def test_a_store_that_cannot_be_reached_is_told_with_its_cause_and_what_would_help(
    run_with_own_key: DrivenRun,
) -> None:
    Path(run_with_own_key.flow.storage.flows["child"]).unlink()
    with pytest.raises(errors.ResultUnreadable, match=r"get-1.*S3Result.*NoCredentials.*pass `result=`") as raised:
        get(run_with_own_key).get_result()
    assert "NoCredentials" in repr(raised.value.__cause__)


class Blob:
    """An object in a bucket that is a dict, as the clients of GCS and of Azure show it."""

    def __init__(self, blobs: Dict[str, bytes], name: str) -> None:
        self._blobs, self._name = blobs, name

    def upload_from_string(self, value: bytes) -> None:
        self._blobs[self._name] = value

    upload_blob = upload_from_string

    def download_as_bytes(self) -> bytes:
        return self._blobs[self._name]

    content_as_bytes = download_as_bytes

    def download_blob(self) -> "Blob":
        return self


class Bucket:
    def __init__(self) -> None:
        self.blobs: Dict[str, bytes] = {}

    def blob(self, name: str) -> Blob:
        return Blob(self.blobs, name)

    def get_blob_client(self, container: str, blob: str) -> Blob:
        return Blob(self.blobs, f"{container}/{blob}")


def gcs(bucket: Bucket, **options: Any) -> GCSResult:
    result = GCSResult("bucket", **options)
    result.gcs_bucket = bucket
    return result


def azure(bucket: Bucket, **options: Any) -> AzureResult:
    result = AzureResult("container", **options)
    result.service = bucket
    return result


clouds = pytest.mark.parametrize("cloud", [gcs, azure])


@pytest.fixture
def cloud_bucket(mocker: Any) -> Bucket:
    """What Prefect finds when it looks for the clients' packages, which are not installed."""
    bucket = Bucket()
    mocker.patch.object(GCSResult, "gcs_bucket", mocker.PropertyMock(return_value=bucket))
    mocker.patch.object(AzureResult, "service", mocker.PropertyMock(return_value=bucket))
    return bucket


@pytest.mark.parametrize(
    "serializer", [PickleSerializer(), JSONSerializer(), ShoutingSerializer()], ids=lambda it: type(it).__name__
)
@pytest.mark.parametrize("result", [partial(GCSResult, "bucket"), partial(AzureResult, "container")])
@pytest.mark.usefixtures("cloud_bucket")
def test_a_result_in_gcs_or_azure_is_loaded(result: Any, serializer: Serializer) -> None:
    assert get(ran(flow_returning("hello", on_task=result(serializer=serializer)))).get_result() == "hello"


@clouds
def test_a_result_of_the_caller_keeps_its_connection(backend: Backend, cloud: Any) -> None:
    bucket = Bucket()
    with Flow("many in a cloud") as flow:
        task(lambda it: it, name="get").map([1])
    run = DrivenRun(flow)
    states = {index: returned([index], cloud(bucket, location=f"{index}")) for index in range(20)}
    map_over_many(backend, run, "get-1", 20, states)
    assert get(run).get_result(result=cloud(bucket)) == [[index] for index in range(20)]


def test_how_to_connect_to_azure_is_found_in_the_flow(mocker: Any) -> None:
    bucket = Bucket()

    def connect(self: AzureResult) -> None:
        # as Prefect's own, in engine/results/azure_result.py
        if self.connection_string is None:
            raise ValueError("Azure connection string not provided.")
        self.service = bucket

    mocker.patch.object(AzureResult, "initialize_service", connect)
    run = ran(flow_returning([1], on_task=AzureResult("container", connection_string="AccountKey=x")))
    assert get(run).get_result() == [1]


def test_a_cloud_that_says_404_has_lost_the_result(mocker: Any) -> None:
    class NotFound(Exception):
        code = 404

    run = ran(flow_returning([1], on_task=LocalResult()))
    mocker.patch.object(LocalResult, "read", side_effect=NotFound("no such object"))
    with pytest.raises(errors.ResultMissing, match="no such object"):
        get(run).get_result()
