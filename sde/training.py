"""Training: one optimiser step, and the loop that repeats it. Knows no sampler; the rest comes as callbacks."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sde.data import Dataset
from sde.ema import EMA

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
DECAYS: dict[str, Callable[[float], float]] = {
    # factor of the learning rate at a fraction of the run
    "none": lambda fraction: 1.0,
    "cosine": lambda fraction: 0.5 * (1 + math.cos(math.pi * fraction)),
}

Loss = Callable[[nn.Module, Tensor, Tensor | None, torch.Generator], Tensor]
"""(module, x0 in model units, labels, generator) -> losses (B,)"""


@dataclass(frozen=True)
class TrainingOptions:
    """``steps`` optimiser steps on ``batch_size`` items; learning rate ``lr`` after ``warmup`` steps, with a decay to
    the end of the run; gradients clipped to the norm ``clip`` (0: not); ``ema`` decay of the average of the weights."""

    steps: int = 1000
    batch_size: int = 128
    optimizer: str = "adam"
    lr: float = 1e-3
    lr_decay: str = "cosine"
    warmup: int = 100
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("optimizer", OPTIMIZERS), ("lr_decay", DECAYS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"config.training.{name} = {getattr(self, name)!r}: needs one of {', '.join(allowed)}")
        for name in ("steps", "batch_size", "lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"config.training.{name} = {getattr(self, name)}: needs a positive number")
        for name in ("warmup", "weight_decay", "clip", "seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"config.training.{name} = {getattr(self, name)}: needs zero or more")

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return self.lr * min(1.0, (step + 1) / max(1, self.warmup)) * DECAYS[self.lr_decay](step / self.steps)


class Trainer:
    """A module, its EMA and its optimiser. Step n takes its items and random numbers from (seed, n) alone, so that a
    continued run equals an uninterrupted one."""

    def __init__(self, module: nn.Module, data: Dataset, loss: Loss, options: TrainingOptions) -> None:
        if options.batch_size > len(data):
            raise ValueError(
                f"config.training.batch_size = {options.batch_size} is larger than the {len(data)} training "
                f"items: at most {len(data)}"
            )
        self.module, self.data, self.loss, self.options = module, data, loss, options
        self.device = next(module.parameters()).device
        self.step = 0
        self.optimizer = OPTIMIZERS[options.optimizer](
            module.parameters(), lr=options.lr, fused=True, weight_decay=options.weight_decay
        )
        self.ema = EMA(module, options.ema)
        self._epoch: tuple[int, Tensor] | None = None

    def _order(self, epoch: int) -> Tensor:
        if self._epoch is None or self._epoch[0] != epoch:
            order = np.random.default_rng((self.options.seed, epoch)).permutation(len(self.data))
            self._epoch = (epoch, torch.from_numpy(order))
        return self._epoch[1]

    def indices(self, step: int) -> Tensor:
        """Positions of the items of a step: a new random order every epoch, no item left out."""
        size, count = self.options.batch_size, len(self.data)
        positions = range(step * size, (step + 1) * size)
        epochs = sorted({positions[0] // count, positions[-1] // count})
        return torch.cat(
            [self._order(e)[max(0, positions[0] - e * count) : positions[-1] + 1 - e * count] for e in epochs]
        )

    def optimise(self) -> Tensor:
        """One step; its losses (B,), not read back from the device."""
        generator = torch.Generator().manual_seed(_seed(self.options.seed, self.step))
        x, labels = self.data.batch(self.indices(self.step))
        transform = self.data.transform
        x0 = transform.encode(transform.dequantise(x, torch.rand(x.shape, generator=generator)))
        x0 = x0.to(self.device, non_blocking=True)
        labels = None if labels is None else labels.to(self.device, non_blocking=True)
        # Dropout layers draw from the global state, which fit restores at its end.
        torch.manual_seed(_seed(self.options.seed, self.step, 1))
        self.module.train()
        losses = self.loss(self.module, x0, labels, generator)
        self.optimizer.zero_grad()
        losses.mean().backward()
        if self.options.clip:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.options.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.lr_at(self.step)
        self.optimizer.step()
        self.ema.update(self.module)
        self.step += 1
        return losses.detach()

    def state_dict(self) -> dict:
        """Everything that a continued run needs. Raises FloatingPointError where a parameter is not finite."""
        for name, parameter in self.module.named_parameters():
            if not parameter.isfinite().all():
                raise FloatingPointError(
                    f"{name} is not finite after step {self.step}, and was not saved: try a smaller config.training.lr"
                )
        return {
            "step": self.step,
            "module": self.module.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from ``state_dict()``; raises RuntimeError or KeyError where it belongs to another module."""
        self.module.load_state_dict(state["module"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["weight_decay"] = self.options.weight_decay
        self.step = state["step"]


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


Callback = Callable[[int, Tensor], None]


def fit(trainer: Trainer, callbacks: list[tuple[int, Callback]], read_every: int = 20) -> None:
    """Optimise to the last step. A callback (n, function) is called with the step and the losses (k, B) since its last
    call, every n steps and at the end, and only after those losses were found finite.

    Losses are read from the device every ``read_every`` steps, and before every callback. Raises FloatingPointError
    that names the first step whose loss is not finite.
    """
    pending: list[Tensor] = []
    unseen: list[list[Tensor]] = [[] for _ in callbacks]
    last = trainer.options.steps
    with torch.random.fork_rng(devices=[trainer.device] if trainer.device.type == "cuda" else []):
        while trainer.step < last:
            pending.append(trainer.optimise())
            due = [i for i, (every, _) in enumerate(callbacks) if trainer.step % every == 0 or trainer.step == last]
            if due or len(pending) >= read_every:
                losses = torch.stack(pending).float().cpu()
                pending.clear()
                bad = (~losses.isfinite().all(1)).nonzero().flatten()
                if len(bad):
                    step = trainer.step - len(losses) + int(bad[0]) + 1
                    raise FloatingPointError(
                        f"the loss is not finite in step {step}: try a smaller config.training.lr, or look at the data"
                    )
                for part in unseen:
                    part.append(losses)
                for i in due:
                    callbacks[i][1](trainer.step, torch.cat(unseen[i]))
                    unseen[i].clear()
