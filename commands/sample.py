"""--mode sample: pictures and numbers from a run folder."""

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from commands.config import check_grid
from commands.pictures import picture
from commands.run import Run
from samplers import SAMPLERS, generate
from sde import Denoiser, NoisyClassifier, ScoreModel
from sde.checkpoint import write_whole
from sde.guidance import Classifier, ClassifierFree


def read_labels(text: str | None, count: int, classes: int | None) -> Tensor | None:
    """``--labels``: "0,1,2" cycled over the samples, "none", or by default every class in turn."""
    if text == "none" or (not text and classes is None):
        return None
    if classes is None:
        raise ValueError(
            f"--labels={text}: the model is unconditional and there is no classifier guidance; leave the "
            "labels out, or add --classifier_scale"
        )
    try:
        labels = torch.tensor([int(part) for part in text.split(",")] if text else range(classes))
    except ValueError:
        raise ValueError(
            f"--labels={text}: needs class numbers from 0 to {classes - 1}, as in 0,1,2, or none"
        ) from None
    for label in labels.tolist():
        if not 0 <= label < classes:
            raise ValueError(f"--labels={text}: class {label} is out of range, allowed are 0 to {classes - 1}")
    return labels[torch.arange(count) % len(labels)]


def guided(
    model: Denoiser,
    classifier: NoisyClassifier | None,
    labels: Tensor | None,
    guidance_scale: float,
    classifier_scale: float,
) -> ScoreModel:
    """The model with labels (n,), or None, and guidance bound; without a classifier, ``classifier_scale`` is 0."""
    if labels is None and (guidance_scale != 1 or classifier_scale):
        raise ValueError(
            f"--guidance_scale={guidance_scale:g} and --classifier_scale={classifier_scale:g} guide towards "
            "labels: give --labels, or leave the scales at 1 and 0"
        )
    if guidance_scale != 1 and model.num_classes is None:
        raise ValueError(
            f"--guidance_scale={guidance_scale:g}: the model is unconditional, so there is nothing to guide "
            "without a classifier; leave it at 1"
        )
    if labels is None and not model.null_trained:
        raise ValueError(
            "--labels=none: this model never trained its unconditional branch (config.training.cond_dropout was 0); "
            "give classes"
        )
    score_model: ScoreModel = model
    if labels is not None and model.num_classes:
        score_model = ClassifierFree(model, labels, guidance_scale)
    return Classifier(score_model, classifier, labels, classifier_scale) if classifier else score_model


def sample(
    run: Run,
    *,
    steps: int | None,
    grid: str | None,
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
    sampler = SAMPLERS[name](**options)
    grid = check_grid(grid)
    denoiser = run.model()
    classifier = run.classifier() if classifier_scale else None
    classes = denoiser.num_classes or (classifier.num_classes if classifier else None)
    label_tensor = read_labels(labels, num_samples, classes)
    model = guided(denoiser, classifier, label_tensor, guidance_scale, classifier_scale)
    samples = generate(
        model,
        sampler,
        num_samples,
        denoiser.event_shape,
        steps=steps,
        grid=grid,
        seed=seed,
        batch_size=batch_size,
        progress=True,
    )
    guidance = f"-g{guidance_scale:g}" * (guidance_scale != 1) + f"-c{classifier_scale:g}" * (classifier_scale != 0)
    stem = Path(out) if out else run.folder / "samples" / f"{name}-{steps or sampler.steps}{guidance}-seed{seed}"
    stem = stem.with_suffix("") if stem.suffix in (".png", ".npz") else stem
    picture_path, numbers_path = Path(f"{stem}.png"), Path(f"{stem}.npz")
    drawn = picture(samples.x, picture_path, levels=model.transform.levels, labels=label_tensor)
    buffer = io.BytesIO()
    arrays = {"x": samples.x.numpy(), "seeds": np.array(samples.seeds), "calls": samples.calls.numpy()}
    if label_tensor is not None:
        arrays["labels"] = label_tensor.numpy()
    np.savez_compressed(buffer, **arrays)
    write_whole(numbers_path, buffer.getvalue())
    print(
        f"{num_samples} samples by {name}, {samples.nfe:g} network calls each, {samples.seconds:.1f} s: "
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
