"""--mode likelihood: bits per dimension of quantised data, nats of continuous data."""

import math
import time

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from commands.guided import guided
from commands.run import Run
from samplers import log_likelihood

EXACT_UP_TO = 16
"""Dimensions up to which the trace is exact unless --probes says otherwise."""

DEQUANTISATION = 2
"""Sets these random numbers apart from the probes', which are drawn with the same seed."""


def likelihood(
    run: Run,
    *,
    split: str,
    num_samples: int,
    seed: int,
    labels: str | None,
    guidance_scale: float,
    classifier_scale: float,
    guided_likelihood: bool,
    batch_size: int,
    probes: int | None,
    rtol: float,
    atol: float,
) -> dict:
    """Evaluate log p(x), or log p(x | y) with ``labels`` "data", on the held-out or the training items."""
    if split not in ("test", "train"):
        raise ValueError(f"--split={split}: needs test or train")
    if (guidance_scale != 1 or classifier_scale) and not guided_likelihood:
        raise ValueError(
            "a guided model is not a normalised density, so its likelihood is refused: leave out "
            "--guidance_scale and --classifier_scale, or add --guided_likelihood to integrate it all the same"
        )
    data = run.data()[split == "test"]
    count = min(num_samples, len(data))
    if count < num_samples:
        print(f"the {split} split has {count} items, fewer than --num_samples={num_samples}: taking all of them")
    x, targets = data.batch(torch.linspace(0, len(data) - 1, count).long())
    x = data.transform.dequantise(x, _uniform(x, seed))
    denoiser = run.model()
    if denoiser.transform != data.transform:
        raise ValueError(
            f"the model was trained with {denoiser.transform}, the data now come with {data.transform}: "
            "use the data of the training run"
        )
    condition = _condition(labels, denoiser)
    if condition == "p(x | y)":
        classifier = run.classifier() if classifier_scale else None
        model = guided(denoiser, classifier, targets, guidance_scale, classifier_scale)
    elif guided_likelihood:
        raise ValueError("--guided_likelihood guides towards each item's own class: add --labels=data")
    else:
        model = denoiser
    if guided_likelihood:
        condition = "guided"
    dim = math.prod(data.event_shape)
    exact = (probes == 0) if probes is not None else dim <= EXACT_UP_TO
    start, parts = time.perf_counter(), []
    with tqdm(total=count, desc="likelihood", unit="item") as bar:
        for first in range(0, count, batch_size):
            rows = slice(first, min(first + batch_size, count))
            parts.append(
                log_likelihood(
                    model.rows(rows),
                    x[rows].to(run.device),
                    rtol=rtol,
                    atol=atol,
                    probes=None if exact else probes or 2,
                    seed=seed,
                    first=first,
                    guided=guided_likelihood,
                )
            )
            bar.update(rows.stop - rows.start)
    nats, nfe = torch.cat([p.nats for p in parts]).double().cpu(), torch.cat([p.nfe for p in parts]).double()
    result = {
        "mode": "likelihood",
        "split": split,
        "num_samples": count,
        "density": condition,
        "trace": "exact" if exact else f"{probes or 2} probes",
        "nfe": round(nfe.mean().item(), 1),
        "seconds": round(time.perf_counter() - start, 1),
        "seed": seed,
    }
    if data.transform.levels:
        bits = -nats / dim / math.log(2)
        mean, error = _mean(bits)
        print(
            f"{condition} on {count} {split} items: {mean:.4f} +- {error or math.nan:.4f} bits/dim "
            f"({data.transform.levels} levels, dequantised), {result['trace']}, {result['nfe']:g} network calls each"
        )
        return result | {"bits_per_dim": mean, "stderr": error}
    mean, error = _mean(nats)
    print(
        f"{condition} on {count} {split} items: {mean:.4f} +- {error or math.nan:.4f} nats, {result['trace']}, "
        f"{result['nfe']:g} network calls each"
    )
    return result | {"nats": mean, "stderr": error}


def _condition(labels: str | None, model) -> str:
    if labels not in (None, "", "none", "data"):
        raise ValueError(f"--labels={labels}: with --mode likelihood, needs data (each item's own class) or none")
    if labels == "data" and model.num_classes is None:
        raise ValueError("--labels=data: the model is unconditional; leave it out")
    if model.num_classes and not model.null_trained:
        if labels == "none":
            raise ValueError(
                "--labels=none: this model never trained its unconditional branch "
                "(config.training.cond_dropout was 0); use --labels=data"
            )
        return "p(x | y)"
    return "p(x | y)" if labels == "data" else "p(x)"


def _mean(values: Tensor) -> tuple[float, float | None]:
    """Mean and its standard error, which covers data, dequantisation and probes: all differ from item to item."""
    return values.mean().item(), values.std().item() / len(values) ** 0.5 if len(values) > 1 else None


def _uniform(x: Tensor, seed: int) -> Tensor:
    """Dequantisation noise in the shape of x; an item's depends on the seed and its number alone."""
    keys = [np.random.SeedSequence((seed, item, DEQUANTISATION)) for item in range(len(x))]
    rows = [np.random.Generator(np.random.Philox(key)).random(x.shape[1:]) for key in keys]
    return torch.from_numpy(np.stack(rows)).to(x.dtype)
