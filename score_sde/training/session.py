"""A training run in progress: progress bar, metrics, checkpoints, signals, and what is left at its end."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from samplers.compiled import is_compiled
from samplers.progress import Progress
from score_sde.config.config import differences
from score_sde.config.naming import FOLDER, with_keys
from score_sde.pages.report import write_report
from score_sde.plots.curves import curves
from score_sde.run.folder import Run
from score_sde.run.outputs import check_room
from score_sde.training.estimate import outlook, time_of_step, waiting
from score_sde.training.interrupts import Interrupts
from score_sde.training.log import Metrics
from score_sde.training.memory import dry_run, out_of_memory
from sde.checkpoint.base import own_weights
from sde.checkpoint.models import save_model
from sde.checkpoint.snapshots import save_averages
from sde.checkpoint.spec import build
from sde.checkpoint.states import STATES_KEPT
from sde.distributed.world import body_of
from sde.files import remove_partial
from sde.training.audit import audit
from sde.training.fit import Callback, fit
from sde.training.trainer import StepResult, Trained, Trainer

NO_MODEL = (".network.activation_checkpointing", ".class_counts")
"""What a description says beside the model: a run goes on where it differs."""


class Session:
    """The part of a training run that reports and saves. Of several processes every one calls the same methods, and
    the first one alone writes."""

    def __init__(self, run: Run, trainer: Trainer, name: str, file: Path, spec: dict, build: str | None = None) -> None:
        self.run, self.trainer, self.file, self.spec, self.kind = run, trainer, file, spec, name
        self.build = build or name
        """What the spec describes, a key of BUILDERS: a denoiser's place may be taken by a flow map."""
        self.section = "training" if name == "denoiser" else name
        self.states = run.checkpoints(name)
        self.loss = float("nan")
        self.start, self.first, self.ended = 0.0, 0, "finished"
        self._continue()
        prefix = "" if name == "denoiser" else f"{name}_"
        self.metrics = Metrics(
            run.folder / f"{prefix}metrics.jsonl", run.config.training.tensorboard and run.world.is_main
        )
        if run.world.is_main:
            remove_partial(run.folder)
            # Later lines come from steps that are done again.
            with self.tolerated(self.metrics.path.name, last=True):
                self.metrics.truncate(trainer.step)

    def _continue(self) -> None:
        with with_keys(**FOLDER):
            state, passed = self.states.load(self.trainer.state_template)
        for sentence in passed:
            print(f"warning: {sentence}")
        if state is None:
            return
        try:
            changed = [
                f"{key}: {before!r}, now {after!r}"
                for key, before, after in differences(json.loads(state["spec"]), self.spec, self.kind)
                if not key.endswith(NO_MODEL)
                # Runs of older versions do not know what their data have to say.
                and not (before is None and key.startswith(f"{self.kind}.about"))
            ]
            if changed:
                raise ValueError(", ".join(changed))
            if "base" in self.spec and not self.trainer.sharded:
                # What stays as it is, states do not hold.
                state["module"] = self.trainer.module.state_dict() | state["module"]
            with with_keys(self.section):
                self.trainer.load_state_dict(state)
        except (RuntimeError, KeyError, ValueError) as error:
            raise ValueError(
                f"the checkpoint in {self.states.folder} belongs to another model ({error}): train into a new --workdir"
            ) from None
        print(f"continuing {self.run.folder} at step {self.trainer.step}")

    def averaged(self) -> Trained | None:
        """A module apart with the averaged weights, in eval mode; in the first process, None in the others."""
        return self._apart(self.trainer.ema.module_state(self.trainer.module))

    def raw(self) -> Trained | None:
        """The module as it is; where it is sharded, or compiled for training, a whole one apart in the first process,
        None in the others."""
        module = self.trainer.module
        apart = self.trainer.sharded or is_compiled(body_of(module))
        return self._apart(module.state_dict()) if apart else module

    def _apart(self, state: dict[str, Tensor]) -> Trained | None:
        state = self.run.world.collect(state)
        if not self.run.world.is_main:
            return None
        module = build(self.build, self.spec)
        module.load_state_dict(state)
        module.autocast = self.trainer.module.autocast
        return module.to(self.trainer.device).eval()

    def fit(self, callbacks: list[tuple[int, Callback]]) -> None:
        """Train to the end, or do nothing where the run is already there. SIGINT and SIGTERM end it after a checkpoint.
        Raises ValueError with remedies where memory runs out."""
        trainer, options, run = self.trainer, self.trainer.options, self.run
        if trainer.step >= options.steps:
            print(f"{run.folder} is already at step {trainer.step} of {options.steps}; raise the steps to go on")
            if run.world.broadcast_from_main(lambda: not self.file.exists()):
                self.save_model()
            return
        run.world.broadcast_from_main(self._check_room)
        with Interrupts() as interrupts:
            self._look()
            finished = self._train(callbacks, lambda: interrupts.name is not None)
        if not finished:
            # The signal may have reached one process alone.
            self.ended = f"stopped by {next(filter(None, run.world.all_gather(interrupts.name)))}"
            saved = "saved; " if trainer.step > self.first else ""
            print(f"{self.ended} at step {trainer.step} of {options.steps}: {saved}the same command goes on from here")
        self.report(self.ended)

    def _check_room(self) -> None:
        """Refuse to train what could not be saved: the weights of each average, and a training state more than are
        kept, since the oldest goes when the newest is whole."""
        held = own_weights(self.spec, dict(self.trainer.module.named_parameters()))
        average = sum(p.numel() * p.element_size() for p in held.values())
        averages = 1 + len(self.trainer.ema.extra)
        # Of a state: weights, averages, and the two moments of Adam.
        state = average * (3 + averages)
        there = len(self.states.paths())
        needed = average * averages + state * max(1, STATES_KEPT + 1 - there)
        check_room(self.run.folder, needed, "the weights and states of this run")

    def _look(self) -> None:
        """Print what the data are, and how long training will be."""
        trainer, options, world = self.trainer, self.trainer.options, self.run.world
        raw = self.raw()
        with with_keys("data", "model", "sde"):
            lines = world.broadcast_from_main(lambda: [] if raw is None else audit(trainer.data, raw))
        for line in lines:
            print(line)
        print(
            f"training {sum(p.numel() for p in trainer.parameters.values()):,} parameters on {trainer.device}"
            f"{f' and {world.size - 1} more' if world.size > 1 else ''}: {options.steps} steps of "
            f"{options.batch_size} items"
        )

    def _train(self, callbacks: list[tuple[int, Callback]], stop: Callable[[], bool]) -> bool:
        """Train until ``stop()``, and save; whether it came to the end."""
        trainer, options, run = self.trainer, self.trainer.options, self.run
        bar = Progress(
            total=options.steps, initial=trainer.step, unit="step", desc=self.kind, mininterval=1.0,
            disable=not run.world.is_main,
        )  # fmt: skip

        def advance(step: int, done: StepResult) -> None:
            bar.update(step - bar.n)

        def checkpoint(step: int, done: StepResult) -> None:
            # After a skipped step the weights may have diverged: what was saved before is worth more.
            if step == options.steps or not done.skipped[-1]:
                self.save(step == options.steps)

        every = run.config.training.session
        try:
            with bar, with_keys(self.section), out_of_memory(run.config, self.section):
                bar.write(f"peak memory: {dry_run(trainer)}")
                left = options.steps - trainer.step
                each = time_of_step(trainer)
                bar.write(outlook(each.seconds, left, run.config, self.section, trainer.device.type))
                if sentence := waiting(each, trainer, run.config):
                    bar.write(sentence)
                # Not before: what is refused up to here may be mended in the same folder.
                with self.tolerated("config.json", last=True):
                    run.world.broadcast_from_main(run.write_config)
                self.start, self.first = time.perf_counter(), trainer.step
                finished = fit(
                    trainer,
                    [
                        (1 if trainer.device.type == "cpu" else 20, advance),
                        (every.log_every, lambda step, done: self.log(step, done, bar)),
                        (every.checkpoint_every, checkpoint),
                        *callbacks,
                    ],
                    stop=stop,
                )
                if not finished and trainer.step > self.first:
                    self.save(last=True)
        except Exception as error:
            self.report(f"stopped: {error}")
            raise
        finally:
            trainer.close()
        return finished

    @contextmanager
    def tolerated(self, what: str, last: bool = False) -> Iterator[None]:
        """Says of a disk that takes no more, and goes on, or the ``last`` time raises OSError; what was written before
        is untouched."""
        try:
            yield
        except OSError as error:
            sentence = f"{what} was not saved ({error}); what was saved before is untouched"
            if last:
                raise OSError(f"{sentence}: make room in {self.run.folder} and repeat the command") from None
            Progress.write(f"warning: {sentence}")

    def log(self, step: int, done: StepResult, bar: Progress) -> None:
        """Record what the steps since the last time did."""
        options, good = self.trainer.options, ~done.skipped
        self.loss, norm = done.loss[good].mean().item(), done.norm[good].mean().item()
        # What is minimized says little by itself: it falls below 0 as levels are learned.
        weighted = {} if self.trainer.uncertainty is None else {"objective": done.objective[good].mean().item()}
        speed = self.items_per_second()
        bar.set_postfix(loss=f"{self.loss:.4f}", items_per_s=f"{speed:.0f}", refresh=False)
        self.record(
            {
                "step": step,
                "seen": self.trainer.seen,
                "loss": self.loss,
                **weighted,
                "lr": self.trainer.optimizer.param_groups[0]["lr"],
                "grad_norm": norm,
                "skipped": self.trainer.skipped,
                "items_per_second": speed,
                "seconds_left": (options.steps - step) * options.batch_size / speed,
            }
        )

    def record(self, line: dict) -> None:
        """Append a line to the metrics."""
        if self.run.world.is_main:
            with self.tolerated(f"a line of {self.metrics.path.name}"):
                self.metrics.record(line)

    def record_held_out(self, step: int, averaged: dict, raw: dict) -> None:
        """Record held-out losses of the averaged and the raw weights, by noise level as well."""
        by_noise = [
            {"noise_level": a["noise_level"], "ema": a["loss"], "raw": b["loss"]}
            for a, b in zip(averaged["by_noise"], raw["by_noise"], strict=True)
        ]
        self.record(
            {"step": step, "held_out_loss": averaged["loss"], "held_out_loss_raw": raw["loss"], "by_noise": by_noise}
        )

    def save(self, last: bool) -> None:
        """Write the averaged weights and the training state. Where the disk takes no more, the ``last`` time raises
        OSError, and any other says so."""
        state = {**self.trainer.state_dict(), "spec": json.dumps(self.spec)}
        if not self.trainer.sharded:
            state["module"] = own_weights(self.spec, state["module"])
        with self.tolerated(f"step {self.trainer.step}", last):
            self.save_model()
            self.states.save(state, self.trainer.sharded)

    def save_model(self) -> None:
        """Write the averaged weights, those of every average that is kept."""
        weights = self.trainer.ema.module_state(self.trainer.module)
        save_model(self.file, self.build, self.spec, weights, self.run.world)
        folder = self.run.folder / ("ema" if self.kind == "denoiser" else f"{self.kind}_ema")
        save_averages(folder, self.build, self.spec, self.trainer.ema, self.trainer.module, self.run.world)

    def report(self, status: str = "running") -> None:
        """Curves, and the page of the run."""
        if not self.run.world.is_main:
            return
        path, trainer, config = self.metrics.path, self.trainer, self.run.config
        state = {
            "status": status,
            "step": trainer.step,
            "steps": trainer.options.steps,
            "parameters": sum(p.numel() for p in trainer.parameters.values()),
            "device": str(trainer.device),
            "precision": config.training.precision,
            "classes": ", ".join(f"{i} {name}" for i, name in enumerate(self.run.class_names)) or None,
        }
        with self.tolerated("a page or picture"):
            lines = self.metrics.read()
            curves(lines, path.with_name(path.name.replace("metrics.jsonl", "curves.png")))
            if self.kind == "denoiser":
                write_report(self.run.folder, config=self.run.values(), metrics=lines, state=state)

    def items_per_second(self) -> float:
        """Mean speed since the start of this command, pictures and checkpoints included."""
        return (self.trainer.step - self.first) * self.trainer.options.batch_size / (time.perf_counter() - self.start)

    def summary(self, mode: str) -> dict:
        """The values of the last line that the command prints."""
        trained = self.trainer.step > self.first and self.start > 0
        return {
            "mode": mode,
            "workdir": str(self.run.folder),
            "steps": self.trainer.step,
            "ended": self.ended,
            "skipped": self.trainer.skipped,
            "loss": self.loss if trained else None,
            "items_per_second": round(self.items_per_second(), 1) if trained else None,
            "seconds": round(time.perf_counter() - self.start, 1) if trained else 0.0,
            "file": str(self.file),
        }
