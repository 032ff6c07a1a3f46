"""Chains: processes through the levels of a discrete diffusion model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor
from torch.nn.functional import softplus

from sde.device import send
from sde.process.base import SDE
from sde.process.tables import TABLES, zero_terminal_snr

OWN_TABLE = "table"
"""The schedule of a chain by its betas."""


@dataclass(frozen=True)
class ChainSDE(SDE):
    """Variance-preserving, through the n = ``steps`` steps of a chain with betas beta_0 to beta_(n - 1): at
    ``times[j]`` = j / (n - 1), alpha^2 is the product of 1 - beta_i up to j, and sigma^2 = 1 - alpha^2 (Ho et al. 2020).
    Between the steps the log-SNR is a cubic spline in log(1 + (n - 1) t), whose slopes are limited so that it falls
    (Fritsch and Carlson 1980).

    ``schedule`` names the betas, a key of TABLES with its options, or is "table" with ``betas`` of your own.
    ``zero_terminal_snr`` shifts alpha to 0 at the last step (Lin et al. 2024, algorithm 1). A last beta of 1, or that
    shift, makes the noise end open: alpha(t_max) = 0, which alpha / sigma approaches linearly. Raises ValueError for
    unknown schedules, options of another one, fewer than three steps, and betas outside (0, 1).
    """

    schedule: str = "linear"
    steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    offset: float = 0.008
    sigmoid_start: float = -3.0
    sigmoid_end: float = 3.0
    sigmoid_tau: float = 1.0
    max_beta: float = 0.999
    betas: Sequence[float] = ()
    zero_terminal_snr: bool = False
    t_min: float = 0.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        # From a file they come as a list, and the count need not be said twice.
        object.__setattr__(self, "betas", tuple(self.betas))
        if self.betas:
            object.__setattr__(self, "steps", len(self.betas))
        self._check_options()
        table = self._table_of_betas()
        wrong = np.flatnonzero(~((table > 0) & (table < 1)))
        if len(wrong) and not (wrong[0] == len(table) - 1 and table[-1] == 1):
            raise ValueError(
                f"beta {wrong[0]} of this chain is {table[wrong[0]]:g}: betas lie above 0 and below 1, but for a last "
                "one of 1, whose noise end is open"
            )
        super().__post_init__()

    def _check_options(self) -> None:
        if self.schedule not in (*TABLES, OWN_TABLE):
            raise ValueError(f"schedule = {self.schedule!r}: needs one of {', '.join((*TABLES, OWN_TABLE))}")
        if bool(self.betas) != (self.schedule == OWN_TABLE):
            told = f"schedule = {self.schedule!r} with {len(self.betas)} betas"
            raise ValueError(f"{told}: betas of your own are the schedule {OWN_TABLE!r}, and no other")
        if not (isinstance(self.steps, int) and self.steps >= 3):
            raise ValueError(f"steps = {self.steps}: a chain needs at least 3")
        taken = TABLES[self.schedule].options if self.schedule in TABLES else ()
        for field in fields(self):
            option = any(field.name in table.options for table in TABLES.values())
            if option and field.name not in taken and getattr(self, field.name) != field.default:
                raise ValueError(f"the schedule {self.schedule} takes no {field.name}: leave it out")

    def _table_of_betas(self) -> np.ndarray:
        if self.betas:
            return np.array(self.betas, dtype=np.float64)
        table = TABLES[self.schedule]
        with np.errstate(all="ignore"):
            return table.betas(self.steps, **{name: getattr(self, name) for name in table.options})

    @classmethod
    def of_betas(cls, betas: Any, **options: Any) -> Self:
        """The chain of a table of betas (steps,)."""
        return cls(schedule=OWN_TABLE, betas=tuple(np.asarray(betas, dtype=np.float64).tolist()), **options)

    @classmethod
    def of_alphas_cumprod(cls, alphas_cumprod: Any, **options: Any) -> Self:
        """The chain of a table of alpha^2 (steps,)."""
        values = np.asarray(alphas_cumprod, dtype=np.float64)
        return cls.of_betas(1 - values / np.concatenate([[1.0], values[:-1]]), **options)

    @cached_property
    def times(self) -> Tensor:
        """The times of the steps, j / (steps - 1), (steps,) in float64 on the CPU."""
        return torch.arange(self.steps, dtype=torch.float64, device="cpu") / (self.steps - 1)

    @cached_property
    def noise_levels(self) -> Tensor:
        """sigma / alpha of the steps, (steps,) in float64 on the CPU; the last infinite where the end is open."""
        return torch.from_numpy(np.exp(-0.5 * self._levels))

    @property
    def open_end(self) -> bool:
        return self.t_max >= 1 and bool(np.isneginf(self._levels[-1]))

    @cached_property
    def _levels(self) -> np.ndarray:
        """The log-SNR of the steps."""
        with np.errstate(divide="ignore"):
            log_alpha = 0.5 * np.cumsum(np.log1p(-self._table_of_betas()))
        if self.zero_terminal_snr:
            log_alpha = zero_terminal_snr(log_alpha)
        return 2 * log_alpha - np.log(-np.expm1(2 * log_alpha))

    @cached_property
    def _cubics(self) -> Tensor:
        """Of each interval between steps that have a finite log-SNR: it at the left end, its gap to the right, and its
        slopes at both by the part of the interval; (4, finite - 1)."""
        levels = self._levels[np.isfinite(self._levels)]
        u = np.log1p(np.arange(len(levels)))
        width, gap = np.diff(u), np.diff(levels)
        rises = gap / width
        # All of them are negative. Within these limits the cubic falls everywhere.
        flatter = np.maximum(np.concatenate([rises[:1], rises]), np.concatenate([rises, rises[-1:]]))
        slopes = np.clip(CubicSpline(u, levels)(u, 1), 2 * flatter, 0.25 * flatter)
        return torch.from_numpy(np.stack([levels[:-1], gap, width * slopes[:-1], width * slopes[1:]]))

    @cached_property
    def _opening(self) -> tuple[float, float]:
        """The log-SNR at the last step that has a finite one, and the bend of the path from there to an open end."""
        level, gap, _, slope = self._cubics[:, -1].tolist()
        count = self._cubics.shape[1]
        return level + gap, 2 + slope / math.log1p(1 / count) / (count + 1)

    def _path(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The log-SNR and its derivative by t."""
        cubics, y = send(self._cubics.to(t.dtype), t.device), t * (self.steps - 1)
        count = cubics.shape[1]
        k = y.detach().floor().clamp(0, count - 1).long()
        whole = k.to(t.dtype)
        width = torch.log1p(1 / (whole + 1))
        value, slope = _cubic(torch.log1p((y - whole) / (whole + 1)) / width, *cubics[:, k])
        slope = slope * (self.steps - 1) / (width * (1 + y))
        if count == self.steps - 1:
            return value, slope
        # 2 log w of what is left, w from 1 to 0, and a line that keeps the slope at 1.
        (level, bend), left = self._opening, ((1 - t) * (self.steps - 1)).clamp(max=1)
        return (
            torch.where(y > count, level + 2 * left.log() + bend * (1 - left), value),
            torch.where(y > count, (bend - 2 / left) * (self.steps - 1), slope),
        )

    def log_alpha(self, t: Tensor) -> Tensor:
        return -0.5 * softplus(-self._path(t)[0])

    def sigma(self, t: Tensor) -> Tensor:
        return (-0.5 * softplus(self._path(t)[0])).exp()

    def f(self, t: Tensor) -> Tensor:
        return -0.5 * self.g2(t)

    def g2(self, t: Tensor) -> Tensor:
        # log alpha = -softplus(-l) / 2 of the log-SNR l, and g^2 = -2 d log alpha / dt where the variance is kept.
        level, slope = self._path(t)
        return -torch.sigmoid(-level) * slope

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        target, cubics = log_snr.double(), send(self._cubics, log_snr.device)
        k = (torch.searchsorted(-cubics[0], -target.contiguous(), right=True) - 1).clamp(min=0)
        width = torch.log1p(1 / (k + 1).double())
        y = torch.expm1(torch.log1p(k.double()) + width * _part_of(target, *cubics[:, k]))
        if cubics.shape[1] < self.steps - 1:
            y = torch.where(target < self._opening[0], self.steps - 1 - self._left(target), y)
        return (y / (self.steps - 1)).clamp(self.t_min, self.t_max)

    def _left(self, target: Tensor) -> Tensor:
        """w of a log-SNR on the way to an open end, by Newton's method for log w, whose function is convex or
        concave."""
        level, bend = self._opening
        log_left = (0.5 * (target - level)).clamp(max=0)
        for _ in range(50):
            left = log_left.exp()
            excess = 2 * log_left + bend * (1 - left) - (target - level)
            log_left = (log_left - excess / (2 - bend * left)).clamp(max=0)
        return log_left.exp()


def _cubic(part: Tensor, left: Tensor, gap: Tensor, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """The cubic from left to left + gap, at part from 0 to 1, with these slopes at both; and its derivative."""
    bend, twist = 3 * gap - 2 * first - last, first + last - 2 * gap
    return left + part * (first + part * (bend + part * twist)), first + part * (2 * bend + 3 * part * twist)


def _part_of(target: Tensor, left: Tensor, gap: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Where a falling cubic has a value: Newton's method, and the middle where it leaves what is known."""
    low, high = torch.zeros_like(target), torch.ones_like(target)
    part = ((target - left) / gap).clamp(0, 1)
    for _ in range(40):
        value, slope = _cubic(part, left, gap, first, last)
        low, high = torch.where(value > target, part, low), torch.where(value > target, high, part)
        newton = part - (value - target) / slope
        part = torch.where((newton >= low) & (newton <= high), newton, 0.5 * (low + high))
    return part
