"""Cascades: samples of stages one after the other, each conditioned on what the one before drew."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from score_sde.config.naming import with_flag
from score_sde.run.condition_noise import read_levels, with_level
from score_sde.run.conditions import no_labels, prompts_of, with_controls
from score_sde.run.folder import Run
from score_sde.run.guides import Guides
from score_sde.run.labels import Labels
from score_sde.run.sampling import Sampling
from score_sde.run.stages import CascadeOptions, open_stages
from score_sde.run.text import cycled_prompts, prompted, read_prompts
from sde.condition.tree import Condition, check_condition, condition_kinds, restrict_to


def cascade_seed(seed: int) -> int:
    """The seed of the stage before one of ``seed``: another one, since its first noise would be the same numbers."""
    return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0] >> 1)


@dataclass(frozen=True)
class Told:
    """What all stages of a cascade are told, one row for each sample: classes, and texts, where there are any."""

    labels: Condition | None
    prompts: list[str] | None

    def of(self, guides: Guides, kind: str | None, x: Tensor | None, count: int) -> Condition | None:
        """The condition of a stage, with what the one before drew as its ``kind``."""
        model = guides.denoiser
        cond: Condition = {}
        if kind is not None and x is not None:
            cond[kind] = x if x.is_floating_point() else x.float()
        if model.text is not None and self.prompts is not None:
            cond |= prompted(model, "--prompt", self.prompts, count)
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
    return Told(reader.of_samples(count, seed), texts)


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
    model, count = guides.denoiser, len(next(iter(cond.values())))
    cond = with_controls(model, cond, guides.given_controls(count), count) or cond
    cond = with_level(model, cond, level, seed)
    if condition_kinds(model):
        check_condition(restrict_to(cond, model) or {}, model.num_classes, model.conditions)
    return cond
