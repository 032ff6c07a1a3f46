"""Input: what a network is fed with, random numbers and training items."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.input import rate, readers
from benchmarks.measure import interleaved
from benchmarks.sections import Setting
from samplers import SeededNoise, make_noise
from sde import VPSDE, Denoiser
from sde.training.options import TrainingOptions


def noise(setting: Setting) -> Iterator[dict]:
    """Random numbers for a step of 256 images of CIFAR-10's shape: by the samples' own seeds, and torch's without."""
    shape = (setting.of(256, 8), 3, 32, 32)
    x, sde, repeats = torch.zeros(shape, device=setting.device), VPSDE(), setting.of(20, 3)
    seeded, paths = SeededNoise(range(len(x))), make_noise("brownian", range(len(x)), sde)
    times = iter(np.linspace(1.0, 0.01, repeats + 2))
    last = [torch.tensor(next(times))]

    def step() -> None:
        # Paths are asked for one step after the other, from the noise on.
        before, last[0] = last[0], torch.tensor(next(times))
        paths.between(before, last[0])(x)

    functions: dict[str, Callable[[], object]] = {
        "torch.randn_like": lambda: torch.randn_like(x),
        "normal, a stream per sample": lambda: seeded(x),
        "uniform, a stream per sample": lambda: seeded.uniform(x),
        "increments of Brownian paths": step,
    }
    for name, taken in interleaved(functions, setting.device, repeats).items():
        yield {"noise": name, "ms": 1000 * taken, "million numbers/s": x.numel() / taken / 1e6}


def reading(setting: Setting) -> Iterator[dict]:
    """Training items of CIFAR-10's shape that come to the device, in batches of 256: more than its network takes."""
    options = TrainingOptions(steps=10**9, batch_size=setting.of(256, 8))
    pixels = np.random.default_rng(0).integers(0, 256, (setting.of(4096, 64), 3, 32, 32), np.uint8)
    model = Denoiser(nn.Identity(), VPSDE())
    with tempfile.TemporaryDirectory() as folder:
        for name, held in readers(Path(folder), pixels).items():
            found = {
                f"images/s, {workers} threads": rate(
                    held, model, options, setting.device, workers, setting.of(1.5, 0.1)
                )
                for workers in (1, 4)
            }
            yield {"items": name, **found}
