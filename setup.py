"""Adds to the build what setup.cfg cannot say: the file that starts the repairs with each interpreter."""

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
        folder = self.get_finalized_command("install").install_lib if self.editable_mode else self.build_lib
        name, line = PTH
        Path(folder, name).write_text(line)

    def get_outputs(self, include_bytecode: bool = True) -> List[str]:
        return [*super().get_outputs(include_bytecode), str(Path(self.build_lib, PTH[0]))]


setup(cmdclass={"build_py": BuildWithPth})
