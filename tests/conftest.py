"""
Fixtures: an embedded backend for this process's Prefect. The one with an agent is the package's own, `local_runner`.

Nothing is mocked here: HTTP, SQLite files, agents and flow runs are real. Prefect's home is a temporary folder.
"""

import os
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterator

# before Prefect is imported, which asks for it: some of what tests define makes folders there
_home = tempfile.TemporaryDirectory(prefix="prefect-home-")
os.environ["PREFECT__HOME_DIR"] = _home.name

import prefect
import pytest
from prefect.utilities.configuration import set_temporary_config
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from prefect_taskrun_tasks import api
from prefect_taskrun_tasks.runner import settings
from prefect_taskrun_tasks.server import Backend

EXAMPLES = Path(__file__).parent.parent / "examples"


def eventually(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """What `condition` returns as soon as it is true; fails if that takes longer than `seconds`."""
    poll = Retrying(retry=retry_if_result(lambda it: not it), wait=wait_fixed(0.05), stop=stop_after_delay(seconds))
    return poll(condition)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=1, help="of the faults in tests/soak (default: 1)")
    parser.addoption("--rewrite-golden", action="store_true", help="rewrite tests/end_to_end/golden, to be looked at")
    parser.addoption("--faulted-runs", type=int, default=3, help="how many runs tests/soak has (default: 3)")
    parser.addoption("--kills", type=int, default=4, help="how often tests/soak kills the backend (default: 4)")
    parser.addoption("--week-runs", type=int, default=140, help="how many runs tests/soak has in a week (default: 140)")
    parser.addoption("--examples", type=int, default=300, help="how many requests tests/soak makes up (default: 300)")


@pytest.fixture(scope="session", autouse=True)
def home() -> Iterator[Path]:
    """Prefect's home folder, of this process and of those that it starts."""
    path = Path(_home.name)
    patch = pytest.MonkeyPatch()
    for name in [name for name in os.environ if name.startswith("PREFECT__") and name != "PREFECT__HOME_DIR"]:
        # an account or a backend of the user who runs the tests
        patch.delenv(name)
    patch.setenv("PREFECT__USER_CONFIG_PATH", str(path / "config.toml"))
    patch.setenv("PREFECT__BACKEND_CONFIG_PATH", str(path / "backend.toml"))
    yield path
    patch.undo()


@pytest.fixture(autouse=True)
def _strangers() -> None:
    """No API has answered this process before: the system gives the ports of earlier tests again to others."""
    api._answered.clear()


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    """A backend without an agent, for this process's Prefect."""
    with Backend(f"sqlite:///{tmp_path / 'prefect.db'}", port=0) as backend, set_temporary_config(
        settings(backend.url)
    ):
        yield backend


@pytest.fixture
def client(backend: Backend) -> prefect.Client:
    return prefect.Client()
