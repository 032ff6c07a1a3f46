"""--mode guidance_sweep: accuracy of the class that was asked for against diversity, over the scale of guidance."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samplers import NOISES
from score_sde.evaluation.judge import EvaluationClassifier, evaluation_classifier
from score_sde.evaluation.tradeoff import Tradeoff, tradeoff
from score_sde.plots.chart import GREY
from score_sde.plots.curves import BLUE, ORANGE
from score_sde.plots.pictures import figure_bytes, plt
from score_sde.plots.strip import strip
from score_sde.run.conditions import read_condition
from score_sde.run.folder import Run
from score_sde.run.guidance import GuidanceOptions
from score_sde.run.guides import Guides
from score_sde.run.items import open_split
from score_sde.run.outputs import stem
from score_sde.run.sampling import Sampling
from sde import Denoiser
from sde.condition.tree import NULL_LABEL, labels_of, require_labels
from sde.data import Dataset
from sde.data.statistics import spread
from sde.files import finite, write_json, write_whole

SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
STRIP_SAMPLES = 16
"""Samples of each scale in the strip, at most."""
MAX_HELD_OUT = 5000
"""Held-out items at most that samples are compared with."""
COLORS = {"classifier-free": BLUE, "classifier": ORANGE}
"""Colors by kind of guidance."""


def guidance_sweep(
    run: Run,
    *,
    guidance_scale: tuple[float, ...] = SCALES,
    classifier_scale: tuple[float, ...] | None = None,
    steps: int | None = None,
    grid: str | None = None,
    noise: str = NOISES[0],
    num_samples: int = 200,
    seed: int = 0,
    labels: str | None = None,
    prompt: str | None = None,
    batch_size: int = 256,
    out: str | None = None,
) -> dict:
    """Plot accuracy of the asked class against diversity over the scale; write ``<out>.png`` and ``<out>.json``.

    ``<out>-strip.png`` shows the first samples of every scale, each in the same place.

    Classifier guidance guides the unconditional branch, so that 0 is the unconditional and 1 the conditional model for
    either kind; without ``classifier_scale`` it has the scales of classifier-free guidance where the run has a
    classifier. Every scale has the same noise and classes. The judge is trained on the run's training items; accuracies
    and distances are those of ``tradeoff``, distances in units of the held-out items'.
    """
    for flag, scales in (("guidance_scale", guidance_scale), ("classifier_scale", classifier_scale)):
        if scales is not None and len(scales) < 2:
            raise ValueError(f"--{flag}={scales[0]:g}: a sweep needs several scales, as in 0,1,2,4")
    sampling = Sampling(run, steps, grid, noise, seed, batch_size)
    held_out, training, denoiser = open_split(run, "test")
    if training.labels is None:
        raise ValueError(
            f"config.data.dataset = {run.config.data.dataset!r} has no labels here: a sweep asks for classes, and a "
            "classifier of the data judges the samples"
        )
    if classifier_scale is None and run.classifier_file.exists():
        classifier_scale = guidance_scale
    settings = settings_of(run, denoiser, guidance_scale, classifier_scale)
    guides = Guides(run, denoiser, *(options for _, _, options in settings))
    cond = read_condition(run, guides, labels, None, num_samples, prompt=prompt, seed=seed, by_law=True)
    asked, left_out = measurable(held_out, labels_of(cond), run.class_names)
    for sentence in left_out:
        print(f"  left out: {sentence}")
    # Of classes that are left out samples are drawn, and not measured.
    kept = asked >= 0
    for _, _, options in settings:
        # Before anything is drawn, for what it refuses.
        guides(cond, options)
    judge = evaluation_classifier(run, training)
    unfit = judge.unfit(held_out)
    if unfit:
        raise ValueError(f"--workdir={run.folder}: {unfit}, so that a sweep of these data would show nothing")
    accuracy, real = judged_items(judge, held_out, asked[kept])
    print(
        f"the judge, a classifier of the training items, is right about {accuracy:.2%} of the held-out items\n"
        f"{num_samples} samples at each scale by {sampling.name}; diversity is the mean distance within a class over "
        "that of held-out items\n"
        f"{'guidance':<17}{'scale':>6}{'accuracy':>19}{'diversity':>19}{'calls':>8}"
    )
    rows, firsts = [], []
    for kind, scale, options in settings:
        samples = sampling(guides, options, cond, num_samples)
        if samples is None:
            continue
        found = tradeoff(held_out.transform.outer.encode(samples.x[kept]), asked[kept], judge.classes(samples.x[kept]))
        row = {"guidance": kind, "scale": scale, **relative(found, real), "nfe": samples.mean_nfe}
        rows.append(row | {"seconds": round(samples.seconds, 2)})
        firsts.append(samples.x[kept][:STRIP_SAMPLES])
        print(
            f"{kind:<17}{scale:>6g}{row['accuracy']:>9.3f} +- {row['accuracy_stderr']:.3f} "
            f"{row['diversity']:>9.3f} +- {row['diversity_stderr']:.3f}{samples.mean_nfe:>8g}"
        )
    if not run.world.is_main:
        return {}
    path = stem(run, out, "guidance-sweep", ".json")
    picture, numbers, strip_picture = Path(f"{path}.png"), Path(f"{path}.json"), Path(f"{path}-strip.png")
    result = {"mode": "guidance_sweep", "sampler": sampling.name, "num_samples": num_samples, "seed": seed}
    result |= {
        "classes": asked[kept].unique().tolist(),
        "left_out": left_out,
        "judge_accuracy": accuracy,
        "real": asdict(real),
        "rows": rows,
    }
    write_whole(picture, plot(rows, real, num_samples))
    names = [f"{row['guidance']} {row['scale']:g}" for row in rows]
    levels, classes = held_out.transform.num_levels, asked[kept][:STRIP_SAMPLES]
    shown = strip(torch.stack(firsts), names, strip_picture, kind=run.kind, levels=levels, labels=classes)
    write_json(numbers, finite(result | {"settings": run.settings}))
    print(f"  {picture}, {strip_picture if shown else 'no picture of the samples for this shape'}, {numbers}")
    files = {"picture": str(picture), "strip": str(strip_picture) if shown else None, "numbers": str(numbers)}
    return result | files


def settings_of(
    run: Run, denoiser: Denoiser, guidance_scale: tuple[float, ...], classifier_scale: tuple[float, ...] | None
) -> list[tuple[str, float, GuidanceOptions]]:
    """Each kind of guidance that the run has, at each of its scales, with the options that it means."""
    settings = []
    if denoiser.num_classes:
        settings += [("classifier-free", scale, GuidanceOptions(scale)) for scale in guidance_scale]
    if classifier_scale is not None:
        base = 0.0 if denoiser.num_classes else 1.0
        settings += [("classifier", scale, GuidanceOptions(base, scale)) for scale in classifier_scale]
    if not settings:
        raise ValueError(
            f"--workdir={run.folder}: the model is unconditional and there is no classifier to guide it; train one "
            "with --mode train_classifier, or a model with config.model.conditional = True"
        )
    return settings


def measurable(held_out: Dataset, asked: Tensor | None, names: Sequence[str] = ()) -> tuple[Tensor, list[str]]:
    """The classes asked for (n,), NULL_LABEL for those that are left out, and a sentence for each of these, by its name
    where classes have ``names``: diversity needs two samples of a class, and two held-out items that differ. Raises
    ValueError where none is left."""
    if asked is None or bool((asked < 0).all()):
        raise ValueError("--labels=none: a sweep asks for classes; give class numbers, as in 0,1,2, or leave it out")
    x, cond = held_out.batch(spread(len(held_out), MAX_HELD_OUT))
    known, kept, sentences = require_labels(cond), asked.clone(), []
    for label in asked.unique().tolist():
        count, its = int((asked == label).sum()), x[known == label]
        why = "one sample" if count < 2 else ""
        if len(its) < 2:
            why = ("no held-out item", "one held-out item")[len(its)]
        elif bool((its == its[0]).all()):
            why = "held-out items that are all equal"
        if why:
            kept[asked == label] = NULL_LABEL
            sentences.append(f"class {names[label] if names else label} has {why}, and diversity needs two that differ")
    if bool((kept < 0).all()):
        raise ValueError(
            f"{'; '.join(sentences)}: no class is left to measure; take more --num_samples, or --labels of others"
        )
    return kept, sentences


def judged_items(judge: EvaluationClassifier, held_out: Dataset, asked: Tensor) -> tuple[float, Tradeoff]:
    """The judge's accuracy on the held-out items, and the accuracy and diversity of those in the classes asked for."""
    x, cond = held_out.batch(spread(len(held_out), MAX_HELD_OUT))
    labels = require_labels(cond)
    found, kept = judge.classes(x), torch.isin(labels, asked)
    real = tradeoff(held_out.transform.outer.encode(x[kept]), labels[kept], found[kept])
    return (found == labels).double().mean().item(), real


def relative(found: Tradeoff, real: Tradeoff) -> dict:
    """Accuracy, and diversity in units of the real items', with their standard errors. The error of the unit itself is
    not in them: it is the same at every scale."""
    return {
        "accuracy": found.accuracy,
        "accuracy_stderr": found.accuracy_stderr,
        "diversity": found.distance / real.distance,
        "diversity_stderr": found.distance_stderr / real.distance,
    }


def plot(rows: list[dict], real: Tradeoff, num_samples: int) -> bytes:
    """Accuracy against diversity, and both over the scale."""
    figure, axes = plt.subplot_mosaic([["tradeoff", "accuracy"], ["tradeoff", "diversity"]], figsize=(9.5, 4.6),
                                      width_ratios=(1.35, 1), layout="constrained")  # fmt: skip
    bars: dict[str, Any] = {"fmt": "o-", "markersize": 3.5, "linewidth": 1.2, "elinewidth": 0.8, "capsize": 2}
    for kind in dict.fromkeys(row["guidance"] for row in rows):
        own = [row for row in rows if row["guidance"] == kind]
        values = {key: [row[key] for row in own] for key in own[0]}
        errors = {key: values[f"{key}_stderr"] for key in ("accuracy", "diversity")}
        color = COLORS[kind]
        axes["tradeoff"].errorbar(values["diversity"], values["accuracy"], errors["accuracy"], errors["diversity"],
                                  color=color, label=kind, **bars)  # fmt: skip
        for row in own:
            axes["tradeoff"].annotate(f"{row['scale']:g}", (row["diversity"], row["accuracy"]), (4, 5),
                                      textcoords="offset points", fontsize=7.5, color=color)  # fmt: skip
        for key, error in errors.items():
            axes[key].errorbar(values["scale"], values[key], error, color=color, **bars)
    axes["tradeoff"].errorbar(1, real.accuracy, real.accuracy_stderr, real.distance_stderr / real.distance, fmt="*",
                              color=GREY, markersize=9, label="held-out items")  # fmt: skip
    axes["tradeoff"].set_xlabel("diversity, of that of held-out items")
    axes["tradeoff"].set_ylabel("accuracy of the class asked for")
    axes["tradeoff"].set_title(f"{num_samples} samples per scale, standard errors", fontsize=9)
    axes["tradeoff"].legend(fontsize="small")
    axes["accuracy"].axhline(real.accuracy, color=GREY, linestyle=":")
    axes["diversity"].axhline(1, color=GREY, linestyle=":")
    for key in ("accuracy", "diversity"):
        axes[key].set_ylabel(key)
    axes["diversity"].set_xlabel("scale of guidance")
    for cell in axes.values():
        cell.grid(alpha=0.3)
    return figure_bytes(figure)
