"""The law of the data that a posterior mean must keep, and the noise levels at which a model's does not."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sde.condition.tree import ConditionLike
from sde.data.sizes import cut
from sde.device import wide
from sde.model.score import ScoreModel

MAX_STD, MAX_ERROR = 1.1, 1.2
"""Standard deviation of D over that of the data above which D has left their law; and its mean square error over that
of their mean up to which it keeps it."""


class LawAtLevel(NamedTuple):
    """At time ``t`` with its ``noise_level`` sigma / alpha: ``error``, E|D - x_0|^2 / E|m - x_0|^2 with the mean m of
    the data, which no posterior mean has above 1; and the standard deviations about m of D and of the data, ``std`` and
    ``data_std``, in model units, of which the first is at most the second (law of total variance)."""

    t: float
    noise_level: float
    error: float
    std: float
    data_std: float

    @property
    def left(self) -> bool:
        """Whether D is spread more than the data are, and so has left their law."""
        return not self.std <= MAX_STD * self.data_std

    @property
    def kept(self) -> bool:
        """Whether D is as close to the data as their mean is, which knows nothing of x_t."""
        return self.error <= MAX_ERROR


def law_by_level(
    model: ScoreModel,
    x0: Tensor,
    cond: ConditionLike | None = None,
    count: int = 25,
    seed: int = 0,
    sizes: Tensor | None = None,
) -> Iterator[LawAtLevel]:
    """The law of D at ``count`` times, evenly from t_max down, for items x0 (B, *event) in model units and their
    conditions; each level is measured when it is asked for. Of padded items, by their ``sizes`` (B,), the entries count
    that are real, and the model sees 0 elsewhere, as in training.

    Of a network that predicts noise with error e, D = (x - sigma F) / alpha is off by sigma e / alpha: right for steps,
    which multiply D by alpha, and wrong for all that reads D as data, such as a measurement's residual. Yields nothing
    for data that are all the same.
    """
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(x0.shape, generator=generator, dtype=x0.dtype).to(x0.device)
    x0, z = cut(x0, sizes), cut(z, sizes)
    inside = cut(torch.ones_like(x0), sizes)
    clean, counted = wide(x0), wide(inside)
    mean = clean.sum(0) / counted.sum(0).clamp(min=1)

    def square(difference: Tensor) -> float:
        return (cut(difference, sizes).square().sum() / counted.sum()).item()

    variance = square(clean - mean)
    if not variance:
        return
    for t in torch.linspace(model.sde.t_max, model.sde.t_min, count, dtype=torch.float64):
        at = model.sde.level(t)
        if not at.alpha > 0:
            continue
        x = model.sde.perturb(x0, t, z)
        with torch.no_grad():
            denoised = wide(model(x, t) if cond is None else model(x, t, cond))
        error, spread = square(denoised - clean), square(denoised - mean)
        yield LawAtLevel(t.item(), float(at.noise_level), error / variance, spread**0.5, variance**0.5)


def noise_end(
    model: ScoreModel, x0: Tensor, cond: ConditionLike | None = None, sizes: Tensor | None = None
) -> tuple[LawAtLevel, LawAtLevel] | None:
    """The noisiest level and, below it, the first at which D keeps the law of the data; None where D has not left it at
    the noisiest, or there is no such level."""
    levels = law_by_level(model, x0, cond, sizes=sizes)
    first = next(levels, None)
    if first is None or not first.left:
        return None
    kept = next((level for level in levels if level.kept), None)
    return None if kept is None else (first, kept)
