"""The releases that Prefect 1 works with. Checked before Prefect is imported. setup.cfg demands the same."""

import sys
from importlib import metadata

#: distribution: its requirement as pip reads it, and the major version that it stands for
REQUIRED = {
    "prefect": ("prefect==1.*", "1"),
    "marshmallow": ("marshmallow>=3.10,<4", "3"),
    "pendulum": ("pendulum>=2.1.2,<3", "2") if sys.version_info < (3, 12) else ("pendulum>=3,<4", "3"),
}


def check() -> None:
    """Check the installed releases, in about 2 ms.

    Raises:
        ImportError: a release of Prefect, marshmallow or pendulum does not fit. Without this check it would fail later,
            for example with marshmallow 4 when a flow is registered.
    """
    for name, (requirement, major) in REQUIRED.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            # if it is missing, its import says so; in a zip file only the metadata are
            continue
        if version.split(".")[0] != major:
            raise ImportError(
                f"{name} {version} is installed, but prefect_taskrun_tasks needs {requirement} on Python "
                f"{sys.version_info[0]}.{sys.version_info[1]}. Run: {sys.executable} -m pip install '{requirement}'"
            )
