"""--mode train and --mode train_classifier: into a run folder, continued by the same command."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from commands.pictures import picture
from commands.run import Run, autocast
from commands.session import Session
from commands.spec import classifier_spec, denoiser_spec
from samplers import DPMpp, generate
from sde.checkpoint import build_classifier, build_denoiser
from sde.data import Dataset
from sde.guidance import Conditional
from sde.loss import classifier_loss, denoising_loss
from sde.training import Trainer, TrainingOptions

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
    model.autocast = autocast(config, run.device)
    loss = partial(
        denoising_loss, weighting=settings.weighting, times=settings.times, cond_dropout=settings.cond_dropout
    )

    def conditioned(module: nn.Module, x0: Tensor, labels: Tensor | None, generator: torch.Generator) -> Tensor:
        return loss(module, x0, labels if module.num_classes else None, generator)

    trainer = Trainer(model, data, conditioned, _options(settings))
    session = Session(run, trainer, "denoiser", run.model_file, spec, settings.log_every, settings.checkpoint_every)

    def sample(step: int, losses: Tensor) -> None:
        session.measure_held_out(
            step, partial(denoising_loss, weighting=settings.weighting, times=settings.times), held_out
        )
        averaged = session.averaged()
        labels = torch.arange(PREVIEW) % model.num_classes if model.num_classes else None
        preview = generate(
            averaged if labels is None else Conditional(averaged, labels), DPMpp(), PREVIEW, data.event_shape, steps=12
        )
        picture(
            preview.x, run.folder / "samples" / f"train-{step:07d}.png", levels=data.transform.levels, labels=labels
        )

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
    classifier.autocast = autocast(config, run.device)
    trainer = Trainer(classifier, data, partial(classifier_loss, times=settings.times), _options(settings))
    session = Session(
        run,
        trainer,
        "classifier",
        run.classifier_file,
        spec,
        config.training.log_every,
        config.training.checkpoint_every,
    )
    session.fit([])
    accuracy = _accuracy(session.averaged(), held_out, run.device)
    print("held-out accuracy by noise level, sigma / alpha: " + ", ".join(f"{k}: {v:.1%}" for k, v in accuracy.items()))
    return session.summary("train_classifier") | {"accuracy": accuracy}


def _options(settings) -> TrainingOptions:
    return TrainingOptions(**{name: settings[name] for name in TrainingOptions.__dataclass_fields__})


def _seeded(seed: int, build: Callable[[dict], nn.Module], spec: dict) -> nn.Module:
    """A module whose initial weights depend on the seed alone; the global random state stays as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(spec)


@torch.no_grad()
def _accuracy(classifier: nn.Module, held_out: Dataset, device: torch.device, limit: int = 2000) -> dict[str, float]:
    sde, transform = classifier.sde, held_out.transform
    x, labels = held_out.batch(torch.arange(min(limit, len(held_out))))
    generator = torch.Generator().manual_seed(0)
    x0 = transform.encode(transform.dequantise(x, torch.rand(x.shape, generator=generator)))
    accuracy = {}
    for ratio in (0.1, 0.5, 1.0, 2.0, 5.0):
        t = sde.t_of_log_snr(torch.tensor(ratio, dtype=torch.float64).log() * -2)
        noisy = sde.perturb(x0, t, torch.randn(x0.shape, generator=generator)).to(device)
        accuracy[f"{ratio:g}"] = (classifier(noisy, t).argmax(1).cpu() == labels).float().mean().item()
    return accuracy
