"""What holds guidance in check: the noise levels where it acts, the scale it may change, the bounds it stays within."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sde.guided import Guidance, pair_of
from sde.model import ScoreModel
from sde.process import expand


def _check_guided(guided: ScoreModel, name: str) -> None:
    if not isinstance(guided, Guidance):
        raise ValueError(
            f"{name} around {type(guided).__name__}, which is not guided: needs a Guidance, such as ClassifierFree, "
            "Classifier or Autoguidance"
        )


class GuidanceInterval(Guidance):
    """Guidance at the noise levels low < sigma / alpha <= high alone; the unguided base at others (Kynkaanniemi et al.
    2024, arXiv:2404.07724, whose sigma is sigma / alpha of any SDE).

    Levels are in model units. Raises ValueError for a model that is not guided, and for levels that the SDE never has.
    """

    def __init__(self, guided: Guidance, low: float = 0.0, high: float = math.inf) -> None:
        _check_guided(guided, "GuidanceInterval")
        super().__init__(guided.sde, guided.transform)
        least, most = self._levels(torch.tensor([self.sde.t_min, self.sde.t_max], dtype=torch.float64)).tolist()
        if not (0 <= low < high and low < most and high >= least):
            raise ValueError(
                f"guidance interval {low:g} to {high:g}: needs noise levels sigma / alpha with 0 <= low < high, of "
                f"which this process has {least:.3g} to {most:.3g}"
            )
        self.guided = guided
        self.base = guided.base
        self.low, self.high = low, high

    def _levels(self, t: Tensor) -> Tensor:
        return (-0.5 * self.sde.log_snr(t)).exp()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        # The base of a guided model may take network calls of its own.
        return self._called(lambda model, x, t: (model(x, t),), x, t)[0]

    def pair(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        base, guided = self._called(pair_of, x, t)
        return base, guided

    def _called(self, call: Callable[..., tuple[Tensor, ...]], x: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        """call(model, x, t) of the guided model at levels inside, of the base at others."""
        levels = self._levels(t)
        inside = (levels > self.low) & (levels <= self.high)
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

    def rows(self, index: Tensor | slice) -> "GuidanceInterval":
        return GuidanceInterval(self.guided.rows(index), self.low, self.high)


class Rescaled(Guidance):
    """Guidance that keeps the contrast of its base: D (1 - strength + strength std(D_base) / std(D)) (Lin et al. 2023,
    arXiv:2305.08891, eqs. 15 and 16, with their phi as ``strength``).

    D is the posterior mean whatever the network's parametrisation, where the paper has the network's output. The
    standard deviations are those over one sample's event, never over the batch, so that it is meant for events of many
    values, as images are. Raises ValueError for a model that is not guided, a strength outside [0, 1], and events of
    one value.
    """

    def __init__(self, guided: Guidance, strength: float = 0.7) -> None:
        _check_guided(guided, "Rescaled")
        super().__init__(guided.sde, guided.transform)
        if not 0 <= strength <= 1:
            raise ValueError(f"rescale strength {strength:g}: needs a number from 0, no change, to 1")
        self.guided = guided
        self.base = guided.base
        self.strength = strength

    def pair(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        if x[0].numel() < 2:
            raise ValueError(
                f"rescale for x of shape {tuple(x.shape)}: one value an event has no contrast to keep; leave it out"
            )
        base, guided = self.guided.pair(x, t)
        stds = [denoised.flatten(1).std(1, correction=0) for denoised in (base, guided)]
        return base, guided * expand(1 - self.strength + self.strength * stds[0] / stds[1], x)

    def rows(self, index: Tensor | slice) -> "Rescaled":
        return Rescaled(self.guided.rows(index), self.strength)


class DynamicThreshold(ScoreModel):
    """A posterior mean held within the data's bounds: u = (D - centre) / half_width becomes clip(u, -s, s) / s, with s
    = max(1, the ``quantile`` of |u| over the sample's event) (Saharia et al. 2022, section 2.3, whose bounds are -1
    and 1).

    ``low`` and ``high`` are in data units, by default 0 and the transform's levels. Of n values, the quantile is the
    ceil(quantile n)-th smallest; 1 never clips, it only shrinks. The model need not be guided. Raises ValueError for a
    quantile outside (0, 1], and for continuous data without bounds.
    """

    normalised = False

    def __init__(
        self, model: ScoreModel, quantile: float = 0.995, low: float | None = None, high: float | None = None
    ) -> None:
        super().__init__(model.sde, model.transform)
        if not 0 < quantile <= 1:
            raise ValueError(f"threshold quantile {quantile:g}: needs a number above 0 and at most 1")
        if low is None and high is None and self.transform.levels:
            low, high = 0.0, float(self.transform.levels)
        if low is None or high is None or not -math.inf < low < high < math.inf:
            raise ValueError(
                f"threshold bounds {low} and {high}: needs two finite numbers, the lower first, in the units of the "
                "data; only data with levels bring their own"
            )
        self.model = model
        self.quantile = quantile
        self.low, self.high = low, high

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        centre, half_width = (self.low + self.high) / 2, (self.high - self.low) / 2
        u = (self.transform.decode(self.model(x, t)) - centre) / half_width
        sizes = u.flatten(1).abs()
        s = expand(sizes.kthvalue(math.ceil(self.quantile * sizes.shape[1]), 1).values.clamp(min=1), u)
        return self.transform.encode(centre + half_width * u.clamp(-s, s) / s)

    def rows(self, index: Tensor | slice) -> "DynamicThreshold":
        return DynamicThreshold(self.model.rows(index), self.quantile, self.low, self.high)
