"""Input: what a network is fed with, random numbers and training items."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import interleaved
from benchmarks.sections import Setting
from samplers import SeededNoise, make_noise
from sde import VPSDE
from sde.data import Dataset
from sde.data.array_files import ArrayFile
from sde.data.transform import Transform
from sde.distributed.world import World
from sde.training.batches import Batches
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
    """Training batches of 256 images of CIFAR-10's shape on their way to the network, which must not wait for them.

    From memory, and from an array in a file that threads read ahead.
    """
    batch, count = setting.of(256, 8), setting.of(20_000, 64)
    items = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    repeats = setting.of(30, 3)
    options = TrainingOptions(steps=10**6, batch_size=batch)
    with tempfile.TemporaryDirectory() as folder:
        np.save(path := Path(folder) / "items.npy", items)
        on_disk = ArrayFile(np.load(path, mmap_mode="r"))
        for name, held in {"memory": torch.from_numpy(items), "a file, 4 threads": on_disk}.items():
            data = Dataset(held, None, None, Transform.of_levels(256))
            batches = Batches(data, VPSDE(), options, World(), setting.device, workers=4)
            numbers = iter(range(10**6))
            try:
                read = {"read": partial(lambda b, n: b.get(next(n)), batches, numbers)}
                taken = interleaved(read, setting.device, repeats)["read"]
            finally:
                batches.close()
            yield {
                "items from": name,
                "held on": str(data.to(setting.device).items.device) if name == "memory" else "disk",
                "ms/batch": 1000 * taken,
                "images/s": batch / taken,
            }
