"""The beginning of a restoration: below the noise levels at which the posterior mean has left the law of the data."""

from typing import Any

import torch

from score_sde.restoration.methods import HELD
from score_sde.run.items import encoded_items
from sde import Denoiser
from sde.data import Dataset
from sde.model.law import noise_end

MAX_SIGNAL = 0.05
"""Largest alpha^2 var / sigma^2 at which a run may begin at the data's mean with noise: above, x_t shows the item."""
ITEMS = 64
"""Training items by which the noise end is found."""


class Beginning:
    """Where a run begins: ``start_time``, or None for the noise end, and a ``note`` for people, or None.

    A ``guided`` method reads D as data. Where D is further from them than their mean is, at the noise end, the run
    begins below it, at the data's mean with noise. It cannot where the times are ``fixed``, nor where x_t shows the
    item there; then the note warns.
    """

    def __init__(
        self, denoiser: Denoiser, training: Dataset, device: torch.device, *, fixed: bool, guided: str
    ) -> None:
        self.start_time: float | None = None
        self.note: str | None = None
        if guided in HELD or not len(training):
            return
        found = noise_end(denoiser, *encoded_items(training, ITEMS, denoiser, device))
        if found is None:
            return
        first, level = found
        said = (
            f"above sigma/alpha = {level.noise_level:.3g} the model's posterior means have left the law of the data "
            f"(at {first.noise_level:.3g} their standard deviation is {first.std:.3g}, that of the data "
            f"{first.data_std:.3g}, model units)"
        )
        if fixed or (level.data_std / level.noise_level) ** 2 > MAX_SIGNAL:
            why = "the times of --grid begin there" if fixed else "below it x_t shows the item already"
            ways = ["begin later"] * fixed + ["take --method mmps, which bears it best"] * (guided != "mmps")
            ways.append("train with config.model.parametrization=v or edm")
            self.note = f"{said}, and {why}: {', or '.join(ways)}"
            return
        self.start_time, self.mean = level.t, training.statistics.mean
        if training.transform.learned:
            self.mean = training.transform.decode(training.moments[0][None].float())[0].cpu()
        self.note = f"{said}: restoring begins there, at time {level.t:.3g}"

    def options(self, count: int) -> dict[str, Any]:
        """What ``generate`` takes for so many samples."""
        if self.start_time is None:
            return {}
        return {"start": self.mean.float().expand(count, *self.mean.shape), "start_time": self.start_time}
