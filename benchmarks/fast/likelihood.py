"""Likelihood: log-densities of images against the plain way, one solver of the host for the whole batch."""

from collections.abc import Iterator

import torch

from benchmarks.fast.subject import subject
from benchmarks.likelihood import PRICED, Priced, measure
from benchmarks.sections import Setting
from samplers import log_likelihood


def likelihood(setting: Setting) -> Iterator[dict]:
    """Log-likelihoods of 64 images at the price of the CIFAR-10 U-Net, of exact scores, against scipy's RK45."""
    held = subject("cifar10", setting, 64)
    # Adaptive solving is in full precision: so is the plain way.
    model = Priced(held.model).to(setting.device)
    x = model.exact.draw(held.batch, torch.Generator().manual_seed(1))
    exact = model.log_prob(x, torch.tensor(model.sde.t_min, dtype=torch.float64))
    ways = [*PRICED, "one probe at 1e-5"]
    log_likelihood(model, x, rtol=0.1, atol=0.1, probes=1)  # What a first call makes ready.
    found = measure(model, x, exact, 1, ways)
    slowest = found[ways[0]]["seconds"]
    for way, row in found.items():
        yield {
            "way": way,
            "rms error, nats/dim": row["rms"],
            "calls": row["nfe"],
            "s": row["seconds"],
            "times the speed of the first": slowest / row["seconds"],
        }
