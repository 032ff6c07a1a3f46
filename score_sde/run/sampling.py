"""Sampling of a run: its sampler as the flags describe it, and what several processes draw."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from samplers import NOISES, SAMPLERS, Samples, generate
from samplers.loop.trajectory import Trajectory, join
from score_sde.config.config import pick
from score_sde.config.naming import GRID, with_keys
from score_sde.run.compiling import FLAG, pays
from score_sde.run.folder import Run, event_shape_of
from score_sde.run.guidance import GuidanceOptions
from score_sde.run.guides import Guides
from score_sde.run.plans import planned
from score_sde.run.sizes import sizes_of_samples
from score_sde.run.students import times_of_run
from sde import ScoreModel
from sde.condition.tree import Condition

AUTO_CALLS = 10
"""Network calls of --sampler auto unless --steps says otherwise."""


class Sampling:
    """The sampler of a run, as the flags of sampling describe it."""

    def __init__(
        self,
        run: Run,
        steps: int | None,
        grid: str | None,
        noise: str,
        seed: int,
        batch_size: int,
        sizes: str | None = None,
        start_state: torch.Tensor | None = None,
    ) -> None:
        options = dict(run.config.sampler)
        self.name = options.pop("name")
        pick("--noise", noise, NOISES)
        self.times, steps = times_of_run(run, self.name, grid, steps)
        if self.name == "auto" and grid:
            raise ValueError(f"--grid={grid}: --sampler auto finds its own grid; leave it out")
        self.sampler = None if self.name == "auto" else SAMPLERS[self.name](**options)
        self.run, self.grid, self.sizes, self.start_state = run, grid, sizes, start_state
        self.calls = AUTO_CALLS if steps is None else steps
        self.steps = self.calls if self.sampler is None else steps
        self.options: dict[str, Any] = {"noise": noise, "seed": seed, "batch_size": batch_size}

    def __call__(self, guides: Guides, options: GuidanceOptions, cond: Condition | None, n: int) -> Samples | None:
        """n samples of the guided model, as of ``draw``."""
        sampler, times = self.method(guides, options, cond)
        model, event_shape = guides(cond, options), event_shape_of(guides.denoiser)
        sizes = sizes_of_samples(self.run, n, self.options["seed"], self.sizes)
        own = {"sizes": sizes, "start_state": self.start_state}
        return draw(self.run, model, sampler, n, event_shape, steps=self.steps, grid=times, **own, **self.options)

    def method(
        self, guides: Guides, options: GuidanceOptions, cond: Condition | None
    ) -> tuple[Any, str | Tensor | None]:
        """The sampler, and its grid where that is not its own: those of the flags, or as planned for the model."""
        if self.sampler is not None:
            return self.sampler, self.times
        found = self.run.world.broadcast_from_main(lambda: planned(self.run, guides, cond, self.calls, options))
        return found.sampler, found.times


def path_of(samples: Samples) -> Trajectory:
    """The path of samples that were drawn with one. Raises ValueError where it was not asked for."""
    if samples.path is None:
        raise ValueError("the samples have no path: draw them with path, the number of its states")
    return samples.path


def draw(run: Run, model: ScoreModel, sampler, n: int, event_shape: tuple[int, ...], **options) -> Samples | None:
    """``generate``, of several processes each its part of the n samples: all of them in the first, None in the others.
    The seconds are those of the slowest."""
    world = run.world
    mine = world.rows(n)
    count, part = mine.stop - mine.start, None
    if count:
        options |= {"first": mine.start, "progress": world.is_main}
        options |= {
            name: options[name][mine] for name in ("start", "start_state", "sizes") if options.get(name) is not None
        }
        part_model = model.rows(mine)
        with with_keys(**GRID, **FLAG):
            options["compile"] = compiles(run, part_model, sampler, count, event_shape, options)
            part = generate(part_model, sampler, count, event_shape, **options)
    parts = [part for part in world.gather(part) if part is not None]
    if not world.is_main:
        return None
    x, nfe = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "nfe"))
    seeds = [seed for part in parts for seed in part.seeds]
    paths = [part.path for part in parts]
    sizes, states = ([getattr(part, name) for part in parts] for name in ("sizes", "state"))
    return Samples(
        x,
        nfe,
        parts[0].times,
        max(part.seconds for part in parts),
        seeds,
        None if None in paths else join(paths),
        None if sizes[0] is None else torch.cat(sizes),
        None if states[0] is None else torch.cat(states),
    )


def compiles(
    run: Run, model: ScoreModel, sampler, n: int, event_shape: tuple[int, ...], options: Mapping[str, Any]
) -> bool:
    """Whether ``generate`` with these options is to compile the networks of the model (``pays``). A step is at least
    one call; those of adaptive solvers are not known."""
    grid, most = options.get("grid"), options.get("batch_size") or n
    steps = len(grid) - 1 if isinstance(grid, Tensor) else options.get("steps") or sampler.steps
    chunks = -(-n // most)
    calls = None if getattr(sampler, "adaptive", False) else chunks * steps
    return pays(run, model, event_shape, -(-n // chunks), calls)
