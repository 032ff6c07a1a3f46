"""Bias of the posterior methods on a linear problem with Gaussian data, whose posterior is known in closed form.

    python benchmarks/posterior.py [--samples 20000] [--steps 100]

The problem, 8 of 16 dimensions observed, is that of tests/linear_gaussian.py. The table is Markdown, its cells as in
docs/guidance.md; the last line is JSON.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from samplers import SAMPLERS, Ancestral, Sampler, sample
from samplers.grid import make_grid
from samplers.repaint import RePaint
from sde import VPSDE, ScoreModel
from sde.posterior import DPS, MomentMatching, PiGDM, Replacement
from tests.linear_gaussian import DIM, Problem, problem


def cases(name: str, task: Problem) -> dict[str, tuple[ScoreModel, Sampler]]:
    """Models and samplers by the table's row."""
    prior, ancestral = task.prior(VPSDE()), Ancestral()
    bound = prior, task.operator, task.y
    std = task.covariance.diagonal().mean().sqrt().item()
    rows = {
        "no guidance": (prior, ancestral),
        "exact posterior": (task.posterior(VPSDE()), ancestral),
        **{
            f"MomentMatching, {count} iteration{'s' * (count > 1)}": (
                MomentMatching(*bound, task.sigma_y, count),
                ancestral,
            )
            for count in (1, 3, 5, 10)
        },
        "MomentMatching, 5 iterations, unipc": (MomentMatching(*bound, task.sigma_y, 5), SAMPLERS["unipc"]()),
        "PiGDM": (PiGDM(*bound, task.sigma_y, std), ancestral),
        "PiGDM, unipc": (PiGDM(*bound, task.sigma_y, std), SAMPLERS["unipc"]()),
        **{f"DPS, gamma = {gamma}": (DPS(*bound, task.sigma_y, gamma, std), ancestral) for gamma in (1.0, 0.5, 0.3)},
        "DPS, gamma = 0.5, unipc": (DPS(*bound, task.sigma_y, 0.5, std), SAMPLERS["unipc"]()),
    }
    if name == "mask":
        replacement = Replacement(*bound)
        rows["Replacement"] = replacement, ancestral
        for count in (5, 10, 20):
            rows[f"Replacement, RePaint of {count}"] = replacement, RePaint(ancestral, count)
    return rows


def draw(model: ScoreModel, sampler: Sampler, count: int, steps: int) -> torch.Tensor:
    """(count, 16) samples, of one generator."""
    generator = torch.Generator().manual_seed(0)

    def normal(x: torch.Tensor) -> torch.Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    start = normal(torch.empty((count, DIM), dtype=torch.float64)) * model.sde.prior_std()
    return sample(model, sampler, start, make_grid(model.sde, "log_snr", steps), normal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20000)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    tasks = {
        "correlated": problem(),
        "isotropic": problem(std=0.7),
        "mask": problem("mask", 0.0),
    }
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for name, task in tasks.items():
        for row, (model, sampler) in cases(name, task).items():
            found.setdefault(row, {})[name] = task.errors(draw(model, sampler, options.samples, options.steps))
            print(name, row, *(f"{100 * error:.1f}" for error in found[row][name]), file=sys.stderr)
    print(f"| method | {' | '.join(tasks)} |\n|---|{'---|' * len(tasks)}")
    for row, errors in found.items():
        cells = ("{:.1f}, {:.1f}".format(*(100 * e for e in errors[name])) if name in errors else "" for name in tasks)
        print(f"| {row} | {' | '.join(cells)} |")
    print(json.dumps({"torch": torch.__version__, "samples": options.samples, "steps": options.steps, "errors": found}))


if __name__ == "__main__":
    main()
