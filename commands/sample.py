"""--mode sample: pictures and numbers from a run folder."""

from pathlib import Path

import numpy as np
import torch

from commands.config import read_grid
from commands.guided import GuidanceOptions, guided, read_labels, weak_model
from commands.pictures import picture
from commands.plans import planned
from commands.run import Run
from commands.trained import stem, write_arrays
from samplers import SAMPLERS, Samples, generate
from sde import ScoreModel
from sde.parallel import World

AUTO_CALLS = 10
"""Network calls of --sampler auto unless --steps says otherwise."""


def sample(
    run: Run,
    *,
    steps: int | None,
    grid: str | None,
    noise: str,
    num_samples: int,
    seed: int,
    labels: str | None,
    guidance: GuidanceOptions,
    batch_size: int,
    out: str | None,
) -> dict:
    """Draw samples; write ``<out>.png`` and ``<out>.npz``."""
    options = dict(run.config.sampler)
    name = options.pop("name")
    times = read_grid(grid)
    if name == "auto" and grid:
        raise ValueError(f"--grid={grid}: --sampler auto finds its own grid; leave it out")
    if name != "auto":
        sampler = SAMPLERS[name](**options)
    denoiser = run.model()
    classifier = run.classifier() if guidance.classifier_scale else None
    weak = weak_model(run, guidance)
    classes = denoiser.num_classes or (classifier.num_classes if classifier else None)
    label_tensor = read_labels(labels, num_samples, classes)
    model = guided(denoiser, classifier, label_tensor, guidance, weak)
    if name == "auto":
        calls, conditional = AUTO_CALLS if steps is None else steps, label_tensor is not None
        found = run.world.share(lambda: planned(run, denoiser, classifier, weak, conditional, guidance, calls))
        sampler, times, steps = found.sampler, found.times, calls
    samples = draw(
        run.world,
        model,
        sampler,
        num_samples,
        denoiser.event_shape,
        steps=steps,
        grid=times,
        noise=noise,
        seed=seed,
        batch_size=batch_size,
    )
    if samples is None:
        return {}
    path = stem(run, out, f"{name}-{len(samples.times) - 1}{guidance.suffix}-seed{seed}")
    picture_path, numbers_path = Path(f"{path}.png"), Path(f"{path}.npz")
    drawn = picture(samples.x, picture_path, levels=model.transform.levels, labels=label_tensor)
    arrays = {"x": samples.x, "seeds": np.array(samples.seeds), "calls": samples.calls, "labels": label_tensor}
    write_arrays(numbers_path, arrays)
    least, most = samples.calls.min().item(), samples.calls.max().item()
    spread = f" ({least:g} to {most:g})" if least < most else ""
    print(
        f"{num_samples} samples by {name}, {samples.nfe:g} network calls each{spread}, {samples.seconds:.1f} s: "
        f"{picture_path if drawn else 'no picture for this shape'}, {numbers_path}"
    )
    return {
        "mode": "sample",
        "sampler": name,
        "num_samples": num_samples,
        "nfe": samples.nfe,
        "seconds": round(samples.seconds, 2),
        "seed": seed,
        "picture": str(picture_path) if drawn else None,
        "numbers": str(numbers_path),
    }


def draw(world: World, model: ScoreModel, sampler, n: int, event_shape: tuple[int, ...], **options) -> Samples | None:
    """``generate``, of several processes each its part of the n samples: all of them in the first, None in the others.
    The seconds are those of the slowest."""
    mine = world.rows(n)
    count, part = mine.stop - mine.start, None
    if count:
        options |= {"first": mine.start, "progress": world.first}
        part = generate(model.rows(mine), sampler, count, event_shape, **options)
    parts = [part for part in world.deliver(part) if part is not None]
    if not world.first:
        return None
    x, calls = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "calls"))
    seeds = [seed for part in parts for seed in part.seeds]
    return Samples(x, calls, parts[0].times, max(part.seconds for part in parts), seeds)
