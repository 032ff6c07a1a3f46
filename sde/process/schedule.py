"""Schedules of variance-preserving processes: log alpha, beta = -2 d log alpha / dt, and the time of a log alpha."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def linear_log_alpha(t: Tensor, beta_min: float, beta_max: float) -> Tensor:
    return -0.5 * t * (beta_min + 0.5 * t * (beta_max - beta_min))


def linear_beta(t: Tensor, beta_min: float, beta_max: float) -> Tensor:
    return beta_min + t * (beta_max - beta_min)


def linear_time(log_alpha: Tensor, beta_min: float, beta_max: float) -> Tensor:
    slope, integral = beta_max - beta_min, -2 * log_alpha
    return 2 * integral / (beta_min + (beta_min**2 + 2 * slope * integral).sqrt())


def _scaled_linear_log_alpha(t: Tensor, beta_min: float, beta_max: float) -> Tensor:
    low, slope = math.sqrt(beta_min), math.sqrt(beta_max) - math.sqrt(beta_min)
    return -0.5 * t * (low**2 + t * (low * slope + t * slope**2 / 3))


def _scaled_linear_beta(t: Tensor, beta_min: float, beta_max: float) -> Tensor:
    return (math.sqrt(beta_min) + t * (math.sqrt(beta_max) - math.sqrt(beta_min))) ** 2


def _scaled_linear_time(log_alpha: Tensor, beta_min: float, beta_max: float) -> Tensor:
    # u^3 = low^3 + 3 slope integral for u = sqrt(beta); u - low as a fraction that loses no digits.
    low, slope = math.sqrt(beta_min), math.sqrt(beta_max) - math.sqrt(beta_min)
    integral = -2 * log_alpha
    u = (low**3 + 3 * slope * integral) ** (1 / 3)
    return 3 * integral / (u**2 + u * low + low**2)


COSINE_OFFSET = 0.008


def _cosine_log_alpha(t: Tensor, beta_min: float, beta_max: float) -> Tensor:
    # alpha = cos(a) / cos(a_0) with a = a_0 + rate t. 1 - alpha^2 and cos(a) as products keep every digit at both ends.
    rate = math.pi / 2 / (1 + COSINE_OFFSET)
    start = COSINE_OFFSET * rate
    variance = torch.sin(rate * t) * torch.sin(rate * t + 2 * start) / math.cos(start) ** 2
    near_noise = torch.log(torch.sin(rate * (1 - t)) / math.cos(start))
    return torch.where(variance < 0.5, 0.5 * torch.log1p(-variance.clamp(max=0.75)), near_noise)


def _cosine_time(log_alpha: Tensor, beta_min: float, beta_max: float) -> Tensor:
    # The angle a of cos(a) = alpha cos(start), by its tangent, which keeps every digit at both ends.
    rate = math.pi / 2 / (1 + COSINE_OFFSET)
    start = COSINE_OFFSET * rate
    variance = -torch.expm1(2 * log_alpha)
    sine = (math.sin(start) ** 2 + variance * math.cos(start) ** 2).sqrt()
    return (torch.atan2(sine, log_alpha.exp() * math.cos(start)) - start) / rate


def _cosine_beta(t: Tensor, beta_min: float, beta_max: float) -> Tensor:
    rate = math.pi / 2 / (1 + COSINE_OFFSET)
    return 2 * rate / torch.tan(rate * (1 - t))


@dataclass(frozen=True)
class Schedule:
    """log alpha and beta of t, and the inverse of log alpha, each with beta_min and beta_max."""

    log_alpha: Callable[[Tensor, float, float], Tensor]
    beta: Callable[[Tensor, float, float], Tensor]
    time: Callable[[Tensor, float, float], Tensor]


SCHEDULES = {
    "linear": Schedule(linear_log_alpha, linear_beta, linear_time),
    "scaled_linear": Schedule(_scaled_linear_log_alpha, _scaled_linear_beta, _scaled_linear_time),
    "cosine": Schedule(_cosine_log_alpha, _cosine_beta, _cosine_time),
}
