"""Cascades: runs whose samples are what the model of the next one is conditioned on, an image or a vector."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from score_sde.config.config import read_run_config, resolve
from score_sde.config.naming import with_flag
from score_sde.run.condition_noise import own_kinds, read_levels, with_level
from score_sde.run.conditions import no_labels, prompts_of
from score_sde.run.folder import Run
from score_sde.run.guides import UNGUIDED, GuidanceOptions, Guides
from score_sde.run.inputs import read_floats
from score_sde.run.labels import Labels
from score_sde.run.sampling import Sampling
from score_sde.run.text import cycled_prompts, prompted, read_prompts
from sde.condition.noise import NOISED
from sde.condition.tree import Condition, check_condition, condition_kinds, restrict_to
from sde.model.denoiser import Preconditioned


@dataclass(frozen=True)
class CascadeOptions:
    """What the flags of a cascade say: the run folders of the stages before, from the first; and their guidance."""

    cascade: str | None = None
    cascade_guidance_scale: str | None = None

    def __post_init__(self) -> None:
        if self.cascade_guidance_scale and not self.cascade:
            raise ValueError(
                f"--cascade_guidance_scale={self.cascade_guidance_scale}: it guides the stages of --cascade, which is "
                "not given; --guidance_scale guides the model"
            )

    def folders(self) -> list[str]:
        """Those of the stages, from the first. A folder may have a comma in its name."""
        text = self.cascade or ""
        return [text] if (Path(text) / "config.json").exists() else [part.strip() for part in text.split(",")]

    def guidances(self, stages: Sequence[Guides], negative_prompt: str | None) -> list[GuidanceOptions]:
        """How each stage is guided: all by one scale, or each by its own."""
        text = self.cascade_guidance_scale
        if not text:
            return [UNGUIDED] * len(stages)
        count = len(stages)
        form = "a scale" if count == 1 else f"a scale, or {count}, one for each stage of --cascade"
        scales = read_floats("--cascade_guidance_scale", text, form)
        if len(scales) not in (1, count):
            raise ValueError(f"--cascade_guidance_scale={text}: needs {form}")
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


def cascade_seed(seed: int) -> int:
    """The seed of the stage before one of ``seed``: another one, since its first noise would be the same numbers."""
    return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0] >> 1)


@dataclass(frozen=True)
class Told:
    """What all stages of a cascade are told, one row for each sample: classes, and texts, where there are any."""

    labels: Condition | None
    prompts: list[str] | None
    flag: str

    def of(self, guides: Guides, kind: str | None, x: Tensor | None, count: int) -> Condition | None:
        """The condition of a stage, with what the one before drew as its ``kind``."""
        model = guides.denoiser
        cond: Condition = {}
        if kind is not None and x is not None:
            cond[kind] = x if x.is_floating_point() else x.float()
        if model.text is not None and self.prompts is not None:
            cond |= prompted(model, self.flag, self.prompts, count)
        if guides.classes and (cond or self.labels):
            cond |= self.labels or no_labels(count)
        return cond or None


def told_of(
    run: Run, stages: Sequence[Guides], guides: Guides, labels: str | None, prompt: str | None, count: int, seed: int
) -> Told:
    """What ``--labels`` and ``--prompt`` say to all stages; without a prompt, the captions of held-out items of a stage
    that takes some. Raises ValueError for what no stage takes."""
    every = [guides, *reversed(stages)]
    spoken = next((stage for stage in every if stage.denoiser.text is not None), None)
    texts = None
    if prompt and spoken is None:
        prompted(guides.denoiser, "--prompt", read_prompts("--prompt", prompt), count)
    if prompt:
        texts = cycled_prompts(read_prompts("--prompt", prompt), count)
    elif spoken is not None:
        texts = prompts_of(spoken.run, spoken.denoiser, None, None, count)
    known = next((stage for stage in every if stage.classes), guides)
    # Texts say it all, and those of held-out items would have classes of their own.
    classes = known.classes if labels or texts is None else None
    counts = known.run.class_counts if labels == "data" else None
    reader = Labels(labels, guides.denoiser, classes, known.names, counts)
    return Told(reader.of_samples(count, seed), texts, "--prompt")


def drawn_before(
    sampling: Sampling,
    guides: Guides,
    options: CascadeOptions,
    *,
    labels: str | None,
    prompt: str | None,
    condition_noise: str | None,
    negative_prompt: str | None,
    count: int,
) -> tuple[Condition, list[str] | None]:
    """The condition of ``count`` samples of a run that is the last stage of a cascade, and the texts that they are of.

    The stages before are drawn one after the other, by the sampler and steps of the last and seeds of their own, and
    all are told the same classes and texts, as far as they take them."""
    run, seed = sampling.run, sampling.options["seed"]
    stages, kinds = open_stages(run, guides.denoiser, options.folders())
    told = told_of(run, stages, guides, labels, prompt, count, seed)
    guidances = options.guidances(stages, negative_prompt)
    levels = read_levels(condition_noise, [(stage.run, stage.denoiser) for stage in (*stages, guides)])
    seeds = [seed]
    for _ in stages:
        seeds.insert(0, cascade_seed(seeds[0]))
    x, kind = None, None
    for stage, guidance, level, own, after in zip(stages, guidances, levels[:-1], seeds[:-1], kinds, strict=True):
        cond = _checked(stage, told.of(stage, kind, x, count), level, own)
        draws = Sampling(stage.run, sampling.steps, sampling.grid, **sampling.options | {"seed": own})
        with with_flag("--cascade", str(stage.run.folder)):
            drawn = draws(stage, guidance, restrict_to(cond, stage.denoiser), count)
        part = None if drawn is None else drawn.x
        if drawn is not None:
            what = f"{count} {after}{'s' * (count > 1)}"
            print(f"{what} of {stage.run.folder}, {drawn.mean_nfe:g} network calls each, {drawn.seconds:.1f} s")
        x, kind = run.world.broadcast_from_main(lambda part=part: part), after
    return _checked(guides, told.of(guides, kind, x, count), levels[-1], seed) or {}, told.prompts


def _checked(guides: Guides, cond: Condition | None, level: float | None, seed: int) -> Condition | None:
    """The condition of a stage with its noise, checked."""
    if cond is None:
        return None
    model = guides.denoiser
    cond = with_level(model, cond, level, seed)
    if condition_kinds(model):
        check_condition(restrict_to(cond, model) or {}, model.num_classes, model.conditions)
    return cond
