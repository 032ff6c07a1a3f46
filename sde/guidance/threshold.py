"""Thresholding of the posterior mean: it is held within the bounds of the data."""

import math

from torch import Tensor

from sde.data.transform import check_elementwise
from sde.device import send
from sde.model.score import ScoreModel, parts_of
from sde.process.coefficients import expand


class StaticThreshold(ScoreModel):
    """A posterior mean whose every entry is clipped to [low, high], as DDPM's samplers do (Saharia et al. 2022, section
    2.3).

    ``low`` and ``high`` are in data units, by default 0 and the transform's levels. The model need not be guided.
    Raises ValueError for continuous data without bounds, and for latents.
    """

    normalized = False
    with_rows = ("model",)

    def __init__(self, model: ScoreModel, low: float | None = None, high: float | None = None) -> None:
        super().__init__(*parts_of(model, "StaticThreshold"))
        check_elementwise(self.transform, "a threshold")
        self.model = model
        self.low, self.high = _bounds(self, low, high)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return send(self.transform.encode(self.transform.decode(self.model(x, t)).clamp(self.low, self.high)), x.device)


class DynamicThreshold(ScoreModel):
    """A posterior mean held within the data's bounds: u = (D - center) / half_width becomes clip(u, -s, s) / s, with s
    = max(1, the ``quantile`` of |u| over the sample's event) (Saharia et al. 2022, section 2.3, whose bounds are -1
    and 1).

    ``low`` and ``high`` are in data units, by default 0 and the transform's levels. Of n values, the quantile is the
    ceil(quantile n)-th smallest; 1 never clips, it only shrinks. The model need not be guided. Raises ValueError for a
    quantile outside (0, 1], for continuous data without bounds, and for latents.
    """

    normalized = False
    with_rows = ("model",)

    def __init__(
        self, model: ScoreModel, quantile: float = 0.995, low: float | None = None, high: float | None = None
    ) -> None:
        super().__init__(*parts_of(model, "DynamicThreshold"))
        check_elementwise(self.transform, "a threshold")
        if not 0 < quantile <= 1:
            raise ValueError(f"threshold quantile {quantile:g}: needs a number above 0 and at most 1")
        self.model = model
        self.quantile = quantile
        self.low, self.high = _bounds(self, low, high)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        center, half_width = (self.low + self.high) / 2, (self.high - self.low) / 2
        u = (self.transform.decode(self.model(x, t)) - center) / half_width
        sizes = u.flatten(1).abs()
        s = expand(sizes.kthvalue(math.ceil(self.quantile * sizes.shape[1]), 1).values.clamp(min=1), u)
        return send(self.transform.encode(center + half_width * u.clamp(-s, s) / s), x.device)


def _bounds(model: ScoreModel, low: float | None, high: float | None) -> tuple[float, float]:
    """The bounds in data units; those of data with levels, where none are given."""
    if low is None and high is None and model.transform.num_levels:
        low, high = 0.0, float(model.transform.num_levels)
    if low is None or high is None or not -math.inf < low < high < math.inf:
        raise ValueError(
            f"threshold bounds {low} and {high}: needs two finite numbers, the lower first, in the units of the data; "
            "only data with levels bring their own"
        )
    return low, high
