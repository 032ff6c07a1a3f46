"""Heun's method on the probability flow, and the stochastic sampler of Karras et al. 2022."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplers.checks import check_factor
from samplers.host import double
from samplers.numerics.rows import add, scaled
from samplers.numerics.transition import alpha_ratio, forward_variance, root
from samplers.step import Noise, Result


@dataclass(frozen=True)
class Heun:
    """Heun's method on x / alpha as a function of sigma / alpha, whose slope is the predicted noise n:
    x_s / alpha_s = x / alpha_t + (sigma_s / alpha_s - sigma_t / alpha_t) (n(x, t) + n(x', s)) / 2, with x' the Euler
    step (Karras et al. 2022, algorithm 1; for any SDE). Order 2, two network calls.

    With ``churn`` a step first adds noise up to an earlier time u > t, then steps from u to s (algorithm 2): x_u =
    (alpha_u / alpha_t) x + noise_scale std z, std^2 the variance of q(x_u | x_t). The time u has log(r_u / r_t) = churn
    log(r_t / r_s), at most log sqrt(2), with r = sigma / alpha. This deviates from the paper's gamma = S_churn / steps,
    which a step does not know: churn is about S_churn / log(r_max / r_min), the same dynamics at any number of steps,
    and 1 is as much noise as the reverse SDE has. Only times with churn_min <= sigma / alpha <= churn_max are churned
    (S_tmin, S_tmax); ``noise_scale`` is S_noise. Churn 0 is deterministic and draws nothing.
    """

    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float = math.inf
    noise_scale: float = 1.0
    order: ClassVar[float] = 2
    steps: ClassVar[int] = 25
    grid: ClassVar[str] = "karras"

    def __post_init__(self) -> None:
        check_factor("churn", self.churn)
        check_factor("noise_scale", self.noise_scale)
        if not 0 <= self.churn_min <= self.churn_max:
            raise ValueError(
                f"churn_min = {self.churn_min} and churn_max = {self.churn_max}: needs 0 <= churn_min <= churn_max, "
                "in units of sigma / alpha"
            )

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise: Noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d, or without churn (B,), a time per sample; two network calls."""
        sde = model.sde
        if self.churn and self.churn_min <= sde.level(t).noise_level <= self.churn_max:
            x, t = self._stir(sde, x, t, s, noise)
        start, end = sde.level(t), sde.level(s)
        scale = alpha_ratio(end, start)
        change = end.sigma - scale * start.sigma
        first, kept = model.noise(x, t), scaled(x, scale)
        second = model.noise(add(kept, first, change), s)
        return add(kept, first + second, 0.5 * change), carry

    def _stir(self, sde, x: Tensor, t: Tensor, s: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """x at t with noise added up to an earlier time, and that time."""
        at = sde.level(t)
        # Twice the step in log(sigma / alpha), as log_snr is -2 log(sigma / alpha).
        rise = min(self.churn * (sde.level(s).log_snr - at.log_snr), math.log(2))
        least = sde.log_snr(double(sde.t_max)).item()
        u = sde.t_of_log_snr(double(max(at.log_snr - rise, least))).clamp(max=sde.t_max)
        # At t_max there is no room, and rounding must not turn the time around.
        if u <= t:
            return x, t
        earlier = sde.level(u)
        std = self.noise_scale * root(forward_variance(earlier, at))
        return torch.add(alpha_ratio(earlier, at) * x, noise(x), alpha=std), u
