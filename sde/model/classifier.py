"""The noise-conditional classifier."""

import torch
from torch import Tensor, nn

from sde.model.call import call_network
from sde.model.denoiser import check_state
from sde.model.noise_input import NoiseInput
from sde.process.base import SDE, check_time
from sde.process.level import Coefficient, Level


class NoisyClassifier(nn.Module):
    """Logits of p(y | x_t) from a network F(c_in x, c_noise) that knows the noise level (Dhariwal and Nichol 2021);
    ``noise_input`` and ``scaled_input`` as those of a ``Denoiser``."""

    def __init__(
        self,
        network: nn.Module,
        sde: SDE,
        sigma_data: float = 0.5,
        noise_input: NoiseInput | None = None,
        scaled_input: bool = True,
    ) -> None:
        super().__init__()
        self.network = network
        self.sde = sde
        self.sigma_data = sigma_data
        self.noise_input = (noise_input or NoiseInput()).bound(sde)
        self.scaled_input = scaled_input
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
        c_in = (at.sigma**2 + (at.alpha * self.sigma_data) ** 2) ** -0.5 if self.scaled_input else 1.0
        c_noise = at.on(x, self.network_time) if isinstance(at.time, float) else self.network_time(at)
        return call_network(self.network, x, c_in, c_noise, autocast=self.autocast)

    def network_time(self, at: Level) -> Coefficient:
        """c_noise of a level of ``sde``, what the network is told of the time."""
        return self.noise_input(at, self.sde)
