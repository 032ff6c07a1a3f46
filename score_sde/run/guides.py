"""Guided models: the labels and the guidance of a command, bound to the model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from score_sde.config.naming import with_flag, with_keys
from score_sde.run.controls import Controls
from score_sde.run.folder import Run
from score_sde.run.guidance import BRANCHES, GuidanceOptions
from score_sde.run.inputs import read_floats
from score_sde.run.labels import read_classes
from score_sde.run.loaded_controls import loaded_controls
from score_sde.run.text import prompted, read_prompts, reads
from score_sde.run.trained_controls import trained_controls
from sde import Denoiser, NoisyClassifier, ScoreModel
from sde.condition.tree import (
    Condition,
    condition_kinds,
    is_control,
    labels_of,
    null_like,
    require_labels,
    restrict_to,
)
from sde.distillation import BoundFlowMap, FlowMap
from sde.guidance.autoguidance import Autoguidance
from sde.guidance.classifier import Classifier
from sde.guidance.classifier_free import ClassifierFree
from sde.guidance.conditional import Conditional
from sde.guidance.interval import GuidanceInterval
from sde.guidance.rescale import GuidanceRescale
from sde.guidance.threshold import DynamicThreshold, StaticThreshold


def weak_model(run: Run, denoiser: Denoiser, options: GuidanceOptions) -> Denoiser | None:
    """The model of ``--autoguidance``, a file of weights or a training state in the run folder; None without the flag.
    Raises ValueError for the denoiser's own weights, and for those of other data."""
    if not options.autoguidance:
        return None
    with with_flag("--autoguidance", options.autoguidance):
        if not (run.folder / options.autoguidance).exists():
            raise ValueError(
                f"there is no such file in {run.folder}; it needs weights, as in ema/0.99.safetensors, which "
                "--config.training.extra_ema_decays=0.99 keeps, or a training state of checkpoints/"
            )
        weak = replace(run, weights=options.autoguidance).model()
        if weak.event_shape != denoiser.event_shape:
            raise ValueError(
                f"its items have shape {weak.event_shape}, the model's {denoiser.event_shape}; name weights of a model "
                "of the same data"
            )
        pairs = zip(denoiser.parameters(), weak.parameters(), strict=False)
        if all(torch.equal(own, other) for own, other in pairs):
            raise ValueError("these are the model's own weights; name weaker ones, or --weights")
    return weak


class Guides:
    """The models that guidance asks for, loaded once for all of several options.

    ``guides(cond)`` is the model with a condition of n rows, or None, guided by the first of the options, or by those
    that are given beside it.
    """

    def __init__(self, run: Run, denoiser: Denoiser | FlowMap, *guidances: GuidanceOptions) -> None:
        if isinstance(denoiser, FlowMap):
            check_student(run, guidances)
        self.run, self.denoiser, self.options = run, denoiser, guidances[0]
        self.classifier = run.classifier() if any(options.classifier_scale for options in guidances) else None
        self.weak = None
        if isinstance(denoiser, Denoiser):
            weak = (weak_model(run, denoiser, options) for options in guidances if options.autoguidance)
            self.weak = next(weak, None)
        self.controls: Controls | None
        if run.pipeline is not None and isinstance(denoiser, Denoiser):
            self.controls = loaded_controls(run.pipeline, denoiser, self.options)
        else:
            self.controls = trained_controls(run, denoiser, self.options)
        if self.controls is not None and isinstance(denoiser, Denoiser):
            self.denoiser = self.controls.around(denoiser)
            self.weak = None if self.weak is None else self.controls.around(self.weak)

    def given_controls(self, count: int) -> Condition:
        """The controls of ``--control`` by kind, cycled to ``count`` rows; none where it is not given."""
        if self.controls is None or self.options.control is None:
            return {}
        read = self.controls.read(self.options.control)
        return {kind: c[torch.arange(count) % len(c)] for kind, c in read.items()}

    @property
    def classes(self) -> int | None:
        """Number of classes that labels are taken from, the classifier's where the model is unconditional."""
        return self.denoiser.num_classes or (self.classifier.num_classes if self.classifier else None)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes by their numbers, where they have some."""
        return self.run.class_names

    def files(self, options: GuidanceOptions) -> list[Path]:
        """The weights of the models that take part."""
        found = [self.run.weights_file]
        if options.classifier_scale:
            found.append(self.run.classifier_file)
        if options.autoguidance:
            found.append(self.run.folder / options.autoguidance)
        found += [] if self.controls is None else [other.weights_file for other in self.controls.runs]
        return found

    def __call__(self, cond: Condition | None, options: GuidanceOptions | None = None) -> Any:
        options = options or self.options
        if isinstance(self.denoiser, FlowMap):
            return bound_student(self.denoiser, cond, options)
        classifier = self.classifier if options.classifier_scale else None
        weak = self.weak if options.autoguidance else None
        return guided(self.denoiser, classifier, cond, options, weak, self.names)


def check_student(run: Run, guidances: Sequence[GuidanceOptions]) -> None:
    """Refuse guidance of a student but for the scale that is among its inputs."""
    for options in guidances:
        flags = replace(options, guidance_scale=1.0).given()
        if flags:
            raise ValueError(
                f"{flags}: the student in {run.folder} jumps to data and predicts none on its way, so that there is "
                "nothing to guide; leave it out, or guide its teacher"
            )


def bound_student(model: FlowMap, cond: Condition | None, options: GuidanceOptions) -> BoundFlowMap:
    """A student with a condition of n rows, or None, and the guidance scale, where that is among its inputs."""
    _check_told(model, cond)
    own, scale = restrict_to(cond, model), options.guidance_scale
    with with_keys(guidance_scale="--guidance_scale"):
        return model.bound(own, None if scale == 1 else scale)


def guided(
    model: Denoiser,
    classifier: NoisyClassifier | None,
    cond: Condition | None,
    options: GuidanceOptions,
    weak: Denoiser | None = None,
    names: Sequence[str] = (),
) -> ScoreModel:
    """The model with a condition of n rows, or None, and guidance bound; ``classifier`` and ``weak`` where the options
    ask for them. The limits of guidance go around all of it: rescale, then the interval, then the threshold."""
    _check(model, cond, options, weak)
    score_model: ScoreModel = model
    own = restrict_to(cond, model)
    if own is not None:
        count = len(next(iter(own.values())))
        steered: Condition = {}
        if options.negative_labels:
            steered["labels"] = _negative(options.negative_labels, count, model, names)
        if options.negative_prompt:
            prompts = read_prompts("--negative_prompt", options.negative_prompt)
            steered |= prompted(model, "--negative_prompt", prompts, count, negative=True)
        negative = None if options.control_branches == BRANCHES[0] else null_like(own)
        if steered:
            controls = {kind: c for kind, c in (negative or {}).items() if is_control(kind)}
            negative = own | controls | steered
        with with_flag("--guidance_scale", f"{options.guidance_scale:g}", cond_dropout="config.training.cond_dropout"):
            score_model = ClassifierFree(model, own, 1.0 if weak else options.guidance_scale, negative)
    if weak:
        with with_flag("--autoguidance", options.autoguidance):
            conditioned = weak if own is None else Conditional(weak, own)
            score_model = Autoguidance(score_model, conditioned, options.guidance_scale)
    if classifier:
        score_model = Classifier(score_model, classifier, require_labels(cond), options.classifier_scale)
    if options.guidance_rescale:
        with with_flag("--guidance_rescale", f"{options.guidance_rescale:g}"):
            score_model = GuidanceRescale(score_model, options.guidance_rescale)
    if options.guidance_interval:
        interval = _numbers("--guidance_interval", options.guidance_interval, "LOW,HIGH")
        with with_flag("--guidance_interval", options.guidance_interval):
            score_model = GuidanceInterval(score_model, *interval)
    if options.threshold:
        score_model = _threshold(score_model, options.threshold)
    return score_model


def _threshold(model: ScoreModel, text: str) -> ScoreModel:
    """The model within bounds, by --threshold."""
    kind, _, bounds = text.partition(",")
    if kind.strip() == "static":
        limits = read_floats("--threshold", bounds, "static,LOW,HIGH with numbers") if bounds else []
        if len(limits) not in (0, 2):
            raise ValueError(f"--threshold={text}: needs static or static,LOW,HIGH with numbers")
        with with_flag("--threshold", text):
            return StaticThreshold(model, *limits)
    threshold = _numbers("--threshold", text, "QUANTILE or QUANTILE,LOW,HIGH")
    with with_flag("--threshold", text):
        return DynamicThreshold(model, *threshold)


def _check(model: Denoiser, cond: Condition | None, options: GuidanceOptions, weak: Denoiser | None) -> None:
    """Refuse guidance that the model, or the labels, have no room for."""
    free = options.guidance_scale != 1 and weak is None
    if free and not condition_kinds(model):
        raise ValueError(
            f"--guidance_scale={options.guidance_scale:g}: the model is unconditional, so there is nothing to guide "
            "without a classifier or --autoguidance; leave it at 1"
        )
    spoken = reads(model)
    if (free and cond is None) or (options.classifier_scale and labels_of(cond) is None):
        raise ValueError(
            f"--guidance_scale={options.guidance_scale:g} and --classifier_scale={options.classifier_scale:g} guide "
            f"towards labels{' or text' * spoken}: give {'--prompt or ' * spoken}--labels, or leave them at 1 and 0"
        )
    for told in (model, weak):
        if told is not None:
            _check_told(told, cond)


def _check_told(model: Denoiser | FlowMap, cond: Condition | None) -> None:
    """Refuse a model without a condition that has to have one."""
    if restrict_to(cond, model) is None and not model.null_trained:
        raise ValueError(
            f"{'--labels=none: ' * (cond is None)}this model never trained its unconditional branch "
            f"(config.training.cond_dropout was 0); give {' and '.join(condition_kinds(model))}"
        )


def _negative(text: str, count: int, model: Denoiser, names: Sequence[str]) -> Tensor:
    """The classes (count,) of ``--negative_labels``."""
    if not model.num_classes:
        raise ValueError(
            f"--negative_labels={text}: the model is conditioned on {' and '.join(condition_kinds(model))}, and has no "
            "classes; leave it out"
        )
    classes = None if text == "none" else read_classes(text, count, model.num_classes, "--negative_labels", names)
    if classes is None:
        raise ValueError(
            "--negative_labels=none: without it, --guidance_scale steers away from the unconditional branch already; "
            "leave it out, or give class numbers"
        )
    return classes


def _numbers(flag: str, text: str, form: str) -> list[float]:
    """Numbers with commas between them, as many as one of the forms has."""
    values = read_floats(flag, text, f"{form} as numbers")
    if len(values) not in [len(names.split(",")) for names in form.split(" or ")]:
        raise ValueError(f"{flag}={text}: needs {form} as numbers")
    return values
