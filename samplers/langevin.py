"""Langevin dynamics: the corrector, and annealed Langevin sampling."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplers.checks import check_integer
from samplers.numerics.transition import alpha_ratio
from samplers.padding import row_means
from samplers.renamed import renamed_arguments
from samplers.step import Noise, Result


@renamed_arguments(corrections="corrector_steps")
@dataclass(frozen=True)
class Langevin:
    """Corrector: ``corrector_steps`` times x + e score(x, s) + sqrt(2 e) z, at the arrival time s, as in the paper's
    algorithm 1; t is not used, so that the step depends on the noise level alone, not on the grid.

    The step size follows the signal-to-noise rule e = 2 snr^2 E|z|^2 / |score|^2 (Song et al. 2021, algorithms 4 and
    5), with these deviations from the paper. The score's norm is a sample's own, where the paper's code averages norms
    over the batch: a sample does not depend on its batch-mates. For |z|^2 stands its mean, the dimension, since a step
    that grows with its own noise inflates the variance in low dimensions. Algorithm 5's factor alpha for VP is left
    out, as e is already relative to the score. And e <= sigma^2: curvatures of log p_s are at least -1 / sigma^2, so
    that this bound keeps a step from overshooting where the score is small, near a mode.
    """

    snr: float = 0.16
    corrector_steps: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.snr < math.inf:
            raise ValueError(f"snr = {self.snr}: needs a positive number")
        check_integer("corrector_steps", self.corrector_steps, 0)

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise: Noise, carry=None) -> Result:
        """x (B, *event) at time s stays at time s; ``corrector_steps`` network calls."""
        bound = model.sde.level(s).sigma ** 2
        for _ in range(self.corrector_steps):
            score = model.score(x, s)
            mean_square = row_means(score.square(), model)
            size = (2 * self.snr**2 / mean_square).clamp(max=bound).view(-1, *[1] * (x.ndim - 1))
            x = torch.addcmul(torch.addcmul(x, size, score), (2 * size).sqrt(), noise(x))
        return x, carry


@renamed_arguments(corrections="corrector_steps")
@dataclass(frozen=True)
class AnnealedLangevin:
    """Annealed Langevin dynamics (Song and Ermon 2019, algorithm 1): at each noise level, ``corrector_steps`` times
    x + e score(x, s) + sqrt(2 e) z with e = step_size sigma^2.

    A step t -> s acts at its arrival time s, as the paper does at each level it comes to, the last among them. The
    paper also acts at the first level, where it starts from any x; here x starts from the prior, that level's law.
    Between levels x / alpha is kept, which for VE leaves x alone, as in the paper, and makes the method valid for any
    SDE. The step size is the paper's, alpha_i / 2, but relative to the level's own sigma^2 alone: it depends neither on
    the last level nor on the number of levels nor on batch-mates. What is left at many levels is the error of the
    discretized dynamics, which no number of levels removes.
    """

    step_size: float = 0.3
    corrector_steps: int = 3
    order: ClassVar[float] = 0
    steps: ClassVar[int] = 200
    grid: ClassVar[str] = "log_snr"

    def __post_init__(self) -> None:
        # Above 2 the dynamics of a Gaussian of variance sigma^2 diverge.
        if not 0 < self.step_size < 2:
            raise ValueError(f"step_size = {self.step_size}: needs a number between 0 and 2, in units of sigma^2")
        check_integer("corrector_steps", self.corrector_steps)

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise: Noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; ``corrector_steps`` network calls."""
        start, end = model.sde.level(t), model.sde.level(s)
        x = alpha_ratio(end, start) * x
        size = self.step_size * end.sigma**2
        for _ in range(self.corrector_steps):
            moved = torch.add(x, model.score(x, s), alpha=size)
            x = torch.add(moved, noise(x), alpha=(2 * size) ** 0.5)
        return x, carry
