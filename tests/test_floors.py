"""Who may import whom: the floors of each package, from the ground up."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {
    "sde": [
        "device files locks distributed named renamed rounding",
        "condition process",
        "data networks",
        "model",
        "autoencoder guidance training",
        "distillation inverse pretrained",
        "checkpoint",
    ],
    "samplers": [
        "protocol host renamed",
        "step checks first_step progress",
        "padding",
        "calls compiled grid noise numerics",
        "adams ancestral ddim deis dpm2 dpmpp euler euler_maruyama heun jump langevin lms ode pc renoise repaint "
        "reverse_diffusion reverse_sde sa_solver unipc",
        "encode loop",
        "likelihood planning",
    ],
    "score_sde": [
        "config metrics",
        "kinds",
        "plots",
        "run",
        "evaluation pages restoration",
        "comparison diagnosis training",
        "modes",
        "cli",
    ],
}
"""A module imports from its own floor and from those below. A module that a string names counts as imported."""
MAY_IMPORT = {"sde": {"sde"}, "samplers": {"samplers"}, "score_sde": {"sde", "samplers", "score_sde"}}
NAMED = re.compile(r"((?:sde|samplers|score_sde)(?:\.\w+)+)(?::\w+)?")
"""What in a string is a module, or ``module:function``."""


def imports(path):
    """The modules that a file imports anywhere in it, those that its strings name included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # ``from sde import guidance`` imports a module, ``from sde import VPSDE`` none: both are of the package.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and (found := NAMED.fullmatch(node.value)):
            yield found[1]


def files(package):
    """The files of a package, with the room that each lies in; its front door has none."""
    for path in sorted((ROOT / package).rglob("*.py")):
        first = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        yield path.relative_to(ROOT), "" if first in ("__init__", "__main__") else first


@pytest.mark.parametrize("package", FLOORS)
def test_packages_stand_apart(package):
    ours = {*FLOORS, "main", "tests", "benchmarks", "configs"} - MAY_IMPORT[package]
    found = [(str(path), name) for path, _ in files(package) for name in imports(ROOT / path)]
    assert [(path, name) for path, name in found if name.partition(".")[0] in ours] == []


@pytest.mark.parametrize("package", FLOORS)
def test_rooms_import_downwards(package):
    floor = {room: number for number, rooms in enumerate(FLOORS[package]) for room in rooms.split()}
    rooms = {room for _, room in files(package)} - {""}
    assert rooms == {*floor}, "a new room needs its floor"
    upwards = [
        f"{path} imports {name}"
        for path, room in files(package)
        for name in imports(ROOT / path)
        if room and name.startswith(f"{package}.") and (other := name.split(".")[1]) in floor
        if floor[other] > floor[room]
    ]
    assert upwards == []


@pytest.mark.parametrize("package", FLOORS)
def test_rooms_form_no_circle(package):
    """Neighbors on a floor may import each other, but one way."""
    below = {room: set() for _, room in files(package)}
    for path, room in files(package):
        names = {name.split(".")[1] for name in imports(ROOT / path) if name.startswith(f"{package}.")}
        below[room] |= names & below.keys() - {room}
    graphlib.TopologicalSorter({room: others for room, others in below.items() if room}).prepare()
