"""Memory of training: how much it takes, and what to do where it is too much."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from samplers.calls import evaluating
from score_sde.config.options import Config
from sde.training.trainer import Trainer


def peak_memory(device: torch.device) -> int:
    """Most bytes that tensors took on the device so far; on the CPU, that the process took."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def dry_run(trainer: Trainer) -> str:
    """Peak memory of one training step and of one network call as samplers make it, in words; changes nothing."""
    device = trainer.device

    def reset() -> None:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    # With what the optimizer will remember.
    trainer.state_template()
    reset()
    trainer.dry_run()
    training = peak_memory(device)
    reset()
    x0, _, draws = trainer.micro_batch(0)
    with torch.no_grad(), evaluating(trainer.module):
        trainer.call(x0, draws)
    if device.type != "cuda":
        return f"{peak_memory(device) / 2**30:.2f} GiB, this whole process"
    return f"{training / 2**30:.2f} GiB for a training step, {peak_memory(device) / 2**30:.2f} GiB for a sampling step"


@contextmanager
def out_of_memory(config: Config, section: str = "training") -> Iterator[None]:
    """Turns an out-of-memory error within into a ValueError with the cheapest remedies and the present values."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).splitlines()[0]
        if not (isinstance(error, torch.OutOfMemoryError) or "allocate memory" in text):
            raise
        settings, model = getattr(config, section), "model" if section == "training" else section
        network = getattr(config, model).network
        remedies = [
            f"--config.{section}.gradient_accumulation={2 * settings.gradient_accumulation} (now "
            f"{settings.gradient_accumulation})",
            f"--config.{section}.batch_size={max(1, settings.batch_size // 2)} (now {settings.batch_size})",
        ]
        if not network.get("activation_checkpointing", True):
            remedies.insert(1, f"--config.{model}.network.activation_checkpointing=True (now False)")
        elif config.training.precision == "float32":
            remedies.insert(1, "--config.training.precision=bfloat16 (now float32)")
        raise ValueError(f"out of memory ({text}): try {', or '.join(remedies)}") from None
