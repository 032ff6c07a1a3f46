"""Noise on conditions: a condition image or vector with noise of a level that the network is told.

A stage of a cascade is conditioned in training on data, and in sampling on what another model drew of them. With noise
on either, of a level that it knows, it need not believe what is finer than the noise (Ho et al. 2022, section 4.2;
Saharia et al. 2022, section 2.3 and algorithm 1).
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from sde.condition.tree import CONDITION_NOISE, FEATURES, Condition
from sde.device import send

NOISED = ("image", "vector")
"""The kinds that noise can be on, of which a condition has it on the first that there is."""


def noised_kind(kinds: Iterable[str]) -> str | None:
    """The kind that noise is on, among the kinds of a condition; None where there is none of NOISED."""
    kinds = tuple(kinds)
    return next((kind for kind in NOISED if kind in kinds), None)


def with_noise(cond: Condition, kind: str, level: Tensor, scale: Tensor | Sequence[float], n: Tensor) -> Condition:
    """The condition with noise of a ``level`` (B,) on the rows of a kind, and that level beside it:

        c + sqrt(level^2 - told^2) scale n,

    where ``told`` is the level of the noise that it has already, 0 where it does not say; ``scale`` (features,), the
    standard deviations of the features, are what a level of 1 is; and n, of the shape of c, are normal numbers. The
    level becomes (B, 1), NaN for null. Raises ValueError for a condition with more noise than asked for.
    """
    c, missing = cond[kind], level.double()
    if CONDITION_NOISE in cond:
        told = cond[CONDITION_NOISE].double().cpu()[:, 0].nan_to_num()
        missing = level.double().square() - told.square()
        if (missing < -1e-6 * told.square()).any():
            raise ValueError(f"the condition {kind!r} has noise of level {told.max():g} already: ask for that at least")
        missing = missing.clamp(min=0).sqrt()
    null = c.flatten(1).isnan().any(1, keepdim=True)
    if missing.any():
        scale = send(torch.as_tensor(scale).to(c.dtype), c.device)
        scale = scale.view(-1, *[1] * (c.ndim - 1 - FEATURES[kind]))
        each = send(missing.to(c.dtype), c.device).view(-1, *[1] * (c.ndim - 1))
        c = c + each * scale * send(n.to(c.dtype), c.device)
    told = send(level.float(), c.device)[:, None]
    return type(cond)(cond | {kind: c, CONDITION_NOISE: torch.where(null, torch.nan, told)})
