"""What Prefect 1.4.1 needs on today's Pythons, in this process and in others."""

import copy
import inspect
import itertools
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Dict, Optional, Tuple

import cloudpickle
import pendulum
import pytest
import pytz
from prefect import Flow, Task
from prefect.schedules import clocks
from prefect.schedules.clocks import CronClock

import prefect1_repairs
from prefect_taskrun_tasks import requirements

#: the folder of the module: this clone's, or the one that it is installed in
ROOT = Path(prefect1_repairs.__file__).parent
CLONE = Path(__file__).parents[2]
ON_PENDULUM_3 = metadata.version("pendulum").startswith("3.")

#: (place, a moment, the hour that the clocks there show), by the rules of 2026
PLACES = [
    ("America/Mexico_City", "2026-07-01T12:00:00", 6),
    ("Africa/Cairo", "2026-07-01T12:00:00", 15),
    ("Asia/Amman", "2026-01-15T12:00:00", 15),
    ("Europe/Kyiv", "2026-07-01T12:00:00", 15),
    ("America/Vancouver", "2026-12-15T12:00:00", 5),
]


def python(code: str, *options: str, **variables: str) -> str:
    """What a Python process with this code and these environment variables prints, or the last line of its error."""
    environment: Dict[str, str] = {**os.environ, "PYTHONWARNINGS": "ignore", **variables}
    ran = subprocess.run([sys.executable, *options, "-c", code], env=environment, capture_output=True, text=True)
    return ran.stdout.strip() if ran.returncode == 0 else ran.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(("place", "moment", "hour"), PLACES, ids=[place for place, *_ in PLACES])
def test_clocks_show_the_hour_of_todays_rules(place: str, moment: str, hour: int) -> None:
    assert pendulum.parse(moment, tz="UTC").in_timezone(place).hour == hour


def test_pendulum_offers_the_zones_that_it_knows() -> None:
    assert {place for place, *_ in PLACES} <= set(pendulum.timezones() if ON_PENDULUM_3 else pendulum.timezones)


def test_an_hourly_cron_clock_pauses_when_an_hour_occurs_twice() -> None:
    clock = CronClock("0 * * * *", start_date=pendulum.datetime(2026, 11, 1, tz="America/New_York"))
    events = clock.events(after=pendulum.datetime(2026, 10, 31, 23, tz="America/New_York"))
    assert [event.start_time.in_timezone("UTC").hour for event in itertools.islice(events, 4)] == [4, 6, 7, 8]


def test_a_flow_that_is_pickled_or_copied_goes_on_counting_its_slugs() -> None:
    flow = Flow("counting", tasks=[Task(name="x"), Task(name="x")])
    for copied in cloudpickle.loads(cloudpickle.dumps(flow)), copy.deepcopy(flow):
        copied.add_task(Task(name="x"))
        assert set(copied.slugs.values()) == {"x-1", "x-2", "x-3"}


def test_a_counter_with_a_step_is_pickled_too() -> None:
    counter = itertools.count(3, 2)
    next(counter)
    assert list(itertools.islice(cloudpickle.loads(cloudpickle.dumps(counter)), 2)) == [5, 7]


FAULTS = """
import cloudpickle, pendulum, prefect, prefect1_repairs
from prefect.schedules.clocks import CronClock

def outcome(action):
    try:
        action()
    except Exception as error:
        return type(error).__name__
    return "works"

print(
    sorted(prefect1_repairs.active() or ["off"]),
    outcome(lambda: pendulum.timezone("Europe/Kyiv")),
    outcome(lambda: next(CronClock("0 * * * *").events())),
    outcome(lambda: cloudpickle.dumps(prefect.Flow("counting", tasks=[prefect.Task(name="x")]))),
)
"""


def test_without_the_repairs_the_faults_are_there() -> None:
    # if one of these fails, Prefect or pendulum has mended it, and its repair can go
    zones = "works" if ON_PENDULUM_3 else "InvalidTimezone"
    cron = "AttributeError" if ON_PENDULUM_3 else "works"
    pickling = "TypeError" if sys.version_info >= (3, 14) else "works"
    assert python(FAULTS, PREFECT1_REPAIRS="off") == f"['off'] {zones} {cron} {pickling}"


def test_a_process_that_imports_only_prefect_has_just_the_repairs_that_it_needs() -> None:
    needed = ["run_cron_clocks_on_pendulum_3" if ON_PENDULUM_3 else "read_time_zones_of_pytz"]
    if sys.version_info >= (3, 14):
        needed.append("pickle_flows_on_python_3_14")
    # depends on the system
    found = python(FAULTS).replace("'read_time_zones_of_tzdata', ", "")
    assert found == f"{sorted(needed)} works works works"


def test_importing_the_package_repairs_what_was_imported_before() -> None:
    # -S: Python reads no .pth files
    code = "import pendulum, prefect; pendulum.timezone('America/Mexico_City'); import prefect_taskrun_tasks;" + FAULTS
    code += "\nprint(pendulum.parse('2026-07-01T12:00:00', tz='UTC').in_timezone('America/Mexico_City').hour)"
    path = os.pathsep.join([str(ROOT), *(each for each in sys.path if each.endswith("site-packages"))])
    *_, repaired, hour = python(code, "-S", PYTHONPATH=path).splitlines()
    assert repaired.endswith("works works works")
    assert hour == "6"


def test_an_interpreter_starts_without_what_the_repairs_need_later() -> None:
    code = "import os, sys; before = set(sys.modules); import prefect1_repairs; prefect1_repairs.install()"
    assert python(f"{code}; print(set(sys.modules) - before)", "-S", PYTHONPATH=str(ROOT)) == "{'prefect1_repairs'}"


def test_every_interpreter_of_the_environment_has_the_repairs() -> None:
    assert python("import sys; print('prefect1_repairs' in sys.modules, 'prefect' in sys.modules)") == "True False"
    assert python("import sys; print('prefect1_repairs' in sys.modules)", "-I") == "True"


def test_uninstalling_removes_the_file_that_starts_the_repairs() -> None:
    # pip removes the files that are listed there
    (installed,) = metadata.Distribution.discover(name="prefect-taskrun-tasks", path=[sysconfig.get_path("purelib")])
    assert "prefect1_repairs.pth" in {str(file) for file in installed.files or []}


def test_pytest_does_not_warn_of_the_repairs(tmp_path: Path) -> None:
    code = f"import pytest; pytest.main(['-q', {str(tmp_path)!r}])"
    assert "PytestAssertRewriteWarning" not in python(code)


def test_a_folder_of_time_zones_that_the_user_chose_stays(tmp_path: Path) -> None:
    shown = "zoneinfo.TZPATH[0]" if ON_PENDULUM_3 else "pytzdata._DIRECTORY"
    code = f"import {shown.split('.')[0]}, pendulum; print({shown})"
    variable = "PYTHONTZPATH" if ON_PENDULUM_3 else "PYTZDATA_TZDATADIR"
    chosen = shutil.copytree(Path(pytz.__file__).parent / "zoneinfo", tmp_path / "chosen")
    assert python(code, **{variable: str(chosen)}) == str(chosen)


# pendulum 2 reads no files of the system
if ON_PENDULUM_3:

    @pytest.mark.parametrize(("release", "needed"), [("2020a", True), ("2999a", False), (None, True)])
    def test_the_newer_of_the_systems_and_tzdatas_time_zones_are_read(
        release: Optional[str], needed: bool, tmp_path: Path
    ) -> None:
        if release:
            (tmp_path / "tzdata.zi").write_text(f"# version {release}\n")
        code = f"import zoneinfo; zoneinfo.reset_tzpath([{str(tmp_path)!r}]); import pendulum, prefect1_repairs;"
        found = python(f"{code} print(prefect1_repairs.active(), zoneinfo.TZPATH[-1])")
        assert found == f"{('read_time_zones_of_tzdata',) if needed else ()} {tmp_path}"


def test_nothing_in_a_repaired_module_refers_to_the_loader_of_the_repairs() -> None:
    assert not type(clocks.__loader__).__module__.startswith("prefect1_repairs")
    assert clocks.__spec__ is not None
    assert clocks.__spec__.loader is clocks.__loader__
    assert "class CronClock" in inspect.getsource(clocks)


@pytest.mark.parametrize(("name", "version"), [("prefect", "2.20.0"), ("marshmallow", "4.0.1"), ("pendulum", "1.5.1")])
def test_a_release_that_does_not_fit_is_named_at_import(name: str, version: str, tmp_path: Path) -> None:
    metadata_of_it = tmp_path / f"{name}-{version}.dist-info" / "METADATA"
    metadata_of_it.parent.mkdir()
    metadata_of_it.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    error = python("import prefect_taskrun_tasks", PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert error.startswith(f"ImportError: {name} {version} is installed, but prefect_taskrun_tasks needs {name}")
    assert error.endswith(f"Run: {sys.executable} -m pip install '{requirements.REQUIRED[name][0]}'")


def test_setup_cfg_demands_the_releases_that_are_checked_at_import() -> None:
    demanded = (CLONE / "setup.cfg").read_text()
    assert all(f"\n    {requirement}" in demanded for requirement, _ in requirements.REQUIRED.values())


@pytest.mark.parametrize("version", [(3, 7, 16), (3, 15, 0)])
def test_installing_on_a_python_that_does_not_fit_names_those_that_do(version: Tuple[int, ...]) -> None:
    # the newest pip on Python 3.7 would name a dependency instead
    setup = f"import sys; sys.version_info = {version}; exec(open({str(CLONE / 'setup.py')!r}).read())"
    found = "This is Python " + ".".join(map(str, version))
    assert python(setup) == f"prefect-taskrun-tasks needs CPython 3.8 to 3.14. {found}. Use another Python."
    assert "\npython_requires = >=3.8,<3.15\n" in (CLONE / "setup.cfg").read_text()
