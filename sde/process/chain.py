"""Chains: processes through the levels of a discrete diffusion model."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from sde.process.base import SDE
from sde.process.path import Path
from sde.process.tables import TABLES, zero_terminal_snr

OWN_TABLE = "table"
"""The schedule of a chain by its betas."""


@dataclass(frozen=True)
class ChainSDE(SDE):
    """Variance-preserving, through the n = ``steps`` steps of a chain with betas beta_0 to beta_(n - 1): at
    ``times[j]`` = j / (n - 1), alpha^2 is the product of 1 - beta_i up to j, and sigma^2 = 1 - alpha^2 (Ho et al.
    2020, eq. 4). Between the steps the log-SNR follows a smooth path that falls (sde.process.path).

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
    def label(self) -> tuple[str, float]:
        """The number of the step."""
        return "time", self.steps - 1.0

    @property
    def open_end(self) -> bool:
        return self.t_max >= 1 and self._path.opens

    @cached_property
    def _levels(self) -> np.ndarray:
        """The log-SNR of the steps."""
        with np.errstate(divide="ignore"):
            log_alpha = 0.5 * np.cumsum(np.log1p(-self._table_of_betas()))
        if self.zero_terminal_snr:
            log_alpha = zero_terminal_snr(log_alpha)
        return 2 * log_alpha - np.log(-np.expm1(2 * log_alpha))

    @cached_property
    def _path(self) -> Path:
        return Path(self._levels)

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

    def sigma_rate(self, t: Tensor) -> Tensor:
        level, slope = self._path(self._before_end(t))
        return -0.5 * torch.sigmoid(level) * torch.sigmoid(-level).sqrt() * slope

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return self._path.time(log_snr).clamp(self.t_min, self.t_max)
