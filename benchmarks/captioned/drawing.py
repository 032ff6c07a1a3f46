"""Drawing: pictures of captions by --mode sample of a run, kept on disk."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from score_sde.cli.main import main
from sde.files import file_digest, write_text


def drawn(workdir: Path, captions: Sequence[str], seed: int, flags: Sequence[str], folder: Path) -> np.ndarray:
    """One sample in data units (n, *event) for each caption, those of the seeds ``seed``, ``seed + 1`` ..., as
    ``--mode sample`` draws them with further ``flags``. Raises RuntimeError where it fails."""
    prompts = "".join(f"{caption}\n" for caption in captions)
    about = [file_digest(workdir / "model.safetensors"), str(seed), *flags, prompts]
    name = hashlib.sha256("\0".join(about).encode()).hexdigest()[:16]
    path = folder / f"{name}.npz"
    if not path.exists():
        write_text(folder / f"{name}.txt", prompts)
        asked = ["--prompt", folder / f"{name}.txt", "--num_samples", len(captions), "--seed", seed]
        call = ["--mode", "sample", "--workdir", workdir, *asked, "--out", folder / name, *flags]
        if main([str(part) for part in call]):
            raise RuntimeError(f"--mode sample failed in {workdir}")
    with np.load(path) as arrays:
        return arrays["x"]
