"""Ancestral sampling (DDPM)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplers.checks import check_factor, choose
from samplers.numerics.transition import alpha_ratio, forward_variance, posterior_variance, root
from samplers.step import Result


@dataclass(frozen=True)
class Ancestral:
    """DDPM ancestral sampling (Ho et al. 2020, algorithm 2; for any alpha and sigma, Kingma et al. 2021, eq. 26).

    x_s = (alpha_ts sigma_s^2 / sigma_t^2) x_t + (alpha_s sigma_ts^2 / sigma_t^2) D + std z, with alpha_ts = alpha_t /
    alpha_s and sigma_ts^2 the variance of q(x_t | x_s). ``variance`` is "posterior", std^2 = sigma_ts^2 sigma_s^2 /
    sigma_t^2, or "beta", std^2 = sigma_ts^2: the lower and upper limit of Ho et al., section 3.2. ``temperature``
    multiplies std: 1 is the model's own law, less gives samples that are less spread. Order 1.
    """

    variance: str = "posterior"
    temperature: float = 1.0
    order: ClassVar[float] = 1
    steps: ClassVar[int] = 200
    grid: ClassVar[str] = "log_snr"

    def __post_init__(self) -> None:
        choose("variance", self.variance, ("posterior", "beta"))
        check_factor("temperature", self.temperature)

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; one network call."""
        start, end = model.sde.level(t), model.sde.level(s)
        added = forward_variance(start, end)
        variance_t, variance_s = start.sigma**2, end.sigma**2
        alpha_ts = alpha_ratio(start, end)
        kept = (alpha_ts * variance_s / variance_t) * x
        mean = torch.add(kept, model(x, t), alpha=end.alpha * added / variance_t)
        variance = posterior_variance(start, end) if self.variance == "posterior" else added
        std = self.temperature * root(variance)
        return (torch.add(mean, noise(x), alpha=std) if self.temperature else mean), carry
