"""Training: the same steps on both sides, and runs that were ended and go on."""

import copy
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.sections import Check, Setting
from benchmarks.sides import Side, Target, continuous_digits, digits_loss, gap, on_both, sides, small_unet, trained
from score_sde.training.precision import apply
from sde.checkpoint.states import Checkpoints
from sde.distributed.world import World
from sde.model.denoiser import Denoiser
from sde.training.loss import BatchNoise, denoising_loss
from sde.training.options import TrainingOptions
from sde.training.trainer import Trainer

STEPS = 20


def trainer_on(
    side: Side,
    setting: Setting,
    world: World | None = None,
    *,
    dropout: float = 0.0,
    parallel: str = "ddp",
    accumulated: int = 2,
) -> Trainer:
    """A trainer of a small U-Net on the digits, the same on every side but for where and how precise it is."""
    model = side.place(small_unet(setting.size, dropout))

    def loss(module, x0, cond, draws):
        return digits_loss(module, x0.to(side.dtype), cond, draws)

    options = TrainingOptions(
        steps=STEPS,
        batch_size=setting.of(64, 8),
        warmup_steps=5,
        gradient_accumulation=accumulated,
        ema_decay=0.9,
        parallel=parallel,
    )
    return Trainer(model, continuous_digits(), loss, options, world)


def losses_of(model: Denoiser, target: Target) -> Tensor:
    """Losses (B,) of a model on some data, with draws from a fixed seed, on the CPU."""
    like = next(model.parameters())
    draws = BatchNoise.draw(model.sde, target.data.shape, torch.Generator().manual_seed(0))
    with torch.no_grad():
        cond = {"labels": target.labels.to(like.device)}
        return denoising_loss(model.eval(), target.data.to(like), cond, draws).cpu()


def relative(found: Tensor, wanted: Tensor) -> float:
    """The largest relative difference of two tensors of positive numbers."""
    return gap(found.cpu().double() / wanted.cpu().double(), torch.ones(()))


def training(setting: Setting) -> Iterator[Check]:
    """Twenty training steps on both sides: losses and norms of gradients, relative, and what the weights are worth.

    Weights are compared by the losses that they make: Adam takes steps of full length by gradients that are rounding
    alone, as those of the biases of attention's keys are.
    """
    target = trained(setting.size)

    def on(side: Side) -> tuple[Tensor, ...]:
        run = trainer_on(side, setting)
        steps = [run.training_step() for _ in range(STEPS)]
        averaged = copy.deepcopy(run.module)
        averaged.load_state_dict(run.ema.module_state(run.module))
        found = [torch.stack([getattr(step, name) for step in steps]) for name in ("loss", "norm")]
        return *found, losses_of(run.module, target), losses_of(averaged, target)

    measured, held_to = on_both(setting, on)
    names = ("losses of the steps", "norms of gradients", "losses at the end", "losses of the average of weights")
    for name, found, wanted in zip(names, measured, held_to, strict=True):
        yield Check(name, f"{STEPS} steps", relative(found, wanted), 1e-3 if "loss" in name else 1e-2)


@contextmanager
def deterministic() -> Iterator[None]:
    """Kernels that give the same bits every time, where there are such; restored afterwards."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with warnings.catch_warnings():
        # Of those that there are not, what follows tells.
        warnings.simplefilter("ignore")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def different(found, wanted) -> int:
    """How many values of two nested states are not equal to the last bit."""
    if isinstance(wanted, dict):
        return len(found.keys() ^ wanted.keys()) + sum(different(found[k], wanted[k]) for k in wanted if k in found)
    if isinstance(wanted, list | tuple):
        return abs(len(found) - len(wanted)) + sum(map(different, found, wanted))
    if isinstance(wanted, Tensor):
        return int(found.shape != wanted.shape or not torch.equal(found, wanted))
    return int(found != wanted)


def resume(setting: Setting) -> Iterator[Check]:
    """A run that was ended, stored and continued, against one that was not: how many values of its state differ.

    Weights, their averages, the optimizer's memory and the losses, with dropout. That the same run twice is the same is
    asked first: where a device's own kernels are not, the other line says nothing.
    """
    side, steps = sides(setting)[0], 3

    def start(choice: tuple[str, str]) -> Trainer:
        run = trainer_on(side, setting, dropout=0.2)
        apply(run.module, *choice)
        return run

    def advance(run: Trainer) -> dict:
        losses = [run.training_step().loss for _ in range(steps)]
        return {**run.state_dict(), "losses": losses}

    for choice in (("float32", "contiguous"), ("bfloat16", "channels_last")):
        with deterministic(), tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
            first, second = start(choice), start(choice)
            states = Checkpoints(Path(folder), "denoiser")
            advance(first)
            states.save(first.state_dict())
            whole = advance(first)
            advance(second)
            again = advance(second)
            continued = start(choice)
            continued.load_state_dict(states.load()[0])
            name = " ".join(choice)
            yield Check("the same run twice", name, different(again, whole), 0)
            yield Check("ended and continued", name, different(advance(continued), whole), 0)
