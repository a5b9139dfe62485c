"""What Prefect sends to its API and reads back: storage, run configs, flows, states. And what it pickles and copies."""

import copy
import json
from typing import Any

import cloudpickle
import pendulum
import pytest
from prefect import Flow, Parameter, Task, case, task
from prefect.engine import results, serializers, state
from prefect.engine.state import State
from prefect.run_configs import DockerRun, ECSRun, KubernetesRun, LocalRun, RunConfig, UniversalRun, VertexRun
from prefect.schedules import CronSchedule
from prefect.serialization.flow import FlowSchema
from prefect.serialization.run_config import RunConfigSchema
from prefect.serialization.state import StateSchema
from prefect.serialization.storage import StorageSchema
from prefect.storage import (
    GCS,
    S3,
    Azure,
    Bitbucket,
    CodeCommit,
    Docker,
    Git,
    GitHub,
    GitLab,
    Local,
    Module,
    Storage,
    Webhook,
)

STORAGES = [
    Azure("container", blob_name="blob"),
    Bitbucket("project", "repo", workspace="space", path="flow.py"),
    CodeCommit("repo", path="flow.py", commit="abc"),
    Docker(registry_url="registry", base_image="python", image_name="flow", image_tag="1"),
    GCS("bucket", key="key"),
    Git("flow.py", repo="org/repo", branch_name="main"),
    GitHub("org/repo", "flow.py", ref="main"),
    GitLab("org/repo", path="flow.py"),
    Local("/flows", validate=False),
    Module("package.flows"),
    S3("bucket", key="key"),
    Webhook({"url": "http://a"}, "POST", {"url": "http://b"}, "GET"),
]
RUN_CONFIGS = [
    DockerRun(image="image", env={"A": "1"}, ports=[80]),
    ECSRun(image="image", cpu="1 vcpu", memory="2 GB"),
    KubernetesRun(image="image", cpu_request=1, env={"A": "1"}),
    LocalRun(working_dir="/work", labels=["b", "a"]),
    UniversalRun(env={"A": "1"}, labels=["a"]),
    VertexRun(image="image", machine_type="e2"),
]
NOON = pendulum.datetime(2027, 3, 28, 12)
STATES = [
    kind(message="because", result=result)
    for kind in vars(state).values()
    if isinstance(kind, type) and issubclass(kind, State) and kind.__name__[0] != "_" and kind is not State
    for result in [None, results.PrefectResult(location="[1, 2]")]
]
RESULTS = [
    results.AzureResult("container", connection_string="x"),
    results.ConstantResult(value=3),
    results.GCSResult("bucket", location="{date:%Y}/x"),
    results.LocalResult("/results", location="{task_name}.json", serializer=serializers.JSONSerializer()),
    results.PrefectResult(location="[1]"),
    results.S3Result("bucket", serializer=serializers.CompressedSerializer(serializers.PickleSerializer(), "gzip")),
]


def kind(value: Any) -> str:
    return type(value).__name__


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def attributes(value: Any) -> Any:
    return {name: each for name, each in vars(value).items() if not name.startswith("_")}


@pytest.mark.parametrize("storage", STORAGES, ids=kind)
def test_a_storage_is_the_same_after_the_api(storage: Storage) -> None:
    dumped = through_json(StorageSchema().dump(storage))
    loaded = StorageSchema().load(dumped)
    assert type(loaded) is type(storage)
    assert through_json(StorageSchema().dump(loaded)) == dumped


@pytest.mark.parametrize("run_config", RUN_CONFIGS, ids=kind)
def test_a_run_config_is_the_same_after_the_api(run_config: RunConfig) -> None:
    loaded = RunConfigSchema().load(through_json(RunConfigSchema().dump(run_config)))
    assert type(loaded) is type(run_config)
    assert attributes(loaded) == attributes(run_config)


@pytest.mark.parametrize("given", STATES, ids=kind)
def test_a_state_is_the_same_after_the_api_and_in_a_pickle(given: State) -> None:
    dumped = through_json(StateSchema().dump(given))
    loaded = StateSchema().load(dumped)
    assert type(loaded) is type(given)
    assert through_json(StateSchema().dump(loaded)) == dumped
    for copied in cloudpickle.loads(cloudpickle.dumps(given)), copy.deepcopy(given):
        assert (type(copied), copied.message) == (type(given), given.message)


def test_a_state_keeps_the_moment_of_a_time_with_a_zone() -> None:
    start = pendulum.datetime(2027, 10, 31, 1, 30, tz="Europe/Lisbon")
    loaded = StateSchema().load(through_json(StateSchema().dump(state.Scheduled(start_time=start))))
    # two times that differ in their zones, one of them shown twice, are never equal in Python
    assert loaded.start_time.timestamp() == start.timestamp()


@pytest.mark.parametrize("result", RESULTS, ids=kind)
def test_a_result_is_the_same_in_a_pickle_and_a_copy(result: Any) -> None:
    for copied in cloudpickle.loads(cloudpickle.dumps(result)), copy.deepcopy(result), result.copy():
        assert type(copied) is type(result)
        assert copied == result


@pytest.mark.parametrize(
    "serializer",
    [
        serializers.PickleSerializer(),
        serializers.JSONSerializer(),
        serializers.CompressedSerializer(serializers.JSONSerializer(), "bz2"),
    ],
    ids=kind,
)
def test_a_serializer_reads_what_it_wrote(serializer: Any) -> None:
    assert serializer.deserialize(serializer.serialize({"a": [1, None, "x"]})) == {"a": [1, None, "x"]}


def test_a_date_is_read_as_it_was_written() -> None:
    serializer = serializers.DateTimeSerializer()
    assert serializer.deserialize(serializer.serialize(NOON)) == NOON


@task
def add(x: int, y: int = 1) -> int:
    return x + y


def whole_flow() -> Flow:
    """Parameters, mapping, a condition, constants, a schedule, storage, a run config, a result."""
    schedule = CronSchedule("0 6 * * *", start_date=pendulum.datetime(2027, 1, 1, tz="Europe/Berlin"))
    with Flow("whole", schedule=schedule, run_config=LocalRun(labels=["a"]), result=results.PrefectResult()) as flow:
        x = Parameter("x", default=1)
        total = add(x)
        with case(total, 2):
            add.map([1, 2, 3])
        add(add(total), y=5)
    flow.storage = Local("/flows", validate=False)
    return flow


def test_a_flow_is_the_same_after_the_api() -> None:
    dumped = through_json(whole_flow().serialize())
    loaded = FlowSchema().load(dumped)
    assert isinstance(loaded, Flow)
    assert {each.name for each in loaded.tasks} == {each.name for each in whole_flow().tasks}
    assert loaded.schedule is not None
    assert loaded.schedule.next(3, after=NOON) == whole_flow().schedule.next(3, after=NOON)


def test_a_flow_that_was_pickled_or_copied_runs_and_grows() -> None:
    flow = whole_flow()
    for copied in cloudpickle.loads(cloudpickle.dumps(flow)), copy.deepcopy(flow), flow.copy():
        assert sorted(copied.slugs.values()) == sorted(flow.slugs.values())
        copied.add_edge(Task(name="add"), Task(name="add"))
        assert {"add-5", "add-6"} <= set(copied.slugs.values())
        assert copied.run(x=1, run_on_schedule=False).is_successful()


def test_a_flow_is_stored_and_loaded(tmp_path: Any) -> None:
    flow = whole_flow()
    storage = Local(str(tmp_path))
    storage.add_flow(flow)
    assert storage.get_flow("whole").run(run_on_schedule=False).is_successful()
