"""The loss of an autoencoder: reconstruction, the rate of its latents, and a distance in features."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sde.autoencoder.base import Autoencoder
from sde.data.sizes import item_means

RECONSTRUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"l1": torch.abs, "l2": torch.square}
"""What is averaged over the entries of an error."""

Features = Callable[[Tensor], list[Tensor]]
"""Items y (B, *event), in the autoencoder's units, -> activations (B, channels, *space) of a network, of one layer or
several."""


def kl_divergence(mean: Tensor, std: Tensor) -> Tensor:
    """KL(N(mean, diag(std^2)) || N(0, I)) in nats, (B,), of (B, *latent): the sum of
    (mean^2 + std^2 - 1) / 2 - log std (Kingma and Welling 2014, appendix B)."""
    return (0.5 * (mean.square() + std.square() - 1) - std.log()).flatten(1).sum(1)


def perceptual_distance(features: Features, y: Tensor, other: Tensor) -> Tensor:
    """The mean squared difference (B,) of two batches of items in features whose channels have unit length at every
    position, summed over the layers (Zhang et al. 2018, eq. 1, without learned weights)."""

    def units(x: Tensor) -> list[Tensor]:
        return [a / a.square().sum(1, keepdim=True).add(1e-10).sqrt() for a in features(x)]

    with torch.no_grad():
        wanted = units(y)
    pairs = zip(wanted, units(other), strict=True)
    return sum(((a - b).square().sum(1).flatten(1).mean(1) for a, b in pairs), start=y.new_zeros(len(y)))


@dataclass(frozen=True)
class AutoencoderLoss:
    """``reconstruction``, a key of RECONSTRUCTIONS, averaged over the entries of an item; ``kl_weight`` times the
    divergence of the posterior from N(0, I), in nats per entry of an item, of encoders that have a posterior; and
    ``perceptual_weight`` times the distance in features, where some are given. Raises ValueError for an unknown
    reconstruction, and for weights below 0.

    With l2 and kl_weight = 2 s^2 it is the negative evidence bound of p(y | z) = N(decode(z), s^2), times 2 s^2 over
    the entries of an item, but for a constant (Kingma and Welling 2014, eq. 10).
    """

    reconstruction: str = "l2"
    kl_weight: float = 1e-4
    perceptual_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.reconstruction not in RECONSTRUCTIONS:
            raise ValueError(f"reconstruction = {self.reconstruction!r}: needs one of {', '.join(RECONSTRUCTIONS)}")
        for name in ("kl_weight", "perceptual_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)}: needs a number from 0")

    def __call__(
        self,
        autoencoder: Autoencoder,
        y: Tensor,
        noise: Tensor,
        sizes: Tensor | None = None,
        features: Features | None = None,
    ) -> Tensor:
        """The losses (B,) of items y (B, *event), in the autoencoder's units, with standard normal ``noise`` (B,
        *latent); ``sizes`` (B,) are those of padded items."""
        decoded, mean, std = autoencoder(y, noise)
        deterministic = getattr(autoencoder, "module", autoencoder).deterministic
        losses = item_means(RECONSTRUCTIONS[self.reconstruction](decoded - y), sizes)
        if self.kl_weight and not deterministic:
            losses = losses + self.kl_weight / y[0].numel() * kl_divergence(mean, std)
        if self.perceptual_weight and features is not None:
            losses = losses + self.perceptual_weight * perceptual_distance(features, y, decoded)
        return losses
