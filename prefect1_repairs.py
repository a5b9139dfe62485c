"""Repairs of Prefect 1.4.1 for today's Pythons and today's time zones.

Prefect 1 has no plugin hook, and processes that never import `prefect_taskrun_tasks` need the repairs too: `prefect
register`, agents, users' scripts. So `prefect1_repairs.pth`, installed beside this module, calls `install()` at each
start of the interpreter. At that time this module imports nothing but `sys` and `os`, and waits until one of the
modules in `REPAIRS` is imported. `prefect_taskrun_tasks` calls `install()` too, for installations whose `.pth` files
Python does not read (`PYTHONPATH`, `python -S`, zip files).

The environment variable `PREFECT1_REPAIRS=off` turns the repairs off.

Each repair checks first whether its fault exists. With pendulum 2, on Python 3.8 to 3.11, only the time zones change.

pytest warns of modules that it cannot rewrite because they are imported before it starts: PYTEST_DONT_REWRITE
"""

import os
import sys

# to import `typing` takes longer than all the rest
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, Optional, Tuple

__all__ = ["REPAIRS", "active", "install"]


def read_time_zones_of_pytz(pytzdata: "Any") -> bool:
    """Have pendulum 2 read the time zone files of the package pytz.

    pendulum 2.1.2 reads those of pytzdata, whose last release has the rules of 2020. Both have the same long form. A
    folder that the user chose (PYTZDATA_TZDATADIR) stays.
    """
    if pytzdata._DIRECTORY != pytzdata.DEFAULT_DIRECTORY:
        return False
    import pytz

    folder = os.path.join(os.path.dirname(pytz.__file__), "zoneinfo")
    # Debian's pytz has no files of its own
    if not os.path.isdir(folder):
        return False
    pytzdata.set_directory(folder)
    # pendulum offers these as `pendulum.timezones`
    pytzdata.timezones = tuple(pytz.all_timezones)
    # if pendulum was imported before: forget the zones that it read
    tz: Any = sys.modules.get("pendulum.tz")
    if hasattr(tz, "_tz_cache"):
        tz.timezones = sys.modules["pendulum"].timezones = pytzdata.timezones  # type: ignore[attr-defined]
        tz._tz_cache.clear()
    return True


def read_time_zones_of_tzdata(timezone: "Any") -> bool:
    """Have pendulum 3 read the time zone files of the package tzdata, if those of the system are older.

    pendulum 3 reads them by the standard library's `zoneinfo`, which asks the system first. A path that the user chose
    (PYTHONTZPATH) stays.
    """
    if not hasattr(timezone, "zoneinfo") or "PYTHONTZPATH" in os.environ:
        return False
    import tzdata
    import zoneinfo

    folder = os.path.join(os.path.dirname(tzdata.__file__), "zoneinfo")
    of_system = next(filter(None, map(time_zone_release, zoneinfo.TZPATH)), "")
    if time_zone_release(folder) <= of_system:
        return False
    # zones that only the system has are still found there
    zoneinfo.reset_tzpath([folder, *zoneinfo.TZPATH])
    # if pendulum was imported before: forget the zones that it read
    timezone.Timezone.clear_cache()
    return True


def time_zone_release(folder: str) -> str:
    """Return the release of the time zone files in a folder, such as "2026f"; "" if none is named there."""
    try:
        with open(os.path.join(folder, "tzdata.zi"), encoding="utf-8") as file:
            before, _, release = file.readline().strip().rpartition(" ")
    except OSError:
        return ""
    return release if before == "# version" and release != "unknown" else ""


def run_cron_clocks_on_pendulum_3(clocks: "Any") -> bool:
    """Have CronClock give the same events on pendulum 3 as on pendulum 2.

    prefect/schedules/clocks.py, line 298, asks for `pendulum.tz._Timezone`, which pendulum 3 calls `PendulumTimezone`.

    Lines 326 to 341 turn croniter's times into pendulum's. When the clocks are set back, an hour occurs twice.
    pendulum 2 takes the second one. pendulum 3 takes the one that `fold` names; croniter leaves that at 0, the first.
    """
    tz = clocks.pendulum.tz
    if hasattr(tz, "_Timezone"):
        return False
    tz._Timezone = tz.timezone.PendulumTimezone

    class SecondOfTwoHours(clocks.croniter):  # type: ignore[misc]
        def get_next(self, *args: "Any", **options: "Any") -> "Any":
            time = super().get_next(*args, **options)
            # without `datetime` as its argument it returns a float
            return time.replace(fold=1) if hasattr(time, "fold") else time

    clocks.croniter = SecondOfTwoHours
    return True


def pickle_flows_on_python_3_14(flow: "Any") -> bool:
    """Have flows pickled and copied on Python 3.14.

    prefect/core/flow.py, line 188, keeps `itertools.count` objects in each flow. Python 3.14 refuses to pickle or copy
    them, and Prefect pickles flows into storage. The pickles are the same as those of earlier Pythons.
    """
    import copyreg
    from itertools import count

    # from 3.14 on it has only the one that every object has
    if "__reduce__" in vars(count) or count in copyreg.dispatch_table:
        return False

    def reduce(counter: "count[Any]") -> "Tuple[Any, Tuple[int, ...]]":
        # only its text shows the next number: count(3), or count(3, 2)
        numbers = repr(counter)[len("count(") : -1].split(", ")
        try:
            return count, tuple(int(number) for number in numbers)
        except ValueError:
            raise TypeError(f"cannot pickle {counter!r}: only counters of integers can be pickled") from None

    copyreg.pickle(count, reduce)
    return True


#: for each module that has a fault, the function that mends it, and returns whether the fault exists here
REPAIRS = {
    "pytzdata": read_time_zones_of_pytz,
    "pendulum.tz.timezone": read_time_zones_of_tzdata,
    "prefect.schedules.clocks": run_cron_clocks_on_pendulum_3,
    "prefect.core.flow": pickle_flows_on_python_3_14,
}


def active() -> "Optional[Tuple[str, ...]]":
    """Return the names of the repairs that this process has needed so far; None if they are turned off.

    Example:
        >>> import prefect
        >>> prefect1_repairs.active()
        ('read_time_zones_of_pytz',)
    """
    return tuple(_finder.active) if _finder.installed else None


def install() -> None:
    """Repair the modules in `REPAIRS`: those that are imported already at once, the others when they are imported.

    Does nothing when called again, or if the environment variable `PREFECT1_REPAIRS` is `off`.
    """
    if _finder.installed or os.environ.get("PREFECT1_REPAIRS", "").lower() == "off":
        return
    _finder.installed = True
    for name in REPAIRS:
        if name in sys.modules:
            _finder.repair(sys.modules[name])
    if _finder.waiting:
        sys.meta_path.insert(0, _finder)


class _Finder:
    """Finds the modules to be repaired as the other finders do, and has them repaired after they have run.

    It stays in `sys.meta_path` until all of them are repaired.
    """

    def __init__(self) -> None:
        self.installed = False
        #: names of the repairs that were needed
        self.active: list[str] = []
        #: modules that are not imported yet
        self.waiting = set(REPAIRS)

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        if name not in self.waiting:
            return None
        for finder in sys.meta_path:
            spec: Any = None
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader)
                return spec
        return None

    def repair(self, module: "ModuleType") -> None:
        self.waiting.discard(module.__name__)
        if not self.waiting and self in sys.meta_path:
            sys.meta_path.remove(self)
        mend = REPAIRS[module.__name__]
        if mend(module):
            self.active.append(mend.__name__)


class _Loader:
    """Loads a module as its own loader does, and repairs it. Nothing in the module refers to this loader afterwards."""

    def __init__(self, loader: "Any") -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> "Any":
        return getattr(self._loader, name)

    def create_module(self, spec: "Any") -> "Any":
        return self._loader.create_module(spec)

    def exec_module(self, module: "Any") -> None:
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _finder.repair(module)


_finder = _Finder()
