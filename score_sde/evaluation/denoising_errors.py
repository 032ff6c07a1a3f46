"""Denoising errors, item by item, at fixed noise levels with fixed noise."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from samplers.progress import Progress
from sde.condition.tree import Condition, condition_kinds, map_condition, restrict_to
from sde.data import Dataset
from sde.data.sizes import cut, item_means
from sde.data.statistics import spread
from sde.device import wide
from sde.guidance.conditional import Conditional
from sde.model.call import call_network
from sde.model.classifier import NoisyClassifier
from sde.model.denoiser import Denoiser
from sde.model.score import ScoreModel
from sde.process.base import SDE
from sde.process.coefficients import expand
from sde.process.level import Coefficient
from sde.training.loss import BatchNoise, denoising_loss
from sde.training.times import Times


class Batch(NamedTuple):
    """Some items at one noise level: ``x0`` (B, *event) in model units, their conditions ``cond``, the conditions
    ``other`` of other items, random numbers ``draws`` with the level's time, and ``other_time`` (), a wrong one."""

    x0: Tensor
    cond: Condition | None
    other: Condition | None
    draws: BatchNoise
    other_time: Tensor


class DenoisingErrors:
    """At most ``items`` items of ``data``, spread over the set, at ``count`` noise levels of the process of ``model``:
    the middles of equal parts of the distribution ``times`` of training. Noise and dequantization of an item are the
    same every time.

    ``cond`` is what of the items' conditions the model knows, or None; ``has_other_condition`` (n,) is True where the
    swapped-in condition ``other`` differs from the item's own.
    """

    def __init__(
        self,
        data: Dataset,
        model: Denoiser | NoisyClassifier,
        times: str | Times,
        device: torch.device,
        items: int = 256,
        count: int = 8,
        batch_size: int = 256,
    ) -> None:
        self.dequantized, self.inner_shape = data.dequantized, data.inner_shape
        self.transform, self.sde, self.device, self.batch_size = data.transform, model.sde, device, batch_size
        self.t = Times.of(times)(self.sde, (torch.arange(count, dtype=torch.float64) + 0.5) / count)
        index = spread(len(data), items)
        self.x, cond = data.batch(index)
        self.sizes = data.sizes_of(index)
        self.cond = restrict_to(cond, model)
        self.other = self.has_other_condition = None
        if self.cond is not None:
            order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(0))
            self.other = map_condition(lambda c: c[order], self.cond)
            self.has_other_condition = _differ(self.cond, self.other)

    @property
    def noise_level(self) -> Tensor:
        """sigma / alpha of the levels, (levels,)."""
        return self.sde.noise_level(self.t)

    @torch.no_grad()
    def each(self, function: Callable[[Batch], Tensor]) -> Tensor:
        """function (B, ...) of the items at every level: (levels, n, ...) in float64 on the CPU."""
        levels = Progress(range(len(self.t)), desc="measuring", unit="level", leave=False)
        return torch.stack([torch.cat([function(at).cpu().double() for at in self._parts(i)]) for i in levels])

    def _parts(self, level: int) -> Iterator[Batch]:
        other_time = self.t[(level + len(self.t) // 2) % len(self.t)]
        for start in range(0, len(self.x), self.batch_size):
            rows = slice(start, start + self.batch_size)
            generator = torch.Generator().manual_seed(level)
            draws = BatchNoise.draw(self.sde, (len(self.x), *self.inner_shape), generator, rows=rows)
            sizes = None if self.sizes is None else self.sizes[rows]
            draws = draws._replace(t=self.t[level].expand(len(draws.t)), sizes=sizes)
            u = draws.in_cells(self.transform, self.dequantized)
            x0 = draws.encode(draws.dequantize(self.x[rows], self.transform, u), self.transform).to(self.device)
            own, other = (self._condition(cond, rows) for cond in (self.cond, self.other))
            yield Batch(x0, own, other, draws, other_time)

    def _condition(self, cond: Condition | None, rows: slice) -> Condition | None:
        return map_condition(lambda c: c[rows].to(self.device), cond)

    def errors(self, model: ScoreModel, which: str = "own") -> Tensor:
        """(levels, n): (1 / sigma_data^2 + alpha^2 / sigma^2) |D(x_t, t, cond) - x_0|^2 per dimension, as in
        ``evaluation.validation``: 1 is c_skip x. The condition is the item's ``own``, that of an ``other``, or
        ``none``."""

        def error(at: Batch) -> Tensor:
            cond = {"own": at.cond, "other": at.other, "none": None}[which] if condition_kinds(model) else None
            # The linear denoiser is no Denoiser, and has what the loss asks of one.
            return denoising_loss(model, at.x0, cond, at.draws)  # type: ignore[arg-type]

        return self.each(error)

    def scores(self, model: Denoiser) -> Tensor:
        """(levels, n, 2): |sigma score + z|^2 and |z|^2 - |sigma score|^2 per dimension, with the items' own
        conditions. The expectations are equal for a calibrated score, that of a posterior mean, for which E <sigma
        score, z> is -E |sigma score|^2.
        """

        def squares(at: Batch) -> Tensor:
            t, z = at.draws.t, at.draws.noise(at.x0)
            bound = model if at.cond is None else Conditional(model, at.cond)
            scaled = expand(self.sde.sigma(t), at.x0) * bound.score(noisy(self.sde, at), t)
            both, own, theirs = (item_means(wide(x).square(), at.draws.sizes) for x in (scaled + z, z, scaled))
            return torch.stack([both, own - theirs], 1)

        return self.each(squares)

    def sensitivity(self, model: Denoiser, *changes: str) -> dict[str, float]:
        """``"output"``, the root mean square of the network's output F over items and levels; and for each of the
        ``changes`` how much F changes, sqrt(sum |F' - F|^2 / sum |F|^2), where the network is told another level's
        ``time``, the condition of an ``other`` item, or ``none``."""

        def squares(at: Batch) -> Tensor:
            t = at.draws.t
            x = noisy(self.sde, at)
            _, _, c_in, c_noise = model.coefficients(t)

            def output(c_noise: Coefficient, cond: Condition | None) -> Tensor:
                return call_network(model.network, x, c_in, c_noise, model.standardization(cond), autocast=None)

            told: dict[str, tuple[Coefficient, Condition | None]] = {
                "time": (model.coefficients(at.other_time)[3], at.cond),
                "other": (c_noise, at.other),
                "none": (c_noise, None),
            }
            first = output(c_noise, at.cond)
            changed = [output(*told[change]) - first for change in changes]
            return torch.stack([item_means(wide(x).square(), at.draws.sizes) for x in (first, *changed)], 1)

        size, *changed = self.each(squares).mean((0, 1)).sqrt().tolist()
        relative = {change: value / size if size else 0.0 for change, value in zip(changes, changed, strict=True)}
        return {"output": size, **relative}


def noisy(sde: SDE, at: Batch) -> Tensor:
    """x_t of the items, 0 where they are padded, as in training."""
    return cut(sde.perturb(at.x0, at.draws.t, at.draws.noise(at.x0)), at.draws.sizes)


def _differ(cond: Condition, other: Condition) -> Tensor:
    """True for rows that differ, (n,)."""
    apart = map_condition(lambda a, b: (a != b).reshape(len(a), -1).any(1), cond, other)
    return torch.stack(list(apart.values())).any(0) if isinstance(apart, dict) else apart
