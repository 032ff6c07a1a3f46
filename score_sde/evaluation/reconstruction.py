"""Reconstructions: how near an autoencoder's are to the items, at which rate, and how its latents are spread."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from samplers.calls import evaluating
from sde.autoencoder.base import Autoencoder
from sde.autoencoder.loss import kl_divergence
from sde.data import Dataset
from sde.data.draws import per_item
from sde.data.sizes import cut, real
from sde.data.statistics import spread

MAX_ITEMS = 2000
SEED = 0
"""Seed of the posteriors' noise: the same in every run, so that runs can be compared."""


@dataclass(frozen=True)
class Reconstruction:
    """Of so many ``items`` with so many ``entries`` each: ``error``, the pooled mean squared error of reconstructions
    from posteriors' means, over all entries that are real, in data units, quantized where the data are; ``noise_std``
    (channels,), the root of that from draws of the posteriors, channel by channel in the autoencoder's units; ``nats``
    (items,), the KL of each posterior from N(0, I), None of an encoder without spread; by channel of the latent the
    ``mean`` and ``std`` of the posteriors' means and the root mean square ``posterior_std`` of their spread."""

    items: int
    entries: int
    error: float
    noise_std: Tensor
    nats: Tensor | None
    mean: Tensor
    std: Tensor
    posterior_std: Tensor

    def psnr(self, peak: float) -> float:
        """10 log10(peak^2 / error) in dB, of the pooled error."""
        return 10 * math.log10(peak**2 / self.error) if self.error else math.inf

    def to_dict(self, peak: float) -> dict:
        """Plain values: the PSNR, the rate in bits per item and per entry of an item, and the latents by channel."""
        bits = None if self.nats is None else self.nats.mean().item() / math.log(2)
        return {
            "items": self.items,
            "psnr": self.psnr(peak),
            "bits_per_item": bits,
            "bits_per_dim": None if bits is None else bits / self.entries,
            "latent": [
                {"mean": mean, "std": std, "posterior_std": spread}
                for mean, std, spread in zip(
                    *(x.tolist() for x in (self.mean, self.std, self.posterior_std)), strict=True
                )
            ],
        }


def peak_of(data: Dataset) -> float:
    """The largest difference that items can have: of quantized ones the highest value, of others their range."""
    levels = data.transform.num_levels
    return levels - 1 if levels else data.statistics.high - data.statistics.low


@torch.no_grad()
def reconstruct(autoencoder: Autoencoder, data: Dataset, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """The items at positions (B,), and their reconstructions from posteriors' means, both (B, *event) in data units on
    the CPU."""
    x, _ = data.batch(index)
    x = x.cpu()
    mean, _ = autoencoder.encode(units(data, x).to(device))
    return x, _decoded(autoencoder, data, mean, data.sizes_of(index))


def units(data: Dataset, x: Tensor) -> Tensor:
    """Items x (B, *event) in data units in those of the autoencoder, quantized ones in the middle of their cells."""
    return data.transform.encode(data.transform.dequantize(x, 0.5))


def _decoded(autoencoder: Autoencoder, data: Dataset, z: Tensor, sizes: Tensor | None) -> Tensor:
    transform = data.transform
    return cut(transform.quantize(transform.decode(autoencoder.decode(z).float().cpu())), sizes)


@torch.no_grad()
def measured(
    autoencoder: Autoencoder, data: Dataset, device: torch.device, limit: int = MAX_ITEMS, batch_size: int = 128
) -> Reconstruction:
    """The measurement on at most ``limit`` items, spread over the set, in batches."""
    index = spread(len(data), limit)
    squares, drawn, counts = 0.0, torch.zeros(()), torch.zeros(())
    means, variances, nats = [], [], []
    with evaluating(autoencoder):
        for part in index.split(batch_size):
            x, _ = data.batch(part)
            x, sizes = x.cpu(), data.sizes_of(part)
            y = units(data, x).to(device)
            mean, std = autoencoder.encode(y)
            squares += (_decoded(autoencoder, data, mean, sizes) - x).double().square().sum().item()
            noise = per_item(torch.randn, SEED + part, autoencoder.latent_shape).to(mean)
            error = cut(autoencoder.decode(mean + std * noise) - y, sizes).cpu().double()
            inside = torch.ones_like(x) if sizes is None else real(sizes, x.shape[1:]).expand_as(x)
            drawn = drawn + _by_channel(error.square())
            counts = counts + _by_channel(inside.double())
            means.append(mean.cpu().double())
            variances.append(std.cpu().double().square())
            if not autoencoder.deterministic:
                nats.append(kl_divergence(means[-1], std.cpu().double()))
    mean, variance = torch.cat(means).transpose(0, 1).flatten(1), torch.cat(variances).transpose(0, 1).flatten(1)
    return Reconstruction(
        len(index),
        math.prod(data.event_shape),
        squares / counts.sum().item(),
        (drawn / counts).sqrt(),
        torch.cat(nats) if nats else None,
        mean.mean(1),
        mean.std(1, correction=0),
        variance.mean(1).sqrt(),
    )


def _by_channel(x: Tensor) -> Tensor:
    """Sums (channels,) of x (B, channels, *space)."""
    return x.transpose(0, 1).flatten(1).sum(1)
