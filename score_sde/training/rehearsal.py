"""The rehearsal: what a training computes over and over, before it begins, to find how it is fastest."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from score_sde.run.folder import Run
from score_sde.run.trial import TRIAL_SECONDS
from sde.condition.tree import map_condition
from sde.data import Dataset
from sde.device import wait_for
from sde.training.augmentation import AS_THEY_ARE, Augmentation
from sde.training.loss import BatchNoise
from sde.training.modes import Modes
from sde.training.options import TrainingOptions
from sde.training.trainer import Loss, Trained

PASS_SECONDS = TRIAL_SECONDS / 100
"""Seconds of a pass that is tried: the shorter it is, the more turns there are to tell speed from noise."""


@dataclass(frozen=True)
class Rehearsal:
    """A ``run`` that trains a ``model`` on ``data`` by a ``loss``, with the ``options`` and the ``augmentation`` of the
    training."""

    run: Run
    model: Trained
    data: Dataset
    loss: Loss
    options: TrainingOptions
    augmentation: Augmentation = AS_THEY_ARE

    def passes(self) -> tuple[Callable[[int], None], int]:
        """A forward and backward pass of so many items, which leaves the model's weights as they are, and how many
        there are at most."""
        device, transform = self.run.device, self.data.transform
        part = self.options.batch_size // self.options.gradient_accumulation // self.run.world.size
        most = max(1, min(len(self.data), part, 32 if device.type == "cpu" else 256))
        x, cond = self.data.batch(torch.arange(most))
        # Told of augmentation as in training: a compiled network is one of what it is told.
        y, cond = self.augmentation(
            transform.outer.encode(x).to(device), map_condition(lambda c: c.to(device), cond), torch.arange(most)
        )
        with torch.no_grad():
            x0, _ = transform.inner_posterior(y)
        modes = Modes(self.model)

        def passes(count: int) -> None:
            draws = BatchNoise.draw(
                getattr(self.model, "sde", None), x0[:count].shape, torch.Generator().manual_seed(0)
            )
            modes.train()
            self.loss(self.model, x0[:count], map_condition(lambda c: c[:count], cond), draws).mean().backward()
            self.model.zero_grad()

        return passes, most


def few(passes: Callable[[int], None], most: int, device: torch.device) -> int:
    """How many items, a power of two or ``most``, a pass of PASS_SECONDS takes."""
    count = 1
    passes(count)
    while count < most:
        wait_for(device)
        start = time.perf_counter()
        passes(count)
        wait_for(device)
        if 2 * (time.perf_counter() - start) > PASS_SECONDS:
            break
        count = min(2 * count, most)
    return count
