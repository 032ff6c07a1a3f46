"""Bias of the posterior methods on a linear problem with Gaussian data, whose posterior is known in closed form.

    python benchmarks/posterior.py [--samples 10000] [--steps 100]
    python benchmarks/posterior.py --fields [--samples 200]

The problem, 8 of 16 dimensions observed, is that of tests/oracles/linear_gaussian.py. With ``--fields`` the problems
are those of tests/oracles/gaussian_fields.py, correlated series and images, by the methods as --mode restore takes
them: 30 steps, 200 samples of each of three items. The table is Markdown, its cells as in docs/guidance.md; the last
line is JSON.
"""

import argparse
import contextlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from samplers import SAMPLERS, Ancestral, Sampler, generate, sample
from samplers.grid import make_grid
from samplers.repaint import RePaint
from score_sde.restoration.cost import ITERATIONS
from score_sde.restoration.methods import SAMPLER, STEPS
from sde import VPSDE, ScoreModel
from sde.inverse.operators import Mask
from sde.inverse.posterior import DPS, MMPS, PiGDM, Replacement
from tests.oracles.gaussian_fields import FieldProblem, field_problems
from tests.oracles.linear_gaussian import DIM, Problem, problem


def methods(task: Problem) -> dict[str, ScoreModel]:
    """Models of the posterior by the table's row."""
    prior, posterior = task.prior(VPSDE()), task.posterior(VPSDE())
    bound = prior, task.operator, task.y, task.sigma_y
    std = task.covariance.diagonal().mean().sqrt().item()
    return {
        "no guidance": prior,
        "exact posterior": posterior,
        **{f"MMPS, iterations {count}": MMPS(*bound, count) for count in (8, 5, 3, 1)},
        "PiGDM": PiGDM(*bound, std),
        **{f"DPS, gamma {gamma}": DPS(*bound, gamma, std) for gamma in (1.0, 0.5, 0.3)},
    }


def draw(model: ScoreModel, sampler: Sampler, count: int, steps: int) -> Tensor:
    """(count, 16) samples, from starts whose sample mean and covariance are those of the prior."""
    generator = torch.Generator().manual_seed(0)

    def normal(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    start = normal(torch.empty((count, DIM), dtype=torch.float64))
    start = start - start.mean(0)
    start = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(start.T, correction=0)), start.T, upper=False)
    return sample(model, sampler, start.T * model.sde.prior_std(), make_grid(model.sde, "log_snr", steps), normal)


def restoring(problem: FieldProblem) -> dict[str, tuple[ScoreModel, Sampler]]:
    """Models of the posterior, and their samplers, by the row of the table of correlated data."""
    prior, bound = problem.prior(VPSDE()), (problem.operator, problem.y.float(), problem.sigma_y)
    std = problem.covariance.diagonal().mean().sqrt().item()
    once, ancestral = SAMPLERS[SAMPLER](), Ancestral()
    found: dict[str, tuple[ScoreModel, Sampler]] = {}
    for count in ITERATIONS:
        found[f"`mmps`, {count} iteration{'s' * (count > 1)}"] = MMPS(prior, *bound, count), once
    found["`mmps`, 8, ancestral x 4"] = MMPS(prior, *bound), RePaint(ancestral, 4)
    for name, sampler in (("", once), (", ancestral x 4", RePaint(ancestral, 4))):
        found[f"`pigdm`{name}"] = PiGDM(prior, *bound, std), sampler
        found[f"`dps`{name}"] = DPS(prior, *bound, 0.3, std), sampler
    if isinstance(problem.operator, Mask) and not problem.sigma_y:
        found["`replacement` x 4"] = Replacement(prior, *bound[:2]), RePaint(once, 4)
        found["`replacement`"] = Replacement(prior, *bound[:2]), once
    return found


def correlated_table(count: int) -> None:
    """Print CRPS, relative to that of exact samples, and coverage of every method on every correlated problem."""
    found: dict[str, dict[str, tuple[float, float] | None]] = {}
    problems = field_problems()
    for name, task in problems.items():
        exact, _ = task.scores(task.exact(count, torch.Generator().manual_seed(0)))
        for row, (model, sampler) in restoring(task).items():
            rows = torch.arange(len(task.y)).repeat_interleave(count)
            score: tuple[float, float] | None = None
            # Samples that are no longer finite end a run.
            with contextlib.suppress(FloatingPointError):
                drawn = generate(model.rows(rows), sampler, len(rows), task.shape, steps=STEPS, batch_size=1000)
                x = drawn.x
                if isinstance(task.operator, Mask) and not task.sigma_y:
                    x = task.operator.restore(x, task.y[rows].float())
                crps, coverage = task.scores(x.view(len(task.y), count, -1))
                score = crps / exact, coverage
            found.setdefault(row, {})[name] = score
            print(name, row, score, file=sys.stderr, flush=True)
    print(f"| method | {' | '.join(problems)} |\n|---|{'---|' * len(problems)}")
    for row, scores in found.items():
        print(f"| {row} | {' | '.join(cell(scores[name]) if name in scores else '' for name in problems)} |")
    print(json.dumps({"torch": torch.__version__, "samples": count, "scores": found}))


def cell(score: tuple[float, float] | None) -> str:
    """A cell of the table; a CRPS of more than ten times the exact one is that of a divergence."""
    if score is None or score[0] > 10:
        return "diverges"
    return f"{score[0]:.2f}, {100 * score[1]:.0f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", action="store_true")
    parser.add_argument("--samples", type=int)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    if options.fields:
        correlated_table(options.samples or 200)
        return
    options.samples = options.samples or 10000
    correlated, mask = problem(), problem("mask", 0.0)
    columns = {
        "correlated, unipc": (correlated, SAMPLERS["unipc"]()),
        "correlated, ancestral": (correlated, Ancestral()),
        "isotropic, unipc": (problem(std=0.7), SAMPLERS["unipc"]()),
        "mask, ancestral": (mask, Ancestral()),
    }
    cases = [(row, name, model, sampler) for name, (task, sampler) in columns.items() for row, model in
             methods(task).items()]  # fmt: skip
    replacement = Replacement(mask.prior(VPSDE()), mask.operator, mask.y)
    for count in (1, 5, 10, 20):
        cases.append(
            (f"Replacement, repaint_steps {count}", "mask, ancestral", replacement, RePaint(Ancestral(), count))
        )
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for row, name, model, sampler in cases:
        errors = columns[name][0].errors(draw(model, sampler, options.samples, options.steps))
        found.setdefault(row, {})[name] = errors
        print(name, row, *(f"{100 * error:.1f}" for error in errors), file=sys.stderr)
    print(f"| method | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for row, errors in found.items():
        cells = (
            "{:.1f}, {:.1f}".format(*(100 * e for e in errors[name])) if name in errors else "" for name in columns
        )
        print(f"| {row} | {' | '.join(cells)} |")
    print(json.dumps({"torch": torch.__version__, "samples": options.samples, "steps": options.steps, "errors": found}))


if __name__ == "__main__":
    main()
