"""What a forked process sets up before it executes a flow run."""

import os
import sys
from pathlib import Path

import pytest

from prefect_taskrun_tasks.warm.flow_run import path_without_additions


def test_the_working_folder_stays_in_the_path_where_an_installation_has_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/own", "/other"]))
    monkeypatch.setattr(sys, "path", [str(tmp_path), "/own", "/other", "/usr/lib/python3", str(tmp_path)])
    assert path_without_additions() == ["/usr/lib/python3", str(tmp_path)]
