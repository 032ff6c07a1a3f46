"""--mode sample: pictures and numbers from a run folder."""

from pathlib import Path

import numpy as np
import torch

from commands.conditions import cascade_seed, open_cascade, read_condition, show, upscaled
from commands.config import pick
from commands.drawing.strip import strip
from commands.guided import UNGUIDED, GuidanceOptions, Guides, read_labels
from commands.inputs import read_grid
from commands.names import stem
from commands.plans import planned
from commands.run import Run
from commands.scales import varied
from commands.trained import write_arrays
from samplers import NOISES, SAMPLERS, Samples, generate
from sde import ScoreModel
from sde.condition import Condition, as_tree, known
from sde.parallel import World

AUTO_CALLS = 10
"""Network calls of --sampler auto unless --steps says otherwise."""


def sample(
    run: Run,
    *,
    steps: int | None = None,
    grid: str | None = None,
    noise: str = NOISES[0],
    num_samples: int = 64,
    seed: int = 0,
    labels: str | None = None,
    condition: str | None = None,
    cascade: str | None = None,
    guidances: tuple[GuidanceOptions, ...] = (UNGUIDED,),
    batch_size: int = 256,
    out: str | None = None,
) -> dict:
    """Draw samples, at each of several scales from the same noise; write ``<out>.png`` and ``<out>.npz``."""
    sampling = Sampling(run, steps, grid, noise, seed, batch_size)
    guides = Guides(run, run.model(), *guidances)
    if cascade:
        if condition:
            raise ValueError(f"--condition={condition} and --cascade={cascade} both give the images: choose one")
        cond = low_resolution(sampling, cascade, guides, labels, num_samples)
    else:
        cond = read_condition(run, guides, labels, condition, num_samples)
    # All of them before the first is drawn, for what they refuse.
    models = [guides(cond, options) for options in guidances]
    drawn = [sampling(guides, options, cond, num_samples) for options in guidances]
    if not run.world.first:
        return {}
    # An adaptive solver makes steps of its own between the two ends.
    count = sampling.steps or len(drawn[0].times) - 1
    head = sampling.name if count == 1 and not sampling.steps else f"{sampling.name}-{count}"
    path = stem(run, out, head, seed, told=("sampler", "steps"))
    picture_path, numbers_path = Path(f"{path}.png"), Path(f"{path}.npz")
    x, calls = (torch.stack([getattr(samples, name) for samples in drawn]) for name in ("x", "calls"))
    levels = models[0].transform.levels
    arrays = {"x": x, "seeds": np.array(drawn[0].seeds), "calls": calls, **as_tree(cond)}
    nfe, seconds = [samples.nfe for samples in drawn], [round(samples.seconds, 2) for samples in drawn]
    result = {"mode": "sample", "sampler": sampling.name, "num_samples": num_samples, "nfe": nfe, "seconds": seconds}
    counted = f"{num_samples} sample{'s' * (num_samples > 1)}"
    if len(guidances) == 1:
        arrays |= {"x": x[0], "calls": calls[0]}
        result |= {"nfe": nfe[0], "seconds": seconds[0]}
        shown = show(x[0], cond, picture_path, levels=levels)
        what = counted
    else:
        flag, scales = varied(guidances)
        arrays |= {"scales": np.array(scales)}
        result |= {"flag": flag, "scales": scales}
        names = [f"{flag.replace('_', ' ')} {scale:g}" for scale in scales]
        shown = strip(x, names, picture_path, levels=levels, labels=as_tree(cond).get("labels"))
        what = f"{counted} at each {flag.replace('_', ' ')} of {', '.join(f'{s:g}' for s in scales)}"
    write_arrays(numbers_path, arrays)
    least, most = calls.min().item(), calls.max().item()
    spread = f" ({least:g} to {most:g})" if len(drawn) == 1 and least < most else ""
    print(
        f"{what} by {sampling.name}, {', '.join(f'{mean:g}' for mean in nfe)} network calls each{spread}, "
        f"{sum(seconds):.1f} s: {picture_path if shown else 'no picture for this shape'}, {numbers_path}"
    )
    return result | {"seed": seed, "picture": str(picture_path) if shown else None, "numbers": str(numbers_path)}


class Sampling:
    """The sampler of a run, as the flags of sampling describe it."""

    def __init__(self, run: Run, steps: int | None, grid: str | None, noise: str, seed: int, batch_size: int) -> None:
        options = dict(run.config.sampler)
        self.name = options.pop("name")
        pick("--noise", noise, NOISES)
        self.times = read_grid(grid)
        if self.name == "auto" and grid:
            raise ValueError(f"--grid={grid}: --sampler auto finds its own grid; leave it out")
        self.sampler = None if self.name == "auto" else SAMPLERS[self.name](**options)
        self.run, self.grid = run, grid
        self.steps = AUTO_CALLS if self.sampler is None and steps is None else steps
        self.options = {"noise": noise, "seed": seed, "batch_size": batch_size}

    def __call__(self, guides: Guides, options: GuidanceOptions, cond: Condition | None, n: int) -> Samples | None:
        """n samples of the guided model, as of ``draw``."""
        sampler, times, steps = self.sampler, self.times, self.steps
        if sampler is None:
            found = self.run.world.share(lambda: planned(self.run, guides, cond is not None, steps, options))
            sampler, times = found.sampler, found.times
        model, event_shape = guides(cond, options), guides.denoiser.event_shape
        return draw(self.run.world, model, sampler, n, event_shape, steps=steps, grid=times, **self.options)


def low_resolution(sampling: Sampling, cascade: str, guides: Guides, labels: str | None, n: int) -> Condition:
    """The condition of n samples whose images are samples of another run, drawn as they are but without guidance, with
    the same labels where both have classes."""
    run, options = sampling.run, sampling.options
    first = open_cascade(run, cascade, guides.denoiser)
    asked = read_labels(labels, n, guides.classes or first.classes)
    options = options | {"seed": cascade_seed(options["seed"])}
    draws = Sampling(first.run, sampling.steps, sampling.grid, **options)
    drawn = draws(first, UNGUIDED, known(asked, first.denoiser), n)
    if run.world.first:
        print(f"{n} image{'s' * (n > 1)} of {cascade}, {drawn.nfe:g} network calls each, {drawn.seconds:.1f} s")
    return upscaled(asked, run.world.share(lambda: drawn.x), guides)


def draw(world: World, model: ScoreModel, sampler, n: int, event_shape: tuple[int, ...], **options) -> Samples | None:
    """``generate``, of several processes each its part of the n samples: all of them in the first, None in the others.
    The seconds are those of the slowest."""
    mine = world.rows(n)
    count, part = mine.stop - mine.start, None
    if count:
        options |= {"first": mine.start, "progress": world.first}
        if "start" in options:
            options["start"] = options["start"][mine]
        part = generate(model.rows(mine), sampler, count, event_shape, **options)
    parts = [part for part in world.deliver(part) if part is not None]
    if not world.first:
        return None
    x, calls = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "calls"))
    seeds = [seed for part in parts for seed in part.seeds]
    return Samples(x, calls, parts[0].times, max(part.seconds for part in parts), seeds)
