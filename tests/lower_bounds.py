"""Prints pip's constraints for the oldest versions that pyproject.toml allows: ``make oldest`` tests with them."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def required(lines: list[str]) -> Iterator[Requirement]:
    """The requirements of lines, with those of the extras of the project itself in their place."""
    for requirement in map(Requirement, lines):
        if requirement.name == project["name"]:
            for extra in sorted(requirement.extras):
                yield from required(project["optional-dependencies"][extra])
        else:
            yield requirement


for found in required([*project["dependencies"], f"{project['name']}[test]"]):
    for bound in found.specifier:
        print(f"{found.name}=={bound.version}")
