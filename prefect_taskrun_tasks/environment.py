"""What this process runs on: releases, time zone rules, repairs, backend."""

import os
import platform
from importlib import import_module, metadata
from typing import Dict

import prefect
import pytz

import prefect1_repairs


def environment() -> Dict[str, str]:
    """Return what a bug report needs to say, by names. Sends no request.

    Example:
        >>> environment()["prefect"]
        '1.4.1'
    """
    return {
        "python": platform.python_version(),
        "prefect": metadata.version("prefect"),
        "pendulum": metadata.version("pendulum"),
        "time zones": _time_zones(),
        "repairs": _repairs(),
        "backend": f"{prefect.config.backend}, {prefect.config.cloud.api}",
    }


def _time_zones() -> str:
    """The release of the rules that pendulum follows, and the folder of their files."""
    if metadata.version("pendulum").startswith("2."):
        folder = import_module("pytzdata")._DIRECTORY
        # pytz does not name the release in its folder
        of_pytz = folder.startswith(os.path.dirname(pytz.__file__))
        release = import_module("pytz").OLSON_VERSION if of_pytz else prefect1_repairs.time_zone_release(folder)
        return f"{release or 'unknown release'}, {folder}"
    # zoneinfo reads the files of the package tzdata if the system has none
    for folder in [*import_module("zoneinfo").TZPATH, *import_module("tzdata.zoneinfo").__path__]:
        release = prefect1_repairs.time_zone_release(folder)
        if release:
            return f"{release}, {folder}"
    return "unknown release"


def _repairs() -> str:
    active = prefect1_repairs.active()
    if active is None:
        return "off, by PREFECT1_REPAIRS=off"
    return ", ".join(active).replace("_", " ") or "none needed"
