"""Methods of --mode restore: posteriors by name, and the sampler."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from samplers import SAMPLERS
from score_sde.config.component import Component, options_of
from score_sde.config.config import pick
from score_sde.restoration.cost import ITERATIONS
from score_sde.run.folder import Run
from sde import Denoiser, ScoreModel
from sde.condition.tree import Condition
from sde.inverse.operators import LinearOperator, Mask
from sde.inverse.posterior import DPS, MMPS, PiGDM, Replacement
from sde.pretrained.pipelines.inpainting import LatentReplacement, inpainting_condition


def held_latents(model: ScoreModel, operator: LinearOperator, y: Tensor) -> ScoreModel:
    """Latents of a pipeline held where a mask of pixels observes all channels; where it does not, what is encoded is
    the mean of what it observes."""
    image, known = _known(operator, y)
    mean = torch.where(known, image, 0).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp(min=1)
    return LatentReplacement(model, torch.where(known, image, mean.round()), known)


def _known(operator: LinearOperator, y: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) with zeros where they are hidden, and (B, 1, H, W) the pixels whose channels are all
    observed, of what a mask measured. Raises TypeError for another operator."""
    if not isinstance(operator, Mask):
        raise TypeError(f"{type(operator).__name__} has no mask: needs one of inpainting")
    image = operator.adjoint(y)
    return image, operator.mask.to(image.device).expand_as(image).all(1, keepdim=True)


def told_image(model: Denoiser, operator: LinearOperator, y: Tensor) -> Condition | None:
    """What a pipeline's network that was trained to inpaint is told of y; None for another one."""
    return inpainting_condition(model, *_known(operator, y)) if "image" in model.conditions else None


METHODS: dict[str, Callable[..., ScoreModel]] = {
    "mmps": MMPS,
    "pigdm": PiGDM,
    "dps": partial(DPS, gamma=0.3),
    "replacement": Replacement,
    "latents": held_latents,
}

HELD = ("replacement", "latents")
"""Methods that hold what a mask observes, and take no noise."""

AUTO = "mmps"
"""The method of --method auto: the one that is right by the table of docs/guidance.md."""
SAMPLER, STEPS = "sa_solver", 30
"""The sampler and the steps of --mode restore unless --sampler, --steps or the times of --grid say otherwise."""
REPAINT_STEPS = {"replacement": 4}
"""How often each step is taken unless --repaint_steps says otherwise, where it is not once."""


def choose_method(run: Run, method: str, task: str, sigma_y: float) -> str:
    """``--method``, "auto" resolved: of pipelines that inpaint the latents are held, without a gradient through their
    networks. Raises ValueError for one that does not serve the task and its noise."""
    if not 0 <= sigma_y < math.inf:
        raise ValueError(f"--sigma_y={sigma_y:g}: needs the standard deviation of the noise in data units, at least 0")
    if pick("--method", method, ("auto", *METHODS)) in HELD:
        if task != "inpaint":
            raise ValueError(
                f"--method={method} holds the entries that a mask observes, and --task={task} has no mask: take "
                "mmps, pigdm or dps"
            )
        if sigma_y:
            raise ValueError(
                f"--method={method} takes what was observed as exact, and --sigma_y={sigma_y:g}: leave it at 0, or "
                "take mmps, pigdm or dps"
            )
    if method == "latents" and run.pipeline is None:
        raise ValueError("--method=latents is for --pipeline; take replacement, mmps, pigdm or dps")
    usual = "latents" if run.pipeline and task == "inpaint" and not sigma_y else AUTO
    return usual if method == "auto" else method


def with_sampler(run: Run, name: str) -> Run:
    """The run with the sampler of this name in its config, unless the command says something else of config.sampler."""
    own = run.config.sampler
    if own.name == name or own != run.usual_sampler:
        return run
    return replace(run, config=replace(run.config, sampler=Component(name, options_of(SAMPLERS[name]))))


def posterior(
    method: str, model: ScoreModel, operator: LinearOperator, y: Tensor, sigma_y: float, iterations: int = ITERATIONS[0]
) -> ScoreModel:
    """The model of p(x | y) by a key of METHODS; ``iterations`` are those of moment matching."""
    noise = () if method in HELD else (sigma_y,)
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
