"""Training options: what an optimization is asked to do, and its learning rate along the way."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from sde.distributed.world import PARALLEL
from sde.training.ema import check_decay
from sde.training.ema_profile import exponent
from sde.training.times import MEAN, STD, TIMES, Times

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
DECAYS: dict[str, Callable[[float], float]] = {
    # factor of the learning rate at a fraction of the run
    "none": lambda fraction: 1.0,
    "cosine": lambda fraction: 0.5 * (1 + math.cos(math.pi * min(1.0, fraction))),
}


@dataclass(frozen=True)
class TrainingOptions:
    """``steps`` optimizer steps on ``batch_size`` items, of all processes together, in
    ``gradient_accumulation`` micro-batches per process, one after the other; ``time_distribution`` a key of TIMES,
    and ``time_mean`` and ``time_std`` its mean and standard deviation of ln(sigma / alpha) where it is normal.

    The learning rate is ``lr`` after ``warmup_steps`` steps, with a decay to the end of the run; gradients are clipped
    to the norm ``max_grad_norm`` (0: not). ``adam_betas`` and ``adam_eps`` are the optimizer's: the decays of its two
    moments, and what is added to the root of the second. ``ema_decay`` is that of the average of the weights,
    ``extra_ema_decays`` those of further averages, which ramp up as ``ema_rampup_ratio`` says (ema.EMA);
    ``power_ema_stds`` the relative standard deviations of power-function averages.
    ``parallel`` is a key of PARALLEL, for several processes. Raises ValueError for unknown names and numbers out of
    range.
    """

    steps: int = 1000
    batch_size: int = 128
    gradient_accumulation: int = 1
    time_distribution: str = "log_normal"
    time_mean: float = MEAN
    time_std: float = STD
    optimizer: str = "adam"
    lr: float = 1e-3
    lr_decay: str = "cosine"
    warmup_steps: int = 100
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    adam_betas: tuple[float, float] = (0.9, 0.999)
    adam_eps: float = 1e-8
    ema_decay: float = 0.999
    ema_rampup_ratio: float = 0.0
    extra_ema_decays: tuple[float, ...] = ()
    power_ema_stds: tuple[float, ...] = ()
    seed: int = 0
    parallel: str = "ddp"

    def __post_init__(self) -> None:
        tables: dict[str, Mapping] = {
            "optimizer": OPTIMIZERS,
            "lr_decay": DECAYS,
            "time_distribution": TIMES,
            "parallel": PARALLEL,
        }
        for name, allowed in tables.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} = {getattr(self, name)!r}: needs one of {', '.join(allowed)}")
        try:
            Times(self.time_distribution, self.time_mean, self.time_std)
        except ValueError as error:
            raise ValueError(f"time_{error}") from None
        for name in ("steps", "batch_size", "gradient_accumulation", "lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: needs a positive number")
        for name in ("warmup_steps", "weight_decay", "max_grad_norm", "seed", "adam_eps", "ema_rampup_ratio"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} = {getattr(self, name)}: needs zero or more")
        if len(self.adam_betas) != 2 or not all(0 <= beta < 1 for beta in self.adam_betas):
            raise ValueError(f"adam_betas = {self.adam_betas}: needs two decays from 0 to below 1, as (0.9, 0.999)")
        averages: tuple[tuple[str, Sequence[float], Callable[[float], object]], ...] = (
            ("ema_decay", (self.ema_decay,), check_decay),
            ("extra_ema_decays", self.extra_ema_decays, check_decay),
            ("power_ema_stds", self.power_ema_stds, exponent),
        )
        for name, lengths, check in averages:
            for length in lengths:
                try:
                    check(length)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None

    @property
    def times(self) -> Times:
        """The distribution of the training times."""
        return Times(self.time_distribution, self.time_mean, self.time_std)

    @property
    def adam(self) -> dict:
        """Keyword arguments of the optimizer beside its learning rate."""
        return {"betas": tuple(self.adam_betas), "eps": self.adam_eps, "weight_decay": self.weight_decay}

    def lr_at(self, seen: int, offset: int = 0) -> float:
        """Learning rate of the step that begins after ``seen`` items. ``offset`` items were seen beyond those of as
        many steps with this batch size, where a run began with another."""
        warm = min(1.0, (seen + self.batch_size) / max(1, self.warmup_steps * self.batch_size))
        return self.lr * warm * DECAYS[self.lr_decay](seen / (offset + self.steps * self.batch_size))

    def micro_batch_size(self, processes: int) -> int:
        """Items that a process takes through the network at once. Raises ValueError where they are not equally many."""
        parts = processes * self.gradient_accumulation
        if self.batch_size % parts:
            below = self.batch_size // parts * parts
            nearest = f"{below} or {below + parts}" if below else str(parts)
            raise ValueError(
                f"batch_size = {self.batch_size} cannot be split into gradient_accumulation = "
                f"{self.gradient_accumulation} parts for each of {processes} processes: nearest is {nearest}"
            )
        return self.batch_size // parts
