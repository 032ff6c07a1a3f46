"""--mode restore: posterior samples of items of which a measurement is known."""

import csv
import io
import math
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from samplers import NOISES
from samplers.repaint import RePaint
from score_sde.kinds.base import Kind
from score_sde.pages.restoration import write_restoration
from score_sde.plots.panels import panels
from score_sde.plots.restored import points, signals
from score_sde.restoration.beginning import Beginning
from score_sde.restoration.cost import ITERATIONS, paid_iterations
from score_sde.restoration.law import Law
from score_sde.restoration.methods import (
    AUTO,
    REPAINT_STEPS,
    SAMPLER,
    STEPS,
    choose_method,
    posterior,
    reason,
    with_sampler,
)
from score_sde.restoration.scores import INTERVAL, Scores, expected_coverage, hidden_entries, peak_of, score
from score_sde.restoration.tasks import check_rows, make_operator, measure, read_measured, visible
from score_sde.run.columns import column_names
from score_sde.run.folder import Run
from score_sde.run.guides import UNGUIDED, GuidanceOptions
from score_sde.run.inputs import only_one, open_inputs
from score_sde.run.items import bind, open_split, write_arrays
from score_sde.run.outputs import stem
from score_sde.run.sampling import Sampling, draw
from sde.condition.tree import labels_of
from sde.files import write_whole
from sde.inverse.operators import LinearOperator, Mask

SHOWN_ITEMS = 16
"""Items whose scores are printed; the .csv has all."""


def restore(
    run: Run,
    *,
    task: str = "inpaint",
    mask: str | None = None,
    factor: int | None = None,
    blur_std: float | None = None,
    num_measurements: int | None = None,
    sigma_y: float = 0.0,
    method: str = "auto",
    repaint_steps: int | None = None,
    samples_per_item: int = 4,
    sampler: str = SAMPLER,
    split: str = "test",
    items: str | None = None,
    num_samples: int | None = None,
    input: str | None = None,
    measurements_file: str | None = None,
    steps: int | None = None,
    grid: str | None = None,
    noise: str = NOISES[0],
    seed: int = 0,
    labels: str | None = None,
    guidance: GuidanceOptions = UNGUIDED,
    batch_size: int = 256,
    out: str | None = None,
) -> dict:
    """Draw what measured items may have been: posterior samples; write ``<out>.png`` and ``<out>.npz``."""
    only_one({"items": items, "num_samples": num_samples, "input": input, "measurements_file": measurements_file})
    asked, method = method, choose_method(method, task, sigma_y)
    sampling = Sampling(with_sampler(run, sampler), steps, grid, noise, seed, batch_size)
    if sampling.sampler is None:
        raise ValueError("--sampler=auto: a plan is made for a model, not for what is measured; name a sampler")
    repeats = REPAINT_STEPS.get(method, 1) if repaint_steps is None else repaint_steps
    solver = RePaint(sampling.sampler, repeats)
    steps = STEPS if steps is None and not isinstance(sampling.times, Tensor) else steps
    data, training, denoiser = open_split(run, split)
    options = {"mask": mask, "factor": factor, "blur_std": blur_std, "num_measurements": num_measurements}
    operator, name = make_operator(task, data.event_shape, options, seed, run.kind)
    if isinstance(operator, Mask) and operator.mask.all() and not sigma_y:
        raise ValueError(f"{name} observes every entry, and without noise: there is nothing to restore")
    if measurements_file:
        y = read_measured(measurements_file, operator, name, data.event_shape, data.transform.num_levels, run.kind)
        truth, targets, index, source = None, None, None, Path(measurements_file).stem
    else:
        inputs = open_inputs(data, split, items, num_samples, input, run.kind)
        check_rows(operator, len(inputs.x), name)
        y = measure(operator, inputs.x, sigma_y, seed)
        truth, targets, index, source = inputs.x, inputs.cond, inputs.index, inputs.source
    count, shape, levels = len(y), data.event_shape, data.transform.num_levels
    conditions, bound = bind(run, denoiser, labels, targets, count, guidance)
    rows = torch.arange(count).repeat_interleave(samples_per_item)
    each, prior, iterations = operator.rows(rows).to(run.device), bound(samples_per_item), ITERATIONS[0]
    if asked == "auto":
        fixed = len(sampling.times) - 1 if isinstance(sampling.times, Tensor) else STEPS
        calls = repeats * (steps or fixed) + 1
        iterations = paid_iterations(prior, shape, run.device, len(rows), calls)
    model = posterior(method, prior, each, y[rows].to(run.device), sigma_y, iterations)
    begin = Beginning(denoiser, training, run.device, fixed=isinstance(sampling.times, Tensor), guided=method)
    law = Law(training, denoiser)
    found = draw(
        run.world, model, solver, len(rows), shape, steps=steps, grid=sampling.times, callback=law,
        **begin.options(len(rows)), **sampling.options,
    )  # fmt: skip
    if found is None:
        return {}
    each.cpu()
    x = each.restore(found.x, y[rows]) if isinstance(each, Mask) and sigma_y == 0 else found.x
    samples, error = x.view(count, samples_per_item, *shape), rms(each(x) - y[rows])
    # As they were drawn: what was put back says nothing of the rest.
    missed = rms(each(found.x) - y[rows])
    scale = max(y.std(correction=0).item(), data.statistics.var.mean().sqrt().item())
    notes = [] if begin.note is None else [begin.note]
    if missed > 3 * sigma_y + 0.25 * scale:
        put_back = ", before it was put back" * (x is not found.x)
        notes.append(
            f"the samples miss what was measured by {missed:.3g} (rms, data units){put_back}: take more --steps or "
            "another method"
        )
    furthest = law.furthest(data.transform.encode(data.transform.dequantize(found.x, 0.5)))
    diverged = law.broken(furthest)
    if diverged:
        notes.append(f"{diverged}: take {'more --steps' if method == AUTO else f'--method {AUTO} or more --steps'}")
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=2)
    result = {
        "mode": "restore",
        "task": task,
        "method": method,
        "iterations": iterations if method == "mmps" else None,
        "why": reason(method, asked, iterations),
        "sampler": sampling.name,
        "repaint_steps": repeats,
        "start_time": begin.start_time,
        "num_items": count,
        "samples_per_item": samples_per_item,
        "sigma_y": sigma_y,
        "observed": observed(operator, y, shape),
        "measurement_error": error,
        "furthest": finite(furthest),
        "data_reach": finite(law.data_reach),
        "nfe": found.mean_nfe,
        "seconds": round(found.seconds, 2),
        "seed": seed,
    }
    names_of = list(range(count)) if index is None else index.tolist()
    per_item: list[dict] = []
    if truth is not None:
        whole, each_item = score(samples, truth, hidden_entries(operator, truth), peak_of(data))
        result |= whole._asdict()
        per_item = [{"item": item, **one._asdict()} for item, one in zip(names_of, each_item, strict=True)]
        result["items"] = per_item
    path = stem(run, out, "restore")
    picture, numbers = Path(f"{path}.png"), Path(f"{path}.npz")
    shown = visible(operator, y, run.kind)
    if run.kind.layout == "curves" and len(shape) == 2:
        signals(truth, shown, samples, picture, names_of)
        drawn = True
    elif run.kind.layout == "plane":
        points(truth, shown, samples, picture, column_names(run, shape))
        drawn = True
    else:
        drawn = show(truth, shown, samples, picture, run.kind, levels)
    arrays = {"x": truth, "y": y, "samples": samples, "index": index, "labels": labels_of(targets),
              "conditions": conditions, "seeds": np.array(found.seeds).reshape(count, samples_per_item)}  # fmt: skip
    arrays |= {name: torch.tensor([one[name] for one in per_item]) for name in Scores._fields
               if per_item and per_item[0][name] is not None}  # fmt: skip
    write_arrays(numbers, arrays | operator.state_dict(), run.settings)
    said = describe(result, task == "inpaint", source)
    print("\n".join(said))
    written = [numbers]
    if per_item:
        written.append(write_rows(Path(f"{path}.csv"), per_item))
    page = write_restoration(Path(f"{path}.html"), said, notes, per_item, picture if drawn else None)
    print(f"  {picture if drawn else 'no picture for this shape'}, {', '.join(map(str, [*written, page]))}")
    return result | {"picture": str(picture) if drawn else None, "numbers": str(numbers), "page": str(page)}


def rms(x: Tensor) -> float:
    """The root mean square over all entries."""
    return x.double().square().mean().sqrt().item()


def observed(operator: LinearOperator, y: Tensor, shape: tuple[int, ...]) -> float:
    """Posterior values for each entry of an item."""
    if isinstance(operator, Mask):
        return operator.mask.double().mean().item()
    return y[0].numel() / math.prod(shape)


def show(truth: Tensor | None, y: Tensor | None, samples: Tensor, path: Path, kind: Kind, levels: int | None) -> bool:
    """One row per item: what it is, what was measured, the samples, their mean and their standard deviation, where
    there are any."""
    several = samples.shape[1] > 1
    every = {"input": truth, "measured": y, "samples": samples, "mean": samples.mean(1) if several else None}
    columns = {caption: x if caption == "samples" else x[:, None] for caption, x in every.items() if x is not None}
    return panels(columns, path, kind=kind, levels=levels, spread=samples.std(1) if several else None)


def finite(value: float) -> float | None:
    """The value as JSON has it: None for one that is not finite."""
    return value if math.isfinite(value) else None


def write_rows(path: Path, rows: list[dict]) -> Path:
    """Write a .csv of dicts of the same keys, whole or not at all."""
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_whole(path, text.getvalue().encode())
    return path


def describe(result: dict, masked: bool, source: str) -> list[str]:
    """The result in words, lines."""
    share = f"{100 * result['observed']:.1f} %"
    count, per_item = result["num_items"], result["samples_per_item"]
    sigma_y, error = result["sigma_y"], result["measurement_error"]
    ratio = f", {error / sigma_y:.3g} of sigma_y = {sigma_y:g}" if sigma_y else ""
    times = f" x {result['repaint_steps']}" if result["repaint_steps"] > 1 else ""
    lines = [
        f"mask observes {share}" if masked else f"{result['task']}: {share} as many values as an item has are measured",
        f"{count} item{'s' * (count > 1)} ({source}), {per_item} sample{'s' * (per_item > 1)} each by "
        f"{result['why']} with {result['sampler']}{times}, {result['nfe']:g} network calls each, "
        f"{result['seconds']:.1f} s",
        f"  measurement error {error:.3g} in data units (rms){ratio}",
    ]
    if result["furthest"] is not None:
        lines.append(
            f"  the samples reach {result['furthest']:.3g} standard deviations from the data's mean, the data "
            f"{result['data_reach']:.3g}"
        )
    if "psnr" not in result:
        return lines
    where = "the hidden entries" if masked else "all entries"
    lines.append(
        f"  over {where}: PSNR {result['psnr']:.2f} dB, of the samples' mean {result['psnr_mean']:.2f} dB"
        + (
            f", CRPS {result['crps']:.4g} in data units, the central {100 * INTERVAL:.0f} % interval of {per_item} "
            f"samples covers {result['coverage']:.1%} (of exact ones about {expected_coverage(per_item):.0%})"
            if result["crps"] is not None
            else ""
        )
    )
    if count > 1:
        lines += item_table(result["items"])
    return lines


def item_table(rows: list[dict]) -> list[str]:
    """The first rows of the scores per item as lines of text."""
    heads = [name for name, value in rows[0].items() if value is not None]
    lines = ["".join(f"{head:>11}" for head in heads)]
    for row in rows[:SHOWN_ITEMS]:
        lines.append("".join(f"{row[head]:>11}" if head == "item" else f"{row[head]:>11.4g}" for head in heads))
    return lines + [f"  ... and {len(rows) - SHOWN_ITEMS} more in the .csv"] * (len(rows) > SHOWN_ITEMS)
