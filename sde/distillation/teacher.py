"""The teacher: what a student is distilled from, by a solver's steps or by the jumps of an earlier student."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from sde.condition.tree import BoundCondition, ConditionLike, as_tree
from sde.data.sizes import cut
from sde.distillation.flow_map import average_step, split_scale
from sde.guidance.classifier_free import ClassifierFree
from sde.model.denoiser import Denoiser
from sde.model.score import ScoreModel
from sde.process.coefficients import expand


class Step(Protocol):
    """A sampler's step, as ``samplers.step.Stepper`` has it, for a time per sample: t, s (B,)."""

    def step(self, model: Any, x: Tensor, t: Tensor, s: Tensor, noise: Any, carry: Any = None) -> tuple: ...


class Teacher(Protocol):
    """What losses ask of it: x (B, *event) in model units, t and s (B,); nothing is differentiated. Of padded items
    ``sizes`` (B,) say how much is real: x is 0 elsewhere, and so is what the teacher says."""

    def denoised(self, x: Tensor, t: Tensor, cond: ConditionLike | None, sizes: Tensor | None = None) -> Tensor:
        """D(x, t), guided where the teacher is."""
        ...

    def solve(self, x: Tensor, t: Tensor, s: Tensor, cond: ConditionLike | None, sizes: Tensor | None = None) -> Tensor:
        """Where the probability flow leads from x at t to s <= t, by one step of the teacher's."""
        ...


class Padded(ScoreModel):
    """The score ``model`` of items that are padded, by ``sizes`` (B,), as samplers ask it: D is 0 where they are, so
    that a solver's step stays 0 there, and the next call sees nothing else."""

    def __init__(self, model: ScoreModel, sizes: Tensor) -> None:
        super().__init__(model.sde, model.transform)
        self.model, self.sizes = model, sizes

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return cut(self.model(x, t), self.sizes)


def guided_teacher(model: Denoiser, scale: float = 1.0) -> Callable[[ConditionLike | None], ScoreModel]:
    """What ``SolvedTeacher`` asks for: a function of conditions to the guided model, by the guidance scales (B,) among
    them, or else by ``scale``. None is the learned null condition, and so is not guided."""

    def bind(cond: ConditionLike | None) -> ScoreModel:
        tree, own = split_scale(as_tree(cond))
        # A batch's conditions were checked with its data set: to look at them again would wait for the device.
        return model if tree is None else ClassifierFree(model, BoundCondition(tree), scale if own is None else own)

    return bind


class SolvedTeacher:
    """A score model and a solver: ``step`` is deterministic and takes a time per sample, as those of DDIM and Heun do.
    ``bind`` makes of conditions, one row per sample, or of None, the score model that is solved, guided or not.

    From an open noise end, where alpha = 0, the step is x_s = (sigma_s / sigma_t) x + alpha_s D, whatever the solver.
    """

    def __init__(self, bind: Callable[[ConditionLike | None], ScoreModel], step: Step) -> None:
        self.bind, self.step = bind, step

    @torch.no_grad()
    def denoised(self, x: Tensor, t: Tensor, cond: ConditionLike | None, sizes: Tensor | None = None) -> Tensor:
        return cut(self.bind(cond)(x, t), sizes)

    @torch.no_grad()
    def solve(self, x: Tensor, t: Tensor, s: Tensor, cond: ConditionLike | None, sizes: Tensor | None = None) -> Tensor:
        model = self.bind(cond)
        model = model if sizes is None else Padded(model, sizes)
        solved, _ = self.step.step(model, x, t, s, None)
        opened = t >= model.sde.t_max if model.sde.open_end else torch.zeros_like(t, dtype=torch.bool)
        if opened.any():
            first = average_step(model.sde, x, t, s, model(x, t))
            solved = torch.where(expand(opened.to(x.dtype), x) > 0, first, solved)
        return solved


class FlowMapTeacher:
    """A student of an earlier stage as the teacher of the next: its jumps are the solver's steps."""

    def __init__(self, flow_map: Any) -> None:
        self.flow_map = flow_map

    @torch.no_grad()
    def denoised(self, x: Tensor, t: Tensor, cond: ConditionLike | None, sizes: Tensor | None = None) -> Tensor:
        return cut(self.flow_map.mean_denoised(x, t, t, cond), sizes)

    @torch.no_grad()
    def solve(self, x: Tensor, t: Tensor, s: Tensor, cond: ConditionLike | None, sizes: Tensor | None = None) -> Tensor:
        return cut(self.flow_map(x, t, s, cond), sizes)
