"""Samplers that step by the Gaussian posterior q(x_s | x_t, x_0) with x_0 replaced by the model's D(x_t, t)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplers.noise import check_factor
from samplers.step import Result, choose


def forward_variance(sde, t: Tensor, s: Tensor) -> Tensor:
    """Variance of q(x_t | x_s) for s < t, sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2, without its cancellation."""
    return -torch.expm1(sde.log_snr(t) - sde.log_snr(s)) * sde.sigma(t) ** 2


def posterior_variance(sde, t: Tensor, s: Tensor) -> Tensor:
    """Variance of q(x_s | x_t, x_0): forward_variance sigma_s^2 / sigma_t^2 (Ho et al. 2020, eq. 7, for any SDE)."""
    return -torch.expm1(sde.log_snr(t) - sde.log_snr(s)) * sde.sigma(s) ** 2


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
        sde = model.sde
        added = forward_variance(sde, t, s)
        variance_t, variance_s = sde.sigma(t) ** 2, sde.sigma(s) ** 2
        alpha_ts = (sde.log_alpha(t) - sde.log_alpha(s)).exp()
        mean = (alpha_ts * variance_s / variance_t) * x + (sde.alpha(s) * added / variance_t) * model(x, t)
        variance = posterior_variance(sde, t, s) if self.variance == "posterior" else added
        return (mean + self.temperature * variance.sqrt() * noise(x) if self.temperature else mean), carry


@dataclass(frozen=True)
class DDIM:
    """x_s = alpha_s D + sqrt(sigma_s^2 - eta^2 v) n + eta sqrt(v) z (Song, Meng and Ermon 2021, eqs. 12 and 16).

    n is the predicted noise and v the posterior variance. ``eta`` 0 is deterministic, the exponential Euler step of the
    probability-flow ODE; 1 is ancestral sampling. Order 1.
    """

    eta: float = 0.0
    order: ClassVar[float] = 1
    steps: ClassVar[int] = 50
    grid: ClassVar[str] = "log_snr"

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta = {self.eta}: needs a number from 0 (deterministic) to 1 (ancestral)")

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; one network call."""
        sde = model.sde
        added = self.eta**2 * posterior_variance(sde, t, s)
        # n = (x - alpha_t D) / sigma_t, written into the factors of x and D.
        keep = (sde.sigma(s) ** 2 - added).sqrt() / sde.sigma(t)
        x = keep * x + (sde.alpha(s) - keep * sde.alpha(t)) * model(x, t)
        return (x + added.sqrt() * noise(x) if self.eta else x), carry
