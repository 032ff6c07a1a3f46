"""Elementwise methods of processes: the numbers that they take, and the times that they find."""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from sde.device import double, has_float64, send

LARGEST_NOISE_LEVEL = 2.0**24
"""sigma / alpha beyond which float32 does not tell x from pure noise: what a vanishing alpha counts as, in ``log_snr``
and all that follows from it, such as what networks are told of an open noise end."""

LEAST_LOG_SNR = -2 * math.log(LARGEST_NOISE_LEVEL)

ELEMENTWISE = (
    "log_alpha", "sigma", "alpha", "log_snr", "noise_level", "alpha_rate", "sigma_rate", "f", "g2",
    "t_of_log_snr", "t_of_noise_level",
)  # fmt: skip
"""The methods of a process that take one tensor, and a number, numbers in lists or an array as one in float64."""


def takes_numbers(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A method of ELEMENTWISE with this said of its argument."""

    @wraps(method)
    def call(self: Any, values: Tensor) -> Tensor:
        return method(self, values if isinstance(values, Tensor) else double(values))

    return call


def within_range(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``t_of_log_snr`` where it raises ValueError for what the process never has. Values on a device other than the
    CPU, and those of a graph that is being traced, are not looked at, as in ``check_time``. That of an open noise end
    is ``t_max``, which no formula tells from other times of the largest noise level."""

    @wraps(method)
    def call(self: Any, log_snr: Tensor) -> Tensor:
        if log_snr.device.type == "cpu" and log_snr.numel() and not torch.compiler.is_compiling():
            most, least = self.log_snr_ends
            low, high = (end.item() for end in log_snr.detach().double().aminmax())
            slack = 1e-6 * (most - least)
            if not (low >= least - slack and high <= most + slack):
                wrong = high if high > most + slack else low
                raise ValueError(
                    f"log_snr = {wrong:.6g} (noise level {math.exp(min(-0.5 * wrong, 700)):.4g}): this process has "
                    f"{least:.6g} at t_max to {most:.6g} at t_min, noise levels {math.exp(-0.5 * most):.4g} to "
                    f"{math.exp(-0.5 * least):.4g}; clamp it to its log_snr_ends to take the nearest"
                )
        if has_float64(log_snr.device):
            t = method(self, log_snr)
        else:
            t = send(method(self, log_snr.cpu()).float(), log_snr.device)
        return torch.where(log_snr > LEAST_LOG_SNR, t, self.t_max) if self.open_end else t

    return call
