"""The loss, denoising score matching, and how much each time counts."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sde.condition.tree import ConditionLike, as_tree, drop_conditions
from sde.data.draws import per_item
from sde.data.sizes import cut, item_means
from sde.data.transform import TransformLike
from sde.device import as_tensor, send
from sde.model.classifier import NoisyClassifier
from sde.model.denoiser import Denoiser
from sde.process.base import SDE
from sde.training.times import Times

MIN_SNR_GAMMA = 5.0
"""The gamma of min_snr: the paper's own, to which its results hardly react from 1 to 20, and that of all who use it."""

WEIGHTINGS: dict[str, Callable[[SDE, Tensor, float], Tensor]] = {
    # weight of |D - x_0|^2; |score - grad log q(x_t | x_0)|^2 is alpha^2 / sigma^4 of it
    "score": lambda sde, t, sigma_data: sde.log_snr(t).exp(),
    "likelihood": lambda sde, t, sigma_data: sde.g2(t) * sde.log_snr(t).exp() / sde.sigma(t) ** 2,
    "edm": lambda sde, t, sigma_data: sde.log_snr(t).exp() + sigma_data**-2,
    "min_snr": lambda sde, t, sigma_data: sde.log_snr(t).exp().clamp(max=MIN_SNR_GAMMA),
    "flow": lambda sde, t, sigma_data: (1 + (0.5 * sde.log_snr(t)).exp()).square(),
}
"""score: lambda = sigma^2 on the score's error (Song et al. 2021, section 3.3), E |sigma score + z|^2. likelihood:
lambda = g^2 (Song et al. 2021b, eq. 7), whose mean over uniform times, times (t_max - t_min) / 2, bounds the negative
log-likelihood up to a constant. edm: 1 / c_out^2 of Karras et al. 2022, table 1, so that the network's target has unit
variance at every noise level. min_snr: min(alpha^2 / sigma^2, gamma), gamma = 5 (Hang et al. 2023, section 3.4, whose
weight of the error in x_0 it is): on the noise's error it is min(gamma sigma^2 / alpha^2, 1). flow: ((alpha + sigma) /
sigma)^2, with which the loss is |F - (z - x_0)|^2 for F = E[z - x_0 | x_t], that of flow matching (Lipman et al. 2023,
eq. 23), on any process."""


def stratified(count: int, generator: torch.Generator) -> Tensor:
    """A uniform number in each of ``count`` equal parts of (0, 1), shuffled; float64 (Kingma et al. 2021, I.1)."""
    within = torch.rand(count, generator=generator, dtype=torch.float64, device="cpu")
    u = (torch.arange(count, device="cpu") + within) / count
    return u[torch.randperm(count, generator=generator, device="cpu")].clamp(1e-12, 1 - 1e-12)


class BatchNoise(NamedTuple):
    """Random numbers of some items of a batch: times ``t`` (B,) and their losses' factors (B,), float64 on the CPU, 0
    and 1 where there is no process; uniform ``u`` (B,), which decide on conditions; noise ``z`` (B, *event); and the
    items' ``seeds`` (B,). Of padded items ``sizes`` (B,) say how much of each is real."""

    t: Tensor
    factor: Tensor
    u: Tensor
    z: Tensor
    seeds: Tensor
    sizes: Tensor | None = None

    @classmethod
    def draw(
        cls,
        sde: SDE | None,
        shape: Sequence[int],
        generator: torch.Generator,
        times: str | Times = "log_normal",
        rows: slice = slice(None),
    ) -> "BatchNoise":
        """Those of ``rows`` of a batch of ``shape`` (B, *event), stratified over the whole batch; CPU generator. The
        distribution of the times is a ``Times``, or a key of TIMES."""
        count, event_shape, law = shape[0], shape[1:], Times.of(times)
        t = torch.zeros(count, dtype=torch.float64, device="cpu")[rows]
        factor = torch.ones_like(t)
        if sde is not None:
            t = law(sde, stratified(count, generator))[rows]
            factor = law.factor(sde, t)
        u = torch.rand(count, generator=generator, dtype=torch.float32, device="cpu")[rows]
        seeds = torch.randint(2**62, (count,), generator=generator, device="cpu")[rows]
        return cls(t, factor, u, per_item(torch.randn, seeds, event_shape), seeds)

    def noise(self, x0: Tensor) -> Tensor:
        """``z`` in the dtype and on the device of the items x0 (B, *event)."""
        return send(self.z.to(x0.dtype), x0.device)

    def in_cells(self, transform: TransformLike, dequantized: bool = True) -> Tensor | None:
        """Uniform numbers (B, *event) of the items' own, float32 on the CPU, that say where in their cells quantized
        values lie, or without ``dequantized`` one that says it is in the middle; None for continuous data."""
        if not transform.num_levels:
            return None
        if not dequantized:
            return torch.full((), 0.5, dtype=torch.float32, device="cpu")
        return per_item(torch.rand, self.seeds + 1, self.z.shape[1:])

    def of_posterior(self, transform: TransformLike) -> Tensor | None:
        """Normal numbers (B, *inner) of the items' own, float32 on the CPU, that say where in its posterior the latent
        of an item lies; None for a transform that is not learned."""
        return per_item(torch.randn, self.seeds + 3, self.z.shape[1:]) if transform.learned else None

    def encode(self, x: Tensor, transform: TransformLike, within: Tensor | None = None) -> Tensor:
        """Items x (B, *event), in data units and dequantized, in model units (B, *inner): of a learned transform a draw
        of its posterior, mean + std n with the normal numbers n = ``within``, by default ``of_posterior``."""
        return drawn(*transform.posterior(x), self.of_posterior(transform) if within is None else within)

    def dequantize(self, x: Tensor, transform: TransformLike, u: Tensor | None = None) -> Tensor:
        """The items x (B, *event), in data units, with uniform noise of their own where they are quantized: u, by
        default ``in_cells``."""
        u = self.in_cells(transform) if u is None else u
        return x if u is None else transform.dequantize(x, send(u, x.device))


def drawn(mean: Tensor, std: Tensor | None, n: Tensor | None) -> Tensor:
    """mean + std n, with normal numbers n of the shape of the mean from anywhere; the mean where there is no std."""
    return mean if std is None or n is None else mean + std * send(n.to(mean.dtype), mean.device)


def denoising_loss(
    model: Denoiser,
    x0: Tensor,
    cond: ConditionLike | None,
    draws: BatchNoise,
    *,
    weighting: str = "edm",
    cond_dropout: float = 0.0,
) -> Tensor:
    """Denoising score matching, w(t) |D(x_t, t, cond) - x_0|^2 per dimension (Vincent 2011; Song et al. 2021, eq. 7).

    x0 (B, *event) in model units -> the losses (B,), in float32; of padded items over what is real. The expectation
    is over the times' own distribution, which the weight does not undo unless it is one of IMPORTANCE. Each condition
    is dropped with probability ``cond_dropout``.
    """
    x0 = as_tensor(x0)
    # What is padded carries no noise, as in sampling.
    x = cut(model.sde.perturb(x0, draws.t, draws.noise(x0)), draws.sizes)
    if cond is not None and cond_dropout:
        cond = drop_conditions(cond, send(draws.u < cond_dropout, x0.device))
    errors = item_means((model(x, draws.t, cond) - x0).float().square(), draws.sizes)
    weight = WEIGHTINGS[weighting](model.sde, draws.t, model.sigma_data) * draws.factor
    return send(weight.to(errors.dtype), errors.device) * errors


def classifier_loss(classifier: NoisyClassifier, x0: Tensor, cond: ConditionLike, draws: BatchNoise) -> Tensor:
    """Cross-entropies (B,) in nats of the labels in cond at x_t; x0 (B, *event) in model units."""
    # As a guided model sees them, without noise where they are padded.
    x0 = as_tensor(x0)
    x = cut(classifier.sde.perturb(x0, draws.t, draws.noise(x0)), draws.sizes)
    labels = as_tree(cond)["labels"]
    losses = torch.nn.functional.cross_entropy(classifier(x, draws.t).float(), labels, reduction="none")
    return send(draws.factor.to(losses.dtype), losses.device) * losses
