"""The law of the data, which restored items must keep on the way and at its end."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from sde.data import Dataset
from sde.data.sizes import real
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
    before it is asked for. Of ``padded`` items what is real counts.
    """

    def __init__(self, data: Dataset, model, *, padded: bool = False) -> None:
        self.sde, self.padded = model.sde, padded
        self.event_shape: tuple[int, ...] = ()
        self.seen: list[Tensor] = []
        if not len(data):
            # As beside a pipeline, of which nobody has the data.
            self.mean = self.std = torch.zeros(())
            self.data_reach = self.reach = math.inf
            return
        statistics, (mean, var) = data.statistics, data.moments
        self.event_shape = tuple(mean.shape)
        ends = data.inner_ends
        encoded = replace(statistics, mean=mean, var=var)
        stds, whole = encoded.channels()[1], encoded.in_one_channel().channels()[1]
        stds = torch.where(stds > 1e-3 * whole, stds, whole)
        self.mean, self.std = mean, stds.view(-1, *[1] * max(0, mean.ndim - 1)).expand(mean.shape)
        reached = self._most(ends) if self.std.all() else None
        self.data_reach = math.inf if reached is None else reached.max().item()
        self.reach = max(MAX_REACH, MORE_THAN_DATA * self.data_reach)

    def _most(self, x: Tensor, alpha: float = 1.0, sigma: float = 0.0, inside: Tensor | None = None) -> Tensor:
        """How many standard deviations each of x (n, *event) in model units is from the mean, beyond its noise, where
        it is ``inside``."""
        mean, std = (send(values.to(x.dtype), x.device) for values in (self.mean, self.std))
        reached = ((x - alpha * mean).abs() - MAX_REACH * sigma) / (alpha * std)
        return (reached if inside is None else torch.where(inside, reached, -math.inf)).flatten(1).amax(1)

    def __call__(self, step: int, s: Tensor, x: Tensor) -> None:
        at = self.sde.level(s)
        if x.shape[1:] == self.event_shape and at.alpha > 0 and self.std.all():
            # What is padded is 0 in every state, exactly, and nothing else is.
            inside = x != 0 if self.padded else None
            self.seen.append(self._most(x, float(at.alpha), float(at.sigma), inside).max())

    def furthest(self, x: Tensor, sizes: Tensor | None = None) -> float:
        """The most standard deviations from the mean of the final samples x (n, *event) in model units, where they are
        real by their ``sizes`` (n,), and of their states on the way."""
        if x.shape[1:] != self.event_shape or not self.std.all():
            return math.nan
        inside = None if sizes is None else real(sizes, x.shape[1:])
        # Of float32 states infinity is the end of a divergence, and NaN what comes after it.
        every = (*self.seen, self._most(x, inside=inside).max())
        return max(one.cpu().double().nan_to_num(nan=math.inf).item() for one in every)

    def broken(self, furthest: float) -> str | None:
        """What there is to say of samples of which the ``furthest`` has left the law; None where none has."""
        if not furthest > self.reach:
            return None
        return (
            f"the samples leave the law of the data: {furthest:.3g} standard deviations from their mean, where the "
            f"data reach {self.data_reach:.3g}. They have diverged, however well they meet what was measured"
        )
