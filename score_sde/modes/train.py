"""--mode train and --mode train_classifier: into a run folder, continued by the same command."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from samplers import DPMSolverPP, Samples, generate
from samplers.progress import Progress
from score_sde.config.naming import with_keys
from score_sde.config.program import quoted
from score_sde.evaluation.noisy_accuracy import NoisyAccuracy
from score_sde.evaluation.validation import Validation
from score_sde.pages.items import items
from score_sde.run.conditions import held_out_condition
from score_sde.run.folder import Run
from score_sde.run.pairs import read_pairs
from score_sde.run.pictures import show
from score_sde.run.sizes import sizes_of_samples
from score_sde.training.augmenting import augmentation_of
from score_sde.training.beginning import beginning_of
from score_sde.training.compiling import settled
from score_sde.training.latents import cached_latents
from score_sde.training.rehearsal import Rehearsal
from score_sde.training.session import Session
from score_sde.training.spec import classifier_spec
from sde import Denoiser, NoisyClassifier
from sde.checkpoint.spec import build_classifier
from sde.condition.tree import Condition, restrict_to
from sde.data import Dataset
from sde.files import write_text
from sde.guidance.conditional import Conditional
from sde.training.forward import check_forward
from sde.training.loss import BatchNoise, classifier_loss, denoising_loss
from sde.training.trainer import StepResult, Trainer, check_batch
from sde.training.uncertainty import UncertaintyWeighting

M = TypeVar("M", bound=nn.Module)

PREVIEW_SAMPLES = 60
"""Samples in the pictures made during training."""


def train(run: Run, *, init: str | None = None, base: str | None = None) -> dict:
    """Train the denoiser by denoising score matching, or with a base, which stays as it is, a control of it."""
    if init and base:
        raise ValueError(f"--init={init} and --base={base}: each says what training begins with; choose one")
    if run.student is not None and run.init is None:
        raise ValueError(
            f"--workdir={run.folder} holds a student, which goes on with --mode distill: name another --workdir"
        )
    beginning = beginning_of(run)
    if run.init is None or run.config.control.base:
        remedy = f"go on from them elsewhere, with --mode train --init {quoted(run.folder)} --workdir OTHER"
        refuse_overwriting(run, "denoiser", run.model_file, remedy)
    data, held_out = run.data()
    settings = run.config.training
    if not run.config.data.pairs:
        with with_keys("training"):
            check_batch(settings.optimization, data)
    spec = beginning.spec(run, data)
    augmentation = augmentation_of(run, spec, data)
    with with_keys("model", "model.network", "sde", init="--init", targets="config.model.lora_targets"):
        model = seeded(settings.seed, lambda spec: beginning.model(run, spec, data), spec).to(run.device)
        check_forward(spec["network"]["name"], model, data.inner_shape)
    if settings.cond_dropout > 0 and not getattr(model.network, "has_null", True):
        raise ValueError(
            f"config.training.cond_dropout = {settings.cond_dropout:g}: this network has no null condition to drop "
            "classes and conditions to; take 0"
        )

    trained_on = data
    if run.config.data.pairs:
        if settings.augmentation != "none":
            raise ValueError(
                f"config.training.augmentation = {settings.augmentation!r}: it changes the sample of a pair and not "
                "the noise that leads there; take none with config.data.pairs"
            )
        trained_on = read_pairs(run.config.data.pairs, data, model)
        with with_keys("training"):
            check_batch(settings.optimization, trained_on)

    if run.config.data.cache_latents:
        trained_on = cached_latents(run, trained_on)

    def loss(module: Denoiser, x0: Tensor, cond: Condition | None, draws: BatchNoise) -> Tensor:
        options = {"weighting": settings.loss_weighting, "cond_dropout": settings.cond_dropout}
        return denoising_loss(module, x0, restrict_to(cond, model), draws, **options)

    options = settings.optimization
    run = settled(Rehearsal(run, model, data, loss, options, augmentation))
    uncertainty = UncertaintyWeighting(model.sde) if settings.uncertainty_weighting else None
    with with_keys("training"):
        workers = run.config.data.workers
        trainer = Trainer(model, trained_on, loss, options, run.world, workers, uncertainty, augmentation)
    session = Session(run, trainer, "denoiser", run.model_file, spec)
    validation = Validation(
        held_out, data, model.sde, settings.optimization.times, settings.loss_weighting, device=run.device
    )

    def sample(step: int, done: StepResult) -> None:
        averaged, raw = session.averaged(), session.raw()
        with session.tolerated("a preview"):
            run.world.broadcast_from_main(lambda: preview(step, held(averaged, Denoiser), held(raw, Denoiser)))

    def preview(step: int, averaged: Denoiser, raw: Denoiser) -> None:
        session.record_held_out(step, validation.losses(averaged), validation.losses(raw))
        cond = held_out_condition(held_out, averaged, PREVIEW_SAMPLES)
        bound = averaged if cond is None else Conditional(averaged, cond)
        try:
            sizes = sizes_of_samples(run, PREVIEW_SAMPLES, 0)
            samples = generate(bound, DPMSolverPP(), PREVIEW_SAMPLES, data.event_shape, steps=12, sizes=sizes)
        except FloatingPointError as error:
            Progress.write(f"warning: no samples at step {step} ({error}): try a smaller config.training.lr")
        else:
            session.record({"step": step, "nearest": validation.nearest(samples.x)})
            write_preview(run, samples, cond, step, data)
        session.report()

    session.fit([(settings.sample_every, sample)])
    return session.summary("train")


def train_classifier(run: Run) -> dict:
    """Train the noise-conditional classifier for classifier guidance."""
    config, settings = run.config, run.config.classifier
    refuse_overwriting(run, "classifier", run.classifier_file, "move it away first")
    data, held_out = run.data()
    if data.labels is None:
        raise ValueError(
            f"config.data.dataset = {config.data.dataset!r} has no labels here: a classifier needs classes"
        )
    with with_keys("classifier"):
        check_batch(settings.optimization, data)
    spec = classifier_spec(config, data)
    with with_keys("classifier", "classifier.network", "sde"):
        classifier = seeded(settings.seed, build_classifier, spec).to(run.device)
        check_forward(spec["network"]["name"], classifier, data.inner_shape)
    options = settings.optimization
    run = settled(Rehearsal(run, classifier, data, classifier_loss, options))
    with with_keys("classifier"):
        trainer = Trainer(classifier, data, classifier_loss, options, run.world, config.data.workers)
    session = Session(run, trainer, "classifier", run.classifier_file, spec)
    noisy = NoisyAccuracy(held_out, classifier, run.device)

    def measured() -> list[dict]:
        averaged = session.averaged()
        return run.world.broadcast_from_main(lambda: noisy.by_noise(held(averaged, NoisyClassifier)))

    def record(step: int, done: StepResult) -> None:
        session.record({"step": step, "accuracy_by_noise": measured(), "chance": noisy.chance})
        session.report()

    # Four times at least, for a curve.
    session.fit([(min(config.training.sample_every, max(1, settings.steps // 4)), record)])
    accuracy = {f"{level['noise_level']:.3g}": level["accuracy"] for level in measured()}
    print(
        "held-out accuracy by noise level, sigma / alpha: "
        + ", ".join(f"{level}: {value:.1%}" for level, value in accuracy.items())
        + f" (chance {noisy.chance:.1%})"
    )
    return session.summary("train_classifier") | {"accuracy": accuracy, "chance": noisy.chance}


def write_preview(run: Run, samples: Samples, cond: Condition | None, step: int, data: Dataset) -> None:
    """The picture of samples at a step of training, and the page, where the kind of data has one."""
    path = run.folder / "samples" / f"train-{step:07d}.png"
    show(samples.x, cond, path, kind=run.kind, levels=data.transform.num_levels, sizes=samples.sizes)
    shown = items(samples.x, run.kind, data.transform.num_levels, data.about, samples.sizes)
    if shown:
        write_text(path.with_suffix(".html"), shown)


def refuse_overwriting(run: Run, name: str, file: Path, remedy: str) -> None:
    """Refuse to train anew over weights that were not trained here, as those of --mode import."""
    metrics = run.folder / ("metrics.jsonl" if name == "denoiser" else f"{name}_metrics.jsonl")
    if file.exists() and not (metrics.exists() or run.checkpoints(name).paths()):
        raise ValueError(
            f"{file} has no training state in {run.folder} to go on from, and training anew would write over it: "
            f"{remedy}"
        )


def held(module: nn.Module | None, kind: type[M]) -> M:
    """The module that the first process has. Raises TypeError for another one, or where there is none."""
    if not isinstance(module, kind):
        raise TypeError(f"there is a {type(module).__name__}, not the {kind.__name__} that the first process has")
    return module


def seeded(seed: int, build: Callable[[dict], M], spec: dict) -> M:
    """A module whose initial weights depend on the seed alone; the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(spec)
