"""The law of the data, which restored items must keep on the way and at its end."""

import math

import torch
from torch import Tensor

from sde.data import Dataset
from sde.device import send

MAX_REACH, MORE_THAN_DATA = 8.0, 1.5
"""Standard deviations from the data's mean, and multiples of what the data themselves reach, that samples must pass
both to have left the law of the data."""


class Law:
    """The means m and the standard deviations d of data, and how far samples may be: |x_t - alpha m| <= alpha reach d +
    MAX_REACH sigma in every entry, with ``reach`` the larger of MAX_REACH and MORE_THAN_DATA times ``data_reach``, the
    furthest of the data. A channel has one d; one that is constant that of all channels.

    A callback of ``generate``: each state is compared with the law of noised data at its time, and ``furthest`` is the
    most of (|x_t - alpha m| - MAX_REACH sigma) / (alpha d) that any of the samples had. Nothing is read from the device
    before it is asked for.
    """

    def __init__(self, data: Dataset, model) -> None:
        statistics, (mean, var) = data.statistics, data.moments
        self.sde, self.event_shape = model.sde, tuple(mean.shape)
        channels = mean.shape[0] if mean.ndim else 1

        def spread_over(values: Tensor) -> Tensor:
            return values.sqrt().view(-1, *[1] * max(0, mean.ndim - 1)).expand(mean.shape)

        whole = (var.mean() + mean.var(correction=0)).expand(channels)
        by_channel = var.reshape(channels, -1).mean(1) + mean.reshape(channels, -1).var(1, correction=0)
        self.mean, self.std = mean, spread_over(torch.where(by_channel > 1e-6 * whole, by_channel, whole))
        ends = [data.transform.encode(end[None])[0] for end in (statistics.smallest, statistics.largest)]
        self.data_reach = self._most(torch.stack(ends)).max().item() if self.std.all() else math.inf
        self.reach = max(MAX_REACH, MORE_THAN_DATA * self.data_reach)
        self.seen: list[Tensor] = []

    def _most(self, x: Tensor, alpha: float = 1.0, sigma: float = 0.0) -> Tensor:
        """How many standard deviations each of x (n, *event) in model units is from the mean, beyond its noise."""
        mean, std = (send(values.to(x.dtype), x.device) for values in (self.mean, self.std))
        return (((x - alpha * mean).abs() - MAX_REACH * sigma) / (alpha * std)).flatten(1).amax(1)

    def __call__(self, step: int, s: Tensor, x: Tensor) -> None:
        at = self.sde.level(s)
        if x.shape[1:] == self.event_shape and at.alpha > 0 and self.std.all():
            self.seen.append(self._most(x, float(at.alpha), float(at.sigma)).max())

    def furthest(self, x: Tensor) -> float:
        """The most standard deviations from the mean of the final samples x (n, *event) in model units, and of their
        states on the way."""
        if x.shape[1:] != self.event_shape or not self.std.all():
            return math.nan
        # Of float32 states infinity is the end of a divergence, and NaN what comes after it.
        values = [one.double().nan_to_num(nan=math.inf).item() for one in (*self.seen, self._most(x).max())]
        return max(values)

    def broken(self, furthest: float) -> str | None:
        """What there is to say of samples of which the ``furthest`` has left the law; None where none has."""
        if not furthest > self.reach:
            return None
        return (
            f"the samples leave the law of the data: {furthest:.3g} standard deviations from their mean, where the "
            f"data reach {self.data_reach:.3g}. They have diverged, however well they meet what was measured"
        )
