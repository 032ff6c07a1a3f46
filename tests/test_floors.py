"""Who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("sde", "samplers", "metrics", "commands")
FLOORS = {
    "sde": ["transfer", "condition", "binding", "schedule", "process", "statistics", "transform",
            "data", "operators", "networks", "model",
            "probe", "outliers", "audit", "guided", "gradients", "limits", "guidance", "conjugate",
            "measurement", "posterior", "loss", "profile", "ema",
            "sharding", "parallel", "options", "training", "fit", "files", "states", "spec", "checkpoint", "snapshots"],
    "samplers": ["step", "precision", "noise", "brownian", "grid", "checks", "calls", "lookup", "trajectory",
                 "runge_kutta", "weights", "exponential", "ancestral", "repaint", "diffusion", "flow", "multistep", "dpm", "adaptive",
                 "encode", "reverse_sde", "langevin", "loop", "generate", "fitted", "pilots", "plan", "decoder",
                 "bounds", "divergence", "likelihood", "report"],
    "metrics": ["estimate", "proportion", "bootstrap", "distances", "frechet", "kernel", "neighbours", "sliced",
                "two_sample", "metric"],
    "commands": ["schema", "config", "run", "names", "drawing", "pages", "inputs", "guided", "scales", "modes", "flags",
                 "conditions", "plans", "training", "trained", "recognition", "evaluating", "comparing", "restoring",
                 "checking", "tradeoff", "sample", "restore", "edit", "likelihood", "encode", "interpolate",
                 "guidance_sweep", "train", "ema", "evaluate", "compare", "check", "visualize"],
}  # fmt: skip
"""The modules of each package from the ground up: one imports only those before it."""


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}


FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_packages_stand_apart(path):
    package = path.relative_to(ROOT).parts[0]
    apart = {"sde", "samplers", "metrics", "commands", "main"}
    foreign = {name: apart - {name} for name in PACKAGES} | {"commands": {"main"}}
    assert not [name for name in imports(path) if name.split(".")[0] in foreign[package]]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_import_downwards(path):
    package, module, *_ = path.relative_to(ROOT).with_suffix("").parts
    if module == "__init__":
        return
    floors = FLOORS[package]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == package and len(parts) > 1 and parts[1] != module:
            assert floors.index(parts[1]) < floors.index(module), f"{path.name} imports {name}"


def test_only_main_imports_commands():
    for path in FILES:
        if path.relative_to(ROOT).parts[0] != "commands":
            assert not [name for name in imports(path) if name.startswith("commands")]
