"""Guidance interval: guidance at some noise levels only."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sde.device import double
from sde.guidance.base import Guidance, check_guided, pair_of
from sde.model.score import ScoreModel


class GuidanceInterval(Guidance):
    """Guidance at the noise levels low < sigma / alpha <= high alone; the unguided base at others (Kynkaanniemi et al.
    2024, arXiv:2404.07724, whose sigma is sigma / alpha of any SDE).

    Levels are in model units. Raises ValueError for a model that is not guided, and for levels that the SDE never has.
    """

    with_rows = ("base", "guided")

    def __init__(self, guided: ScoreModel, low: float = 0.0, high: float = math.inf) -> None:
        guided = check_guided(guided, "GuidanceInterval")
        super().__init__(guided.sde, guided.transform)
        least, most = self.sde.noise_level(double([self.sde.t_min, self.sde.t_max])).tolist()
        if not (0 <= low < high and low < most and high >= least):
            raise ValueError(
                f"guidance interval {low:g} to {high:g}: needs noise levels sigma / alpha with 0 <= low < high, of "
                f"which this process has {least:.3g} to {most:.3g}"
            )
        self.guided = guided
        self.base = guided.base
        self.low, self.high = low, high

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        # The base of a guided model may take network calls of its own.
        return self._called(lambda model, x, t: (model(x, t),), x, t)[0]

    def pair(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        base, guided = self._called(pair_of, x, t)
        return base, guided

    def _called(self, call: Callable[..., tuple[Tensor, ...]], x: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        """call(model, x, t) of the guided model at levels inside, of the base at others."""
        level = self.sde.level(t).noise_level
        if isinstance(level, float):
            return call(self.guided if self.low < level <= self.high else self.base, x, t)
        inside = (level > self.low) & (level <= self.high)
        if inside.all():
            return call(self.guided, x, t)
        if not inside.any():
            return call(self.base, x, t)
        within, without = inside.nonzero().squeeze(1), (~inside).nonzero().squeeze(1)
        parts = (
            call(self.guided.rows(within), x[within], t[within]),
            call(self.base.rows(without), x[without], t[without]),
        )
        order = torch.cat([within, without]).argsort()
        return tuple(torch.cat(values)[order] for values in zip(*parts, strict=True))
