"""Subjects: networks of the project's configs, in sizes for a GPU or for a trial on a CPU."""

import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import random_model
from benchmarks.sections import Setting
from sde import Denoiser
from sde.data import Dataset
from sde.training.loss import denoising_loss
from sde.training.trainer import Trainer

SMALL = {
    "cifar10": ["channels=8", "channel_mult=(1,2)", "num_res_blocks=1"],
    "cifar10_dit": ["width=32", "depth=1", "heads=2"],
    "digits": ["channels=8"],
    "points": ["width=32"],
}
"""Options of networks that make a config small."""


@dataclass(frozen=True)
class Subject:
    """A config's network on random weights, with data of its shape to train on."""

    name: str
    config: Any
    model: Denoiser
    data: Dataset
    batch: int
    device: torch.device
    trainers: list[Trainer] = field(default_factory=list)
    """Those that were made, whose threads read ahead until they are closed."""

    def inputs(self, count: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Noise (count, *event) and classes, on the device."""
        count = count or self.batch
        x = torch.randn(count, *self.data.event_shape, device=self.device)
        return x, (torch.arange(count, device=self.device) % 10 if self.model.num_classes else None)

    def trainer(self, model: Denoiser, batch: int | None = None) -> Trainer:
        """A trainer of a copy of the model, as the config has it, at a learning rate that leaves the weights."""
        training = self.config.training
        loss = partial(denoising_loss, weighting=training.loss_weighting, cond_dropout=training.cond_dropout)
        options = replace(training.optimization, batch_size=batch or self.batch, lr=1e-6, steps=10**6)
        self.trainers.append(Trainer(model, self.data, loss, options, workers=self.config.data.workers))
        return self.trainers[-1]

    def close(self) -> None:
        """Let go of all trainers."""
        while self.trainers:
            self.trainers.pop().close()

    def copy(self) -> Denoiser:
        """The model once more, with weights of its own."""
        return copy.deepcopy(self.model)


def subject(name: str, setting: Setting, batch: int) -> Subject:
    """The network of a config on random weights, for batches of this many items; on a trial fewer, of a smaller
    network."""
    batch = setting.of(batch, 4)
    overrides = [f"--config.model.network.{option}" for option in SMALL[name]] if setting.size != "full" else []
    config, data, model = random_model(name, overrides, setting.device, 2 * batch)
    with torch.no_grad():
        for parameter in model.parameters():
            # Some begin at zero, and by zeros a card multiplies faster.
            parameter += 0.02 * torch.randn_like(parameter)
    return Subject(name, config, model.eval(), data, batch, setting.device)
