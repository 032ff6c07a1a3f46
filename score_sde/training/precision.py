"""Precision and memory format of the network in training: what the machine does fastest, found by trying."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product

import torch

from score_sde.config.options import MEMORY_FORMATS, PRECISIONS, PrecisionOptions
from score_sde.run.device import arrange
from score_sde.run.folder import Run
from score_sde.run.trial import Trial, fastest
from sde.condition.tree import map_condition
from sde.data import Dataset
from sde.device import forked_random, wait_for
from sde.distributed.world import body_of
from sde.training.augmentation import AS_THEY_ARE, Augmentation
from sde.training.loss import BatchNoise
from sde.training.modes import Modes
from sde.training.options import TrainingOptions
from sde.training.trainer import Loss, Trained

LEAST_PARAMETERS = 1_000_000
"""Parameters below which nothing is tried: such a run is over soon, and does not depend on a clock."""

TRIAL_SECONDS = 20.0
"""Seconds of a trial at most; on a quiet machine a few are enough."""

PASS_SECONDS = TRIAL_SECONDS / 100
"""Seconds of a pass that is tried: the shorter it is, the more turns there are to tell speed from noise."""


def settle(
    run: Run,
    model: Trained,
    data: Dataset,
    loss: Loss,
    options: TrainingOptions | None = None,
    augmentation: Augmentation = AS_THEY_ARE,
) -> PrecisionOptions:
    """Set the model's precision and memory format to those asked for, of which "auto" becomes what a trial finds
    fastest, the first process's; returns what was set. ``options`` are those of the training, by default the
    denoiser's."""
    asked, options = run.config.training.speed, options or run.config.training.optimization
    precisions = [*PRECISIONS] if asked.precision == "auto" else [asked.precision]
    formats = [*MEMORY_FORMATS] if asked.memory_format == "auto" else [asked.memory_format]
    if options.parallel == "fsdp" and run.world.size > 1:
        if asked.memory_format == "channels_last":
            raise ValueError(
                "config.training.memory_format = 'channels_last': weights that config.training.parallel = 'fsdp' "
                "splits are contiguous; set it to contiguous"
            )
        # Nothing is tried: it would be with the whole network on each device.
        formats, precisions = formats[:1], precisions[-1:] if run.device.type == "cuda" else precisions[:1]
    if sum(p.numel() for p in model.parameters()) < LEAST_PARAMETERS:
        precisions, formats = precisions[:1], formats[:1]
    choices = [*product(precisions, formats)]
    chosen = choices[0]
    if len(choices) > 1:
        print(f"trying {len(choices)} ways to train, for the fastest ...", flush=True)
        trial = run.world.all_gather(_try(run, model, data, loss, options, augmentation, choices))[0]
        chosen = next(choice for choice in choices if _named(choice) == trial.chosen)
        print(f"a training pass takes {trial}; training in {trial.chosen}")
    apply(model, *chosen)
    precision, memory_format = chosen
    return replace(asked, precision=precision, memory_format=memory_format)


def apply(model: Trained, precision: str, memory_format: str) -> None:
    """Set the dtype of the network's body and the memory format of its weights."""
    model.autocast = PRECISIONS[precision]
    arrange(body_of(model), memory_format)


def _named(choice: tuple[str, str]) -> str:
    return " ".join(choice)


def _try(
    run: Run,
    model: Trained,
    data: Dataset,
    loss: Loss,
    options: TrainingOptions,
    augmentation: Augmentation,
    choices: list[tuple[str, str]],
) -> Trial:
    """The trial of a forward and backward pass of a few items; the model's weights stay as they are."""
    passes, most = training_pass(run, model, data, loss, options, augmentation)
    by_name = {_named(choice): choice for choice in choices}
    with forked_random(run.device):
        apply(model, *choices[0])
        count = few(passes, most, run.device)
        return fastest(
            dict.fromkeys(by_name, partial(passes, count)),
            seconds=TRIAL_SECONDS,
            prepare=lambda name: apply(model, *by_name[name]),
            device=run.device,
        )


def training_pass(
    run: Run, model: Trained, data: Dataset, loss: Loss, options: TrainingOptions, augmentation: Augmentation
) -> tuple[Callable[[int], None], int]:
    """A forward and backward pass of so many items, which leaves the model's weights as they are, and how many there
    are at most."""
    part = options.batch_size // options.gradient_accumulation // run.world.size
    most = max(1, min(len(data), part, 32 if run.device.type == "cpu" else 256))
    x, cond = data.batch(torch.arange(most))
    x0 = data.transform.encode(x).to(run.device)
    # Told as in training: a compiled network is one of what it is told.
    _, cond = augmentation(x0, map_condition(lambda c: c.to(run.device), cond), torch.arange(most))
    modes = Modes(model)

    def passes(count: int) -> None:
        draws = BatchNoise.draw(getattr(model, "sde", None), x0[:count].shape, torch.Generator().manual_seed(0))
        modes.train()
        loss(model, x0[:count], map_condition(lambda c: c[:count], cond), draws).mean().backward()
        model.zero_grad()

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
