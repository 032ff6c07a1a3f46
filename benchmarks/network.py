"""Time and memory of a forward pass and of a training step of a config's network, on random data of its shape.

    python benchmarks/network.py --config cifar10 --batch_size 8 [--repeats 5] [--config.training.precision=bfloat16]
    python benchmarks/network.py --config cifar10 --batch_size 8 --against diffusers
    python benchmarks/network.py --config digits --batch_size 64 --compile

Ours is measured in every precision and memory layout; the one that training chooses by itself counts as its own. With
``--against diffusers`` (to be installed beside this project) its UNet2DModel of the same widths, attention and dropout
is trained in the same run, in float32, as its users have it, and under bfloat16 autocast. With ``--compile`` our choice
is measured compiled as well, and what compiling took is said. All are interleaved; medians. The last line is JSON, for
our own choice.
"""

import argparse
import copy
import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import peers
from benchmarks.measure import random_model, seconds
from samplers.compiled import attach
from score_sde.config.options import MEMORY_FORMATS, PRECISIONS, PrecisionOptions
from score_sde.run.device import choose_device
from score_sde.run.folder import Run
from score_sde.training.memory import peak_memory
from score_sde.training.precision import apply, settle
from score_sde.training.rehearsal import Rehearsal
from sde.condition.tree import map_condition
from sde.training.loss import denoising_loss
from sde.training.options import TrainingOptions
from sde.training.trainer import Trainer

Passes = tuple[Callable[[], object], Callable[[], object]]
"""A forward pass and a training step."""


def ours(run: Run, model, data, batch_size: int) -> tuple[PrecisionOptions, dict[str, Passes]]:
    """Our network in every precision and memory format, and which of them training chooses."""
    loss = partial(denoising_loss, weighting=run.config.training.loss_weighting)
    chosen = settle(Rehearsal(run, model, data, loss, run.config.training.optimization))
    trainers: dict[tuple[str, str], Trainer] = {}
    x, cond = data.batch(torch.arange(batch_size))
    x, cond = x.to(run.device), map_condition(lambda c: c.to(run.device), cond)
    t = torch.tensor(0.5, dtype=torch.float64)

    @torch.no_grad()
    def forward(choice: tuple[str, str]) -> None:
        apply(model, *choice)
        model.eval()(x, t, cond if model.num_classes else None)

    def train(choice: tuple[str, str]) -> None:
        apply(model, *choice)
        # One each: what an optimizer remembers is laid out in memory as the weights were at its first step.
        if choice not in trainers:
            trainers[choice] = Trainer(model, data, loss, TrainingOptions(batch_size=batch_size, lr=1e-6))
        trainers[choice].training_step()

    return chosen, {
        " ".join(choice): (partial(forward, choice), partial(train, choice))
        for choice in product(PRECISIONS, MEMORY_FORMATS)
    }


def compiled(run: Run, model, data, batch_size: int, choice: tuple[str, str]) -> tuple[Passes, float]:
    """A network like ours, compiled as sampling and training compile it, and the seconds that its first passes took."""
    cuda = run.device.type == "cuda"
    # One for each kind of pass, as what is captured holds the places of its weights.
    drawn, trained = copy.deepcopy(model), copy.deepcopy(model)
    for one in (drawn, trained):
        apply(one, *choice)
        attach(one.network, captured=cuda)
    x, cond = data.batch(torch.arange(batch_size))
    x, cond = x.to(run.device), map_condition(lambda c: c.to(run.device), cond)
    t = torch.tensor(0.5, dtype=torch.float64)
    loss = partial(denoising_loss, weighting=run.config.training.loss_weighting)
    trainer = Trainer(trained, data, loss, TrainingOptions(batch_size=batch_size, lr=1e-6))

    @torch.no_grad()
    def forward() -> None:
        drawn.eval()(x, t, cond if model.num_classes else None)

    passes = forward, trainer.training_step
    return passes, sum(seconds(one, run.device) for one in passes)


def diffusers(run: Run, batch_size: int) -> dict[str, Passes]:
    """The UNet2DModel of the same size, trained as its documentation does."""
    model = peers.unet(run.config.model.network, run.config.data.event_shape).to(run.device)
    print(f"diffusers UNet2DModel: {sum(p.numel() for p in model.parameters()):,} parameters")
    x = torch.randn(batch_size, *run.config.data.event_shape, device=run.device)
    return {f"diffusers {name}": peers.passes(model, x, precision) for name, precision in PRECISIONS.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="digits", help="a config file, or the name of one in configs/")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--against", choices=["diffusers"])
    parser.add_argument("--compile", action="store_true", help="our choice compiled as well")
    options, overrides = parser.parse_known_args()
    try:
        device = choose_device(options.device)
        config, data, model = random_model(options.config, overrides, device, options.batch_size)
    except ValueError as error:
        parser.error(str(error))
    run = Run(Path(), config, device)
    speed, passes = ours(run, model, data, options.batch_size)
    chosen = f"{speed.precision} {speed.memory_format}"
    if options.compile:
        passes["compiled"], first = compiled(
            run, model, data, options.batch_size, (speed.precision, speed.memory_format)
        )
        print(f"compiling for forward passes and training steps took {first:.0f} s")
    if options.against:
        passes |= diffusers(run, options.batch_size)
    times = {name: ([], []) for name in passes}
    for repeat in range(options.repeats + 1):
        for name, functions in passes.items():
            for taken, function in zip(times[name], functions, strict=True):
                spent = seconds(function, device)
                if repeat:  # The first one warms up.
                    taken.append(spent)
    print("\n| | forward, ms/image | training step, ms/image |\n|---|---|---|")
    found = {
        name: [1000 * statistics.median(taken) / options.batch_size for taken in both] for name, both in times.items()
    }
    for name, (forward_ms, train_ms) in found.items():
        print(f"| {name}{', chosen' if name == chosen else ''} | {forward_ms:.3f} | {train_ms:.3f} |")
    print(
        "\n"
        + json.dumps(
            {
                "config": options.config,
                "batch_size": options.batch_size,
                "device": str(device),
                "threads": torch.get_num_threads(),
                "precision": speed.precision,
                "memory_format": speed.memory_format,
                "parameters": sum(p.numel() for p in model.parameters()),
                "forward_ms_per_image": round(found[chosen][0], 4),
                "train_ms_per_image": round(found[chosen][1], 4),
                "images_per_second": round(1000 / found[chosen][1], 2),
                "compiled_ms_per_image": [round(ms, 4) for ms in found.get("compiled", ())] or None,
                "peak_memory_gib": round(peak_memory(device) / 2**30, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
