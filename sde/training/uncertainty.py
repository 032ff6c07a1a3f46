"""Uncertainty weighting: a log-variance of the loss, learned as a function of the noise level."""

import math

import torch
from torch import Tensor, nn

from sde.device import send
from sde.process.base import SDE

FEATURES = 128
"""Random frequencies of the noise level, as in the paper."""


class UncertaintyWeighting(nn.Module):
    """losses (B,), times (B,) -> losses / exp(u) + u (Karras et al. 2024, arXiv:2312.02696, eq. 21 and 22).

    u is a linear function of cosines of ln(sigma / alpha) / 4 with random frequencies and phases, zero at first, so
    that training begins with the losses as they are. Where the expected loss of a noise level is L, the minimum over u
    is at exp(u) = L, where every level's gradient is divided by its loss: none outweighs the others,
    as among the tasks of Kendall et al. 2018. It is trained with the network, and is no part of the model.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, sde: SDE, features: int = FEATURES) -> None:
        super().__init__()
        self.sde = sde
        # Of their own, whatever the global state: every process and every continued run has the same ones.
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(features, generator=generator))
        self.register_buffer("phases", 2 * math.pi * torch.rand(features, generator=generator))
        self.weight = nn.Parameter(torch.zeros(features))

    def log_variance(self, t: Tensor) -> Tensor:
        """u (B,) at times (B,), float32 on the device of the weights."""
        # An open noise end has no finite level: it counts as the last that is.
        c_noise = -self.sde.log_snr(t.clamp(max=self.sde.t_signal)) / 8
        c_noise = send(c_noise.float(), self.weight.device)
        cosines = (c_noise[:, None] * self.frequencies + self.phases).cos()
        return cosines @ self.weight * math.sqrt(2 / len(self.weight))

    def forward(self, losses: Tensor, t: Tensor) -> Tensor:
        u = self.log_variance(t)
        return losses * (-u).exp() + u
