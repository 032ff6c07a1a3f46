"""--mode likelihood: bits per dimension of quantized data, nats of continuous data, in a report."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from samplers import dequantized, likelihood_report, log_likelihood
from samplers.checks import check_integer
from samplers.likelihood.report import report_work
from samplers.padding import real_counts
from samplers.progress import Progress
from score_sde.config.naming import with_keys
from score_sde.evaluation.evidence import evidence_of, lines_of
from score_sde.evaluation.further_items import auroc, nats_of, read_others
from score_sde.evaluation.likelihood_summary import MAX_TRAINING_ITEMS, rows_of, show
from score_sde.run.device import arrange
from score_sde.run.folder import Run
from score_sde.run.guidance import UNGUIDED, GuidanceOptions
from score_sde.run.guides import Guides
from score_sde.run.inputs import only_one, spread_items
from score_sde.run.items import open_split, prompted_items, write_arrays
from score_sde.run.labels import Labels
from score_sde.run.named import Named, read_every
from score_sde.run.outputs import stem
from score_sde.run.rows import write_rows
from score_sde.run.text import read_prompts
from sde import Denoiser, ScoreModel
from sde.condition.tree import Condition, labels_of
from sde.data.statistics import spread
from sde.device import placed

EXACT_UP_TO = 16
"""Dimensions up to which the trace is exact unless --probes says otherwise."""


def likelihood(
    run: Run,
    *,
    split: str = "test",
    num_samples: int = 256,
    seed: int = 0,
    labels: str | None = None,
    prompt: str | None = None,
    guidance: GuidanceOptions = UNGUIDED,
    unnormalized: bool = False,
    batch_size: int = 256,
    dequantizations: int = 1,
    latents_per_item: int = 2,
    probes: int | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-4,
    ood_file: str | None = None,
    input: str | None = None,
    out: str | None = None,
) -> dict:
    """Evaluate log p(x), or log p(x | y), of held-out or training items, or of those of a file or folder.

    With ``labels`` "data" it is log p(x | y), with a ``prompt`` that of every item under it; ``input`` is the file or
    folder, all of whose items are taken. Of a model in latents it is the evidence bound, by ``latents_per_item`` draws
    of each."""
    if guidance.control:
        raise ValueError(
            f"--control={guidance.control}: log p(x) given a control is that of items with controls of their own, by "
            "--labels=data; leave it out"
        )
    guided = guidance.without_controls != UNGUIDED
    if guided and not unnormalized:
        raise ValueError(
            "a guided model is not a normalized density, so its likelihood is refused: leave out "
            f"{guidance.without_controls.given()}, or add --unnormalized to integrate it all the same"
        )
    only_one({"num_samples": num_samples if "num_samples" in run.settings else None, "input": input})
    data, training, denoiser = open_split(run, split, input)
    _refuse_flags(run, denoiser)
    # The only layout through which torch takes many backward passes at once.
    arrange(denoiser.network, "contiguous")
    bound = Guides(run, denoiser, guidance)
    if input:
        given, index, source = read_every(input, data, run.kind), None, Path(input).name
        targets: Condition | None = None if given.labels is None else {"labels": given.labels}
    else:
        index, source = spread_items(data, split, num_samples), split
        if len(index) < 2:
            raise ValueError(
                f"--num_samples={num_samples}: takes {len(index)} of the {len(data)} items of --split={split}, and a "
                "standard error needs at least 2; ask for more, or give the one by --input"
            )
        x, targets = data.batch(index)
        given = Named(x, [str(i) for i in index.tolist()], labels_of(targets), data.sizes_of(index))
    holder = f"--input={input}" if input else f"the {split} split"
    one = None if prompt is None else one_prompt(denoiser, prompt, labels)
    conditioned = one is None and Labels(labels, denoiser, bound.classes).takes_items(targets, holder)
    condition = "p(x | y)" if conditioned or one is not None else "p(x)"
    if ood_file and (condition != "p(x)" or unnormalized):
        raise ValueError(
            f"--ood_file={ood_file} compares log p(x), and here one set has {condition}: leave out --labels, and "
            "take a model with an unconditional branch"
        )
    if unnormalized:
        if not guided:
            raise ValueError("--unnormalized: nothing is guided here; leave it out, or give --guidance_scale")
        condition = "unnormalized"
    others = None if ood_file is None else read_others(ood_file, data, num_samples, run.kind)
    exact = (probes == 0) if probes is not None else math.prod(data.inner_shape) <= EXACT_UP_TO
    settings: dict[str, Any] = {"probes": None if exact else probes or 2, "rtol": rtol, "atol": atol, "seed": seed}

    def model_for(targets: Condition | None) -> ScoreModel:
        return bound(one or (targets if conditioned else None))

    x, sizes = given.x, given.sizes
    model = model_for(targets)
    if denoiser.transform.learned:
        return _evidence(run, model, given, targets, condition, source, latents_per_item, batch_size, settings, out)
    if input and len(x) == 1:
        if settings["probes"] is not None:
            with with_keys(probes="--probes"):
                # As of several: the error of one probe is not known.
                check_integer("probes", settings["probes"], 2)
        return _of_one(run, model, given, condition, settings, unnormalized, out)
    begin = time.perf_counter()
    work = report_work(data.transform, len(x), dequantizations=dequantizations, rows=run.world.rows)
    bar = Progress(total=work, desc="likelihood", unit="item", disable=not run.world.is_main)
    with bar, with_keys(dequantizations="--dequantizations", probes="--probes"):
        report = likelihood_report(
            model, x, dequantizations=dequantizations, batch_size=batch_size, guided=unnormalized,
            progress=bar.update, world=run.world, sizes=sizes, **settings,
        )  # fmt: skip
    values, in_unit = {}, {}
    if split == "test" and not unnormalized and not input:
        few = spread(len(training), MAX_TRAINING_ITEMS)
        (hint, hint_targets), own = training.batch(few), training.sizes_of(few)
        values["training"] = nats_of(run.world, model_for(hint_targets), hint, own, batch_size, settings)
        in_unit["training"] = report.in_unit(values["training"], data.event_shape, own)
    if others is not None:
        values["others"] = nats_of(run.world, denoiser, *others, batch_size, settings)
        in_unit["others"] = report.in_unit(values["others"], data.event_shape, others[1])
    result = {
        "mode": "likelihood",
        "split": None if input else split,
        "input": input,
        "num_samples": len(x),
        "density": condition,
        "weights": run.weights,
        "trace": "exact" if exact else f"{probes or 2} probes",
        **report.summary(),
        "seconds": round(time.perf_counter() - begin, 1),
        **{"seed": seed, "rtol": rtol, "atol": atol, "dequantizations": dequantizations, "t_min": denoiser.sde.t_min},
        **{name: [v.mean().item(), v.std().item() / len(v) ** 0.5] for name, v in in_unit.items()},
    }
    show(condition, source, report, result)
    if others is not None:
        result["auroc"] = auroc(report.nats, values["others"])
        print(f"  AUROC of log p(x) against {ood_file}: {result['auroc']:.4f} ({len(others[0])} items)")
    if out and run.world.is_main:
        more = {
            "index": index,
            "name": np.array(given.names) if input else None,
            "nfe": report.nfe,
            "rejected": report.rejected,
            "labels": labels_of(targets),
            "others": values.get("others"),
        }
        result["numbers"] = _write(run, out, model, given, report.nats, report.stderr, more)
    return result


def _refuse_flags(run: Run, denoiser: Denoiser) -> None:
    """Refuse what a model in latents, or one of items as they are, would ignore."""
    learned = denoiser.transform.learned
    for name in ("dequantizations", "ood_file", "unnormalized") if learned else ("latents_per_item",):
        if name in run.settings:
            own = "runs in latents of an autoencoder, where the evidence bound takes the place of the likelihood"
            why = own if learned else "sees items as they are, and has a likelihood without any bound over latents"
            raise ValueError(f"--{name}={run.settings[name]}: this model {why}; leave it out")


def _evidence(
    run: Run,
    model: ScoreModel,
    given: Named,
    targets: Condition | None,
    condition: str,
    source: str,
    draws: int,
    batch_size: int,
    settings: dict[str, Any],
    out: str | None,
) -> dict:
    """The evidence bound in place of the likelihood that a model in latents has not."""
    begin = time.perf_counter()
    with with_keys(draws="--latents_per_item", probes="--probes"):
        found = evidence_of(run, model, given.x, draws, batch_size, settings)
    trace = "exact trace" if settings["probes"] is None else f"{settings['probes']} probes"
    about = f"log {condition} of {len(given.x)} {source} items, {run.weights}"
    print("\n".join(lines_of(found, about, draws, trace)))
    result = {
        "mode": "likelihood",
        "bound": "evidence",
        "source": source,
        "num_samples": len(given.x),
        "density": condition,
        "weights": run.weights,
        "trace": trace,
        "latents_per_item": draws,
        **found.summary(),
        "seconds": round(time.perf_counter() - begin, 1),
        **{name: settings[name] for name in ("seed", "rtol", "atol")},
    }
    if out and run.world.is_main:
        more = {"name": np.array(given.names), "nfe": found.nfe, "labels": labels_of(targets)}
        result["numbers"] = _write(run, out, model, given, found.nats, found.stderr, more)
    return result


def one_prompt(denoiser: Denoiser, prompt: str, labels: str | None) -> Condition:
    """The condition, a single row, of all items under ``--prompt``. Raises ValueError for several prompts, for labels
    beside it, and for a model that is told more than text."""
    prompts = read_prompts("--prompt", prompt)
    if len(prompts) > 1 or labels not in (None, "none"):
        what = f"{len(prompts)} prompts" if len(prompts) > 1 else f"--labels={labels} as well"
        raise ValueError(f"--prompt={prompt}: with --mode likelihood it is the condition of every item; got {what}")
    return prompted_items(denoiser, prompt, Labels(None, denoiser, denoiser.num_classes), None, 1)


def _write(
    run: Run, out: str, model: ScoreModel, given: Named, nats: Tensor, errors: Tensor, more: Mapping[str, Any]
) -> str:
    """Write ``--out``, and say so: a row for each item in a .csv, or else an .npz, which has ``more`` arrays."""
    if Path(out).suffix == ".csv":
        path = write_rows(Path(out), _rows(model, given, nats, errors))
    else:
        path = Path(f"{stem(run, out, 'likelihood')}.npz")
        write_arrays(path, {"sizes": given.sizes, "nats": nats, "stderr": errors, **more}, run.settings)
    print(f"  log p of each item: {path}")
    return str(path)


def _rows(model: ScoreModel, given: Named, nats: Tensor, errors: Tensor) -> list[dict[str, str]]:
    """The rows of items for a .csv."""
    counts = real_counts(given.sizes, given.x.shape[1:]).expand(len(given.x)).tolist()
    return rows_of(given.names, nats, errors, counts if model.transform.num_levels else None)


def _of_one(
    run: Run, model: ScoreModel, given: Named, condition: str, settings: dict, guided: bool, out: str | None
) -> dict:
    """log p of a single item, of which there is no mean, and no standard error but that of its probes."""
    x = dequantized(model.transform, given.x, settings["seed"], sizes=given.sizes)
    found = log_likelihood(model, placed(x, run.device), guided=guided, sizes=given.sizes, **settings)
    nats, error = found.nats.cpu().double(), found.stderr.cpu().double()
    print(f"{condition} of {given.names[0]}: {nats.item():.4f} nats +- {error.item():.4f} by probes")
    rows = _rows(model, given, nats, error)
    result = {"mode": "likelihood", "num_samples": 1, "density": condition, "nats": nats.item(), "stderr": error.item()}
    if "bits_per_dim" in rows[0]:
        result["bits_per_dim"] = float(rows[0]["bits_per_dim"])
    if out and run.world.is_main:
        result["numbers"] = _write(run, out, model, given, nats, error, {"name": np.array(given.names)})
    return result
