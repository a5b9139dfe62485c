"""
The pytest fixture `local_runner`, for tests of your own flows of flows: a backend and an agent, without Docker.

It stands beside the package, and imports nothing but pytest until a test asks for the fixture: pytest loads it at every
start.
"""

import os
import sys
from typing import TYPE_CHECKING, Iterator

import pytest

if TYPE_CHECKING:
    from prefect_taskrun_tasks.runner import LocalRunner


def pytest_addoption(parser: pytest.Parser) -> None:
    warm = "whether processes of flow runs are forked from one that has imported Prefect (default: true)"
    parser.addini("local_runner_warm", warm, type="bool", default=True)
    parser.addini("local_runner_preload", "modules that are imported once, before flow runs start", type="args")


@pytest.fixture(scope="session")
def local_runner(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> "Iterator[LocalRunner]":
    """An embedded backend and a Prefect agent, for this process's Prefect, until the tests are over.

    Flow runs import what the tests can import. Prefect's home is a temporary folder, and what the environment says of
    an account or another backend does not count. Needs the extra ``[server]``.

    Example:
        >>> def test_the_parent_adds_up_what_its_children_return(local_runner):
        ...     local_runner.register(child_flow)
        ...     local_runner.register(parent_flow)
        ...     parent_run = local_runner.run("parent", parameters={"n": 3})
        ...     assert parent_run.get_task_run("add_up-1").get_result() == 6
    """
    from prefect.utilities.configuration import set_temporary_config

    from prefect_taskrun_tasks.runner import LocalRunner

    home = tmp_path_factory.mktemp("prefect-home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PREFECT__")]:
            patch.delenv(name)
        patch.setenv("PREFECT__HOME_DIR", str(home))
        patch.setenv("PREFECT__USER_CONFIG_PATH", str(home / "config.toml"))
        patch.setenv("PREFECT__BACKEND_CONFIG_PATH", str(home / "backend.toml"))
        runner = LocalRunner(
            import_paths=filter(None, sys.path),
            warm=pytestconfig.getini("local_runner_warm"),
            preload=pytestconfig.getini("local_runner_preload"),
        )
        with set_temporary_config({"home_dir": str(home)}), runner as local:
            yield local
