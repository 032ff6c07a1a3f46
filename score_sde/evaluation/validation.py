"""Validation: held-out losses by noise level, and how near samples are to the training data."""

import torch
from torch import Tensor

from samplers.calls import evaluating
from sde.condition.tree import map_condition, restrict_to
from sde.data.dataset import Dataset
from sde.data.statistics import spread
from sde.model.denoiser import Denoiser
from sde.process.base import SDE
from sde.training.loss import WEIGHTINGS, BatchNoise, denoising_loss
from sde.training.times import Times

SEED = 0
"""Seed of times, noise and dequantization: the same in every run, so that runs can be compared."""
MAX_TRAINING_ITEMS = 20_000
"""Training items at most among which the nearest is sought."""
NUMBERS_AT_ONCE = 2**24
"""Numbers of the training items that are compared at a time."""


class Validation:
    """Measurements on at most ``limit`` held-out items, spread over the set, ``batch_size`` at a time.

    Times, noise and dequantization of an item are the same every time. They and the items are made again for each
    measurement, so that large events take no memory in between. ``times`` and ``weighting`` are those of training.
    """

    def __init__(
        self,
        held_out: Dataset,
        training: Dataset,
        sde: SDE,
        times: str | Times,
        weighting: str,
        device: torch.device,
        limit: int = 1000,
        bins: int = 8,
        batch_size: int = 100,
    ) -> None:
        self.held_out, self.training, self.sde, self.device = held_out, training, sde, device
        self.times, self.weighting, self.bins, self.batch_size = times, weighting, bins, batch_size
        self.index = spread(len(held_out), limit)

    @torch.no_grad()
    def losses(self, module: Denoiser) -> dict:
        """``"loss"``, the mean weighted as in training, and ``"by_noise"``, for bins of equally many items the
        geometric mean ``"noise_level"`` of sigma / alpha and the mean ``"loss"``

            (1 / sigma_data^2 + alpha^2 / sigma^2) |D(x_t, t, cond) - x_0|^2 per dimension,

        whose weight is 1 / c_out^2 of Karras et al. 2022, table 1. It says the same at every noise level: 1 is the
        linear denoiser c_skip x, which knows no more of the data than their mean square sigma_data^2, and 0 is x_0
        itself. (E |sigma score + z|^2 would vanish towards the noise for any model.)
        """
        starts = range(0, len(self.index), self.batch_size)
        with evaluating(module):
            parts = [self._errors(module, slice(start, start + self.batch_size)) for start in starts]
        loss, error, log_sigma = (torch.cat(values) for values in zip(*parts, strict=True))
        bins = log_sigma.argsort().tensor_split(min(self.bins, len(loss)))
        by_noise = [{"noise_level": log_sigma[b].mean().exp().item(), "loss": error[b].mean().item()} for b in bins]
        return {"loss": loss.mean().item(), "by_noise": by_noise}

    def _errors(self, module: Denoiser, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Losses, errors over c_out^2 and log(sigma / alpha) of some of the items, float64 on the CPU."""
        index = self.index[rows]
        shape = (len(self.index), *self.held_out.inner_shape)
        generator = torch.Generator().manual_seed(SEED)
        draws = BatchNoise.draw(self.sde, shape, generator, self.times, rows)
        x, cond = self.held_out.batch(index, draws.seeds)
        draws = draws._replace(sizes=self.held_out.sizes_of(index))
        transform = self.held_out.transform
        cond = map_condition(lambda c: c.to(self.device), restrict_to(cond, module))
        u = draws.in_cells(transform, self.held_out.dequantized)
        x0 = draws.encode(draws.dequantize(x, transform, u), transform).to(self.device)
        loss = denoising_loss(module, x0, cond, draws, weighting=self.weighting).cpu().double()
        weight, wanted = (WEIGHTINGS[name](self.sde, draws.t, module.sigma_data) for name in (self.weighting, "edm"))
        return loss, loss * wanted / (weight * draws.factor), -0.5 * self.sde.log_snr(draws.t)

    @torch.no_grad()
    def nearest(self, samples: Tensor) -> dict:
        """Distances of samples (n, *event), in data units, to their nearest training item, as ``"median"`` and
        ``"smallest"``; the same of n held-out items, ``"held_out_median"`` and ``"held_out_smallest"``; and the
        ``"ratio"`` of the medians, near 1 for samples as new as held-out items and near 0 for copies (None where the
        held-out median is 0).

        A distance is the root mean square over the dimensions, in units of
        the data's own transform. The nearest is sought among 20,000
        training items at most, spread over the set.
        """
        held_out, _ = self.held_out.batch(spread(len(self.held_out), len(samples)))
        distances = self._distances(torch.cat([samples.to(held_out), held_out]))
        own, other = distances.tensor_split([len(samples)])
        median, real = own.quantile(0.5).item(), other.quantile(0.5).item()
        return {
            "median": median,
            "smallest": own.min().item(),
            "held_out_median": real,
            "held_out_smallest": other.min().item(),
            "ratio": median / real if real else None,
        }

    def _distances(self, x: Tensor) -> Tensor:
        x = self._vectors(x)
        nearest = x.new_full((len(x),), torch.inf)
        for index in spread(len(self.training), MAX_TRAINING_ITEMS).split(max(1, NUMBERS_AT_ONCE // x.shape[1])):
            items = self._vectors(self.training.batch(index)[0])
            # Distances by matrix products have no digits left where they are small.
            distances = torch.cdist(x, items, compute_mode="donot_use_mm_for_euclid_dist")
            nearest = nearest.minimum(distances.min(1).values)
        return (nearest / x.shape[1] ** 0.5).cpu()

    def _vectors(self, x: Tensor) -> Tensor:
        return self.held_out.transform.outer.encode(x).to(self.device).flatten(1)
