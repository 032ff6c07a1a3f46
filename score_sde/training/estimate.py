"""How long a training will take, measured before it begins, and what would make it shorter."""

import time

import torch

from samplers.progress import LOG_INTERVAL
from score_sde.config.options import Config
from score_sde.pages.report import duration
from sde.training.trainer import Trainer

LONG = 6 * 3600.0
"""Seconds above which it is said what would make a training shorter."""


def seconds_per_step(trainer: Trainer) -> float:
    """Seconds that the passes of a step take, the second time where that need not be waited for. The optimizer and
    pictures are not in it."""
    seconds = 0.0
    for _ in range(2):
        begin = time.perf_counter()
        trainer.dry_run()
        if trainer.device.type == "cuda":
            torch.cuda.synchronize(trainer.device)
        seconds = time.perf_counter() - begin
        if seconds > LOG_INTERVAL / 6:
            # The first time sets up kernels, which is little of this.
            break
    return seconds * trainer.options.gradient_accumulation


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
