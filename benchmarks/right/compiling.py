"""Compiling: networks as graphs compute what they computed before."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.right.samplers import ROUNDING
from benchmarks.right.training import STEPS, relative, trainer_on
from benchmarks.sections import Check, Setting
from benchmarks.sides import gap, sides, trained
from samplers import SAMPLERS, compiled, generate
from samplers.compiled import attach
from sde.guidance import ClassifierFree


def compiling(setting: Setting) -> Iterator[Check]:
    """Samples and training steps of compiled networks against eager ones, both there: in standard deviations, and
    relative. On a trial by the compiler that writes no code."""
    side, target = sides(setting)[0], trained(setting.size)
    model = side.place(target.model)
    for name in setting.of(("ddim", "heun", "ancestral"), ("ddim", "heun", "ancestral"), ("ddim",)):
        bound = ClassifierFree(model, side.send(target.labels[:6]), 1.5)

        def draw(name=name, bound=bound):
            # A chunk that does not divide the samples.
            return generate(bound, SAMPLERS[name](), 6, target.event_shape, seed=2, steps=5, batch_size=4).x

        eager = draw()
        with compiled(model, backend=setting.backend):
            yield Check("samples", name, gap(draw(), eager, target.std), ROUNDING)
    if setting.device.type == "cuda":
        # Of chunks enough that the whole run is captured; elsewhere there is nothing to capture it with.
        for name in ("ddim", "ancestral"):
            bound = ClassifierFree(model, side.send(target.labels[:8]), 1.5)
            run = partial(generate, bound, SAMPLERS[name](), 8, target.event_shape, seed=2, steps=5, batch_size=2)
            yield Check("captured runs", name, gap(run(compile=True).x, run().x, target.std), ROUNDING)
    if setting.size == "smallest":
        # torch takes its time over a backward pass.
        return
    found = []
    for backend in (None, setting.backend):
        # In one part, as one process on CUDA captures its graphs then.
        run = trainer_on(side, setting, accumulated=1)
        if backend:
            attach(run.module.network, setting.device.type == "cuda", backend)
        steps = [run.training_step() for _ in range(STEPS // 4)]
        found.append(torch.stack([torch.stack([step.loss, step.norm]) for step in steps]).cpu())
    yield Check("training steps", f"{STEPS // 4} steps, losses and norms", relative(found[1], found[0]), 1e-3)
