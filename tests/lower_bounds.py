"""Prints pip's constraints for the oldest versions that pyproject.toml allows: ``make oldest`` tests with them."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
for line in [*project["dependencies"], *(one for name in ("tensorboard", "test") for one in extras[name])]:
    requirement = Requirement(line)
    for bound in requirement.specifier:
        print(f"{requirement.name}=={bound.version}")
