"""Autoencoders of diffusers, as ours, and the learned transforms that they make."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sde.autoencoder import Autoencoder, LatentTransform
from sde.pretrained.foreign import pixels


class DiffusersAutoencoder(Autoencoder):
    """An autoencoder ``model`` of diffusers, of images in -1 .. 1 of which the event shape is one size; it takes others
    that are multiples of its ``factor``. A Gaussian posterior has the mean and the standard deviation of its own, what
    has none is deterministic. It computes in the dtype of its weights."""

    def __init__(self, model: Any, event_shape: Sequence[int]) -> None:
        config, factor = model.config, factor_of(model.config)
        channels, *size = event_shape
        check_size(size, factor)
        super().__init__(event_shape, (config["latent_channels"], *(side // factor for side in size)))
        self.model, self.factor, self.channels = model, factor, channels

    def encode(self, y: Tensor) -> tuple[Tensor, Tensor]:
        found = self.model.encode(y.to(self.model.dtype))
        posterior = getattr(found, "latent_dist", None)
        mean = found.latents if posterior is None else posterior.mean
        std = torch.zeros_like(mean) if posterior is None else posterior.std
        return mean.to(y.dtype), std.to(y.dtype)

    def decode(self, z: Tensor) -> Tensor:
        return self.model.decode(z.to(self.model.dtype)).sample.to(z.dtype)

    def inner_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        if len(event_shape) != 3 or event_shape[0] != self.channels:
            raise ValueError(
                f"the autoencoder takes images ({self.channels}, H, W), and these are {tuple(event_shape)}"
            )
        check_size(event_shape[1:], self.factor)
        return (self.latent_shape[0], *(side // self.factor for side in event_shape[1:]))


def factor_of(config: Mapping[str, Any]) -> int:
    """By how much latents are coarser than images, of the config of an autoencoder: each of its levels but the last
    halves them."""
    names = ("block_out_channels", "encoder_block_out_channels", "down_block_out_channels")
    return 2 ** (len(next(config[name] for name in names if config.get(name))) - 1)


def check_size(size: Sequence[int], factor: int) -> None:
    """Raise ValueError for a height and width that are no multiples of ``factor``."""
    wrong = next((side for side in size if side < 1 or side % factor), None)
    if wrong is not None:
        near = max(1, round(wrong / factor)) * factor
        raise ValueError(f"size = {tuple(size)}: its networks take multiples of {factor}, as {near}")


def latent_transform(model: Any, event_shape: Sequence[int]) -> LatentTransform:
    """The transform of an autoencoder's ``model``, from images of 256 levels: with its scaling_factor s, shift_factor
    and, per channel, latents_mean and latents_std, latents z become (z - mean) s / std."""
    config = model.config
    scaling, shift = config.get("scaling_factor") or 1.0, config.get("shift_factor") or 0.0
    mean, std = config.get("latents_mean"), config.get("latents_std")
    transform = LatentTransform(DiffusersAutoencoder(model, event_shape), pixels())
    transform.shift.copy_(torch.tensor(shift if mean is None or std is None else mean, dtype=torch.float64))
    transform.scale.copy_(torch.tensor(1.0 if mean is None or std is None else std, dtype=torch.float64) / scaling)
    return transform
