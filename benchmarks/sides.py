"""Two sides of a comparison, and the models that are asked on both."""

import copy
from dataclasses import dataclass
from functools import cache, partial
from itertools import repeat

import torch
from torch import Tensor, nn

from benchmarks.sections import Setting
from sde import SDES, VPSDE, Denoiser, ScoreModel
from sde.data import Dataset
from sde.data.sets import digits
from sde.data.transform import Transform
from sde.networks import UNet
from sde.training.loss import denoising_loss
from sde.training.options import TrainingOptions
from sde.training.trainer import Trainer
from tests.oracles.exact import GaussianMixture

SHAPE = (2, 4)
"""The shape of the exact models' items."""

STD = 0.5
"""Of each mode. Sharper ones make of roundings in whose basin a sample ends."""


@dataclass(frozen=True)
class Side:
    """Where something is computed, and in which precision."""

    device: torch.device
    dtype: torch.dtype

    def place(self, module: nn.Module) -> nn.Module:
        """A copy of a module on this side."""
        return copy.deepcopy(module).to(self.device, self.dtype)

    def send(self, x: Tensor) -> Tensor:
        """A tensor on this side; what is no float keeps its type."""
        return x.to(self.device, self.dtype if x.is_floating_point() else x.dtype)


def sides(setting: Setting) -> tuple[Side, Side]:
    """What is measured, in float32, and what it is held to: the CPU; or where it is the CPU itself, float64 there."""
    reference = torch.float64 if setting.device.type == "cpu" else torch.float32
    return Side(setting.device, torch.float32), Side(torch.device("cpu"), reference)


def on_both(setting: Setting, function) -> tuple:
    """function(side) on the side that is measured, and on the one that it is held to."""
    measured, held_to = sides(setting)
    return function(measured), function(held_to)


def gap(found: Tensor, wanted: Tensor, std: float = 1.0) -> float:
    """The largest difference of two tensors in units of ``std``."""
    return ((found.detach().cpu().double() - wanted.detach().cpu().double()).abs().max() / std).item()


@dataclass(frozen=True)
class Target:
    """A model, the standard deviation of its data in data units, and some data (n, *event) with their classes."""

    model: ScoreModel
    std: float
    data: Tensor
    labels: Tensor

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of an item."""
        return tuple(self.data.shape[1:])


@cache
def exact(sde: str = "vp", items: int = 16) -> Target:
    """A mixture of five Gaussians, exact, seen through a process by its name."""
    generator = torch.Generator().manual_seed(0)
    model = GaussianMixture(SDES[sde](), torch.randn(5, *SHAPE, generator=generator), STD)
    data = model.draw(items, generator)
    return Target(model, data.std().item(), data, torch.arange(items) % 5)


def continuous_digits() -> Dataset:
    """The digits with zero mean and unit deviation, not quantized: rounding to integers would hide small errors, and
    make large ones of them."""
    train, _ = digits()
    items = train.items.float()
    transform = Transform.standardize(items)
    return Dataset(transform.encode(items), train.labels, train.num_classes, Transform())


UNETS = {
    "full": {"channels": 32, "channel_mult": (1, 2), "attention_resolutions": (4,)},
    "small": {"channels": 8, "channel_mult": (1, 2), "attention_resolutions": (4,)},
    "smallest": {"channels": 8, "channel_mult": (1,)},
}
"""Of the digits, by the size of the run."""


def small_unet(size: str, dropout: float = 0.0) -> Denoiser:
    """The U-Net of a run of this size, on weights from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet((1, 8, 8), 10, **UNETS[size], num_res_blocks=1, dropout=dropout)
    return Denoiser(network, VPSDE(), sigma_data=1.0, event_shape=(1, 8, 8))


digits_loss = partial(denoising_loss, cond_dropout=0.2)


@cache
def trained(size: str) -> Target:
    """A U-Net that has seen the digits for some hundred steps, on the CPU: the same weights for both sides."""
    steps, batch = {"full": (200, 32), "small": (150, 16), "smallest": (30, 16)}[size]
    data, model = continuous_digits(), small_unet(size)
    options = TrainingOptions(steps=steps, batch_size=batch, lr=3e-3, warmup_steps=20, ema_decay=0.98)
    trainer = Trainer(model, data, digits_loss, options)
    with torch.random.fork_rng(devices=[]):
        for _ in repeat(None, steps):
            trainer.training_step()
    model.load_state_dict(trainer.ema.module_state(model))
    model.eval()
    x, cond = data.batch(torch.arange(16))
    return Target(model, data.items.std().item(), x, cond["labels"])
