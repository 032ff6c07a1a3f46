"""Accuracy of steps that each sample chooses to a tolerance, beside fixed steps at the same mean calls.

    python benchmarks/tolerance.py [--targets ring,digits,gmm16] [--tolerances 0.03,0.01,0.003] [--quantile 0.95]

The protocol is that of ``accuracy.py``, in docs/accuracy.md. Fixed steps at a mean number of calls that is not whole
are those of the next whole number, to their advantage. Tables are Markdown; the last line is JSON.
"""

import argparse
import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.targets import FIXED, OTHERS, TARGETS, Case, Fixed, mixture
from samplers import AdaptiveAdams, UniPC, plan, sample
from samplers.calls import Watch
from samplers.grid import make_grid

GRIDS = ("cosine", "log_snr", "karras")
"""Grids of fixed steps; ``cosine`` has equal steps in the angle, in which the tolerance's steps are."""

SAME = "unipc-3-v"
"""The same formulas with fixed steps: predictors through three values of v and correctors through four."""

ALL = FIXED | {f"unipc-{points}-v": Fixed(UniPC(points, "v")) for points in (1, 2, 3)}


def fixed_errors(case: Case, fixed: Fixed, calls: int) -> dict[str, float]:
    """The errors at as many calls on each grid."""
    steps = calls // fixed.stages
    return {grid: case.error(fixed.sampler, make_grid(case.model.sde, grid, steps))[0] for grid in GRIDS if steps}


def measure(case: Case, tolerance: float, planned: bool) -> dict[str, float | str]:
    """A row of the table: the errors' quantile with the tolerance, and those of fixed steps."""
    times = make_grid(case.model.sde, "log_snr", 1)
    with Watch(case.model, len(case.start)) as watch:
        x = sample(case.model, AdaptiveAdams(tolerance), case.start, times, denoise=False)
    gap, end = (part.double().flatten(1) for part in (x - case.end, case.end))
    errors = gap.norm(dim=1) / end.square().sum(1).mean().sqrt()
    calls = math.ceil(watch.nfe.mean().item())
    row: dict[str, float | str] = {
        "tolerance": tolerance,
        "calls": round(watch.nfe.mean().item(), 1),
        "least": int(watch.nfe.min()),
        "most": int(watch.nfe.max()),
        "median": errors.median().item(),
        "error": errors.quantile(case.quantile, interpolation="lower").item(),
    }
    row |= {f"same, {grid}": error for grid, error in fixed_errors(case, ALL[SAME], calls).items()}
    found = [(e, f"{name}, {grid}") for name in ALL for grid, e in fixed_errors(case, ALL[name], calls).items()]
    row["best fixed"], row["which"] = min(found)
    if planned:
        found = plan(case.model, tuple(case.start.shape[1:]), calls)
        row["plan"] = case.error(found.sampler, found.times)[0]
    return row


def written(value: float | str) -> str:
    """As accuracy.py's tables have errors."""
    if isinstance(value, str | int):
        return str(value)
    return f"{value:g}" if value >= 1 else f"{value:.1e}".replace("e-0", "e-")


def print_table(title: str, rows: list[dict[str, float | str]]) -> None:
    """As Markdown: errors, and in brackets how much of them the tolerance leaves."""
    columns = [key for key in rows[0] if key not in ("tolerance", "least", "most", "which")]
    print(f"\n| {title}: tolerance | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
    for row in rows:
        cells = []
        for key in columns:
            text = written(row[key])
            if key == "calls":
                text += f" ({row['least']} to {row['most']})"
            elif key not in ("median", "error"):
                text += f" ({row['error'] / row[key]:.2f})"  # type: ignore[operator]
            if key == "best fixed":
                text += f" {row['which']}"
            cells.append(text)
        print(f"| {row['tolerance']:g} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", default=",".join(TARGETS), help="comma-separated; others: the further nine")
    parser.add_argument("--tolerances", default="0.03,0.01,0.003,0.001", help="comma-separated")
    parser.add_argument("--samples", type=int, default=256, help="starting points")
    parser.add_argument("--quantile", type=float, default=0.95, help="of the samples' errors")
    parser.add_argument("--plan", action="store_true", help="with plans of as many calls, which take longer")
    options = parser.parse_args()
    names = list(OTHERS) if options.targets == "others" else options.targets.split(",")
    if unknown := [name for name in names if name not in TARGETS | OTHERS]:
        parser.error(f"--targets: {unknown[0]!r} is none of {', '.join(TARGETS | OTHERS)}, others")
    try:
        tolerances = [float(text) for text in options.tolerances.split(",")]
    except ValueError as error:
        parser.error(f"--tolerances needs numbers: {error}")
    if not (0 <= options.quantile <= 1 and min(tolerances) > 0):
        parser.error("--quantile is from 0 to 1, and --tolerances are above 0")
    result = {}
    for name in names:
        case = mixture(name, options.samples, options.quantile)
        result[name] = [measure(case, tolerance, options.plan) for tolerance in tolerances]
        print_table(name, result[name])
    print("\n" + json.dumps({"quantile": options.quantile, "rows": result}))


if __name__ == "__main__":
    main()
