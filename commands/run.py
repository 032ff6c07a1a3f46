"""A run folder: config.json, model.safetensors, classifier.safetensors, checkpoints/, metrics.jsonl, samples/."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from ml_collections import ConfigDict

from sde.checkpoint import Checkpoints, load_model, write_whole
from sde.data import Split, load_dataset


@dataclass
class Run:
    """A run folder and its resolved config."""

    folder: Path
    config: ConfigDict
    device: torch.device

    @property
    def model_file(self) -> Path:
        """The denoiser, EMA weights."""
        return self.folder / "model.safetensors"

    @property
    def classifier_file(self) -> Path:
        """The noise-conditional classifier, EMA weights."""
        return self.folder / "classifier.safetensors"

    def checkpoints(self, name: str) -> Checkpoints:
        """The training states of a module."""
        return Checkpoints(self.folder / "checkpoints", name)

    def write_config(self) -> None:
        """config.json, resolved."""
        write_whole(self.folder / "config.json", (json.dumps(self.config.to_dict(), indent=2) + "\n").encode())

    def data(self) -> Split:
        """The training and held-out data."""
        return load_dataset(self.config.data)

    def model(self):
        """The trained denoiser on the device, in full precision: adaptive solvers would control its rounding."""
        return load_model(self.model_file, "denoiser").to(self.device)

    def classifier(self):
        """The trained classifier on the device."""
        if not self.classifier_file.exists():
            raise ValueError(
                f"{self.classifier_file} does not exist: train it with `python main.py --mode train_classifier "
                f"--workdir {self.folder}`"
            )
        return load_model(self.classifier_file, "classifier").to(self.device)


def autocast(config: ConfigDict, device: torch.device) -> torch.dtype | None:
    """The dtype of the network's body in training; "auto" is bfloat16 on CUDA, where it was built to pay."""
    precision = config.training.precision
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" else "float32"
    return torch.bfloat16 if precision == "bfloat16" else None


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" is the accelerator where there is one."""
    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"--device={name} cannot be used ({str(error).splitlines()[0]}): needs auto, cpu, cuda or cuda:N"
        ) from None
    return device
