"""Quantities: what a model may predict, each as a combination of the predicted noise and the posterior mean D."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from sde.model.parametrization import OUTPUTS, Formula
from sde.process.base import SDE, check_time
from sde.process.coefficients import combine
from sde.process.level import Coefficient, Level


def _of_level(formula: Formula, at: Level) -> tuple[Coefficient, Coefficient]:
    return formula(at.alpha, at.sigma, 1.0)


QUANTITIES: dict[str, Callable[[Level], tuple[Coefficient, Coefficient]]] = {
    # (g, h) of the quantity g n + h D
    **{name: partial(_of_level, OUTPUTS[name]) for name in ("denoised", "noise", "score", "v", "flow")},
    "velocity": lambda at: (at.sigma_rate, at.alpha_rate),
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
    g, h = QUANTITIES[given](at)
    # x and the value tell n and D unless this vanishes; no difference, as g and h have opposite signs.
    whole = at.alpha * g - at.sigma * h
    if _has_zero(whole):
        raise ValueError(f"given = {given!r} at t = {sde.t_max:g}: alpha is 0 there, and it does not tell the data")
    g_wanted, h_wanted = QUANTITIES[wanted](at)
    of_value = at.alpha * g_wanted - at.sigma * h_wanted
    return combine((g * h_wanted - g_wanted * h) / whole, x, of_value / whole, value)


def _has_zero(factor: Coefficient) -> bool:
    """Whether a factor vanishes; that of a device is not looked at, as in ``check_time``."""
    if isinstance(factor, float):
        return factor == 0
    return factor.device.type == "cpu" and not torch.compiler.is_compiling() and bool((factor == 0).any())
