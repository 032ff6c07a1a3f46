"""--mode sample: pictures and numbers from a run folder."""

from pathlib import Path

import numpy as np

from commands.config import read_grid
from commands.guided import guided, read_labels
from commands.pictures import picture
from commands.plans import planned
from commands.run import Run
from commands.trained import stem, suffix, write_arrays
from samplers import SAMPLERS, generate

AUTO_CALLS = 10
"""Network calls of --sampler auto unless --steps says otherwise."""


def sample(
    run: Run,
    *,
    steps: int | None,
    grid: str | None,
    noise: str,
    num_samples: int,
    seed: int,
    labels: str | None,
    guidance_scale: float,
    classifier_scale: float,
    batch_size: int,
    out: str | None,
) -> dict:
    """Draw samples; write ``<out>.png`` and ``<out>.npz``."""
    options = dict(run.config.sampler)
    name = options.pop("name")
    times = read_grid(grid)
    if name == "auto" and grid:
        raise ValueError(f"--grid={grid}: --sampler auto finds its own grid; leave it out")
    if name != "auto":
        sampler = SAMPLERS[name](**options)
    denoiser = run.model()
    classifier = run.classifier() if classifier_scale else None
    classes = denoiser.num_classes or (classifier.num_classes if classifier else None)
    label_tensor = read_labels(labels, num_samples, classes)
    model = guided(denoiser, classifier, label_tensor, guidance_scale, classifier_scale)
    if name == "auto":
        scales = (guidance_scale, classifier_scale)
        calls = AUTO_CALLS if steps is None else steps
        found = planned(run, denoiser, classifier, label_tensor is not None, scales, calls)
        sampler, times, steps = found.sampler, found.times, calls
    samples = generate(
        model,
        sampler,
        num_samples,
        denoiser.event_shape,
        steps=steps,
        grid=times,
        noise=noise,
        seed=seed,
        batch_size=batch_size,
        progress=True,
    )
    conditioning = suffix(None, guidance_scale, classifier_scale)
    path = stem(run, out, f"{name}-{len(samples.times) - 1}{conditioning}-seed{seed}")
    picture_path, numbers_path = Path(f"{path}.png"), Path(f"{path}.npz")
    drawn = picture(samples.x, picture_path, levels=model.transform.levels, labels=label_tensor)
    arrays = {"x": samples.x, "seeds": np.array(samples.seeds), "calls": samples.calls, "labels": label_tensor}
    write_arrays(numbers_path, arrays)
    least, most = samples.calls.min().item(), samples.calls.max().item()
    spread = f" ({least:g} to {most:g})" if least < most else ""
    print(
        f"{num_samples} samples by {name}, {samples.nfe:g} network calls each{spread}, {samples.seconds:.1f} s: "
        f"{picture_path if drawn else 'no picture for this shape'}, {numbers_path}"
    )
    return {
        "mode": "sample",
        "sampler": name,
        "num_samples": num_samples,
        "nfe": samples.nfe,
        "seconds": round(samples.seconds, 2),
        "seed": seed,
        "picture": str(picture_path) if drawn else None,
        "numbers": str(numbers_path),
    }
