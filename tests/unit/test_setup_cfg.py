"""What setup.cfg demands, and what the environments of tox have of it."""

from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

CLONE = Path(__file__).parents[2]
SETUP = ConfigParser()
SETUP.read(CLONE / "setup.cfg")

EXTRAS = SETUP["options.extras_require"]

#: all that the installed package may need on Python 3.8
REQUIREMENTS = [
    requirement
    for demanded in (SETUP["options"]["install_requires"], EXTRAS["server"], EXTRAS["postgresql"])
    for requirement in map(Requirement, demanded.strip().splitlines())
    if not requirement.marker or requirement.marker.evaluate({"python_version": "3.8"})
]

#: name -> version
LOWEST = dict(line.split("==") for line in (CLONE / "tests/lowest.txt").read_text().splitlines() if "==" in line)


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=[requirement.name for requirement in REQUIREMENTS])
def test_the_lowest_release_of_each_requirement_is_tested(requirement: Requirement) -> None:
    lowest = Version(LOWEST[requirement.name])
    assert lowest in requirement.specifier
    bounds = [Version(each.version) for each in requirement.specifier if each.operator == ">="]
    assert bounds in ([], [lowest])
