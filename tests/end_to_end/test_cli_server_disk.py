"""``prefect-taskrun server start`` on a disk that becomes full: who writes is told so, who reads does not notice."""

import os
import resource
import shutil
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Tuple

import pytest
import requests
from conftest import eventually
from processes import SCRIPTS, Command, started

#: Bytes of the small disk
SMALL = 4 * 1024 * 1024


class Disk(NamedTuple):
    """That a server writes to, which has room for `SMALL` bytes."""

    url: str
    fill: Callable[[], None]
    empty: Callable[[], None]


def _url(command: Command) -> str:
    """Of a server, once it is ready."""
    line = eventually(lambda: next((x for x in command.stdout.splitlines() if "PREFECT__SERVER__ENDPOINT=" in x), ""))
    url = line.split("=", 1)[1]
    eventually(lambda: requests.get(f"{url}/health", timeout=10).ok)
    return str(url)


@contextmanager
def _small_disk(directory: Path) -> Iterator[Disk]:
    """A file system in memory, which only the server has mounted."""
    serve = 'mount -t tmpfs -o size=$1 tmpfs "$2" && exec prefect-taskrun server start --port 0 --database-url "$3"'
    shell = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*shell, "mount -t tmpfs tmpfs /mnt"], check=False).returncode:
        pytest.skip("This machine does not let its users mount anything.")
    path = os.pathsep.join([str(SCRIPTS), os.environ["PATH"]])
    arguments = ["sh", str(SMALL), str(directory), f"sqlite:///{directory / 'prefect.db'}"]
    with started(shutil.which("unshare"), *shell[1:], serve, *arguments, env={"PATH": path}) as command:
        url = _url(command)
        ballast = Path(f"/proc/{command.process.pid}/root{directory}/ballast")

        def fill() -> None:
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while file.write(bytes(512)):
                    pass

        yield Disk(url, fill, ballast.unlink)


@contextmanager
def _small_files(directory: Path) -> Iterator[Disk]:
    """Files that must not grow any more."""
    if not hasattr(resource, "prlimit"):
        pytest.skip("Only Linux sets limits of other processes.")
    file = directory / "prefect.db"
    with started("prefect-taskrun", "server", "start", "--port", 0, "--database-url", f"sqlite:///{file}") as command:
        yield Disk(
            _url(command),
            lambda: _limit(command, Path(f"{file}-wal").stat().st_size),
            lambda: _limit(command, resource.RLIM_INFINITY),
        )


def _limit(command: Command, bytes: int) -> None:
    resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, (bytes, resource.RLIM_INFINITY))


@pytest.fixture(params=[_small_disk, _small_files])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    with request.param(tmp_path) as disk:
        yield disk


def _post(disk: Disk, query: str, **variables: Any) -> Tuple[int, Any]:
    answer = requests.post(disk.url, json={"query": query, "variables": variables}, timeout=30)
    return answer.status_code, answer.json()


def _create_project(disk: Disk, name: str) -> Any:
    _, tenants = _post(disk, "{ tenant { id } }")
    status, answer = _post(
        disk,
        "mutation($input: create_project_input!) { create_project(input: $input) { id } }",
        input={"tenant_id": tenants["data"]["tenant"][0]["id"], "name": name, "description": "x" * 100_000},
    )
    assert status == 200
    return answer


def _projects(disk: Disk) -> Any:
    status, answer = _post(disk, "{ project(order_by: {name: asc}) { name } }")
    assert status == 200
    return [row["name"] for row in answer["data"]["project"]]


def test_what_does_not_fit_on_the_disk_is_an_error_and_reading_goes_on(disk: Disk) -> None:
    assert "errors" not in _create_project(disk, "before")
    disk.fill()
    answers = [_create_project(disk, f"meanwhile {number}") for number in range(3)]
    for answer in answers:
        [error] = answer["errors"]
        assert "cannot be written" in error["message"], error
    # what was acknowledged is there, and nothing else
    assert _projects(disk) == ["before"]
    assert requests.get(f"{disk.url}/health", timeout=30).ok
    disk.empty()
    assert "errors" not in _create_project(disk, "later")
    assert _projects(disk) == ["before", "later"]
