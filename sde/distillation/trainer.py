"""The trainer of students: a method's stages, each with its teacher, and the average that is a target."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sde.condition.tree import Condition, drop_conditions
from sde.data import Dataset
from sde.device import send
from sde.distillation.flow_map import GUIDANCE_SCALE, FlowMap
from sde.distillation.method import Grid, Lesson, Method, uniforms
from sde.distillation.teacher import FlowMapTeacher, Teacher
from sde.distributed.world import World
from sde.training.augmentation import AS_THEY_ARE, Augmentation
from sde.training.ema import follow
from sde.training.loss import BatchNoise
from sde.training.options import TrainingOptions
from sde.training.trainer import StepResult, Trainer

Restrict = Callable[[Condition | None], Condition | None]
"""Conditions of the data -> those that the student is told, which a replica of several processes does not say."""


@dataclass
class DistillationLoss:
    """The loss of a stage, as a Trainer asks for one: ``method`` with its teacher, ``target`` and ``progress``; each
    condition is dropped with probability ``cond_dropout``, and a guidance scale that is an input is uniform in its
    range."""

    method: Method
    teacher: Teacher | None
    grid: Grid
    restrict: Restrict
    cond_dropout: float = 0.0
    progress: float = 0.0
    target: Any = None

    def __call__(self, student: FlowMap, x0: Tensor, cond: Condition | None, draws: BatchNoise) -> Tensor:
        cond = self.restrict(cond)
        if cond is not None and self.cond_dropout:
            cond = drop_conditions(cond, send(draws.u < self.cond_dropout, x0.device))
        if student.guidance is not None:
            low, high = student.guidance
            scale = low + (high - low) * uniforms(draws, 7)
            cond = {**(cond or {}), GUIDANCE_SCALE: send(scale.to(x0.dtype), x0.device)}
        return self.method.loss(student, x0, cond, draws, Lesson(self.progress, self.teacher, self.target, self.grid))


class StudentTrainer(Trainer):
    """A Trainer through the stages of a method, which share its steps evenly. Each begins with the averaged weights of
    the one before, which become its teacher, with a fresh optimizer and with its own warm-up and decay of the learning
    rate. ``spare`` is a copy of the student, not compiled: what teachers and target are made of.

    Raises ValueError where weights are sharded, as teachers and targets are whole, and for fewer steps than stages.
    """

    def __init__(
        self,
        student: FlowMap,
        spare: FlowMap,
        loss: DistillationLoss,
        data: Dataset,
        options: TrainingOptions,
        world: World | None = None,
        workers: int = 0,
        augmentation: Augmentation = AS_THEY_ARE,
    ) -> None:
        if options.parallel == "fsdp" and world is not None and world.size > 1:
            raise ValueError("parallel = 'fsdp': a student's teachers are not split with its network; take ddp")
        self.distillation, self.stages = loss, loss.method.stages()
        if options.steps < len(self.stages):
            raise ValueError(f"steps = {options.steps}: needs at least one for each of {len(self.stages)} stages")
        super().__init__(student, data, loss, options, world, workers, augmentation=augmentation)
        self.spare = spare.requires_grad_(False).eval()
        self.stage = self.begun = 0
        """The number of the stage, and the step with which it began."""
        self._enter(0)

    def stage_at(self, step: int) -> int:
        """The number of the stage in which a step is."""
        return min(step * len(self.stages) // self.options.steps, len(self.stages) - 1)

    @property
    def stage_end(self) -> int:
        """The step with which the next stage begins, or the run ends."""
        return -(-(self.stage + 1) * self.options.steps // len(self.stages))

    @property
    def lr(self) -> float:
        length = max(1, self.stage_end - self.begun)
        seen = (self.step - self.begun) * self.options.batch_size
        return replace(self.options, steps=length).lr_at(seen)

    def call(self, x0: Tensor, draws: BatchNoise) -> Tensor:
        return self.module(x0, draws.t, torch.full_like(draws.t, self.module.sde.t_min))

    def training_step(self) -> StepResult:
        if self.stage_at(self.step) > self.stage:
            self._next()
        self.distillation.progress = (self.step - self.begun) / max(1, self.stage_end - self.begun)
        result = super().training_step()
        if (target := self.distillation.target) is not None:
            follow(target, self.module, 1 - self.distillation.method.target_decay)
        return result

    def _enter(self, stage: int) -> None:
        """Set the method of a stage, and its target, the student as it is."""
        self.stage, self.distillation.method = stage, self.stages[stage]
        if self.distillation.method.target_decay:
            self.distillation.target = self._apart(self.module.state_dict())

    def _next(self) -> None:
        """Go on to the next stage."""
        averaged = self.ema.module_state(self.module)
        self.module.load_state_dict(averaged)
        # In a short stage a long average would hardly leave the one before.
        self.ema.restart(self.module)
        self.distillation.teacher = FlowMapTeacher(self._apart(averaged))
        self.optimizer.state.clear()
        self.begun = self.step
        self._enter(self.stage + 1)

    def _apart(self, state: dict[str, Tensor]) -> FlowMap:
        """A student of these weights that is not trained, and computes as the one that is."""
        student = copy.deepcopy(self.spare)
        student.load_state_dict(state)
        student.autocast = self.module.autocast
        return student

    def state_dict(self) -> dict:
        state = super().state_dict() | {"stage": self.stage, "begun": self.begun}
        if self.stage:
            teacher: Any = self.distillation.teacher
            state["teacher"] = teacher.flow_map.state_dict()
        if self.distillation.target is not None:
            state["target"] = self.distillation.target.state_dict()
        return state

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        if state["stage"] >= len(self.stages):
            raise ValueError(f"it is in stage {state['stage'] + 1}, and here are {len(self.stages)}")
        if self.stage_at(self.step) > state["stage"] + 1:
            raise ValueError(
                f"steps = {self.options.steps}: step {self.step} is then in stage {self.stage_at(self.step) + 1}, and "
                f"it is in stage {state['stage'] + 1}; needs more"
            )
        self._enter(state["stage"])
        self.begun = state["begun"]
        if self.stage:
            self.distillation.teacher = FlowMapTeacher(self._apart(state["teacher"]))
        if self.distillation.target is not None:
            self.distillation.target.load_state_dict(state["target"])
