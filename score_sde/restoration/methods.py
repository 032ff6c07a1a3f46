"""Methods of --mode restore: posteriors by name, and the sampler."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor

from samplers import SAMPLERS
from score_sde.config.component import Component, options_of
from score_sde.config.config import pick, read_run_config, resolve
from score_sde.restoration.cost import ITERATIONS
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

AUTO = "mmps"
"""The method of --method auto: the one that is right by the table of docs/guidance.md."""
SAMPLER, STEPS = "sa_solver", 30
"""The sampler and the steps of --mode restore unless --sampler, --steps or the times of --grid say otherwise."""
REPAINT_STEPS = {"replacement": 4}
"""How often each step is taken unless --repaint_steps says otherwise, where it is not once."""


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


def posterior(
    method: str, model: ScoreModel, operator: LinearOperator, y: Tensor, sigma_y: float, iterations: int = ITERATIONS[0]
) -> ScoreModel:
    """The model of p(x | y) by a key of METHODS; ``iterations`` are those of moment matching."""
    noise = () if method == "replacement" else (sigma_y,)
    return METHODS[method](model, operator, y, *noise, **{"iterations": iterations} if method == "mmps" else {})


def reason(method: str, asked: str, iterations: int) -> str:
    """Why it is this method, for people."""
    if method != "mmps":
        return method
    many = f"{method} ({iterations} iteration{'s' * (iterations > 1)}"
    if asked != "auto":
        return f"{many})"
    if iterations == ITERATIONS[0]:
        return f"{many}: the method that is right on Gaussian data)"
    return f"{many}, as {ITERATIONS[0]} would take too long here: the method that comes closest)"
