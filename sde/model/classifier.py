"""The noise-conditional classifier."""

import torch
from torch import Tensor, nn

from sde.model.denoiser import call_network, check_state, noise_input
from sde.process.base import SDE, check_time


class NoisyClassifier(nn.Module):
    """Logits of p(y | x_t) from a network F(c_in x, c_noise) that knows the noise level (Dhariwal and Nichol 2021)."""

    def __init__(self, network: nn.Module, sde: SDE, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.network = network
        self.sde = sde
        self.sigma_data = sigma_data
        self.autocast: torch.dtype | None = None

    @property
    def num_classes(self) -> int | None:
        """Number of classes, where the network tells."""
        return getattr(self.network, "num_classes", None)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x (B, *event), t () or (B,) -> logits (B, num_classes)."""
        check_state(x)
        check_time(self.sde, t)
        at = self.sde.level(t)
        c_in = (at.sigma**2 + (at.alpha * self.sigma_data) ** 2) ** -0.5
        return call_network(self.network, x, c_in, noise_input(at.log_snr), autocast=self.autocast)
