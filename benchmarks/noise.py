"""Time of random numbers per draw: the project's, and the way of one generator per sample that it had before.

    python benchmarks/noise.py [--repeats 15] [--draws 20] [--device cpu]

Normal and uniform draws, a whole run's (seeds to the last draw) and later ones alone; increments of Brownian paths; the
probes of a likelihood. Interleaved in one run, the least of the repeats. The last line is JSON.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torchsde
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measure import seconds
from samplers import GRIDS, BrownianNoise, SeededNoise
from samplers.likelihood.divergence import draw_probes
from samplers.noise.seeded import PROBES, item_seeds
from sde import VPSDE

SHAPES = {
    "16 points in the plane": (16, 2),
    "64 x 1 x 8 x 8": (64, 1, 8, 8),
    "16 x 3 x 32 x 32": (16, 3, 32, 32),
    "256 x 3 x 32 x 32": (256, 3, 32, 32),
    "1 x 3 x 256 x 256": (1, 3, 256, 256),
}
DEPTH = 20


class OnePerSample:
    """A generator of numpy per sample, asked at every draw; copied to the device of x."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [np.random.Generator(np.random.Philox(seed)) for seed in seeds]
        self.uniforms: list[np.random.Generator] = []

    def __call__(self, x: Tensor) -> Tensor:
        draws = np.empty(x.shape, np.float32)
        for generator, row in zip(self.generators, draws, strict=True):
            row[...] = generator.standard_normal(row.shape, np.float32)
        return torch.from_numpy(draws).to(x.device, x.dtype)

    def uniform(self, x: Tensor) -> Tensor:
        if not self.uniforms:
            self.uniforms = [np.random.Generator(g.bit_generator.jumped()) for g in self.generators]
        draws = np.empty(x.shape, np.float64)
        for generator, row in zip(self.uniforms, draws, strict=True):
            row[...] = generator.random(row.shape)
        return torch.from_numpy(draws).to(x.device)


class OneTreePerSample:
    """A tree of torchsde per sample and octave of the clock, the last value kept."""

    def __init__(self, seeds: Sequence[int], process) -> None:
        self.seeds, self.process = list(seeds), process
        self.trees: dict[int, tuple[int, torchsde.BrownianInterval]] = {}
        self.last: dict[int, tuple[float, Tensor]] = {}

    def ascent(self, seed: int, octave: int, cells: float, shape: Sequence[int]) -> Tensor:
        if self.trees.get(seed, (None,))[0] != octave:
            tree = torchsde.BrownianInterval(
                0.0, 2.0**DEPTH, size=tuple(shape), dtype=torch.float64, entropy=(seed << 16) + octave + 2**15, tol=0.5,
                halfway_tree=True, cache_size=DEPTH + 4,
            )  # fmt: skip
            self.trees[seed] = octave, tree
        return math.sqrt(2.0 ** (octave - DEPTH)) * self.trees[seed][1](0.0, cells)

    def __call__(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        start, end = (math.exp(-self.process.log_snr(u).item()) for u in (s, t))
        rows = []
        for seed in self.seeds:
            (low, up), shape = map(place, (start, end)), x.shape[1:]
            known, value = self.last.get(seed, (None, None))
            total = value if known == end else self.ascent(seed, *up, shape)
            for octave in range(up[0] - 1, low[0] - 1, -1):
                total = total + self.ascent(seed, octave, 2.0**DEPTH, shape)
            below = self.ascent(seed, *low, shape)
            self.last[seed] = start, below
            rows.append(total - below)
        return (torch.stack(rows) / math.sqrt(end - start)).to(x.device, x.dtype)


def place(tau: float) -> tuple[int, float]:
    mantissa, exponent = math.frexp(tau)
    return exponent - 1, float(round((2 * mantissa - 1) * 2**DEPTH))


def probes_per_item(x: Tensor, count: int) -> Tensor:
    keys, rows = item_seeds(0, PROBES, len(x)), []
    for key in keys:
        rows.append(np.random.Generator(np.random.Philox(key)).integers(0, 2, (count, *x.shape[1:])) * 2 - 1)
    return torch.from_numpy(np.stack(rows)).movedim(1, 0).to(x)


def whole(kind, law: str, x: Tensor, draws: int) -> Callable[[], None]:
    """A run: seeds, then the draws."""

    def run() -> None:
        noise = kind(range(len(x)))
        for _ in range(draws):
            getattr(noise, law)(x)

    return run


def brownian(kind, x: Tensor, steps: int) -> Callable[[], None]:
    process = VPSDE()
    times = GRIDS["log_snr"](process, steps)

    def run() -> None:
        noise = kind(range(len(x)), process)
        for t, s in pairwise(times):
            noise(x, t, s) if kind is OneTreePerSample else noise.between(t, s)(x)

    return run


def pairs(x: Tensor, draws: int) -> dict[str, tuple[Callable[[], object], Callable[[], object], int]]:
    """What is compared: before, now, and of how many draws a time is."""
    kinds = {}
    for name, law in (("normal", "__call__"), ("uniform", "uniform")):
        for count in (1, draws):
            kinds[f"{name}, run of {count}"] = (*(whole(k, law, x, count) for k in (OnePerSample, SeededNoise)), count)
    if x.numel() <= 2**16:
        kinds["Brownian, step"] = brownian(OneTreePerSample, x, draws), brownian(BrownianNoise, x, draws), draws
    kinds["8 probes"] = (lambda: probes_per_item(x, 8)), (lambda: draw_probes(x.shape, 8, 0, 0, device=x.device)), 1
    return kinds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device, results = torch.device(options.device), []
    print("| states | what | before, ms | now, ms | ratio |\n|---|---|---|---|---|")
    for title, shape in SHAPES.items():
        for what, (before, now, count) in pairs(torch.empty(shape, device=device), options.draws).items():
            taken: tuple[list[float], list[float]] = [], []
            for _ in range(2 if "Brownian" in what else options.repeats):
                for function, found in zip((before, now), taken, strict=True):
                    found.append(1e3 * seconds(function, device) / count)
            old, new = map(min, taken)
            results.append({"states": title, "what": what, "before_ms": old, "now_ms": new})
            print(f"| {title} | {what} | {old:.3f} | {new:.3f} | {new / old:.2f} |", flush=True)
    print(json.dumps({"device": str(device), "threads": torch.get_num_threads(), "results": results}))


if __name__ == "__main__":
    main()
