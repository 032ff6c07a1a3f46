"""Variances of the transitions of a process: q(x_t | x_s), and q(x_s | x_t, x_0)."""

import torch
from torch import Tensor


def forward_variance(sde, t: Tensor, s: Tensor) -> Tensor:
    """Variance of q(x_t | x_s) for s < t, sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2, without its cancellation."""
    return -torch.expm1(sde.log_snr(t) - sde.log_snr(s)) * sde.sigma(t) ** 2


def posterior_variance(sde, t: Tensor, s: Tensor) -> Tensor:
    """Variance of q(x_s | x_t, x_0): forward_variance sigma_s^2 / sigma_t^2 (Ho et al. 2020, eq. 7, for any SDE)."""
    return -torch.expm1(sde.log_snr(t) - sde.log_snr(s)) * sde.sigma(s) ** 2
