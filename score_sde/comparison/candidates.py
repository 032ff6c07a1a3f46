"""Candidates, the samplers of a comparison: each at budgets of counted network calls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from samplers import DDIM, SAMPLERS, Sampler, SeededNoise, sample
from samplers.calls import Watch, evaluating
from samplers.checks import tensor_like
from samplers.grid import make_grid
from samplers.noise.door import as_noise
from samplers.protocol import GaussianProcess, missing, suits, transform_of
from score_sde.comparison.budgets import left_out, listed, steps_within
from score_sde.run.folder import Run, event_shape_of
from score_sde.run.guides import Guides
from score_sde.run.plans import planned
from sde import ScoreModel
from sde.condition.tree import Condition

TOLERANCES = (1e-2, 1e-3)
"""Tolerances, relative and absolute, at which samplers that choose their own steps are compared."""


@dataclass(frozen=True)
class Candidate:
    """A sampler and its times. ``flags`` make --mode sample draw what it draws; ``budget`` is the most network calls
    that a sample may take, None for a sampler that chooses its own steps, to ``tolerance``. Of several runs ``model``
    is that of its run, whose name is ``entrant``, and ``flow`` the entrant whose flow it follows, None where none is
    known."""

    name: str
    sampler: Sampler
    times: Tensor
    flags: str
    deterministic: bool
    budget: int | None = None
    tolerance: float | None = None
    model: Any = None
    entrant: str = ""
    flow: str | None = None

    @property
    def title(self) -> str:
        """The sampler, and its run where there are several."""
        return f"{self.entrant}: {self.name}" if self.entrant else self.name

    @property
    def label(self) -> str:
        """The caption beside its samples."""
        return f"{self.title}, {self.budget} calls" if self.budget else f"{self.title}, tolerance {self.tolerance:g}"


class Silence:
    """Noise that is zero, and knows whether it was asked for."""

    asked = False

    def __call__(self, x: Tensor) -> Tensor:
        self.asked = True
        return torch.zeros_like(x)

    def uniform(self, x: Tensor) -> Tensor:
        self.asked = True
        return torch.zeros(x.shape, dtype=torch.float64, device=x.device)


def try_out(model: ScoreModel, event_shape: Sequence[int], sampler: Sampler, times: Tensor) -> tuple[float, bool]:
    """The counted network calls of one sample, and whether the sampler is deterministic."""
    one, silence = model.rows(slice(0, 1)), Silence()
    like = tensor_like(model).new_empty((1, *transform_of(model).inner_shape(event_shape)))
    x = model.sde.sample_prior(like, as_noise(SeededNoise([0]), model.sde), times[0])
    with evaluating(one), Watch(one, 1) as counter:
        sample(one, sampler, x, times, silence)
    return counter.nfe.item(), not silence.asked


def suited(names: Sequence[str], process) -> tuple[list[str], list[str]]:
    """Those of the samplers of these names, keys of SAMPLERS or "auto", that work on a process, and a sentence on what
    a comparison leaves out, where it does. Raises ValueError where none of them works."""
    lacking = missing(process, GaussianProcess)
    if not lacking:
        return list(names), []
    kept = [name for name in names if name != "auto" and suits(SAMPLERS[name](), process)]
    members = ", ".join([*lacking[:3], *["..."] * (len(lacking) > 3)])
    why = f"{type(process).__name__} is no GaussianProcess (it has no {members})"
    if not kept:
        raise ValueError(f"--samplers={','.join(names)}: {why}, and these samplers work on nothing else; name others")
    left = [name for name in names if name not in kept]
    out = f"{listed(left)}, and errors against the exact flow," if left else "Errors against the exact flow"
    return kept, [f"{out} are left out, as {why}."]


def find_candidates(
    run: Run,
    guides: Guides,
    cond: Condition | None,
    names: Sequence[str],
    budgets: Sequence[int],
    grid: str | None = None,
) -> tuple[list[Candidate], list[str]]:
    """The samplers of these names, keys of SAMPLERS or "auto", on their own grids or the one of a name, at each budget,
    and a sentence on those that one step of a sampler exceeds."""
    model, event_shape = guides(cond), event_shape_of(guides.denoiser)
    found: list[Candidate] = []
    exceeded: dict[tuple[tuple[int, ...], float], list[str]] = {}
    for name in names:
        configured = dict(run.config.sampler)
        options = configured if configured.pop("name") == name else {}
        # auto is planned for steps of one model call each, as DDIM's are.
        sampler = DDIM() if name == "auto" else SAMPLERS[name](**options)
        if getattr(sampler, "adaptive", False):
            found += [_adaptive(model, event_shape, name, options, tolerance) for tolerance in TOLERANCES]
            continue
        calls_of = _counter(model, event_shape, sampler, grid or sampler.grid)
        least = calls_of(1)
        made = 0
        for budget in budgets:
            steps = steps_within(calls_of, budget)
            # A budget that allows no more steps than the one below has no sampler of its own.
            if steps > made:
                found.append(_fixed(run, guides, cond, name, sampler, steps, budget, grid))
                made = steps
        below = tuple(budget for budget in budgets if budget < least)
        if below:
            exceeded.setdefault((below, least), []).append(name)
    return found, [left_out(exceeded)] if exceeded else []


def fixed_candidate(model: Any, event_shape: Sequence[int], name: str, times: Sequence[float]) -> Candidate:
    """A sampler at its only times, whose budget is what that takes."""
    sampler, grid = SAMPLERS[name](), torch.tensor(times, dtype=torch.float64)
    calls, deterministic = try_out(model, event_shape, sampler, grid)
    return Candidate(name, sampler, grid, f"--sampler {name}", deterministic, budget=round(calls))


def _counter(model: Any, event_shape: Sequence[int], sampler: Sampler, grid: str) -> Callable[[int], float]:
    @cache
    def calls_of(steps: int) -> float:
        return try_out(model, event_shape, sampler, make_grid(model.sde, grid, steps))[0]

    return calls_of


def _fixed(
    run: Run,
    guides: Guides,
    cond: Condition | None,
    name: str,
    sampler: Sampler,
    steps: int,
    budget: int,
    grid: str | None,
) -> Candidate:
    model = guides(cond)
    if name == "auto":
        plan = planned(run, guides, cond, steps)
        # The grid of a plan's sampler is its times, not a name.
        sampler, times = plan.sampler, plan.times  # type: ignore[assignment]
    else:
        times = make_grid(model.sde, grid or sampler.grid, steps)
    deterministic = try_out(model, event_shape_of(guides.denoiser), sampler, times)[1]
    return Candidate(name, sampler, times, f"--sampler {name} --steps {steps}", deterministic, budget=budget)


def _adaptive(model: ScoreModel, event_shape: Sequence[int], name: str, options: dict, tolerance: float) -> Candidate:
    tolerances = dict.fromkeys(SAMPLERS[name](**options).tolerances, tolerance)  # type: ignore[attr-defined]
    sampler = SAMPLERS[name](**options | tolerances)
    times = make_grid(model.sde, sampler.grid, sampler.steps)
    deterministic = try_out(model, event_shape, sampler, times)[1]
    flags = " ".join([f"--sampler {name}", *(f"--config.sampler.{key}={value:g}" for key, value in tolerances.items())])
    return Candidate(name, sampler, times, flags, deterministic, tolerance=tolerance)
