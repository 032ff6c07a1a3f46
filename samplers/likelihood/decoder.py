"""Decoders: p(x | z_0), how a variational bound reads the data off the least noisy variable."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from samplers.checks import choose
from samplers.host import double
from samplers.padding import real, real_counts
from samplers.protocol import transform_of

DECODERS = ("gaussian", "discretized")
"""p(x | z_0): a normal density around z_0 / alpha, or probabilities of the integers, normalized over the levels."""

CELL_SHARE = 0.3
"""sigma / alpha at which the integers are read off z_0, in cells: less spends nats on where in its cell a pixel lies,
which the integer does not say; more leaves the integer to a decoder that sees one dimension at a time."""


def choose_decoder(decoder: str | None, model) -> str:
    """decoder, or the one that the model's data ask for. Raises ValueError for another, or discretized without
    levels."""
    num_levels = transform_of(model).num_levels
    if decoder is None:
        return "discretized" if num_levels else "gaussian"
    if choose("decoder", decoder, DECODERS) == "discretized" and not num_levels:
        raise ValueError("decoder = 'discretized': the model's transform declares continuous data; needs 'gaussian'")
    return decoder


def start_of(model, decoder: str, event_shape: Sequence[int]) -> float:
    """The time of z_0 unless told otherwise."""
    if decoder == "gaussian":
        return model.sde.t_min
    sde, ratio = model.sde, CELL_SHARE / transform_of(model).cells_per_unit(event_shape).max().item()
    low, high = (sde.log_snr(double(t)).item() for t in (sde.t_max, sde.t_min))
    return max(sde.t_min, sde.t_of_log_snr(double(min(max(-2 * math.log(ratio), low), high))).item())


def gaussian_log_prob(model, x: Tensor, t: Tensor, sizes: Tensor | None = None) -> Tensor | float:
    """E log N(x; z_0 / alpha, (sigma / alpha)^2) in data units, -dim log(2 pi e sigma^2 / alpha^2) / 2 + log det; x
    (B, *event) in data units, of these ``sizes`` (B,) with a value of each."""
    constant = math.log(2 * math.pi * math.e) - model.sde.log_snr(t).item()
    dim = x[0].numel() if sizes is None else real_counts(sizes, x.shape[1:])
    return -0.5 * dim * constant + checked_log_det(model, x.shape[1:], sizes)


def checked_log_det(model, event_shape: Sequence[int], sizes: Tensor | None = None) -> Tensor | float:
    """The log-determinant of the model's transform; of items of these ``sizes`` (B,) that of what is real of each, in
    float64. Raises ValueError where it has none."""
    transform = transform_of(model)
    found = transform.log_det(tuple(event_shape))
    if found is None:
        raise ValueError(
            "the model's transform has no log_det, as one into latents: the exact likelihood of the data is an "
            "integral over all latents, which nobody can take; ask evidence_bound for a lower bound of it, or "
            "state_log_likelihood for that of a latent"
        )
    if sizes is not None:
        entries = -transform.cells_per_unit(tuple(event_shape)).log()
        return torch.where(real(sizes, event_shape), entries, 0).flatten(1).sum(1)
    return found


def level_log_prob(z: Tensor, std: Tensor, level: Tensor, levels: int) -> Tensor:
    """log p(level | z_0) where z_0 / alpha lies std z cells from the level's center: z, level of one shape.

    log softmax of -(j - std z)^2 / (2 std^2) over j, summed over the levels within 9 std of z_0, as others are lost.
    """
    # std stays on the CPU until its largest is known, so that no device is waited for.
    reach = math.ceil(9 * std.max().item()) + 1
    std = std.to(z)
    away = std * z
    nearest = (level + away).round().clamp(0, levels - 1) - level
    total = torch.full_like(z, -torch.inf)
    for offset in range(-min(reach, levels), min(reach, levels) + 1):
        j = nearest + offset
        inside = (level + j >= 0) & (level + j < levels)
        # (j - away)^2 / std^2 - z^2, without the cancellation.
        term = torch.where(inside, -0.5 * (j / std) * (j / std - 2 * z), -torch.inf)
        total = torch.logaddexp(total, term)
    return -total
