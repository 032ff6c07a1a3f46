"""Rescaled guidance: its contrast brought back to that of its base."""

import torch
from torch import Tensor

from sde.guidance.base import Guidance, check_guided
from sde.model.score import ScoreModel
from sde.process.coefficients import expand


class GuidanceRescale(Guidance):
    """Guidance that keeps the contrast of its base: D (1 - strength + strength std(D_base) / std(D)) (Lin et al. 2023,
    arXiv:2305.08891, eqs. 15 and 16, with their phi as ``strength``).

    D is the posterior mean whatever the network's parametrization, where the paper has the network's output. The
    standard deviations are those over one sample's event, never over the batch, so that it is meant for events of many
    values, as images are. Where D has no contrast, but for rounding, there is none to bring back: it stays as it is.
    Raises ValueError for a model that is not guided, a strength outside [0, 1], and events of one value.
    """

    with_rows = ("base", "guided")

    def __init__(self, guided: ScoreModel, strength: float = 0.7) -> None:
        guided = check_guided(guided, "GuidanceRescale")
        super().__init__(guided.sde, guided.transform)
        if not 0 <= strength <= 1:
            raise ValueError(f"rescale strength {strength:g}: needs a number from 0, no change, to 1")
        self.guided = guided
        self.base = guided.base
        self.strength = strength

    def pair(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        if x[0].numel() < 2:
            raise ValueError(
                f"rescale for x of shape {tuple(x.shape)}: one value per event has no contrast to keep; leave it out"
            )
        base, guided = self.guided.pair(x, t)
        (kept, known), (found, some) = contrast(base), contrast(guided)
        ratio = torch.where(some, torch.where(known, kept, 0) / found, 1)
        return base, guided * expand(1 - self.strength + self.strength * ratio, x)


def contrast(denoised: Tensor) -> tuple[Tensor, Tensor]:
    """The standard deviation over each event (B,), and whether it is more than the rounding of the event's values;
    where it is not, 1 stands for it, so that neither a ratio nor a gradient becomes NaN."""
    flat = denoised.flatten(1)
    variance = flat.var(1, correction=0)
    rounding = 8 * torch.finfo(flat.dtype).eps * flat.abs().amax(1)
    some = variance > rounding**2
    return torch.where(some, variance, 1).sqrt(), some
