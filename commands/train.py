"""--mode train and --mode train_classifier: into a run folder, continued by the same command."""

import copy
import json
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from tqdm import tqdm

from commands.pictures import curves, picture
from commands.run import Run, autocast
from commands.spec import classifier_spec, denoiser_spec
from samplers import Heun, generate
from sde.checkpoint import build_classifier, build_denoiser, save_model
from sde.data import Dataset
from sde.guidance import Conditional
from sde.loss import classifier_loss, denoising_loss
from sde.training import Trainer, TrainingOptions, fit

PREVIEW = 60
"""Samples in the pictures made during training."""


def train(run: Run) -> dict:
    """Train the denoiser by denoising score matching."""
    config = run.config
    data, held_out = run.data()
    settings = config.training
    if not 0 <= settings.cond_dropout <= 1:
        raise ValueError(f"config.training.cond_dropout = {settings.cond_dropout}: needs a probability from 0 to 1")
    spec = denoiser_spec(config, data)
    model = _seeded(settings.seed, build_denoiser, spec).to(run.device)
    model.autocast = autocast(config)
    loss = partial(
        denoising_loss, weighting=settings.weighting, times=settings.times, cond_dropout=settings.cond_dropout
    )

    def conditioned(module: nn.Module, x0: Tensor, labels: Tensor | None, generator: torch.Generator):
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
            averaged if labels is None else Conditional(averaged, labels), Heun(), PREVIEW, data.event_shape, steps=12
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
    loss = partial(classifier_loss, times=settings.times)

    def losses_only(*arguments) -> tuple[Tensor, Tensor]:
        return loss(*arguments)[:2]

    trainer = Trainer(classifier, data, losses_only, _options(settings))
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


class Session:
    """The part of a training run that reports and saves: progress bar, metrics, checkpoints, curves."""

    def __init__(
        self, run: Run, trainer: Trainer, name: str, file, spec: dict, log_every: int, save_every: int
    ) -> None:
        for key, value in (("log_every", log_every), ("checkpoint_every", save_every)):
            if value < 1:
                raise ValueError(f"config.training.{key} = {value}: needs at least 1")
        self.run, self.trainer, self.file, self.spec, self.kind = run, trainer, file, spec, name
        self.log_every, self.save_every = log_every, save_every
        self.metrics = run.folder / ("metrics.jsonl" if name == "denoiser" else f"{name}_metrics.jsonl")
        self.states = run.checkpoints(name)
        self.loss = float("nan")
        self.start = self.first = 0.0
        self._continue()

    def _continue(self) -> None:
        state, passed = self.states.load()
        for sentence in passed:
            print(f"warning: {sentence}")
        if state is None:
            return
        try:
            self.trainer.load_state_dict(state)
        except (RuntimeError, KeyError, ValueError) as error:
            raise ValueError(
                f"the checkpoint in {self.states.folder} belongs to another architecture "
                f"({str(error).splitlines()[-1].strip()}): train into a new --workdir"
            ) from None
        print(f"continuing {self.run.folder} at step {self.trainer.step}")
        # Lines after the checkpoint come from steps that are done again.
        if self.metrics.exists():
            lines = [x for x in self.metrics.read_text().splitlines() if json.loads(x)["step"] <= self.trainer.step]
            self.metrics.write_text("".join(f"{line}\n" for line in lines))

    def averaged(self) -> nn.Module:
        """A copy of the module with the averaged weights, in eval mode."""
        averaged = copy.deepcopy(self.trainer.module)
        averaged.load_state_dict(self.trainer.ema.module_state(self.trainer.module))
        return averaged.eval()

    def fit(self, callbacks: list[tuple[int, Callable[[int, Tensor], None]]]) -> None:
        """Train to the end, or do nothing where the run is already there."""
        trainer, options = self.trainer, self.trainer.options
        if trainer.step >= options.steps:
            print(f"{self.run.folder} is already at step {trainer.step} of {options.steps}; raise the steps to go on")
            return
        self.run.write_config()
        print(
            f"training {sum(p.numel() for p in trainer.module.parameters()):,} parameters on {trainer.device}: "
            f"{options.steps} steps of {options.batch_size} out of {len(trainer.data):,} items of shape "
            f"{'x'.join(map(str, trainer.data.event_shape))}"
        )
        self.start, self.first = time.perf_counter(), trainer.step
        with tqdm(total=options.steps, initial=trainer.step, unit="step", desc=self.kind, mininterval=1.0) as bar:

            def log(step: int, losses: Tensor) -> None:
                self.loss = losses.mean().item()
                speed = self.images_per_second()
                bar.set_postfix(loss=f"{self.loss:.4f}", images_per_s=f"{speed:.0f}", refresh=False)
                self.record(
                    {"step": step, "loss": self.loss, "lr": options.lr_at(step - 1), "images_per_second": speed}
                )

            def save(step: int, losses: Tensor) -> None:
                self.states.save(trainer.state_dict())
                save_model(self.file, self.kind, self.spec, trainer.ema.module_state(trainer.module))

            def advance(step: int, losses: Tensor) -> None:
                bar.update(step - bar.n)

            fit(
                trainer,
                [
                    (1 if trainer.device.type == "cpu" else 20, advance),
                    (self.log_every, log),
                    *callbacks,
                    (self.save_every, save),
                ],
            )
        curves(self.metrics, self.metrics.with_name(self.metrics.name.replace("metrics.jsonl", "curves.png")))

    def images_per_second(self) -> float:
        """Mean speed since the start of this command, pictures and checkpoints included."""
        return (self.trainer.step - self.first) * self.trainer.options.batch_size / (time.perf_counter() - self.start)

    @torch.no_grad()
    def measure_held_out(self, step: int, loss, held_out: Dataset, limit: int = 1000) -> None:
        """Record the loss of the averaged weights on held-out items, at the same times and noise every time."""
        generator = torch.Generator().manual_seed(0)
        x, labels = held_out.batch(torch.linspace(0, len(held_out) - 1, min(limit, len(held_out))).long())
        x0 = held_out.transform.encode(held_out.transform.dequantise(x, torch.rand(x.shape, generator=generator)))
        module, device = self.averaged(), self.trainer.device
        losses = []
        for rows in torch.arange(len(x0)).split(100):
            cond = labels[rows].to(device) if labels is not None and module.num_classes else None
            losses.append(loss(module, x0[rows].to(device), cond, generator)[0])
        self.record({"step": step, "held_out_loss": torch.cat(losses).mean().item()})

    def record(self, line: dict) -> None:
        """Append a line to the metrics."""
        with open(self.metrics, "a") as file:
            file.write(json.dumps(line) + "\n")

    def summary(self, mode: str) -> dict:
        """What the command prints last."""
        trained = self.trainer.step > self.first and self.start > 0
        return {
            "mode": mode,
            "workdir": str(self.run.folder),
            "steps": self.trainer.step,
            "loss": self.loss if trained else None,
            "images_per_second": round(self.images_per_second(), 1) if trained else None,
            "seconds": round(time.perf_counter() - self.start, 1) if trained else 0.0,
            "file": str(self.file),
        }
