"""Old Python names end in a sentence that names the new one."""

import importlib
import re

import pytest

import sde
from sde.renamed import MOVED

PROMISED = ("posterior", "operators", "loss", "options", "fit")
"""Modules that docs/api.md named before the folders came."""


def test_what_was_promised_is_there():
    assert {*PROMISED} <= MOVED.keys()


@pytest.mark.parametrize("name", MOVED)
def test_a_module_that_moved(name):
    importlib.import_module(MOVED[name])
    sentence = re.escape(f"{name!r}: it is {MOVED[name]} now")
    with pytest.raises(AttributeError, match=sentence):
        getattr(sde, name)
    sentence = re.escape(f"No module named 'sde.{name}': it is {MOVED[name]} now")
    with pytest.raises(ImportError, match=sentence):
        importlib.import_module(f"sde.{name}")
    with pytest.raises(ImportError, match=sentence):
        exec(f"from sde import {name}")
    with pytest.raises(ImportError, match=sentence):
        exec(f"from sde.{name} import anything")


@pytest.mark.parametrize(("package", "old", "new"), [
    ("sde.guidance", "LogProbability", "LikelihoodGuidance"), ("sde.guidance", "Rescaled", "GuidanceRescale"),
    ("sde.inverse", "MomentMatching", "MMPS"),
])  # fmt: skip
def test_a_class_with_another_name(package, old, new):
    assert hasattr(importlib.import_module(package), new)
    with pytest.raises(ImportError, match=rf"{package}\.{old} has a new name: take {package}\.{new}"):
        exec(f"from {package} import {old}")


def test_metrics_at_the_top():
    with pytest.raises(ModuleNotFoundError, match=r"'metrics': .* it is score_sde\.metrics now"):
        importlib.import_module("metrics")


def test_what_was_never_there():
    with pytest.raises(AttributeError, match=r"has no attribute 'nothing'$"):
        _ = sde.nothing
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'sde\.nothing'$"):
        importlib.import_module("sde.nothing")
