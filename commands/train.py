"""--mode train and --mode train_classifier: into a run folder, continued by the same command."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from commands.pictures import picture
from commands.run import Run
from commands.session import Session
from commands.spec import classifier_spec, denoiser_spec
from commands.speed import settle
from commands.validation import Validation
from samplers import DPMpp, generate
from sde import Denoiser
from sde.checkpoint import build_classifier, build_denoiser
from sde.data import Dataset
from sde.guidance import Conditional
from sde.loss import Draws, classifier_loss, denoising_loss
from sde.options import TrainingOptions
from sde.statistics import spread
from sde.training import Step, Trainer

PREVIEW = 60
"""Samples in the pictures made during training."""


def train(run: Run) -> dict:
    """Train the denoiser by denoising score matching."""
    config = run.config
    data, held_out = run.data()
    settings = config.training
    if settings.sample_every < 1:
        raise ValueError(f"config.training.sample_every = {settings.sample_every}: needs at least 1")
    if not 0 <= settings.cond_dropout <= 1:
        raise ValueError(f"config.training.cond_dropout = {settings.cond_dropout}: needs a probability from 0 to 1")
    spec = denoiser_spec(config, data)
    model = _seeded(settings.seed, build_denoiser, spec).to(run.device)

    def loss(module: nn.Module, x0: Tensor, labels: Tensor | None, draws: Draws) -> Tensor:
        cond = labels if model.num_classes else None
        return denoising_loss(module, x0, cond, draws, weighting=settings.weighting, cond_dropout=settings.cond_dropout)

    settle(run, model, data, loss)
    trainer = Trainer(model, data, loss, _options(settings), run.world, config.data.workers)
    session = Session(run, trainer, "denoiser", run.model_file, spec)
    validation = Validation(
        held_out, data, sde=model.sde, times=settings.times, weighting=settings.weighting, device=run.device
    )

    def sample(step: int, done: Step) -> None:
        averaged, raw = session.averaged(), session.raw()
        with session.tolerated("a preview"):
            run.world.share(lambda: preview(step, averaged, raw))

    def preview(step: int, averaged: Denoiser, raw: Denoiser) -> None:
        session.record_held_out(step, validation.losses(averaged), validation.losses(raw))
        labels = torch.arange(PREVIEW) % model.num_classes if model.num_classes else None
        samples = generate(
            averaged if labels is None else Conditional(averaged, labels), DPMpp(), PREVIEW, data.event_shape, steps=12
        )
        session.record({"step": step, "nearest": validation.nearest(samples.x)})
        path = run.folder / "samples" / f"train-{step:07d}.png"
        picture(samples.x, path, levels=data.transform.levels, labels=labels)
        session.report()

    session.fit([(settings.sample_every, sample)])
    return session.summary("train")


def train_classifier(run: Run) -> dict:
    """Train the noise-conditional classifier for classifier guidance."""
    config, settings = run.config, run.config.classifier
    data, held_out = run.data()
    if data.labels is None:
        raise ValueError(
            f"config.data.dataset = {config.data.dataset!r} has no labels here: a classifier needs classes"
        )
    spec = classifier_spec(config, data)
    classifier = _seeded(settings.seed, build_classifier, spec).to(run.device)
    settle(run, classifier, data, classifier_loss, "classifier")
    trainer = Trainer(classifier, data, classifier_loss, _options(settings), run.world, config.data.workers)
    session = Session(run, trainer, "classifier", run.classifier_file, spec)
    session.fit([])
    averaged = session.averaged()
    accuracy = run.world.share(lambda: _accuracy(averaged, held_out, run.device))
    print("held-out accuracy by noise level, sigma / alpha: " + ", ".join(f"{k}: {v:.1%}" for k, v in accuracy.items()))
    return session.summary("train_classifier") | {"accuracy": accuracy}


def _options(settings) -> TrainingOptions:
    return TrainingOptions(**{name: settings[name] for name in TrainingOptions.__dataclass_fields__})


def _seeded(seed: int, build: Callable[[dict], nn.Module], spec: dict) -> nn.Module:
    """A module whose initial weights depend on the seed alone; the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(spec)


@torch.no_grad()
def _accuracy(classifier: nn.Module, held_out: Dataset, device: torch.device, limit: int = 2000) -> dict[str, float]:
    sde, transform = classifier.sde, held_out.transform
    x, labels = held_out.batch(spread(len(held_out), limit))
    generator = torch.Generator().manual_seed(0)
    x0 = transform.encode(transform.dequantise(x, torch.rand(x.shape, generator=generator)))
    accuracy = {}
    for ratio in (0.1, 0.5, 1.0, 2.0, 5.0):
        t = sde.t_of_log_snr(torch.tensor(ratio, dtype=torch.float64).log() * -2)
        noisy = sde.perturb(x0, t, torch.randn(x0.shape, generator=generator)).to(device)
        accuracy[f"{ratio:g}"] = (classifier(noisy, t).argmax(1).cpu() == labels).float().mean().item()
    return accuracy
