"""The training of autoencoders: their loss and trainer."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sde.autoencoder.base import Autoencoder
from sde.autoencoder.loss import AutoencoderLoss, Features
from sde.condition.tree import Condition
from sde.data.draws import per_item
from sde.device import send
from sde.training.loss import BatchNoise
from sde.training.trainer import Trainer


@dataclass(frozen=True)
class ReconstructionLoss:
    """An ``AutoencoderLoss`` as a Trainer asks for one, with noise of the posteriors of the items' own."""

    loss: AutoencoderLoss
    features: Features | None = None

    def __call__(self, autoencoder: Autoencoder, y: Tensor, cond: Condition | None, draws: BatchNoise) -> Tensor:
        """The losses (B,) of items y (B, *event) in the autoencoder's units; conditions are of no use."""
        return self.loss(autoencoder, y, latent_noise(autoencoder, draws, y), draws.sizes, self.features)


def latent_noise(autoencoder: Autoencoder, draws: BatchNoise, like: Tensor) -> Tensor:
    """Standard normal noise (B, *latent) of the items' own, in the dtype and on the device of another tensor."""
    # A replica of several processes passes on what it holds.
    shape = getattr(autoencoder, "module", autoencoder).latent_shape
    return send(per_item(torch.randn, draws.seeds + 3, shape).to(like.dtype), like.device)


class AutoencoderTrainer(Trainer):
    """A Trainer of an autoencoder, whose loss is a ``ReconstructionLoss``."""

    def call(self, x0: Tensor, draws: BatchNoise) -> Tensor:
        decoded, *_ = self.module(x0, latent_noise(self.module, draws, x0))
        return decoded
