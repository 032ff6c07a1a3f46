"""--mode evaluate: how good samples are, beside what real items would score."""

import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from samplers import NOISES
from score_sde.evaluation.class_mix import matching
from score_sde.evaluation.control_scores import control_scores
from score_sde.evaluation.features import Extracted, extractor
from score_sde.evaluation.given_samples import check_samples, read_samples
from score_sde.evaluation.judge import EvaluationClassifier, evaluation_classifier
from score_sde.evaluation.power import RealItems, measure_power
from score_sde.evaluation.score_table import show
from score_sde.evaluation.scores import Sets, reading, refusals, scores
from score_sde.metrics.metric import METRICS, MIN_ITEMS
from score_sde.metrics.proportion import share
from score_sde.run.conditions import read_condition
from score_sde.run.folder import Run
from score_sde.run.guidance import UNGUIDED, GuidanceOptions
from score_sde.run.guides import Guides
from score_sde.run.inputs import read_names
from score_sde.run.items import open_split, write_arrays
from score_sde.run.outputs import check_room_of, stem, without_suffix
from score_sde.run.sampling import Sampling
from sde.condition.tree import Condition, labels_of, require_labels
from sde.data import Dataset
from sde.distributed.world import World
from sde.files import file_digest, finite, write_json

VERSIONS = ("torch", "numpy", "scipy", "scikit-learn")
RECORDS, LATEST = "evaluations", "evaluation.json"
"""The folder of a run that keeps the record of every evaluation, and the file with the latest."""
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
    prompt: str | None = None,
    guidance: GuidanceOptions = UNGUIDED,
    subsamples: int = 100,
    batch_size: int = 256,
    out: str | None = None,
) -> dict:
    """Measure samples against held-out items: distances, coverage, copies, classes, each with a 95 % interval."""
    begin = time.perf_counter()
    if subsamples < 2:
        raise ValueError(f"--subsamples={subsamples}: an interval needs at least 2 halves")
    data, training, _ = open_split(run, split, sampled=True)
    names = read_names("--metrics", metrics, METRICS) if metrics else None
    base = without_suffix(out) if out else None
    path = x = asked = sizes = None
    if samples_file is None:
        if num_samples < MIN_ITEMS:
            raise ValueError(f"--num_samples={num_samples}: no interval can be trusted for fewer than {MIN_ITEMS}")
        check_room_of(run, out, num_samples, data.event_shape, RECORDS)
        sampling = Sampling(run, steps, grid, noise, seed, batch_size)
    else:
        flags = {
            "--steps": steps,
            "--grid": grid,
            "--labels": labels,
            "--prompt": prompt,
            "--noise": noise != NOISES[0],
        }
        _nothing_ignored(
            run, flags | {"--num_samples": num_samples != DEFAULT_SAMPLES, guidance.given(): guidance != UNGUIDED}
        )
        path, x, asked, sizes = read_samples(samples_file)
        check_samples(x, asked, data, path, sizes)
    found = extractor(run, features, training, download)

    def of(part: Dataset, index: Tensor) -> Extracted:
        return found(run.world, lambda rows: part.batch(index[rows])[0], len(index), batch_size)

    # Before anything is drawn.
    dimension = of(data, torch.arange(2)).features.shape[1]
    count, other = num_samples if x is None else len(x), training if split == "test" else run.data()[1]
    if x is None:
        guides = Guides(run, run.sampled_model(), guidance)
        cond = read_condition(run, guides, labels, None, num_samples, prompt=prompt, seed=seed, by_law=True)
        asked = labels_of(cond)
    # It is the split's own items that samples are held against.
    held, like = matching(data, asked), matching(other, asked, warn=False)
    if len(held) < len(data) and run.world.is_main:
        print(f"{len(held):,} of {len(data):,} real items are in the parts of the classes asked for, and count")
    refused = refusals(names, count, len(held), len(like), dimension)
    if x is None or path is None:
        path, x, sizes = _draw(run, sampling, guides, guidance, cond, num_samples, base)
        base = path.with_suffix("")
        check_samples(x, asked, data, path, sizes)
    known = of(training, torch.arange(len(training)))
    sets = Sets(
        samples=found(run.world, lambda rows: x[rows].to(data.transform.dtype), count, batch_size),
        real=of(data, held) if split == "test" else known.rows(held),
        others=known.rows(like) if split == "test" else of(other, like),
        training=known,
        unseen=split == "test",
    )
    # Samples without a class were asked for none.
    judged, unfit = None, ""
    if asked is not None and data.labels is not None and bool((asked >= 0).any()):
        judged = evaluation_classifier(run, training), x[asked >= 0], asked[asked >= 0]
        unfit = judged[0].unfit(run.data()[1])

    def measure() -> dict:
        def features_of(x: Tensor) -> Tensor:
            # The work of one process.
            return found(World(), lambda rows: x[rows], len(x), batch_size).features

        items = RealItems(sets.real.features, sets.others.features, ((data, held), (other, like)), features_of)
        values = scores(sets, names, refused, subsamples, seed, partial(measure_power, items, seed=seed))
        if unfit:
            values["accuracy"] = {"refused": f"accuracy of the class: {unfit}"}
        elif judged is not None:
            values["accuracy"] = _accuracy(*judged, data, held)
        told = None if samples_file else control_scores(guides.controls, cond, x, data)
        return values if told is None else values | {"control_f1": told}

    values = run.world.broadcast_from_main(measure)
    show(values, sets, found.name, split)
    if features == "data" and run.kind.spectral:
        print(
            "  entries of signals are told by little else than their size: --features spectrum compares what they hold"
        )
    settings = {"features": features, "split": split, "seed": seed, "subsamples": subsamples}
    if samples_file is None:
        settings |= {
            "steps": steps,
            "grid": grid,
            "noise": noise,
            "labels": labels,
            "prompt": prompt,
            "guidance": asdict(guidance),
        }
        settings |= {"sampler": run.config.sampler.to_dict()}
    content = {
        "mode": "evaluate",
        "samples": {"file": str(path), "sha256": file_digest(path)},
        # Of samples in a file it is not known which weights drew them.
        "weights": None if samples_file else {"file": str(run.weights_file), "sha256": file_digest(run.weights_file)},
        "extractor": {"name": found.name, "sha256": found.digest, "features": dimension},
        "items": {name: len(getattr(sets, name)) for name in ("samples", "real", "others", "training")},
        "values": values,
        "settings": settings,
        "data": run.config.data.to_dict(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}},
        "seconds": round(time.perf_counter() - begin, 1),
    }

    def keep() -> str:
        target = f"{base or stem(run, None, 'given', '.json', RECORDS)}.json"
        write_json(Path(target), finite(content))
        if not out:
            write_json(run.folder / LATEST, finite(content))
        return target

    target = run.world.broadcast_from_main(keep)
    print(f"  with hashes, settings and versions: {target}")
    flat = {name: found["value"] for name, found in values.items() if "value" in found}
    return {"mode": "evaluate", "num_samples": len(x), "features": found.name, **flat, "record": target}


def _draw(
    run: Run,
    sampling: Sampling,
    guides: Guides,
    guidance: GuidanceOptions,
    cond: Condition | None,
    n: int,
    base: Path | None,
) -> tuple[Path, Tensor, Tensor | None]:
    """The file that n samples in data units are kept in, ``base`` or the next of the run, the samples, and the sizes of
    padded ones."""
    drawn = sampling(guides, guidance, cond, n)

    def keep() -> tuple[Path, Tensor, Tensor | None] | None:
        if drawn is None:
            return None
        path = Path(f"{base or stem(run, None, sampling.name, '.npz', RECORDS)}.npz")
        arrays = {"x": drawn.x, "sizes": drawn.sizes, "seeds": np.array(drawn.seeds), "nfe": drawn.nfe}
        write_arrays(path, arrays | {"labels": labels_of(cond)})
        return path, drawn.x, drawn.sizes

    return run.world.broadcast_from_main(keep)


def _nothing_ignored(run: Run, given: Mapping[str, object]) -> None:
    """Refuse flags of sampling, ``given`` where their value is true, beside samples that are there already."""
    other = run.config.sampler != run.usual_sampler
    given = {**given, "--sampler or its options": other, "--weights": run.weights != Run.weights}
    found = [flag for flag, value in given.items() if value]
    if found:
        raise ValueError(
            f"{' and '.join(found)}: --samples_file names samples that are drawn already; leave out one of them"
        )


def _accuracy(judge: EvaluationClassifier, x: Tensor, asked: Tensor, data: Dataset, held: Tensor) -> dict:
    """The share of samples that an independent classifier takes for the class that was asked for, and of the real items
    at positions ``held``, in the same mix of classes, that it takes for their own."""
    items, cond = data.batch(held)
    labels = require_labels(cond)
    parts = ((x.to(data.transform.dtype), asked), (items, labels))
    own, real = (share(int((judge.classes(part) == known).sum()), len(part)) for part, known in parts)
    return {**asdict(own), "reference": asdict(real), "reading": reading(own, real, larger=True)}
