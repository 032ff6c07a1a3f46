"""Tables of chains: the betas of discrete diffusion models, by name, in float64."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Betas = np.ndarray


def linear(steps: int, beta_start: float, beta_end: float) -> Betas:
    """Evenly spaced (Ho et al. 2020, section 4)."""
    return np.linspace(beta_start, beta_end, steps)


def scaled_linear(steps: int, beta_start: float, beta_end: float) -> Betas:
    """Square roots evenly spaced (Rombach et al. 2022, code)."""
    return np.linspace(beta_start**0.5, beta_end**0.5, steps) ** 2


def sigmoid_beta(steps: int, beta_start: float, beta_end: float) -> Betas:
    """A sigmoid of -6 to 6 between the two (Xu et al. 2022, GeoDiff, code)."""
    return beta_start + (beta_end - beta_start) / (1 + np.exp(-np.linspace(-6, 6, steps)))


def _of_alpha_bar(alpha_bar: Callable[[np.ndarray], np.ndarray], steps: int, max_beta: float) -> Betas:
    """1 - alpha_bar((j + 1) / steps) / alpha_bar(j / steps), at most ``max_beta``."""
    values = alpha_bar(np.arange(steps + 1) / steps)
    return np.minimum(1 - values[1:] / values[:-1], max_beta)


def cosine(steps: int, offset: float, max_beta: float) -> Betas:
    """alpha_bar = cos^2((u + offset) / (1 + offset) pi / 2) (Nichol and Dhariwal 2021, eq. 17)."""
    return _of_alpha_bar(lambda u: np.cos((u + offset) / (1 + offset) * np.pi / 2) ** 2, steps, max_beta)


def sigmoid(steps: int, sigmoid_start: float, sigmoid_end: float, sigmoid_tau: float, max_beta: float) -> Betas:
    """alpha_bar = (s(end) - s(u)) / (s(end) - s(start)), s(u) the sigmoid of (start + (end - start) u) / tau (Jabri et
    al. 2022; Chen 2023, algorithm 1)."""

    def s(u: np.ndarray | float) -> np.ndarray:
        return 1 / (1 + np.exp(-(sigmoid_start + (sigmoid_end - sigmoid_start) * u) / sigmoid_tau))

    return _of_alpha_bar(lambda u: (s(1.0) - s(u)) / (s(1.0) - s(0.0)), steps, max_beta)


BETA_ENDS = ("beta_start", "beta_end")


@dataclass(frozen=True)
class Table:
    """``betas(steps, **options)`` of a schedule, and the names of the options that it takes."""

    betas: Callable[..., Betas]
    options: tuple[str, ...] = field(default=BETA_ENDS)


TABLES: dict[str, Table] = {
    "linear": Table(linear),
    "scaled_linear": Table(scaled_linear),
    "sigmoid_beta": Table(sigmoid_beta),
    "cosine": Table(cosine, ("offset", "max_beta")),
    "sigmoid": Table(sigmoid, ("sigmoid_start", "sigmoid_end", "sigmoid_tau", "max_beta")),
}
"""Schedules of chains by name."""


def zero_terminal_snr(log_alpha: np.ndarray) -> np.ndarray:
    """log alpha of the steps, with alpha shifted to 0 at the last and scaled to what it was at the first (Lin et al.
    2024, algorithm 1)."""
    alpha = np.exp(log_alpha)
    first, last = alpha[0], alpha[-1]
    with np.errstate(divide="ignore"):
        rescaled = np.log((alpha - last) * (first / (first - last)))
    return np.concatenate([log_alpha[:1], rescaled[1:-1], [-np.inf]])
