"""
Fixtures: an embedded backend for this process's Prefect. The one with an agent is the package's own, `local_runner`.

Nothing is mocked here: HTTP, SQLite files, agents and flow runs are real. Prefect's home is a temporary folder.
"""

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional

import pytest
from reaper import Reaper

# Tests and the processes that they start do not see what the user has set: an account, a backend, a database server,
# options for the pytest that a test starts, modules that are compiled anew by each process.
for name in list(os.environ):
    if name.startswith(("PREFECT__", "PG")) or name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTHONDONTWRITEBYTECODE"):
        del os.environ[name]

# A shell that starts the tests in the background has them, and all that they start, ignore interrupts; `nohup` has them
# ignore that a terminal is closed.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# pytest's own folders stay where it keeps those of the last three runs
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
_reaper = Reaper()
os.environ["TMPDIR"] = tempfile.tempdir = str(_reaper.folder)
# before Prefect is imported, which reads it: some of what tests define makes folders there
os.environ["PREFECT__HOME_DIR"] = tempfile.mkdtemp(prefix="prefect-home-")

import prefect
from cluster import Cluster, program
from prefect.utilities.configuration import set_temporary_config
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from prefect_taskrun_tasks import api
from prefect_taskrun_tasks.runner import settings
from prefect_taskrun_tasks.server import Backend
from prefect_taskrun_tasks.server.database import Database

EXAMPLES = Path(__file__).parent.parent / "examples"


def eventually(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """What `condition` returns as soon as it is true; fails if that takes longer than `seconds`."""
    poll = Retrying(retry=retry_if_result(lambda it: not it), wait=wait_fixed(0.05), stop=stop_after_delay(seconds))
    return poll(condition)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=1, help="of the faults in tests/soak (default: 1)")
    kinds = ["sqlite", "postgresql"]
    help = "where backends keep their data, in tests that are not about it (default: sqlite)"
    parser.addoption("--database", choices=kinds, default="sqlite", help=help)
    parser.addoption("--rewrite-golden", action="store_true", help="rewrite tests/end_to_end/golden, to be looked at")
    parser.addoption("--faulted-runs", type=int, default=3, help="how many runs tests/soak has (default: 3)")
    parser.addoption("--kills", type=int, default=4, help="how often tests/soak kills the backend (default: 4)")
    parser.addoption("--week-runs", type=int, default=140, help="how many runs tests/soak has in a week (default: 140)")
    help = "how many flow runs are watched whose log lines come late (default: 40)"
    parser.addoption("--watched-runs", type=int, default=40, help=help)
    help = "how many requests tests/soak makes up for each kind of database (default: 150)"
    parser.addoption("--examples", type=int, default=150, help=help)


def pytest_configure(config: pytest.Config) -> None:
    # the order of `testpaths` stays: pytest-xdist would begin with the files that have the most tests
    config.option.loadscopereorder = False


def pytest_xdist_auto_num_workers(config: pytest.Config) -> Optional[int]:
    """For ``-n auto``: most tests that take long wait for processes. Each worker may start a PostgreSQL server."""
    return min(8, 2 * (os.cpu_count() or 1))


def pytest_unconfigure(config: pytest.Config) -> None:
    _reaper.close()


@pytest.fixture(scope="session", autouse=True)
def home() -> Iterator[Path]:
    """Prefect's home folder, of this process and of those that it starts."""
    path = Path(os.environ["PREFECT__HOME_DIR"])
    patch = pytest.MonkeyPatch()
    patch.setenv("PREFECT__USER_CONFIG_PATH", str(path / "config.toml"))
    patch.setenv("PREFECT__BACKEND_CONFIG_PATH", str(path / "backend.toml"))
    yield path
    patch.undo()


@pytest.fixture(autouse=True)
def _strangers() -> None:
    """No API has answered this process before: the system gives the ports of earlier tests again to others."""
    api._answered.clear()


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    for item in items:
        callspec = getattr(item, "callspec", None)
        if (callspec and "postgresql" in callspec.params.values()) or "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker("postgresql")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Here, and not in the fixture, so that all tests are skipped in one place, and pytest says so in one line."""
    if item.get_closest_marker("postgresql") and not program("initdb"):
        reason = "PostgreSQL is not installed: it is not tested there (on Debian: apt-get install postgresql)"
        # nobody reads there that something was skipped
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def new_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new SQLite database, to be copied: to make one takes a while."""
    file = tmp_path_factory.mktemp("new") / "prefect.db"
    Database(f"sqlite:///{file}").close()
    return file


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new database, of every kind that there is."""
    if request.param == "postgresql":
        cluster: Cluster = request.getfixturevalue("cluster")
        return cluster.cleared_database()
    return f"sqlite:///{shutil.copy(request.getfixturevalue('new_file'), tmp_path / 'prefect.db')}"


@pytest.fixture(scope="session")
def new_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Gives URLs of new databases, for backends of tests that are not about them, of the kind that was asked for."""
    if request.config.getoption("--database") == "postgresql":
        cluster: Cluster = request.getfixturevalue("cluster")
        return cluster.new_database
    new_file = request.getfixturevalue("new_file")
    return lambda: f"sqlite:///{shutil.copy(new_file, tmp_path_factory.mktemp('backend') / 'prefect.db')}"


@pytest.fixture
def backend(new_url: Callable[[], str]) -> Iterator[Backend]:
    """A backend without an agent, for this process's Prefect."""
    with Backend(new_url(), port=0) as backend, set_temporary_config(settings(backend.url)):
        yield backend


@pytest.fixture
def client(backend: Backend) -> prefect.Client:
    return prefect.Client()
