"""Measuring: a clock that waits for the device, and networks of configs on random weights."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch

from samplers import SAMPLERS
from score_sde.config.config import config_path, read_config, resolve
from score_sde.training.spec import denoiser_spec
from sde import Denoiser
from sde.checkpoint.spec import build_denoiser
from sde.data import Dataset
from sde.data.transform import Transform
from sde.device import wait_for

ADAPTIVE = tuple(name for name, factory in SAMPLERS.items() if getattr(factory, "adaptive", False))
"""The samplers that choose their own steps."""


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """Wall-clock time of a call, the device's work included."""
    wait_for(device)
    start = time.perf_counter()
    function()
    wait_for(device)
    return time.perf_counter() - start


def interleaved(functions: Mapping[str, Callable[[], object]], device: torch.device, repeats: int) -> dict[str, float]:
    """Median seconds of each function in as many turns, in each of which all are called; a first turn warms up."""
    turns = [{name: seconds(f, device) for name, f in functions.items()} for _ in range(repeats + 1)]
    return {name: statistics.median(turn[name] for turn in turns[1:]) for name in functions}


def random_model(name: str, overrides: list[str], device: torch.device, items: int = 2):
    """The resolved config of a name, random data of its shape, and its denoiser on random weights."""
    config = resolve(read_config(config_path(name)), overrides)
    event_shape = tuple(config.data.event_shape)
    if not event_shape and config.data.root:
        raise ValueError(
            f"--config={name} takes its shape from the data: give one, --config.data.event_shape='(1,28,28)'"
        )
    # A toy set lies in the plane.
    event_shape = event_shape or (2,)
    data = Dataset(torch.randn(items, *event_shape), torch.arange(items) % 10, 10, Transform())
    model: Denoiser = build_denoiser(denoiser_spec(config, data)).to(device)
    return config, data, model
