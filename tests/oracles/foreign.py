"""Foreign checkpoints: files that other projects wrote, with what their own code made of them, where they are there."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"

FIXTURES = {
    "score_sde-ve-ncsnpp-continuous": "checkpoint_1.pth",
    "score_sde-vp-ddpm-discrete": "checkpoint_1.pth",
    "edm-baseline-vp": "network-snapshot-000001.pkl",
    "edm-ncsnpp-uncond": "network-snapshot-000001.pkl",
    "edm-ddpmpp-cond": "network-snapshot-000001.pkl",
    "guided-diffusion": "ema_0.9999_000001.pt",
    "k-diffusion-image_v1": "model_00000010.pth",
    "k-diffusion-image_transformer_v2": "model.safetensors",
    "denoising-diffusion-pytorch": "model-1.pt",
    "diffusers-ddpm-epsilon": ".",
}
"""The file of each fixture of a denoiser."""


def fixture(name: str) -> SimpleNamespace:
    """A checkpoint: its ``folder``, ``about`` it, and ``reference``, arrays of its source's code as tensors."""
    folder = SHARED / "foreign" / name
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}: foreign checkpoints are not part of this project")
    reference = {key: torch.from_numpy(value) for key, value in np.load(folder / "reference.npz").items()}
    return SimpleNamespace(folder=folder, about=json.loads((folder / "about.json").read_text()), reference=reference)


def told(found: SimpleNamespace) -> dict:
    """The facts of a fixture, as its about.json has them; and the size of images where it leaves that out."""
    names = ("model", "data", "sde", "continuous", "schedule", "objective")
    facts = found.about.get("kwargs", {}) | {name: found.about[name] for name in names if name in found.about}
    return facts | ({"image_size": 16} if "objective" in facts else {})


def key_lists(prefix: str) -> list[str]:
    """The names of the published checkpoints of a source whose tensors are listed; none where the lists are absent."""
    return sorted(path.name.removesuffix(".json.gz") for path in (SHARED / "keys").glob(f"{prefix}--*.json.gz"))


def key_list(name: str) -> dict:
    """Names, shapes, dtypes and order of a published checkpoint's tensors, and its config."""
    return json.loads(gzip.decompress((SHARED / "keys" / f"{name}.json.gz").read_bytes()))


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference over the largest of what is wanted."""
    return ((found - wanted).abs().max() / wanted.abs().max()).item()
