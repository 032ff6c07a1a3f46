"""Low-rank updates of a command: the files of --lora with their scales, merged with a loaded model."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from score_sde.config.naming import with_words
from sde.model.denoiser import Preconditioned
from sde.networks.diffusers_network import DiffusersNetwork
from sde.pretrained.pipelines.lora import merge_lora
from sde.pretrained.pipelines.lora_files import NETWORK


@dataclass(frozen=True)
class Updates:
    """The ``files`` of ``--lora``, each with its scale."""

    files: tuple[tuple[str, float], ...] = ()

    @classmethod
    def read(cls, text: str | None) -> "Updates":
        """``--lora``: FILE or FILE:SCALE, several with commas between them. Raises ValueError for a file that is not
        there, and a scale that is no number."""
        return cls(tuple(_file(part.strip()) for part in (text or "").split(",") if part.strip()))

    def merge(self, model: Preconditioned) -> None:
        """Merge them with the network of a model, in place."""
        for file, scale in self.files:
            with with_words(f"--lora={file}"):
                merge_lora(parts_of(model), file, scale)


def _file(text: str) -> tuple[str, float]:
    name, colon, number = text.rpartition(":")
    if not colon or Path(text).exists():
        name, number = text, "1"
    try:
        scale = float(number)
    except ValueError:
        name, scale = text, 1.0
    if not math.isfinite(scale):
        raise ValueError(f"--lora={text}: its scale is {number}; needs a number, as in {name}:0.8")
    if not Path(name).exists():
        raise ValueError(f"--lora={text}: {name} does not exist; needs a file of updates, as in lora.safetensors:0.8")
    return name, scale


def parts_of(model: Preconditioned) -> dict[str, nn.Module]:
    """What updates may be of: the network, one of diffusers as that names its layers."""
    network: Any = model.network
    return {NETWORK: network.model if isinstance(network, DiffusersNetwork) else network}
