"""What is said where the extra ``[server]`` is not installed."""

from pathlib import Path

import pytest
from processes import ended

#: As if a module were not installed
WITHOUT = "import sys; sys.modules['sqlalchemy'] = None; "


@pytest.mark.parametrize(
    "use",
    [
        "from prefect_taskrun_tasks.runner import LocalRunner",
        "from prefect_taskrun_tasks.cli import main; main(['server', 'start'])",
        "from prefect_taskrun_tasks.cli import main; main(['run', __import__('os').environ['FILE'], '--flow', 'f'])",
    ],
    ids=["LocalRunner", "server start", "run"],
)
def test_the_extra_to_install_is_named(use: str, tmp_path: Path) -> None:
    (tmp_path / "flows.py").touch()
    process = ended("python", "-c", WITHOUT + use, env={"FILE": str(tmp_path / "flows.py")})
    assert process.returncode == 1
    said = process.stderr.splitlines()[-2:]
    assert "The embedded backend needs the module sqlalchemy" in said[0]
    assert said[1] == "    pip install '.[server]'"


def test_all_else_can_be_used() -> None:
    process = ended("python", "-c", WITHOUT + "from prefect_taskrun_tasks.cli import main; main(['list', '--help'])")
    assert process.returncode == 0, process.stderr
