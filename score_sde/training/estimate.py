"""How long a training will take, measured before it begins, and what would make it shorter."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from samplers.progress import LOG_INTERVAL
from score_sde.config.options import Config
from score_sde.pages.report import duration
from sde.device import wait_for
from sde.training.batches import Part
from sde.training.trainer import Trainer

LONG = 6 * 3600.0
"""Seconds above which it is said what would make a training shorter."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of a training step: of the network's ``passes`` and what encodes for them, without optimizer and
    pictures, and of ``reading`` its items and random numbers, by all ``threads`` that do so ahead; with 0 the passes
    wait for it."""

    passes: float
    reading: float
    threads: int

    @property
    def seconds(self) -> float:
        """Of the whole step."""
        return max(self.passes, self.reading) if self.threads else self.passes + self.reading


def time_of_step(trainer: Trainer) -> StepTime:
    """Both measured alone, the second time where that need not be waited for."""
    batches, parts = trainer.batches, trainer.options.gradient_accumulation
    threads = min(batches.workers, os.cpu_count() or 1)
    number = trainer.step * parts
    read: list[Part] = []
    reading = _second_time(lambda: read.append(batches.read(number))) / max(1, threads)
    copied = batches.place(read[-1])

    def passes() -> None:
        trainer.dry_run(batches.encoded(copied))
        wait_for(trainer.device)

    return StepTime(parts * _second_time(passes), parts * reading, threads)


def _second_time(function: Callable[[], object]) -> float:
    """The first time sets up kernels, which is little of what takes long."""
    seconds = 0.0
    for _ in range(2):
        begin = time.perf_counter()
        function()
        seconds = time.perf_counter() - begin
        if seconds > LOG_INTERVAL / 6:
            break
    return seconds


def waiting(step: StepTime, trainer: Trainer, config: Config) -> str | None:
    """A sentence where the network waits for its items for longer than it computes, and something can be done; in items
    per second of this process."""
    held = trainer.batches.resident and trainer.device.type == "cpu"
    if held or step.reading <= step.passes:
        return None
    size = trainer.batches.size * trainer.options.gradient_accumulation
    who = f"{step.threads} threads read" if step.threads > 1 else "one thread reads"
    remedies = [f"more --config.data.workers (now {config.data.workers})"]
    if config.data.dataset == "images" and not config.data.cache:
        remedies.append("--config.data.cache=FOLDER, which decodes images once")
    return (
        f"the network waits for the data: {who} {size / step.reading:.3g} items/s, and it takes "
        f"{size / step.passes:.3g}; what may help: {', or '.join(remedies)}"
    )


def outlook(seconds: float, steps: int, config: Config, section: str, device: str) -> str:
    """The time of so many steps in words, and where it is long the keys that would make it shorter, with their present
    values."""
    text = f"a step takes {seconds:.2g} s: {steps} steps are about {duration(seconds * steps)}"
    if seconds * steps < LONG:
        return text
    settings, model = getattr(config, section), "model" if section == "training" else section
    network = getattr(config, model).network
    remedies = [
        f"--config.{section}.steps (now {settings.steps})",
        f"--config.{section}.batch_size (now {settings.batch_size})",
    ]
    sizes = [key for key in ("channels", "width") if key in network][:1]
    remedies += [f"--config.{model}.network.{key} (now {network[key]})" for key in sizes]
    if config.data.dataset == "images":
        remedies.append(f"--config.data.resolution (now {config.data.resolution or 'as they are'})")
    if config.data.dataset == "images" and device == "cpu":
        remedies.append("--config images, whose network is made for a CPU")
    gpu = "" if device != "cpu" else "; a GPU is many times faster"
    return f"{text}; less of these makes it shorter: {', '.join(remedies)}{gpu}"
