"""What a config holds: its keys with their defaults, and what they may be set to."""

import inspect
from collections.abc import Callable, Iterable

import torch

from samplers import SAMPLERS
from sde import PARAMETRIZATIONS, SDES
from sde.data import DATASETS
from sde.data.arrays import LAYOUTS
from sde.data.toys import TOYS
from sde.networks import CLASSIFIERS, NETWORKS
from sde.training.loss import TIMES, WEIGHTINGS
from sde.training.options import TrainingOptions

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
MEMORY_LAYOUTS = ("contiguous", "channels_last")
MOVABLE = ("data.root", "data.test_root", "data.cache", "data.workers", "data.kind", "model.network.checkpointing")
"""Keys that may change in a run that is continued: where data are, how they are read and shown, and what
is computed twice."""
READ = {
    "digits": (),
    "mnist": ("root",),
    "images": ("root", "test_root", "mode", "size", "cache", "test_fraction"),
    "points": ("root", "name", "layout", "levels", "test_fraction"),
}
"""Keys of config.data that a data set reads, of those that not every one does. One that is not here may read all."""
MEASURED = ("precision", "layout")
"""Keys of config.training whose "auto" a run settles by trying, once."""


def options_of(component: Callable) -> dict:
    """The keyword arguments of a component that a config can set, with their defaults."""
    parameters = inspect.signature(component).parameters.values()
    return {
        p.name: p.default
        for p in parameters
        if p.default is not p.empty and isinstance(p.default, bool | int | float | str | tuple)
    }


DEFAULTS = {
    "data": {
        "dataset": "digits",
        "event_shape": (),
        "kind": "",
        "root": "",
        "test_root": "",
        "name": "moons",
        "mode": "",
        "size": 0,
        "layout": "channels_first",
        "levels": 0,
        "conditions": (),
        "factor": 2,
        "downsample": 1,
        "test_fraction": 0.1,
        "cache": "",
        "workers": 4,
    },
    "sde": {"name": "vp"},
    "model": {"parametrization": "edm", "sigma_data": 0.0, "conditional": True, "network": {"name": "unet"}},
    "classifier": {"network": {"name": "unet"}, **options_of(TrainingOptions)},
    "training": {
        **options_of(TrainingOptions),
        "weighting": "edm",
        "cond_dropout": 0.1,
        "precision": "auto",
        "layout": "auto",
        "tensorboard": False,
        "log_every": 50,
        "sample_every": 1000,
        "checkpoint_every": 1000,
    },
    "sampler": {"name": "heun"},
}


def auto() -> None:
    """--sampler auto, which takes no options: ``samplers.plan`` finds what to do."""


CHOICES_OF_SAMPLER: dict[str, Callable] = {**SAMPLERS, "auto": auto}

NAMED: dict[str, dict[str, Callable]] = {
    "sde": SDES,
    "model.network": NETWORKS,
    "classifier.network": CLASSIFIERS,
    "sampler": CHOICES_OF_SAMPLER,
}
"""Sections whose ``name`` selects a component; their other keys are that component's keyword arguments."""

CHOICES: dict[str, Iterable[str]] = {
    "data.dataset": DATASETS,
    "data.name": TOYS,
    "data.layout": LAYOUTS,
    "model.parametrization": PARAMETRIZATIONS,
    "classifier.times": TIMES,
    "training.weighting": WEIGHTINGS,
    "training.times": TIMES,
    "training.precision": ("auto", *PRECISIONS),
    "training.layout": ("auto", *MEMORY_LAYOUTS),
}
