"""What an optimization is asked to do, and its learning rate along the way."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from sde.distributed.world import PARALLEL
from sde.training.ema import check_decay
from sde.training.ema_profile import exponent
from sde.training.loss import TIMES

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
DECAYS: dict[str, Callable[[float], float]] = {
    # factor of the learning rate at a fraction of the run
    "none": lambda fraction: 1.0,
    "cosine": lambda fraction: 0.5 * (1 + math.cos(math.pi * min(1.0, fraction))),
}


@dataclass(frozen=True)
class TrainingOptions:
    """``steps`` optimizer steps on ``batch_size`` items, of all processes together, ``accumulate`` parts one after the
    other; ``times`` a key of TIMES; learning rate ``lr`` after ``warmup`` steps, with a decay to the end of the run;
    gradients clipped to the norm ``clip`` (0: not); ``ema`` decay of the average of the weights, ``more_ema`` further
    decays, ``power_ema`` relative standard deviations of power-function averages; ``parallel`` a key of
    PARALLEL, for several processes."""

    steps: int = 1000
    batch_size: int = 128
    accumulate: int = 1
    times: str = "log_normal"
    optimizer: str = "adam"
    lr: float = 1e-3
    lr_decay: str = "cosine"
    warmup: int = 100
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    more_ema: tuple[float, ...] = ()
    power_ema: tuple[float, ...] = ()
    seed: int = 0
    parallel: str = "ddp"

    def __post_init__(self) -> None:
        tables: dict[str, Mapping] = {"optimizer": OPTIMIZERS, "lr_decay": DECAYS, "times": TIMES, "parallel": PARALLEL}
        for name, allowed in tables.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"config.training.{name} = {getattr(self, name)!r}: needs one of {', '.join(allowed)}")
        for name in ("steps", "batch_size", "accumulate", "lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"config.training.{name} = {getattr(self, name)}: needs a positive number")
        for name in ("warmup", "weight_decay", "clip", "seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"config.training.{name} = {getattr(self, name)}: needs zero or more")
        averages = (("ema", (self.ema,), check_decay), ("more_ema", self.more_ema, check_decay),
                    ("power_ema", self.power_ema, exponent))  # fmt: skip
        for name, lengths, check in averages:
            for length in lengths:
                try:
                    check(length)
                except ValueError as error:
                    raise ValueError(f"config.training.{name}: {error}") from None

    def lr_at(self, seen: int, offset: int = 0) -> float:
        """Learning rate of the step that begins after ``seen`` items. ``offset`` items were seen beyond those of as
        many steps with this batch size, where a run began with another."""
        warm = min(1.0, (seen + self.batch_size) / max(1, self.warmup * self.batch_size))
        return self.lr * warm * DECAYS[self.lr_decay](seen / (offset + self.steps * self.batch_size))

    def part_size(self, processes: int) -> int:
        """Items that a process takes through the network at once. Raises ValueError where they are not equally many."""
        parts = processes * self.accumulate
        if self.batch_size % parts:
            below = self.batch_size // parts * parts
            nearest = f"{below} or {below + parts}" if below else str(parts)
            raise ValueError(
                f"config.training.batch_size = {self.batch_size} cannot be split into config.training.accumulate = "
                f"{self.accumulate} parts for each of {processes} processes: nearest is {nearest}"
            )
        return self.batch_size // parts
