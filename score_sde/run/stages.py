"""Stages: the runs of a cascade before its last, as ``--cascade`` names them, and whether each fits the next."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from score_sde.config.config import read_run_config, resolve
from score_sde.run.condition_noise import own_kinds
from score_sde.run.folder import Run
from score_sde.run.guidance import UNGUIDED, GuidanceOptions
from score_sde.run.guides import Guides
from score_sde.run.inputs import read_floats
from sde.condition.noise import NOISED
from sde.condition.tree import condition_kinds
from sde.model.denoiser import Preconditioned


@dataclass(frozen=True)
class CascadeOptions:
    """What the flags of a cascade say: the run folders of the stages before, from the first; and their guidance."""

    cascade: str | None = None
    cascade_scale: str | None = None

    def __post_init__(self) -> None:
        if self.cascade_scale and not self.cascade:
            raise ValueError(
                f"--cascade_scale={self.cascade_scale}: it guides the stages of --cascade, which is "
                "not given; --guidance_scale guides the model"
            )

    def folders(self) -> list[str]:
        """Those of the stages, from the first. A folder may have a comma in its name."""
        text = self.cascade or ""
        return [text] if (Path(text) / "config.json").exists() else [part.strip() for part in text.split(",")]

    def guidances(self, stages: Sequence[Guides], negative_prompt: str | None) -> list[GuidanceOptions]:
        """How each stage is guided: all by one scale, or each by its own."""
        text = self.cascade_scale
        if not text:
            return [UNGUIDED] * len(stages)
        count = len(stages)
        form = "a scale" if count == 1 else f"a scale, or {count}, one for each stage of --cascade"
        scales = read_floats("--cascade_scale", text, form)
        if len(scales) not in (1, count):
            raise ValueError(f"--cascade_scale={text}: needs {form}")
        found = []
        for stage, scale in zip(stages, scales * (count if len(scales) == 1 else 1), strict=True):
            steered = scale != 1 and stage.denoiser.text is not None
            found.append(GuidanceOptions(scale, negative_prompt=negative_prompt if steered else None))
        return found


ALONE = CascadeOptions()


def handed_on(model: Preconditioned) -> dict[str, tuple[int, ...]]:
    """The shapes of what a model can be conditioned on of another's samples, by kind."""
    return {kind: tuple(model.conditions[kind]) for kind in own_kinds(model) if kind in NOISED}


def open_stage(above: Run, model: Preconditioned, folder: str) -> tuple[Guides, str]:
    """The model of a stage, whose samples are what the one above is conditioned on, and the kind of that; it is sampled
    as the one above is. Raises ValueError where the two do not fit."""
    flag, wanted = f"--cascade={folder}", handed_on(model)
    if not wanted:
        others = " and ".join(condition_kinds(model)) or "nothing"
        raise ValueError(
            f"{flag}: the model in {above.folder} is conditioned on {others}, not on an image or a vector that another "
            "one draws; leave it out"
        )
    shapes = " or ".join(f"{name}s of shape {shape}" for name, shape in wanted.items())
    path = Path(folder)
    if not (path / "config.json").exists():
        raise ValueError(f"{flag} is not a run folder: name one that draws {shapes}")
    config = replace(resolve(read_run_config(path), []), sampler=above.config.sampler)
    run = Run(path, config, above.device, above.world, imports=above.imports)
    drawn = run.model()
    kind = next((kind for kind, shape in wanted.items() if shape == drawn.event_shape), None)
    if kind is None:
        remedy = "config.data.downsample or config.data.superres_factor" if "image" in wanted else "the data of either"
        raise ValueError(
            f"{flag} draws items of shape {drawn.event_shape}, but {above.folder} is conditioned on {shapes}: train "
            f"one for the other, by {remedy}"
        )
    more = [other for other in own_kinds(model) if other != kind]
    if more:
        raise ValueError(
            f"{flag} draws the {kind} of {above.folder}, which is conditioned on {' and '.join(more)} as well: draw "
            "the stages one by one, and give all of it by --condition"
        )
    if above.sizes or run.sizes:
        raise ValueError(
            f"{flag}: the items are of unequal size, and the two stages would draw sizes of their own; draw the first "
            "by itself, and give its samples by --condition"
        )
    if drawn.num_classes and model.num_classes and drawn.num_classes != model.num_classes:
        raise ValueError(
            f"{flag} has {drawn.num_classes} classes, {above.folder} has {model.num_classes}: labels mean the same to "
            "both only where they come from the same data"
        )
    return Guides(run, drawn, UNGUIDED), kind


def open_stages(run: Run, model: Preconditioned, folders: Sequence[str]) -> tuple[list[Guides], list[str]]:
    """The stages before a run's model, from the first, and the kind that the samples of each are. Raises ValueError for
    stages that do not fit, and for a first one that needs another before it."""
    stages: list[Guides] = []
    kinds: list[str] = []
    for folder in reversed(folders):
        stage, kind = open_stage(run, model, folder)
        stages.insert(0, stage)
        kinds.insert(0, kind)
        run, model = stage.run, stage.denoiser
    if own_kinds(model):
        raise ValueError(
            f"--cascade={folders[0]} is itself conditioned on {' and '.join(own_kinds(model))}: name the run that "
            f"draws it in front, --cascade=FIRST,{','.join(folders)}"
        )
    return stages, kinds
