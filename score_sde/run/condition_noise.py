"""Condition noise of samples: ``--condition_noise``, and the noise of each sample's own."""

import torch

from samplers import SeededNoise
from samplers.noise.seeded import CONDITIONS, item_seeds
from score_sde.config.naming import with_flag
from score_sde.run.folder import Run
from score_sde.run.inputs import read_floats
from sde.condition.noise import noised_kind, with_noise
from sde.condition.tree import CONDITION_NOISE, Condition, is_control
from sde.model.denoiser import Preconditioned

FLAG = "--condition_noise"


def own_kinds(model: Preconditioned) -> list[str]:
    """The kinds of conditions that are numbers, no control, and that no text is encoded into."""
    encoded = () if model.text is None else model.text.shapes
    return [kind for kind in model.conditions if kind not in (*encoded, CONDITION_NOISE) and not is_control(kind)]


def takes_noise(model: Preconditioned) -> bool:
    """Whether a model is told the level of the noise on its condition."""
    return CONDITION_NOISE in model.conditions


def read_levels(text: str | None, models: list[tuple[Run, Preconditioned]]) -> list[float | None]:
    """The level of ``--condition_noise`` of each of several stages, None for those that take none; without the flag the
    lowest of each. Raises ValueError for levels that a stage was not trained with."""
    told = [(run, model) for run, model in models if takes_noise(model)]
    if text and not told:
        raise ValueError(
            f"{FLAG}={text}: the model in {models[-1][0].folder} was trained without noise on its condition; leave it "
            "out, or train one with config.data.condition_noise=(0, 0.5)"
        )
    form = "a level" if len(told) < 2 else f"a level, or {len(told)}, one for each stage that takes noise"
    found = read_floats(FLAG, text, form) if text else []
    if text and len(found) not in (1, len(told)):
        raise ValueError(f"{FLAG}={text}: needs {form}, as in {','.join(['0.1'] * len(told))}")
    each = iter(found * len(told) if len(found) == 1 else found)
    levels: list[float | None] = []
    for run, model in models:
        if not takes_noise(model):
            levels.append(None)
            continue
        low, high = run.config.data.condition_noise or (0.0, float("inf"))
        level = next(each, low)
        if not low <= level <= high:
            raise ValueError(f"{FLAG}={text}: the model in {run.folder} knows levels from {low:g} to {high:g}")
        levels.append(level)
    return levels


def with_level(model: Preconditioned, cond: Condition, level: float | None, seed: int) -> Condition:
    """The condition of samples with noise of a level, where the model takes it: of row i by ``seed`` and i alone."""
    kind = noised_kind(own_kinds(model))
    if not takes_noise(model) or kind is None or level is None:
        return cond
    c, scale = cond[kind], getattr(model.standardization, f"{kind}_scale").cpu()
    n = SeededNoise(item_seeds(seed, CONDITIONS, len(c)))(c.float())
    with with_flag(FLAG, f"{level:g}"):
        return with_noise(cond, kind, torch.full((len(c),), level, dtype=torch.float64, device="cpu"), scale, n)
