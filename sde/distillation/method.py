"""The method: a loss with its hyper-parameters, and what it needs to be trained by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

from sde.condition.tree import ConditionLike
from sde.data.draws import per_item
from sde.distillation.teacher import Teacher
from sde.process.base import SDE
from sde.training.loss import BatchNoise
from sde.training.times import NORMAL, Times

T = TypeVar("T")

Grid = Callable[[SDE, int], Tensor]
"""Times (steps + 1,) of a process, float64 on the CPU, from t_max down to t_min, as a key of ``samplers.GRIDS``."""


@dataclass(frozen=True)
class Lesson:
    """What a loss may ask beside its items: ``progress``, the share of the stage's steps that are done, in [0, 1); the
    ``teacher``; ``target``, the average of the student, without gradients; ``grid``, the function that the method's own
    name of one stands for."""

    progress: float = 0.0
    teacher: Teacher | None = None
    target: Any = None
    grid: Grid | None = None


class Method(Protocol):
    """A frozen dataclass of hyper-parameters. ``times`` is a key of sde.training.TIMES, the law of the times that the
    batches draw. ``grid`` is the name of a grid of samplers, of which ``loss`` is given the function, and by which the
    student is sampled; ``sampler`` the name of the sampler of its students: "jump", or "renoise" of those that jump to
    the data alone. ``target_decay`` is that of the average of the student that is its target, 0 for none.
    ``needs_teacher``: whether losses ask the teacher, whose weights the student begins with in any case."""

    @property
    def times(self) -> str: ...
    @property
    def grid(self) -> str: ...
    @property
    def target_decay(self) -> float: ...
    @property
    def sampler(self) -> str: ...
    @property
    def needs_teacher(self) -> bool: ...

    def stages(self) -> tuple[Self, ...]:
        """What is trained one after the other: after each stage its student becomes the teacher of the next."""
        ...

    def loss(self, student: Any, x0: Tensor, cond: ConditionLike | None, draws: BatchNoise, lesson: Lesson) -> Tensor:
        """The losses (B,) of items x0 (B, *event) in model units, their conditions, and their random numbers, of which
        the times are of the law ``times``. ``student`` is a FlowMap."""
        ...


def times_of(method: Method) -> Times:
    """The law of a method's times: ``times``, where it is normal with the method's ``time_mean`` and ``time_std`` of
    ln(sigma / alpha). Raises ValueError as ``Times`` does."""
    normal = {name: getattr(method, f"time_{name}") for name in ("mean", "std")} if method.times in NORMAL else {}
    return Times(method.times, **normal)


def uniforms(draws: BatchNoise, number: int) -> Tensor:
    """Numbers (B,) uniform in (0, 1), float64 on the CPU, of the items' own; another ``number`` from 1 gives others."""
    return per_item(torch.rand, draws.seeds + 1 + number, ()).double().clamp(1e-7, 1 - 1e-7)


def given(name: str, value: T | None) -> T:
    """What a loss asks for beside its items. Raises ValueError where it is not there."""
    if value is None:
        raise ValueError(f"{name} = None: this method's loss asks one")
    return value


def check_choice(method: object, **tables: Mapping[str, Any]) -> None:
    """Raise ValueError for a field of a method that is no key of its table."""
    for name, table in tables.items():
        if getattr(method, name) not in table:
            raise ValueError(f"{name} = {getattr(method, name)!r}: needs one of {', '.join(table)}")


def check_range(method: object, low: float, high: float, *names: str) -> None:
    """Raise ValueError for a field of a method outside [low, high]."""
    for name in names:
        if not low <= getattr(method, name) <= high:
            wanted = f"a number from {low:g}" + (f" to {high:g}" if high < float("inf") else "")
            raise ValueError(f"{name} = {getattr(method, name)}: needs {wanted}")
