"""--mode evaluate: how good samples are, beside what real items would score."""

import platform
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from samplers import NOISES
from score_sde.config.config import read_run_config, resolve
from score_sde.evaluation.features import Extracted, extractor
from score_sde.evaluation.given_samples import check_samples, read_samples
from score_sde.evaluation.judge import EvaluationClassifier, evaluation_classifier
from score_sde.evaluation.score_table import show
from score_sde.evaluation.scores import Sets, reading, refusals, scores
from score_sde.metrics.metric import METRICS, MIN_ITEMS
from score_sde.metrics.proportion import share
from score_sde.run.conditions import read_condition
from score_sde.run.folder import Run, file_digest
from score_sde.run.guides import UNGUIDED, GuidanceOptions, Guides
from score_sde.run.inputs import read_names
from score_sde.run.items import open_split, write_arrays
from score_sde.run.outputs import check_room_of, without_suffix
from score_sde.run.sampling import Sampling
from sde.condition.tree import labels_of, require_labels
from sde.data import Dataset
from sde.data.statistics import spread
from sde.files import finite, write_json

VERSIONS = ("torch", "numpy", "scipy", "scikit-learn")
DEFAULT_SAMPLES = 1000
"""Samples unless --num_samples says otherwise."""


def evaluate(
    run: Run,
    *,
    samples_file: str | None = None,
    features: str = "data",
    download: bool = False,
    metrics: str | None = None,
    split: str = "test",
    steps: int | None = None,
    grid: str | None = None,
    noise: str = NOISES[0],
    num_samples: int = DEFAULT_SAMPLES,
    seed: int = 0,
    labels: str | None = None,
    guidance: GuidanceOptions = UNGUIDED,
    subsamples: int = 100,
    batch_size: int = 256,
    out: str | None = None,
) -> dict:
    """Measure samples against held-out items: distances, coverage, copies, classes, each with a 95 % interval."""
    begin = time.perf_counter()
    data, training, _ = open_split(run, split)
    names = read_names("--metrics", metrics, METRICS) if metrics else None
    base = without_suffix(out) if out else None
    path = x = asked = None
    if samples_file is None:
        if num_samples < MIN_ITEMS:
            raise ValueError(f"--num_samples={num_samples}: no interval can be trusted for fewer than {MIN_ITEMS}")
        check_room_of(run, out, num_samples, data.event_shape)
        sampling = Sampling(run, steps, grid, noise, seed, batch_size)
    else:
        flags = {"--steps": steps, "--grid": grid, "--labels": labels, "--noise": noise != NOISES[0]}
        _nothing_ignored(
            run, flags | {"--num_samples": num_samples != DEFAULT_SAMPLES, guidance.given(): guidance != UNGUIDED}
        )
        path, x, asked = read_samples(samples_file)
        check_samples(x, asked, data, path)
    found = extractor(run, features, training, download)

    def of(part: Dataset, index: Tensor) -> Extracted:
        return found(run.world, lambda rows: part.batch(index[rows])[0], len(index), batch_size)

    # Before anything is drawn.
    dimension = of(data, torch.arange(2)).features.shape[1]
    count, other = num_samples if x is None else len(x), training if split == "test" else run.data()[1]
    like = spread(len(other), count)
    refused = refusals(names, count, min(len(data), len(like)), dimension)
    if x is None or path is None:
        path = Path(f"{base}.npz") if base else run.folder / "samples" / "evaluation.npz"
        x, asked = _draw(run, sampling, guidance, labels, num_samples, path)
        check_samples(x, asked, data, path)
    _warn_of_classes(asked, data)
    known = of(training, torch.arange(len(training)))
    sets = Sets(
        samples=found(run.world, lambda rows: x[rows].float(), count, batch_size),
        real=of(data, torch.arange(len(data))) if split == "test" else known,
        reference=known.rows(like) if split == "test" else of(other, like),
        training=known,
    )
    # Samples without a class were asked for none.
    judged = None
    if asked is not None and data.labels is not None and bool((asked >= 0).any()):
        judged = evaluation_classifier(run, training), x[asked >= 0], asked[asked >= 0]

    def measure() -> dict:
        values = scores(sets, names, refused, subsamples, seed, unseen=split == "test")
        if judged is not None:
            values["accuracy"] = _accuracy(*judged, data)
        return values

    values = run.world.broadcast_from_main(measure)
    show(values, sets, found.name, split)
    settings = {"features": features, "split": split, "seed": seed, "subsamples": subsamples}
    if samples_file is None:
        settings |= {"steps": steps, "grid": grid, "noise": noise, "labels": labels, "guidance": asdict(guidance)}
        settings |= {"sampler": run.config.sampler.to_dict()}
    target = Path(f"{base}.json") if base else run.folder / "evaluation.json"
    content = {
        "mode": "evaluate",
        "samples": {"file": str(path), "sha256": file_digest(path)},
        # Of samples in a file it is not known which weights drew them.
        "weights": None if samples_file else {"file": str(run.weights_file), "sha256": file_digest(run.weights_file)},
        "extractor": {"name": found.name, "sha256": found.digest, "features": dimension},
        "items": {name: len(part) for name, part in vars(sets).items()},
        "values": values,
        "settings": settings,
        "data": run.config.data.to_dict(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}},
        "seconds": round(time.perf_counter() - begin, 1),
    }
    run.world.broadcast_from_main(lambda: write_json(target, finite(content)))
    print(f"  with hashes, settings and versions: {target}")
    flat = {name: found["value"] for name, found in values.items() if "value" in found}
    return {"mode": "evaluate", "num_samples": len(x), "features": found.name, **flat, "record": str(target)}


def _draw(
    run: Run, sampling: Sampling, guidance: GuidanceOptions, labels: str | None, n: int, path: Path
) -> tuple[Tensor, Tensor | None]:
    """n samples in data units, which are kept in a file, and the classes asked for."""
    guides = Guides(run, run.model(), guidance)
    cond = read_condition(run, guides, labels, None, n)
    drawn, asked = sampling(guides, guidance, cond, n), labels_of(cond)

    def keep() -> Tensor | None:
        if drawn is None:
            return None
        write_arrays(path, {"x": drawn.x, "seeds": np.array(drawn.seeds), "nfe": drawn.nfe, "labels": asked})
        return drawn.x

    return run.world.broadcast_from_main(keep), asked


def _nothing_ignored(run: Run, given: Mapping[str, object]) -> None:
    """Refuse flags of sampling, ``given`` where their value is true, beside samples that are there already."""
    other = run.config.sampler != resolve(read_run_config(run.folder), []).sampler
    given = {**given, "--sampler or its options": other, "--weights": run.weights != Run.weights}
    found = [flag for flag, value in given.items() if value]
    if found:
        raise ValueError(
            f"{' and '.join(found)}: --samples_file names samples that are drawn already; leave out one of them"
        )


def _warn_of_classes(asked: Tensor | None, data: Dataset) -> None:
    """Warn where all samples are of a part of the classes of the items that they are held against."""
    if asked is None or data.labels is None or (asked < 0).any():
        return
    known = {*data.labels.tolist()}
    found = known & {*asked.tolist()}
    if found != known:
        warnings.warn(
            f"the samples are of {len(found)} of the {len(known)} classes of the items that they are held against: "
            "distances, recall and coverage tell that more than anything",
            stacklevel=2,
        )


def _accuracy(judge: EvaluationClassifier, x: Tensor, asked: Tensor, data: Dataset) -> dict:
    """The share of samples that an independent classifier takes for the class that was asked for, and of real items
    that it takes for their own."""
    items, cond = data.batch(torch.arange(len(data)))
    labels = require_labels(cond)
    parts = ((x.float(), asked), (items, labels))
    own, real = (share(int((judge.classes(part) == known).sum()), len(part)) for part, known in parts)
    return {**asdict(own), "reference": asdict(real), "reading": reading(own, real, larger=True)}
