"""--mode restore: posterior samples of items of which a measurement is known."""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from samplers import NOISES
from samplers.repaint import RePaint
from score_sde.pages.restoration import write_restoration
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
    told_image,
    with_sampler,
)
from score_sde.restoration.picture import draw_restored
from score_sde.restoration.scores import Scores, hidden_entries, peak_of, score
from score_sde.restoration.summary import describe
from score_sde.restoration.tasks import (
    check_rows,
    hides_nothing,
    make_operator,
    measure,
    measured_sizes,
    measured_values,
    miss,
    observed,
    read_measured,
    visible,
)
from score_sde.run.folder import Run
from score_sde.run.guidance import UNGUIDED, GuidanceOptions
from score_sde.run.inputs import only_one, open_inputs
from score_sde.run.items import bind, open_split, write_arrays
from score_sde.run.outputs import check_room_of, stem
from score_sde.run.rows import write_rows
from score_sde.run.sampling import Sampling, draw
from sde.condition.tree import labels_of
from sde.data.transform import check_elementwise
from sde.device import has_float64
from sde.files import finite
from sde.inverse.operators import Mask


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
    prompt: str | None = None,
    guidance: GuidanceOptions = UNGUIDED,
    batch_size: int = 256,
    out: str | None = None,
) -> dict:
    """Draw what measured items may have been, posterior samples; write a picture, numbers, a page and scores.

    The files are ``<out>.png``, ``<out>.npz``, ``<out>.html`` and, where the truth is known, ``<out>.csv``."""
    only_one({"items": items, "num_samples": num_samples, "input": input, "measurements_file": measurements_file})
    asked, method = method, choose_method(run, method, task, sigma_y)
    sampling = Sampling(with_sampler(run, sampler), steps, grid, noise, seed, batch_size)
    if sampling.sampler is None:
        raise ValueError("--sampler=auto: a plan is made for a model, not for what is measured; name a sampler")
    repeats = REPAINT_STEPS.get(method, 1) if repaint_steps is None else repaint_steps
    solver = RePaint(sampling.sampler, repeats)
    steps = STEPS if steps is None and not isinstance(sampling.times, Tensor) else steps
    data, training, denoiser = open_split(run, split, input or measurements_file)
    if method == "replacement":
        check_elementwise(denoiser.transform, "--method=replacement")
    if data.transform.far and not has_float64(run.device):
        raise ValueError(
            f"--device={run.device}: these data lie so far from zero that what is measured of them needs float64, "
            "which it does not have; take --device cpu"
        )
    options = {"mask": mask, "factor": factor, "blur_std": blur_std, "num_measurements": num_measurements}
    inputs = None if measurements_file else open_inputs(data, split, items, num_samples, input, run.kind)
    sizes = inputs.sizes if inputs else measured_sizes(str(measurements_file), task, data)
    operator, name = make_operator(task, data.event_shape, options, seed, run.kind, sizes)
    if isinstance(operator, Mask) and hides_nothing(operator, sizes) and not sigma_y:
        raise ValueError(f"{name} observes every entry, and without noise: there is nothing to restore")
    if inputs is None:
        y = read_measured(str(measurements_file), operator, name, data, run.kind)
        truth, targets, index, source = None, None, None, Path(str(measurements_file)).stem
    else:
        check_rows(operator, len(inputs.x), name)
        y = measure(operator, inputs.x, sigma_y, seed)
        truth, targets, index, source = inputs.x, inputs.cond, inputs.index, inputs.source
    count, shape, levels = len(y), data.event_shape, data.transform.num_levels
    held = told_image(denoiser, operator, y) if method == "latents" else None
    conditions, bound = bind(run, denoiser, labels, targets, count, guidance, prompt, held)
    check_room_of(run, out, count * samples_per_item, shape)
    rows = torch.arange(count).repeat_interleave(samples_per_item)
    each, prior, iterations = operator.rows(rows).to(run.device), bound(samples_per_item), ITERATIONS[0]
    if asked == "auto" and method == AUTO:
        fixed = len(sampling.times) - 1 if isinstance(sampling.times, Tensor) else STEPS
        calls = repeats * (steps or fixed) + 1
        iterations = paid_iterations(prior, shape, run.device, len(rows), calls)
    model = posterior(method, prior, each, y[rows].to(run.device), sigma_y, iterations)
    begin = Beginning(denoiser, training, run.device, fixed=isinstance(sampling.times, Tensor), guided=method)
    law = Law(training, denoiser, padded=sizes is not None)
    own = None if sizes is None else sizes[rows]
    found = draw(
        run, model, solver, len(rows), shape, steps=steps, grid=sampling.times, sizes=own, callback=law,
        **begin.options(len(rows)), **sampling.options,
    )  # fmt: skip
    if found is None:
        return {}
    each.cpu()
    x = each.restore(found.x, y[rows]) if isinstance(each, Mask) and sigma_y == 0 else found.x
    samples, error = x.view(count, samples_per_item, *shape), miss(each, x, y[rows])
    # As they were drawn: what was put back says nothing of the rest.
    missed = miss(each, found.x, y[rows])
    scale = measured_values(operator, y).std(correction=0).item()
    scale = max(scale, data.statistics.mean_var**0.5) if len(data) else scale
    notes = [] if begin.note is None else [begin.note]
    # Latents that are held miss by what their autoencoder leaves.
    if method != "latents" and missed > 3 * sigma_y + 0.25 * scale:
        put_back = ", before it was put back" * (x is not found.x)
        notes.append(
            f"the samples miss what was measured by {missed:.3g} (rms, data units){put_back}: take more --steps or "
            "another method"
        )
    ends = data.transform.encode(data.transform.dequantize(found.x, 0.5)) if found.state is None else found.state
    furthest = law.furthest(ends, own)
    diverged = law.broken(furthest)
    if diverged:
        ways = [f"take --method {AUTO}"] * (method != AUTO)
        # Of a network whose posterior means have left the law, which was said, more steps make no better one.
        ways += ["take more --steps"] * (begin.note is None or begin.start_time is not None)
        notes.append(f"{diverged}: {' or '.join(ways) or 'train a better network first'}")
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
        "observed": observed(operator, y, shape, sizes),
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
        whole, each_item = score(samples, truth, hidden_entries(operator, truth, sizes), peak_of(data))
        result |= whole._asdict()
        per_item = [{"item": item, **one._asdict()} for item, one in zip(names_of, each_item, strict=True)]
        result["items"] = per_item
    path = stem(run, out, "restore")
    picture, numbers = Path(f"{path}.png"), Path(f"{path}.npz")
    drawn = draw_restored(run, truth, visible(operator, y, run.kind), samples, picture, names_of, levels, sizes)
    arrays = {"x": truth, "y": y, "samples": samples, "sizes": sizes, "index": index, "labels": labels_of(targets),
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
