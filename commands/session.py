"""A training command at work: progress, metrics, checkpoints, curves."""

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from commands.pictures import curves
from commands.run import Run
from sde.checkpoint import save_model, write_whole
from sde.data import Dataset
from sde.training import Trainer, fit


class Session:
    """The part of a training run that reports and saves: progress bar, metrics, checkpoints, curves."""

    def __init__(
        self, run: Run, trainer: Trainer, name: str, file: Path, spec: dict, log_every: int, save_every: int
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
        try:
            if state is not None:
                self.trainer.load_state_dict(state)
        except (RuntimeError, KeyError, ValueError) as error:
            raise ValueError(
                f"the checkpoint in {self.states.folder} belongs to another architecture "
                f"({str(error).splitlines()[-1].strip()}): train into a new --workdir"
            ) from None
        if state is not None:
            print(f"continuing {self.run.folder} at step {self.trainer.step}")
        # Lines after the checkpoint, the last of which may be cut short, come from steps that are done again.
        if self.metrics.exists():
            lines = self.metrics.read_text().splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= self.trainer.step]
            write_whole(self.metrics, "".join(kept).encode())

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
            if not self.file.exists():
                self.save_model()
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
                state = trainer.state_dict()
                self.save_model()
                self.states.save(state)

            def advance(step: int, losses: Tensor) -> None:
                bar.update(step - bar.n)

            fit(
                trainer,
                [
                    (1 if trainer.device.type == "cpu" else 20, advance),
                    (self.log_every, log),
                    (self.save_every, save),
                    *callbacks,
                ],
            )
        curves(self.metrics, self.metrics.with_name(self.metrics.name.replace("metrics.jsonl", "curves.png")))

    def save_model(self) -> None:
        """Write the averaged weights."""
        save_model(self.file, self.kind, self.spec, self.trainer.ema.module_state(self.trainer.module))

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
            losses.append(loss(module, x0[rows].to(device), cond, generator))
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
