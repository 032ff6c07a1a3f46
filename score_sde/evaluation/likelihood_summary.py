"""Likelihoods for people: the report in words, and a row for each item."""

import math
from collections.abc import Sequence

from torch import Tensor

from samplers import LikelihoodReport

MAX_TRAINING_ITEMS = 64
"""Training items whose likelihood is set beside that of the held-out ones."""


def show(condition: str, split: str, report: LikelihoodReport, result: dict) -> None:
    unit, parts, subset = report.unit, report.stderr_parts, report.subset
    split_up = ", ".join(f"{name} {value:.4f}" for name, value in parts.items())
    warning = "" if condition.startswith("p(") else "NOT a density but a guided model's flow: "
    what = f"{condition} of {result['num_samples']} {split} items, {result['weights']}"
    print(f"{warning}{what}, {result['trace']}, in {unit}:")
    if unit == "nats":
        print("  (no bits/dim: the data are continuous; config.data.num_levels declares quantized ones)")
    print(f"  probability flow at t_min   {report.ode}   (standard error by {split_up})")
    if report.importance is not None:
        print(f"  importance-weighted         {report.importance}")
    elif result["dequantizations"] > 1:
        print("  importance-weighted         needs --probes 0: the error of probes would bias it upwards")
    print(f"  bound at t = 0              {report.bound_at_zero}   (the flow's on these {subset}: {report.at_t_min})")
    print(f"  variational bound           {report.variational}")
    print(f"  bound of {report.discrete_steps} discrete steps {report.discrete}")
    if "training" in result:
        mean, error = result["training"]
        hint = f"{MAX_TRAINING_ITEMS} at most; much better is memorized"
        print(f"  training items              {mean:.4f} +- {error:.4f}   ({hint})")
    print(
        f"  {result['nfe']:g} network calls each, {result['nfe_max']} at most, {result['rejected']:g} steps rejected; "
        f"a tenth of the tolerances changes an item by {report.tolerance_change:.1e} at most"
    )


def rows_of(
    names: Sequence[str], every: Tensor, errors: Tensor, dimensions: Sequence[float] | None
) -> list[dict[str, str]]:
    """A row per item for a .csv: its name or number, log p in nats, of quantized data, which have ``dimensions`` each,
    bits per dimension as well, both with the standard error that the probes leave open."""
    rows = []
    for i, (name, nats, error) in enumerate(zip(names, every.tolist(), errors.tolist(), strict=True)):
        rows.append({"item": name, "nats": f"{nats:.9g}", "stderr": f"{error:.9g}"})
        if dimensions is not None:
            bits = dimensions[i] * math.log(2)
            rows[-1] |= {"bits_per_dim": f"{-nats / bits:.9g}", "bits_per_dim_stderr": f"{error / bits:.9g}"}
    return rows
