"""Bias of the posterior methods on a linear problem with Gaussian data, whose posterior is known in closed form.

    python benchmarks/posterior.py [--samples 10000] [--steps 100]

The problem, 8 of 16 dimensions observed, is that of tests/oracles/linear_gaussian.py. The table is Markdown, its cells
as in docs/guidance.md; the last line is JSON.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from samplers import SAMPLERS, Ancestral, Sampler, sample
from samplers.grid import make_grid
from samplers.repaint import RePaint
from sde import VPSDE, ScoreModel
from sde.inverse.posterior import DPS, MMPS, PiGDM, Replacement
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10000)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
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
