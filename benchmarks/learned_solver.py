"""A solver learned by gradients through itself, beside ``plan`` and the best fixed sampler, with what each cost.

    python benchmarks/learned_solver.py [--targets ring,digits,gmm16] [--nfe 3,5,10,20] [--quantile 0.9]
    python benchmarks/learned_solver.py --workdir runs/digits --samples 32 --pairs 64 --batch 16

Bespoke non-stationary solvers (Shaul et al. 2024, algorithm 1): times and weights of a linear multistep method are
parameters, Adam descends on the mean logarithm of the squared distance to the ends of finely solved trajectories, and
the iterate that is best on pairs held back is kept. Costs are in samples of the planned number of calls: those of the
pairs' solution, and of every iteration a pass forward and one backward, which counts two. Tables are Markdown; the last
line is JSON. In docs/accuracy.md.
"""

import argparse
import json
import math
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.accuracy import fixed_row, print_table, ratio
from benchmarks.targets import FIXED, OTHERS, TARGETS, Case, mixture, trained
from samplers import ExponentialAdams, SeededNoise, pilot_count, plan, sample
from samplers.first_step import t_signal
from samplers.grid import make_grid
from samplers.noise.seeded import PILOT_OFFSET, sample_seeds
from samplers.numerics.weights import exponential_weights
from samplers.planning.fitted import MAX_COMBINED, LinearMultistep

BACKWARD = 2
"""Calls that a pass backward through the network costs."""

Row = dict[int, tuple[float, str]]


@dataclass(frozen=True)
class Learning:
    """Pairs of starting points and ends, a quarter of them held back; items of an iteration; the rates' start."""

    pairs: int
    batch: int
    iterations: int
    rate: float = 5e-3
    every: int = 25


class NonStationary(torch.nn.Module):
    """x_s / alpha_s = x / alpha_t + (r_s - r_t) sum_k c_ik n_(i-k) with r = sigma / alpha: times and c are parameters.

    The gaps of log(alpha / sigma) are a softmax's, so that times keep their order and ends. Every c is counted in units
    that change x / alpha at the step's end by about its own size: r may fall from 1000 to 50 in a step.
    """

    def __init__(self, sde, times: Tensor, weights: list[tuple[float, ...]]) -> None:
        super().__init__()
        self.sde = sde
        log_ratio = sde.log_snr(times) / 2
        self.first, self.span = log_ratio[0], log_ratio[-1] - log_ratio[0]
        self.gaps = torch.nn.Parameter(log_ratio.diff().log())
        ratio = (-log_ratio).exp()
        steps, sizes = ratio.diff().tolist(), ratio.square().add(1).sqrt()[1:].tolist()
        self.units = [min(1.0, size / abs(step)) for size, step in zip(sizes, steps, strict=True)]
        self.begun = [torch.tensor(row, dtype=torch.float64) / step for row, step in zip(weights, steps, strict=True)]
        self.changes = torch.nn.ParameterList(map(torch.zeros_like, self.begun))

    def combined(self) -> list[Tensor]:
        """c, a row per step."""
        parts = zip(self.begun, self.units, self.changes, strict=True)
        return [begun + unit * change for begun, unit, change in parts]

    def log_ratios(self) -> Tensor:
        """log(alpha / sigma) at the times, (calls + 1,)."""
        passed = torch.cat([torch.zeros(1, dtype=torch.float64), self.gaps.softmax(0).cumsum(0)])
        return self.first + self.span * passed

    def times(self) -> Tensor:
        """The times, through which the gradient comes by the implicit function theorem."""
        aim = 2 * self.log_ratios()
        with torch.enable_grad():
            at = self.sde.t_of_log_snr(aim.detach()).requires_grad_()
            reached = self.sde.log_snr(at)
            (slope,) = torch.autograd.grad(reached.sum(), at)
        return at.detach() + (aim - reached.detach()) / slope

    def forward(self, model, x: Tensor) -> Tensor:
        """The end of a run from x (B, *event) at the first time."""
        times, ratios, combined, outputs = self.times(), (-self.log_ratios()).exp(), self.combined(), []
        ends = [self.sde.alpha(times[0]).detach(), self.sde.alpha(times[-1]).detach()]
        x = x / ends[0].to(x.dtype)
        for i, (t, (here, there)) in enumerate(zip(times[:-1], pairwise(ratios), strict=True)):
            state = (self.sde.alpha(t) * x).to(x.dtype)
            outputs = [model.noise(state, t.expand(len(x))), *outputs][:MAX_COMBINED]
            for weight, output in zip(combined[i], outputs, strict=True):
                x = x + ((there - here) * weight).to(x.dtype) * output
        return ends[1].to(x.dtype) * x

    def sampler(self) -> LinearMultistep:
        """What was learned, as a sampler."""
        with torch.no_grad():
            times, steps = self.times(), (-self.log_ratios()).exp().diff().tolist()
            times[[0, -1]] = double_ends(self.sde)
            rows = [tuple((c * step).tolist()) for c, step in zip(self.combined(), steps, strict=True)]
        return LinearMultistep(tuple(times.tolist()), tuple(rows))


def double_ends(sde) -> Tensor:
    """The first and the last time of a run."""
    return torch.tensor([t_signal(sde), sde.t_min], dtype=torch.float64)


def adams(sde, calls: int, order: int = 3) -> tuple[Tensor, list[tuple[float, ...]]]:
    """Times and weights of the exponential Adams method on noise, uniform in the log-SNR."""
    times = make_grid(sde, "log_snr", calls, t_signal(sde))
    nodes, rows = (sde.log_snr(times) / 2).tolist(), []
    for i, end in enumerate(nodes[1:]):
        seen = tuple(nodes[max(0, i + 1 - order) : i + 1][::-1])
        row = [-math.exp(-end) * w for w in exponential_weights(seen, nodes[i], end, -1.0)]
        rows.append(tuple(row + [0.0] * (min(i + 1, MAX_COMBINED) - len(row))))
    return times, rows


def learn(
    model, x: Tensor, ends: Tensor, begin: tuple[Tensor, list[tuple[float, ...]]], options: Learning, seed: int
) -> tuple[LinearMultistep, int]:
    """The best solver on the pairs held back, and the calls on one sample that learning took."""
    solver, calls = NonStationary(model.sde, *begin), len(begin[1])
    held = max(1, options.pairs // 4)
    generator = torch.Generator().manual_seed(seed)
    descent = torch.optim.Adam(solver.parameters(), options.rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(descent, options.iterations)
    best, kept, cost = math.inf, solver.sampler(), 0

    def distance(rows: Tensor) -> Tensor:
        gap = solver(model.rows(rows), x[rows]) - ends[rows]
        return gap.double().flatten(1).square().sum(1).clamp(min=1e-300).log().mean()

    for iteration in range(options.iterations + 1):
        if iteration % options.every == 0:
            with torch.no_grad():
                value = distance(torch.arange(held)).item()
            cost += held * calls
            if value < best:
                best, kept = value, solver.sampler()
        if iteration == options.iterations:
            break
        rows = held + torch.randperm(len(x) - held, generator=generator)[: options.batch]
        descent.zero_grad()
        distance(rows).backward()
        torch.nn.utils.clip_grad_norm_(solver.parameters(), 1.0)
        descent.step()
        decay.step()
        cost += len(rows) * calls * (1 + BACKWARD)
    return kept, cost


def learned_rows(case: Case, columns: list[int], options: Learning) -> tuple[dict[str, Row], dict]:
    """Errors of plan, of a solver learned from an exponential Adams method's start and from the plan's; their costs."""
    rows: dict[str, Row] = {"plan": {}, "learned": {}, "learned from the plan": {}}
    sde, model, costs = case.model.sde, case.for_rows(options.pairs), {}
    seeds = [number + PILOT_OFFSET for number in sample_seeds(1, options.pairs)]
    x = sde.prior_std() * SeededNoise(seeds)(case.start.new_empty(options.pairs, *case.start.shape[1:]))
    fine = max(40, 5 * max(columns))
    ends = sample(model, ExponentialAdams(4), x, make_grid(sde, "log_snr", fine, t_signal(sde)), denoise=False)
    for calls in columns:
        found = plan(case.for_rows(pilot_count(calls)), tuple(case.start.shape[1:]), calls)
        rows["plan"][calls] = (case.error(found.sampler, found.times)[0], "")
        costs[calls] = {"plan": found.samples}
        begins = {"learned": adams(sde, calls)}
        if isinstance(found.sampler, LinearMultistep):
            begins["learned from the plan"] = (found.times, [row[:MAX_COMBINED] for row in found.sampler.weights])
        for name, begin in begins.items():
            solver, cost = learn(model, x, ends, begin, options, 0)
            rows[name][calls] = (case.error(solver, solver.grid)[0], "")
            costs[calls][name] = (cost + options.pairs * fine) / calls
    return rows, costs


def parse() -> argparse.Namespace:
    """The options, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", default="ring,digits,gmm16", help="comma-separated; others: the further nine")
    parser.add_argument("--workdir", type=Path, help="a run folder: measure on its trained model, not on targets")
    parser.add_argument("--samples", type=int, default=256, help="points that the errors are measured on")
    parser.add_argument("--nfe", default="3,5,10,20", help="comma-separated network calls")
    parser.add_argument("--quantile", type=float, default=0.5, help="of the samples' errors; default: the median")
    parser.add_argument("--pairs", type=int, default=256, help="finely solved pairs; a quarter is held back")
    parser.add_argument("--batch", type=int, default=64, help="pairs of an iteration")
    parser.add_argument("--iterations", type=int, default=500, help="of Adam")
    options = parser.parse_args()
    names = list(OTHERS) if options.targets == "others" else options.targets.split(",")
    options.targets = [str(options.workdir)] if options.workdir else names
    if unknown := [name for name in names if name not in TARGETS | OTHERS]:
        parser.error(f"--targets: {unknown[0]!r} is none of {', '.join([*TARGETS, *OTHERS, 'others'])}")
    try:
        options.nfe = [int(number) for number in options.nfe.split(",")]
    except ValueError as error:
        parser.error(f"--nfe needs whole numbers: {error}")
    if min(options.nfe) < 3 or min(options.pairs, options.batch, options.iterations) < 1 or options.pairs < 4:
        parser.error("needs --nfe of at least 3, --pairs of at least 4, --batch and --iterations of at least 1")
    if options.workdir and not (options.workdir / "model.safetensors").exists():
        parser.error(f"--workdir={options.workdir}: there is no model.safetensors; train one first")
    return options


def main() -> None:
    """Learn, measure and print."""
    options = parse()
    learning, result = Learning(options.pairs, options.batch, options.iterations), {}
    for name in options.targets:
        folder, at = options.workdir, options.quantile
        case = trained(folder, options.samples, at) if folder else mixture(name, options.samples, at)
        fixed = [fixed_row(case, sampler, options.nfe) for sampler in FIXED.values()]
        best = {calls: (min(row[calls][0] for row in fixed), "") for calls in options.nfe}
        rows, costs = learned_rows(case, options.nfe, learning)
        ratios = {f"{row} / best fixed": ratio(values, best) for row, values in rows.items() if values}
        print_table(name, {"best fixed": best} | rows | ratios, options.nfe)
        mean = {row: sum(c[row] for c in costs.values() if row in c) / len(costs) for row in rows}
        print("\ncost in samples, mean: " + ", ".join(f"{row} {value:,.0f}" for row, value in mean.items()))
        errors = {row: {c: v for c, (v, _) in values.items()} for row, values in rows.items()}
        result[name] = {"errors": errors | {"best fixed": {c: v for c, (v, _) in best.items()}}, "costs": costs}
    print("\n" + json.dumps({"quantile": options.quantile, "targets": result}))


if __name__ == "__main__":
    main()
