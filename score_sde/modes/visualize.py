"""--mode visualize: pictures of a run's process, of its way between data and noise, and of its scores."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samplers import SAMPLERS, Samples, generate
from score_sde.config.config import pick
from score_sde.config.naming import GRID, with_keys
from score_sde.plots.field import axes_of, field_picture, fields, panel_times
from score_sde.plots.film import Reel, animation, as_spread, forward, strip
from score_sde.plots.process_plot import process_arrays, process_picture, title_of
from score_sde.run.compiling import FLAG
from score_sde.run.conditions import read_condition
from score_sde.run.folder import Run
from score_sde.run.guidance import UNGUIDED, GuidanceOptions
from score_sde.run.guides import Guides
from score_sde.run.inputs import read_grid
from score_sde.run.items import open_split, write_arrays
from score_sde.run.outputs import stem, written
from score_sde.run.sampling import compiles, path_of
from score_sde.run.sizes import sizes_of_samples
from sde import ScoreModel
from sde.checkpoint.spec import build_sde
from sde.condition.tree import Condition, labels_of
from sde.data.names import class_title
from sde.data.statistics import spread
from sde.data.transform import check_elementwise

PLOTS = ("process", "trajectory", "denoised", "field")
IGNORED = {
    "process": ("sampler", "grid", "frames", "num_samples", "labels", "condition", "compile", *asdict(UNGUIDED)),
    "field": ("sampler", "steps", "grid", "frames", "num_samples", "compile"),
}
"""Flags that a picture alone has no use for."""
FRAMES = 40
"""States of a film at most; runs of fewer steps have fewer."""
PLANE_POINTS, DEFAULT_SAMPLES = 1000, 16
"""Samples of points in the plane, and of anything else."""


def visualize(
    run: Run,
    *,
    plots: str = "all",
    steps: int | None = None,
    grid: str | None = None,
    frames: int = 9,
    num_samples: int | None = None,
    seed: int = 0,
    labels: str | None = None,
    prompt: str | None = None,
    condition: str | None = None,
    guidance: GuidanceOptions = UNGUIDED,
    batch_size: int = 256,
    out: str | None = None,
) -> dict:
    """Draw the process and its grids, films from data to noise and back, denoised predictions, density and score."""
    chosen = PLOTS if pick("--plots", plots, ("all", *PLOTS)) == "all" else (plots,)
    for name in IGNORED.get(plots, ()):
        if name in run.settings:
            flag = f"--{name}={run.settings[name]}"
            raise ValueError(f"{flag}: --plots={plots} would ignore it; leave it out, or take --plots=trajectory")
    view = None
    if plots != "process":
        view = View(run, steps, grid, num_samples, seed, labels, condition, prompt, guidance, batch_size)
        # What they refuse comes before a name is taken.
        view.check(chosen, required=plots == "field")
    path = run.world.broadcast_from_main(lambda: stem(run, out, "visualize", f"-{chosen[0]}.npz"))
    result: dict = {"mode": "visualize", "plots": list(chosen), "pictures": [], "numbers": []}
    if "process" in chosen:
        sde = run.model().sde if run.model_file.exists() else build_sde(run.config.sde.to_dict())
        arrays = process_arrays(sde, steps or 10)
        process_picture(sde, arrays, Path(f"{path}-process.png"))
        _keep(run, result, path, "process", arrays)
    for name in chosen:
        if view is None or name == "process":
            continue
        if name == "field":
            view.field(path, result)
        else:
            view.film(name, path, frames, result)
    print("\n".join([*result["pictures"], *result["numbers"]]))
    return result


class View:
    """A trained run, its held-out items and the samples of one run of its sampler."""

    def __init__(
        self,
        run: Run,
        steps: int | None,
        grid: str | None,
        num_samples: int | None,
        seed: int,
        labels: str | None,
        condition: str | None,
        prompt: str | None,
        guidance: GuidanceOptions,
        batch_size: int,
    ) -> None:
        self.data, _, self.denoiser = open_split(run, "test")
        self.run, self.seed, self.batch_size = run, seed, batch_size
        self.guides = Guides(run, self.denoiser, guidance)
        self.asked, self.prompt = (labels, condition), prompt
        self.planar = run.kind.planar(self.data.event_shape) and not self.data.transform.learned
        self.count = num_samples or (PLANE_POINTS if run.kind.planar(self.data.event_shape) else DEFAULT_SAMPLES)
        self.steps, self.grid = steps, read_grid(grid, run)
        self.samples: Samples | None = None

    def reverse(self) -> Samples:
        """Samples with their path, drawn once."""
        if self.samples is None:
            options = dict(self.run.config.sampler)
            name = options.pop("name")
            if name == "auto":
                raise ValueError("--sampler=auto: name a sampler to look at, as in --sampler heun")
            self.cond = read_condition(
                self.run, self.guides, *self.asked, self.count, prompt=self.prompt, seed=self.seed
            )
            drawn = self.guides(self.cond), SAMPLERS[name](**options), self.count, self.data.event_shape
            own: dict[str, Any] = {"steps": self.steps, "grid": self.grid, "batch_size": self.batch_size}
            own |= {"seed": self.seed, "sizes": sizes_of_samples(self.run, self.count, self.seed)}
            self.samples = drawn_path(*drawn, **own, compile=compiles(self.run, *drawn, own))
        return self.samples

    def check(self, chosen: Sequence[str], required: bool) -> None:
        """Raise ValueError for what the pictures refuse, with ``required`` where the field is all that is asked for."""
        if {"trajectory", "denoised"} & {*chosen}:
            self.reverse()
        if required:
            check_elementwise(self.data.transform, "--plots=field")
        if required and not self.planar:
            raise ValueError(
                f"--plots=field: items of shape {self.data.event_shape} are no points in the plane; try trajectory, "
                "denoised or process"
            )
        if "field" in chosen and self.planar:
            self._field_condition()
        if required and ("," in (self.asked[0] or "") or self.asked[0] == "data"):
            raise ValueError(f"--labels={self.asked[0]}: --plots=field draws one class, or all of them without labels")

    def _field_condition(self) -> Condition | None:
        # One row of a condition serves every point.
        whole = not any((*self.asked, self.prompt)) and self.denoiser.null_trained
        return None if whole else read_condition(self.run, self.guides, *self.asked, 1, prompt=self.prompt)

    def film(self, name: str, path: Path, frames: int, result: dict) -> None:
        """Strip, animation and numbers of the ``trajectory``, forward and reverse, or of the ``denoised`` predictions
        beside the states they were made from."""
        samples = self.reverse()
        way, sde = path_of(samples), self.denoiser.sde
        x, own = self.data.batch(spread(len(self.data), self.count))
        labels, targets = labels_of(self.cond), labels_of(own)
        sigma = sde.noise_level(way.times)
        arrays: dict[str, Tensor | None] = {
            "times": way.times,
            "noise_level": sigma,
            "x": samples.x,
            "sizes": samples.sizes,
            **(self.cond or {}),
        }
        states = as_spread(way.x, way.times, sde, self.data.transform, self.denoiser.sigma_data)
        reverse = Reel("x_t, noise to data", states, sigma, labels)
        if name == "trajectory":
            times = way.times.flip(0)
            ahead = forward(sde, self.data, x, times, self.seed)
            shown = as_spread(ahead, times, sde, self.data.transform, self.denoiser.sigma_data)
            reels = [Reel("x_t, data to noise", shown, sde.noise_level(times), targets), reverse]
            arrays |= {"forward_times": times, "forward": ahead, "reverse": way.x, "items": x, "targets": targets}
        else:
            reels = [reverse, Reel("denoised, E[x_0 | x_t]", way.denoised, sigma, labels)]
            arrays |= {"reverse": way.x, "denoised": way.denoised}
        kind = self.run.kind
        drawable = kind.shown(x) is not None
        if drawable:
            strip(reels, x, Path(f"{path}-{name}.png"), frames, kind)
            result[f"{name}_frames"] = animation(reels, x, Path(f"{path}-{name}.gif"), kind)
        else:
            print(f"items of shape {self.data.event_shape} have no picture: numbers only")
        _keep(self.run, result, path, name, arrays, ("png", "gif") if drawable else ())

    def field(self, path: Path, result: dict) -> None:
        """Density, score and flow at several noise levels, of data in the plane."""
        if not self.planar:
            return
        cond = self._field_condition()
        model, sde = self.guides(cond), self.denoiser.sde
        if not model.normalized:
            print("a guided model is no density: its score and flow are drawn over noisy data")
        labels = labels_of(cond)
        if labels is not None and "," in (self.asked[0] or ""):
            first = class_title(int(labels.item()), self.run.class_names)
            print(f"the field is that of {first} alone, the first of --labels={self.asked[0]}")
        items, own = self.data.batch(spread(len(self.data), PLANE_POINTS))
        classes = labels_of(own)
        # Of a class that no item has, all are shown.
        shown = items if labels is None or classes is None else items[classes == labels]
        shown = shown if len(shown) else items
        panels = []
        for t in panel_times(sde, self.denoiser.sigma_data):
            axes = axes_of(model, items, t)
            points = forward(sde, self.data, shown, t[None], self.seed)[0]
            found = fields(model, axes, t, 4096, self.run.device)
            panels.append({"t": t, "noise_level": sde.noise_level(t), "axes": axes, "points": points, **found})
        what = [] if labels is None else [class_title(int(labels.item()), self.run.class_names)]
        guidance, plain = asdict(self.guides.options), asdict(UNGUIDED)
        what += [f"{name.replace('_', ' ')} {written(v)}" for name, v in guidance.items() if v != plain[name]]
        field_picture(panels, ", ".join([*what, title_of(sde)]), Path(f"{path}-field.png"))
        _keep(self.run, result, path, "field", {name: torch.stack([p[name] for p in panels]) for name in panels[0]})
        if "mass" in panels[0]:
            result["mass"] = [round(p["mass"].item(), 4) for p in panels]


def drawn_path(model: ScoreModel, sampler, n: int, event_shape: tuple[int, ...], **options) -> Samples:
    """``generate`` with its path, of as many states as a film has."""
    grid, name = options["grid"], type(sampler).__name__
    steps = len(grid) - 1 if isinstance(grid, Tensor) else options["steps"] or sampler.steps
    if steps < 2:
        raise ValueError(f"{name} with {steps} step has no states on the way: give --steps of at least 2")
    try:
        with with_keys(**GRID, **FLAG):
            return generate(model, sampler, n, event_shape, path=min(FRAMES, steps + 1), **options)
    except ValueError as error:
        if not str(error).startswith("path"):
            raise
        raise ValueError(
            f"{name} solves each sample alone and has no common states to show: take a --sampler that makes the same "
            "steps for all, such as heun or ancestral"
        ) from None


def _keep(run: Run, result: dict, path: Path, name: str, arrays: dict, pictures: tuple[str, ...] = ("png",)) -> None:
    """Write the numbers, and list them and the pictures."""
    numbers = Path(f"{path}-{name}.npz")
    write_arrays(numbers, arrays, run.settings)
    result["pictures"] += [f"{path}-{name}.{kind}" for kind in pictures]
    result["numbers"].append(str(numbers))
