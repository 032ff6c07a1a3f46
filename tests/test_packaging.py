"""What is installed: packages, command, public names, version."""

import importlib
import tomllib
from pathlib import Path
from pkgutil import resolve_name

import pytest

import sde
from score_sde.cli import main

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DESIGN = {
    "sde": "SDE VPSDE SubVPSDE VESDE SDES ScoreModel Denoiser PARAMETRIZATIONS",
    "sde.guidance": "Conditional ClassifierFree Classifier",
    "samplers": "sample generate plan log_likelihood SAMPLERS GRIDS SeededNoise",
}
"""The names that others rely on."""


@pytest.mark.parametrize("module", DESIGN)
def test_names_of_the_design(module):
    loaded = importlib.import_module(module)
    for name in DESIGN[module].split():
        assert name in loaded.__all__
        assert hasattr(loaded, name)


@pytest.mark.parametrize(
    "module", ["sde", "sde.data", "sde.guidance", "sde.inverse", "sde.training", "samplers", "score_sde.metrics"]
)
def test_what_is_listed_exists(module):
    loaded = importlib.import_module(module)
    assert len(set(loaded.__all__)) == len(loaded.__all__)
    assert [name for name in loaded.__all__ if not hasattr(loaded, name)] == []


def test_the_command_is_main():
    ((name, target),) = PROJECT["project"]["scripts"].items()
    assert name == "score-sde"
    assert resolve_name(target) is main.main


def test_commands_to_copy_are_those_of_the_command(monkeypatch, capsys):
    """Its users have no main.py."""
    for called, words in (("/usr/bin/score-sde", "score-sde --mode"), ("main.py", "python main.py --mode")):
        monkeypatch.setattr("sys.argv", [called])
        assert main.main(["--mode", "check", "--help"]) == 0
        assert capsys.readouterr().out.count(words) == 2
        assert main.main(["--mode", "check", "--workdir", "nowhere"]) == 2
        assert f"`{words} train --workdir nowhere`" in capsys.readouterr().err


def test_every_package_is_installed():
    """Everything with code in it but what serves this repository alone, under three names."""
    tops = ("sde", "samplers", "score_sde")
    code = {".".join(path.parent.relative_to(ROOT).parts) for top in tops for path in (ROOT / top).rglob("*.py")}
    setuptools = PROJECT["tool"]["setuptools"]
    assert {*setuptools["packages"]} == code | {"score_sde.configs"}
    assert setuptools["package-dir"] == {"score_sde.configs": "configs"}
    assert [name for name in tops if not (ROOT / name / "py.typed").exists()] == []


def test_one_version():
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "sde.__version__"}
    assert sde.__version__.count(".") == 2


def test_everything_that_is_pinned_is_allowed():
    """constraints.txt against the lower bounds, and no direct dependency left out of it."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [Requirement(line) for lines in [PROJECT["project"]["dependencies"], *extras] for line in lines]
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        if name != "score-sde":
            assert pins[name] in requirement.specifier, requirement
