"""Methods of --mode restore: posteriors by name, and the sampler."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor

from samplers import SAMPLERS
from score_sde.config.component import Component, options_of
from score_sde.config.config import pick, read_run_config, resolve
from score_sde.run.folder import Run
from sde import ScoreModel
from sde.inverse.operators import LinearOperator
from sde.inverse.posterior import DPS, MMPS, PiGDM, Replacement

METHODS: dict[str, Callable[..., ScoreModel]] = {
    "mmps": MMPS,
    "pigdm": PiGDM,
    "dps": partial(DPS, gamma=0.3),
    "replacement": Replacement,
}

AUTO = "dps"
"""The method of --method auto."""

STEPS = 30
"""Steps of --mode restore unless --steps or the times of --grid say otherwise; each is taken --repaint_steps times."""


def choose_method(method: str, task: str, sigma_y: float) -> str:
    """``--method``, "auto" resolved. Raises ValueError for one that does not serve the task and its noise."""
    if not 0 <= sigma_y < math.inf:
        raise ValueError(f"--sigma_y={sigma_y:g}: needs the standard deviation of the noise in data units, at least 0")
    if pick("--method", method, ("auto", *METHODS)) == "replacement":
        if task != "inpaint":
            raise ValueError(
                f"--method=replacement holds the entries that a mask observes, and --task={task} has no mask: take "
                "mmps, pigdm or dps"
            )
        if sigma_y:
            raise ValueError(
                f"--method=replacement takes what was observed as exact, and --sigma_y={sigma_y:g}: leave it at 0, or "
                "take mmps, pigdm or dps"
            )
    return AUTO if method == "auto" else method


def with_sampler(run: Run, name: str) -> Run:
    """The run with the sampler of this name in its config, unless the command says something else of config.sampler."""
    own = run.config.sampler
    if own.name == name or own != resolve(read_run_config(run.folder), []).sampler:
        return run
    return replace(run, config=replace(run.config, sampler=Component(name, options_of(SAMPLERS[name]))))


def posterior(method: str, model: ScoreModel, operator: LinearOperator, y: Tensor, sigma_y: float) -> ScoreModel:
    """The model of p(x | y) by a key of METHODS."""
    noise = () if method == "replacement" else (sigma_y,)
    return METHODS[method](model, operator, y, *noise)
