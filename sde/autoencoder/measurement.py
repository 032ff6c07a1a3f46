"""The measurement of latents: their shift and scale over items, and the noise of the data around what is decoded."""

from dataclasses import replace

import torch

from sde.autoencoder.base import Autoencoder
from sde.autoencoder.transform import LatentTransform
from sde.data import Dataset

SCALES = ("channel", "common")
"""Each channel of the latents by its own standard deviation; or all by that of all of them, about the channels' means,
so that white noise in latents stays white in the autoencoder's own."""


def standardized(autoencoder: Autoencoder, data: Dataset, scale: str = "channel") -> LatentTransform:
    """The transform of items such as those of ``data`` into latents of mean 0 and, as ``scale`` says, one of SCALES,
    standard deviation 1, behind the data's own transform as ``outer``.

    Measured are draws of the posterior over as many items as ``Dataset.moments`` takes; and where the autoencoder does
    not know its ``noise_std``, that of each channel of the data, the root mean square of what it does not reconstruct.
    Raises ValueError for another ``scale``, for items that the autoencoder does not take, and for latents that do not
    vary.
    """
    if scale not in SCALES:
        raise ValueError(f"scale = {scale!r}: needs one of {', '.join(SCALES)}")
    found = LatentTransform(autoencoder, data.transform.outer)
    inside = in_latents(data, found)
    mean, var = (x.reshape(x.shape[0], -1) for x in inside.moments)
    shift = mean.mean(1)
    variance = (var + (mean - shift[:, None]).square()).mean(1)
    if scale == "common":
        variance = variance.mean().expand(variance.shape)
    constant = (~(variance > 0)).nonzero().flatten().tolist()
    if constant:
        raise ValueError(
            f"channel {constant[0]} of the latents is constant over the items: the autoencoder does not use it; train "
            "one with fewer channels"
        )
    found.shift.copy_(shift)
    found.scale.copy_(variance.sqrt())
    if not bool((autoencoder.noise_std > 0).all()):
        autoencoder.noise_std.copy_(reconstruction_error(data, found))
    return found


def in_latents(data: Dataset, transform: LatentTransform) -> Dataset:
    """The same data in model units that are latents, encoded from the middle of the cells of quantized items."""
    return replace(data, transform=transform, dequantized=False)


@torch.no_grad()
def reconstruction_error(data: Dataset, transform: LatentTransform) -> torch.Tensor:
    """The root mean square of y - y(z) of each channel, (C,) in float64, over ``data.measured`` items y in the
    autoencoder's own units and a draw z ~ q(z | y) of each: the standard deviation of p(y | z) that makes
    E log p(y | z) largest."""
    total, count = torch.zeros(data.event_shape[0], dtype=torch.float64), 0
    generator = torch.Generator().manual_seed(0)
    for index in data.measured.split(256):
        x, _ = data.batch(index)
        x = transform.dequantize(x, 0.5)
        mean, std = transform.posterior(x)
        z = mean + std * torch.randn(mean.shape, generator=generator).to(mean)
        missed = transform.outer.encode(x) - transform.outer.encode(transform.decode(z))
        squares = missed.cpu().double().square().movedim(1, 0).flatten(1)
        total, count = total + squares.sum(1), count + squares.shape[1]
    return (total / count).sqrt()
