"""Precision and memory format of the network in training: what the machine does fastest, found by trying."""

import time
from dataclasses import replace
from itertools import product

import torch

from score_sde.config.options import MEMORY_FORMATS, PRECISIONS, PrecisionOptions
from score_sde.run.folder import Run, arrange
from sde.condition.tree import map_condition
from sde.data import Dataset
from sde.model.classifier import NoisyClassifier
from sde.model.denoiser import Denoiser
from sde.training.loss import BatchNoise
from sde.training.modes import Modes
from sde.training.options import TrainingOptions
from sde.training.trainer import Loss

SMALL_NETWORK = 1_000_000
"""Parameters below which nothing is tried: such a run is over soon, and does not depend on a clock."""
MIN_SPEEDUP = 1.2
"""How much faster than the plain choice another one must be."""

TRIAL_SECONDS = 10.0
"""Seconds after which no further pass is tried."""


def settle(
    run: Run, model: Denoiser | NoisyClassifier, data: Dataset, loss: Loss, options: TrainingOptions | None = None
) -> PrecisionOptions:
    """Set the model's precision and memory format to those asked for, of which "auto" becomes what a few passes find
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
    if sum(p.numel() for p in model.parameters()) < SMALL_NETWORK:
        precisions, formats = precisions[:1], formats[:1]
    choices = [*product(precisions, formats)]
    chosen = choices[0]
    if len(choices) > 1:
        seconds = run.world.all_gather(_measure(run, model, data, loss, options, choices))[0]
        fastest = min(choices, key=seconds.get)
        chosen = fastest if seconds[fastest] * MIN_SPEEDUP < seconds[chosen] else chosen
        tried = ", ".join(f"{' '.join(choice)} {1000 * value:.0f} ms" for choice, value in seconds.items())
        print(f"a training pass takes {tried}: training in {' '.join(chosen)}")
    apply(model, *chosen)
    precision, memory_format = chosen
    return replace(asked, precision=precision, memory_format=memory_format)


def apply(model: Denoiser | NoisyClassifier, precision: str, memory_format: str) -> None:
    """Set the dtype of the network's body and the memory format of its weights."""
    model.autocast = PRECISIONS[precision]
    arrange(model.network, memory_format)


def _measure(
    run: Run,
    model: Denoiser | NoisyClassifier,
    data: Dataset,
    loss: Loss,
    options: TrainingOptions,
    choices: list,
    repeats: int = 3,
) -> dict:
    """Seconds of a forward and backward pass of a few items, interleaved, the least of each choice."""
    part = options.batch_size // options.gradient_accumulation // run.world.size
    count = max(1, min(len(data), part, 32 if run.device.type == "cpu" else 256))
    x, cond = data.batch(torch.arange(count))
    x0 = data.transform.encode(x).to(run.device)
    cond = map_condition(lambda c: c.to(run.device), cond)
    draws = BatchNoise.draw(model.sde, x0.shape, torch.Generator().manual_seed(0))
    seconds, modes = dict.fromkeys(choices, float("inf")), Modes(model)
    print(f"trying {len(choices)} ways to train, for the fastest ...", flush=True)
    begin = time.perf_counter()
    with torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []):
        for repeat in range(repeats + 1):
            if repeat and time.perf_counter() - begin > TRIAL_SECONDS:
                break
            for choice in choices:
                apply(model, *choice)
                start = time.perf_counter()
                modes.train()
                loss(model, x0, cond, draws).mean().backward()
                model.zero_grad()
                if run.device.type == "cuda":
                    torch.cuda.synchronize(run.device)
                took = time.perf_counter() - start
                # The first pass of each sets up kernels, and counts only where it is the last.
                seconds[choice] = took if repeat <= 1 else min(seconds[choice], took)
    return seconds
