"""--mode likelihood: bits per dimension of quantized data, nats of continuous data, in a report."""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from samplers import LikelihoodReport, dequantized, likelihood_report, log_likelihood
from samplers.likelihood.report import report_work
from samplers.progress import Progress
from score_sde.config.naming import with_keys
from score_sde.kinds.base import Kind
from score_sde.run.folder import Run
from score_sde.run.guides import UNGUIDED, GuidanceOptions, Guides
from score_sde.run.inputs import read_items, spread_items
from score_sde.run.items import open_split, write_arrays
from score_sde.run.labels import Labels
from score_sde.run.outputs import stem
from sde import ScoreModel
from sde.condition.tree import Condition, labels_of
from sde.data import Dataset
from sde.data.statistics import spread
from sde.distributed.world import World

EXACT_UP_TO = 16
"""Dimensions up to which the trace is exact unless --probes says otherwise."""

MAX_TRAINING_ITEMS = 64
"""Training items whose likelihood is set beside that of the held-out ones."""


def likelihood(
    run: Run,
    *,
    split: str = "test",
    num_samples: int = 256,
    seed: int = 0,
    labels: str | None = None,
    guidance: GuidanceOptions = UNGUIDED,
    unnormalized: bool = False,
    batch_size: int = 256,
    dequantizations: int = 1,
    probes: int | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-4,
    ood_file: str | None = None,
    out: str | None = None,
) -> dict:
    """Evaluate log p(x), or log p(x | y) with ``labels`` "data", on the held-out or the training items."""
    if guidance != UNGUIDED and not unnormalized:
        raise ValueError(
            "a guided model is not a normalized density, so its likelihood is refused: leave out "
            f"{guidance.given()}, or add --unnormalized to integrate it all the same"
        )
    data, training, denoiser = open_split(run, split)
    bound = Guides(run, denoiser, guidance)
    conditioned = Labels(labels, denoiser, bound.classes).takes_items()
    condition = "p(x | y)" if conditioned else "p(x)"
    if ood_file and (condition != "p(x)" or unnormalized):
        raise ValueError(
            f"--ood_file={ood_file} compares log p(x), and here one set has {condition}: leave out --labels, and "
            "take a model with an unconditional branch"
        )
    if unnormalized:
        if guidance == UNGUIDED:
            raise ValueError("--unnormalized: nothing is guided here; leave it out, or give --guidance_scale")
        condition = "unnormalized"
    others = None if ood_file is None else _others(ood_file, data, num_samples, run.kind)
    exact = (probes == 0) if probes is not None else math.prod(data.event_shape) <= EXACT_UP_TO
    settings: dict[str, Any] = {"probes": None if exact else probes or 2, "rtol": rtol, "atol": atol, "seed": seed}

    def model_for(targets: Condition | None) -> ScoreModel:
        return bound(targets if conditioned else None)

    index = spread_items(data, split, num_samples)
    (x, targets), sizes = data.batch(index), data.sizes_of(index)
    model = model_for(targets)
    begin = time.perf_counter()
    work = report_work(data.transform, len(x), dequantizations=dequantizations, rows=run.world.rows)
    bar = Progress(total=work, desc="likelihood", unit="item", disable=not run.world.is_main)
    with bar, with_keys(dequantizations="--dequantizations", probes="--probes"):
        report = likelihood_report(
            model, x, dequantizations=dequantizations, batch_size=batch_size, guided=unnormalized,
            progress=bar.update, world=run.world, sizes=sizes, **settings,
        )  # fmt: skip
    values, in_unit = {}, {}
    if split == "test" and not unnormalized:
        few = spread(len(training), MAX_TRAINING_ITEMS)
        (hint, hint_targets), own = training.batch(few), training.sizes_of(few)
        values["training"] = _nats(run.world, model_for(hint_targets), hint, own, batch_size, settings)
        in_unit["training"] = report.in_unit(values["training"], data.event_shape, own)
    if others is not None:
        values["others"] = _nats(run.world, denoiser, *others, batch_size, settings)
        in_unit["others"] = report.in_unit(values["others"], data.event_shape, others[1])
    result = {
        "mode": "likelihood",
        "split": split,
        "num_samples": len(x),
        "density": condition,
        "weights": run.weights,
        "trace": "exact" if exact else f"{probes or 2} probes",
        **report.summary(),
        "seconds": round(time.perf_counter() - begin, 1),
        **{"seed": seed, "rtol": rtol, "atol": atol, "dequantizations": dequantizations, "t_min": denoiser.sde.t_min},
        **{name: [v.mean().item(), v.std().item() / len(v) ** 0.5] for name, v in in_unit.items()},
    }
    _show(condition, split, report, result)
    if others is not None:
        result["auroc"] = _auroc(report.nats, values["others"])
        print(f"  AUROC of log p(x) against {ood_file}: {result['auroc']:.4f} ({len(others[0])} items)")
    if out and run.world.is_main:
        path = Path(f"{stem(run, out, 'likelihood')}.npz")
        arrays = {
            "index": index,
            "sizes": sizes,
            "nats": report.nats,
            "stderr": report.stderr,
            "nfe": report.nfe,
            "rejected": report.rejected,
            "labels": labels_of(targets),
        }
        arrays |= {"others": None if others is None else values["others"]}
        write_arrays(path, arrays, run.settings)
        result["numbers"] = str(path)
        print(f"  log p of each item: {path}")
    return result


def _show(condition: str, split: str, report: LikelihoodReport, result: dict) -> None:
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


def _nats(world: World, model, x: Tensor, sizes: Tensor | None, batch_size: int, settings: dict) -> Tensor:
    """log p of further items (n,), once each."""
    device, parts = next(model.parameters()).device, []
    x = dequantized(model.transform, x, settings["seed"], sizes=sizes)
    for rows in world.batches(len(x), batch_size):
        part = model.rows(rows), x[rows].to(device)
        own = None if sizes is None else sizes[rows]
        parts.append(log_likelihood(*part, first=rows.start, sizes=own, **settings).nats.double().cpu())
    return torch.cat(world.all_gather_flat(parts))


def _others(path: str, data: Dataset, most: int, kind: Kind) -> tuple[Tensor, Tensor | None]:
    """At most so many items of --ood_file, in the units of the data, and their sizes."""
    x, _, sizes = read_items(
        "--ood_file", path, data.event_shape, data.transform.num_levels, kind, about=data.about,
        unequal=data.sizes is not None,
    )  # fmt: skip
    index = spread(len(x), most)
    return x[index], None if sizes is None else sizes[index]


def _auroc(own: Tensor, others: Tensor) -> float:
    """The probability that an item of the data has the larger log p."""
    truth = np.r_[np.ones(len(own)), np.zeros(len(others))]
    return float(roc_auc_score(truth, torch.cat([own, others]).numpy()))
