"""Quantities: what a model may predict, each as a combination of x and the posterior mean D."""

from collections.abc import Callable

import torch
from torch import Tensor

from sde.process.base import SDE, check_time
from sde.process.coefficients import combine
from sde.process.level import Coefficient, Level

QUANTITIES: dict[str, Callable[[Level], tuple[Coefficient, Coefficient]]] = {
    # (a, b) of the quantity a x + b D
    "denoised": lambda at: (0.0, 1.0),
    "noise": lambda at: (1 / at.sigma, -at.alpha / at.sigma),
    "score": lambda at: (-1 / at.sigma**2, at.alpha / at.sigma**2),
    "v": lambda at: (
        at.alpha / at.sigma * (at.alpha**2 + at.sigma**2) ** -0.5,
        -((at.alpha**2 + at.sigma**2) ** 0.5) / at.sigma,
    ),
    "flow": lambda at: (1 / at.sigma, -(at.alpha + at.sigma) / at.sigma),
    "velocity": lambda at: (at.sigma_rate / at.sigma, at.alpha_rate - at.alpha * at.sigma_rate / at.sigma),
}
"""With n = (x - alpha D) / sigma. denoised: D = E[x_0 | x_t = x]; noise: n = E[z | x_t = x]; score: grad log p_t(x) =
-n / sigma; v: (alpha n - sigma D) / sqrt(alpha^2 + sigma^2) (Salimans and Ho 2022); flow: n - D, the velocity of the
straight path (Lipman et al. 2023); velocity: alpha' D + sigma' n, that of the process (Ma et al. 2024, section 2). On
``FlowSDE`` it is the flow, on ``GVPSDE`` pi / 2 times v."""


def convert(value: Tensor, x: Tensor, t: Tensor, sde: SDE, given: str, wanted: str = "denoised") -> Tensor:
    """The quantity ``wanted`` at the state x (B, *event) and time t, () or (B,), of a process, from the ``value`` of
    the quantity ``given`` there, of the shape of x; both are keys of QUANTITIES.

    Where time runs the other way, as from noise at 0 to data at 1, hand in our t and minus their velocity. Raises
    ValueError for an unknown quantity, shapes that differ, a time that the process does not have, and for noise or
    score at an open noise end, where they do not tell D.
    """
    for role, name in (("given", given), ("wanted", wanted)):
        if name not in QUANTITIES:
            raise ValueError(f"{role} = {name!r}: needs one of {', '.join(QUANTITIES)}")
    if value.shape != x.shape:
        raise ValueError(f"value has shape {tuple(value.shape)}, x {tuple(x.shape)}: needs one value per entry of x")
    check_time(sde, t)
    if given == wanted:
        return value
    at = sde.level(t)
    a, b = QUANTITIES[given](at)
    if _has_zero(b):
        raise ValueError(f"given = {given!r} at t = {sde.t_max:g}: alpha is 0 there, and it does not tell the data")
    c, d = QUANTITIES[wanted](at)
    # c x + d D of D = (value - a x) / b.
    return combine(c - a * d / b, x, d / b, value)


def _has_zero(factor: Coefficient) -> bool:
    """Whether a factor of D vanishes; that of a device is not looked at, as in ``check_time``."""
    if isinstance(factor, float):
        return factor == 0
    return factor.device.type == "cpu" and not torch.compiler.is_compiling() and bool((factor == 0).any())
