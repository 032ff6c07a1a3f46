"""Foreign checkpoints: files that other projects wrote, with what their own code made of them, where they are there."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def fixture(name: str) -> SimpleNamespace:
    """A checkpoint: its ``folder``, ``about`` it, and ``reference``, arrays of its source's code as tensors."""
    folder = SHARED / "foreign" / name
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}: foreign checkpoints are not part of this project")
    reference = {key: torch.from_numpy(value) for key, value in np.load(folder / "reference.npz").items()}
    return SimpleNamespace(folder=folder, about=json.loads((folder / "about.json").read_text()), reference=reference)


def key_lists(prefix: str) -> list[str]:
    """The names of the published checkpoints of a source whose tensors are listed; none where the lists are absent."""
    return sorted(path.name.removesuffix(".json.gz") for path in (SHARED / "keys").glob(f"{prefix}--*.json.gz"))


def key_list(name: str) -> dict:
    """Names, shapes, dtypes and order of a published checkpoint's tensors, and its config."""
    return json.loads(gzip.decompress((SHARED / "keys" / f"{name}.json.gz").read_bytes()))


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference over the largest of what is wanted."""
    return ((found - wanted).abs().max() / wanted.abs().max()).item()
