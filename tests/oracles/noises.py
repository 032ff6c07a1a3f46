"""Noises that are told, for steps whose answer is known."""

import numpy as np
import torch


def unit(x):
    return torch.ones_like(x)


def nothing(x):
    return torch.zeros_like(x)


def never(x):
    raise AssertionError("drew noise")


def clock(sde, t):
    """sigma^2 / alpha^2, in 21 binary digits, as paths have it."""
    mantissa, exponent = torch.frexp((-sde.log_snr(t)).exp())
    return torch.ldexp((mantissa * 2**21).round(), exponent - 21)


def of_then(noise, x):
    """Normal numbers of SeededNoise in versions that are older than its Box-Muller numbers, in its place."""
    if not hasattr(noise, "then"):
        noise.then = [np.random.Generator(np.random.Philox(seed)) for seed in noise.seeds]
    rows = [generator.standard_normal(x.shape[1:], np.float32) for generator in noise.then]
    return torch.from_numpy(np.stack(rows)).to(x.device, x.dtype)
