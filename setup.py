"""Adds to the build what setup.cfg cannot say: the file that starts the repairs with each interpreter."""

import sys

# No release of pip for Python 3.7 names the Pythons in setup.cfg: it names a dependency that it cannot find.
if not (3, 8) <= sys.version_info < (3, 15):
    version = ".".join(map(str, sys.version_info[:3]))
    sys.exit(f"prefect-taskrun-tasks needs CPython 3.8 to 3.14. This is Python {version}. Use another Python.")

import py_compile
from pathlib import Path
from typing import List

from setuptools import setup
from setuptools.command.build_py import build_py

#: Python reads it at its start if it lies among the installed packages
PTH = "prefect1_repairs.pth", "import prefect1_repairs; prefect1_repairs.install()\n"


class BuildWithPth(build_py):
    """Puts the .pth file beside the modules. In an editable install these stay in place, and the file is installed."""

    def run(self) -> None:
        super().run()
        folder = self.build_lib
        if self.editable_mode:
            folder = self.get_finalized_command("install").install_lib
            # pip compiles only what it copies. With PYTHONDONTWRITEBYTECODE each start would compile this module anew.
            py_compile.compile("prefect1_repairs.py")
        name, line = PTH
        Path(folder, name).write_text(line)

    def get_outputs(self, include_bytecode: bool = True) -> List[str]:
        return [*super().get_outputs(include_bytecode), str(Path(self.build_lib, PTH[0]))]


setup(cmdclass={"build_py": BuildWithPth})
