"""--mode restore: posterior samples of items of which a measurement is known."""

import math
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from samplers import NOISES
from samplers.padding import real_counts
from samplers.repaint import RePaint
from score_sde.config.naming import with_flag
from score_sde.kinds.base import Kind
from score_sde.plots.panels import panels
from score_sde.restoration.methods import STEPS, choose_method, posterior, with_sampler
from score_sde.restoration.tasks import check_rows, make_operator, measure, read_measured, visible
from score_sde.run.folder import Run
from score_sde.run.guides import UNGUIDED, GuidanceOptions
from score_sde.run.inputs import only_one, open_inputs
from score_sde.run.items import bind, open_split, root_mean_square, write_arrays
from score_sde.run.outputs import check_room_of, stem
from score_sde.run.sampling import Sampling, draw
from sde.condition.tree import labels_of
from sde.data import Dataset, existing
from sde.data.arrays import array_of, as_sizes
from sde.data.sizes import cut, real
from sde.inverse.operators import LinearOperator, Mask


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
    repaint_steps: int = 4,
    samples_per_item: int = 4,
    sampler: str = "ancestral",
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
    method = choose_method(method, task, sigma_y)
    sampling = Sampling(with_sampler(run, sampler), steps, grid, noise, seed, batch_size)
    if sampling.sampler is None:
        raise ValueError("--sampler=auto: a plan is made for a model, not for what is measured; name a sampler")
    solver = RePaint(sampling.sampler, repaint_steps)
    steps = STEPS if steps is None and not isinstance(sampling.times, Tensor) else steps
    data, _, denoiser = open_split(run, split)
    options = {"mask": mask, "factor": factor, "blur_std": blur_std, "num_measurements": num_measurements}
    inputs = None if measurements_file else open_inputs(data, split, items, num_samples, input, run.kind)
    sizes = inputs.sizes if inputs else measured_sizes(str(measurements_file), task, data)
    operator, name = make_operator(task, data.event_shape, options, seed, run.kind, sizes)
    if isinstance(operator, Mask) and hides_nothing(operator, sizes) and not sigma_y:
        raise ValueError(f"{name} observes every entry, and without noise: there is nothing to restore")
    if inputs is None:
        y = read_measured(str(measurements_file), operator, name, data.event_shape, data.transform.num_levels, run.kind)
        truth, targets, index, source = None, None, None, Path(str(measurements_file)).stem
    else:
        check_rows(operator, len(inputs.x), name)
        y = measure(operator, inputs.x, sigma_y, seed)
        truth, targets, index, source = inputs.x, inputs.cond, inputs.index, inputs.source
    count, shape, levels = len(y), data.event_shape, data.transform.num_levels
    conditions, bound = bind(run, denoiser, labels, targets, count, guidance)
    check_room_of(run, out, count * samples_per_item, shape)
    rows = torch.arange(count).repeat_interleave(samples_per_item)
    each = operator.rows(rows).to(run.device)
    model = posterior(method, bound(samples_per_item), each, y[rows].to(run.device), sigma_y)
    own = {"sizes": None if sizes is None else sizes[rows]}
    found = draw(
        run.world, model, solver, len(rows), shape, steps=steps, grid=sampling.times, **own, **sampling.options
    )
    if found is None:
        return {}
    each.cpu()
    x = each.restore(found.x, y[rows]) if isinstance(each, Mask) and sigma_y == 0 else found.x
    samples, error = x.view(count, samples_per_item, *shape), miss(each, x, y[rows])
    # As they were drawn: what was put back says nothing of the rest.
    missed = miss(each, found.x, y[rows])
    scale = max(y.std(correction=0).item(), data.statistics.var.mean().sqrt().item())
    if missed > 3 * sigma_y + 0.25 * scale:
        warnings.warn(
            f"the samples miss what was measured by {missed:.3g} (rms, data units)"
            f"{', before it was put back' * (x is not found.x)}: take more --steps or another method",
            UserWarning,
            stacklevel=2,
        )
    result = {
        "mode": "restore",
        "task": task,
        "method": method,
        "sampler": sampling.name,
        "num_items": count,
        "samples_per_item": samples_per_item,
        "sigma_y": sigma_y,
        "observed": observed(operator, y, shape, sizes),
        "measurement_error": error,
        "nfe": found.mean_nfe,
        "seconds": round(found.seconds, 2),
        "seed": seed,
    }
    if truth is not None:
        several = None if sizes is None else sizes[rows]
        result |= {
            "psnr": psnr(x, truth[rows], data, several),
            "psnr_mean": psnr(samples.mean(1), truth, data, sizes),
        }
    path = stem(run, out, "restore")
    picture, numbers = Path(f"{path}.png"), Path(f"{path}.npz")
    drawn = show(truth, visible(operator, y, run.kind), samples, picture, run.kind, levels, sizes)
    arrays = {"x": truth, "y": y, "samples": samples, "sizes": sizes, "index": index, "labels": labels_of(targets),
              "conditions": conditions, "seeds": np.array(found.seeds).reshape(count, samples_per_item)}  # fmt: skip
    write_arrays(numbers, arrays | operator.state_dict(), run.settings)
    describe(result, task == "inpaint", source)
    print(f"  {picture if drawn else 'no picture for this shape'}, {numbers}")
    return result | {"picture": str(picture) if drawn else None, "numbers": str(numbers)}


def miss(operator: LinearOperator, x: Tensor, y: Tensor) -> float:
    """The root mean square of A(x) - y over all that was measured."""
    difference = operator(x) - y
    if isinstance(operator, Mask):
        difference = difference[operator.filled.expand_as(difference)]
    return difference.double().square().mean().sqrt().item()


def observed(operator: LinearOperator, y: Tensor, shape: tuple[int, ...], sizes: Tensor | None) -> float:
    """Measured values for each entry of an item that is real."""
    entries = math.prod(shape) if sizes is None else real_counts(sizes, shape).mean().item()
    if isinstance(operator, Mask):
        return operator.mask.double().mean().item() * math.prod(shape) / entries
    return y[0].numel() / entries


def hides_nothing(operator: Mask, sizes: Tensor | None) -> bool:
    """Whether all that is real is observed."""
    if sizes is None:
        return bool(operator.mask.all())
    return bool(operator.mask[real(sizes, operator.event_shape).expand_as(operator.mask)].all())


def measured_sizes(file: str, task: str, data: Dataset) -> Tensor | None:
    """The sizes of items that a mask observed, the array "sizes" of an .npz. Raises ValueError where the items of the
    data are of unequal size, and the file does not say theirs."""
    if data.sizes is None:
        return None
    sizes = array_of(existing(file, "--measurements_file"), "sizes") if task == "inpaint" else None
    if sizes is None:
        raise ValueError(
            f"--measurements_file={file}: the items are of unequal size, which a measurement does not tell; take "
            "--task=inpaint with an .npz that has their sizes beside x, or --input"
        )
    with with_flag("--measurements_file", file):
        return as_sizes(sizes, (len(sizes), *data.event_shape))


def psnr(x: Tensor, truth: Tensor, data: Dataset, sizes: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(range^2 / mean square of x - truth), over all items and entries that
    are real.

    The range is that of the levels, or from the lowest to the highest value of the data.
    """
    levels = data.transform.num_levels
    peak = levels - 1 if levels else data.statistics.high - data.statistics.low
    error = root_mean_square(x - truth, sizes).square().item()
    return 10 * math.log10(peak**2 / error) if error else math.inf


def show(
    truth: Tensor | None,
    y: Tensor | None,
    samples: Tensor,
    path: Path,
    kind: Kind,
    levels: int | None,
    sizes: Tensor | None = None,
) -> bool:
    """One row per item: what it is, what was measured, the samples, their mean and their standard deviation, where
    there are any; of padded items what is real."""
    several = samples.shape[1] > 1
    if sizes is not None:
        rows = torch.arange(len(samples)).repeat_interleave(samples.shape[1])
        samples = cut(samples.flatten(0, 1), sizes[rows], math.nan).view_as(samples)
        truth = None if truth is None else cut(truth, sizes, math.nan)
        y = cut(y, sizes, math.nan) if y is not None and y.shape[1:] == samples.shape[2:] else y
    every = {"input": truth, "measured": y, "samples": samples, "mean": samples.mean(1) if several else None}
    columns = {caption: x if caption == "samples" else x[:, None] for caption, x in every.items() if x is not None}
    return panels(columns, path, kind=kind, levels=levels, spread=samples.std(1) if several else None)


def describe(result: dict, masked: bool, source: str) -> None:
    """The result in words."""
    share = f"{100 * result['observed']:.1f} %"
    print(
        f"mask observes {share}" if masked else f"{result['task']}: {share} as many values as an item has are measured"
    )
    count = result["num_items"]
    per_item = result["samples_per_item"]
    print(
        f"{count} item{'s' * (count > 1)} ({source}), {per_item} sample{'s' * (per_item > 1)} each by "
        f"{result['method']} with {result['sampler']}, {result['nfe']:g} network calls each, {result['seconds']:.1f} s"
    )
    sigma_y, error = result["sigma_y"], result["measurement_error"]
    ratio = f", {error / sigma_y:.3g} of sigma_y = {sigma_y:g}" if sigma_y else ""
    print(f"  measurement error {error:.3g} in data units (rms){ratio}")
    if "psnr" in result:
        print(f"  PSNR {result['psnr']:.2f} dB, of the samples' mean {result['psnr_mean']:.2f} dB")
