"""Run folders without training: models on random weights, of data of any shape."""

from pathlib import Path

import numpy as np
import torch

from score_sde.config.config import config_path, read_config, resolve
from score_sde.run.folder import Run
from score_sde.training.spec import denoiser_spec
from sde.checkpoint.models import save_model
from sde.checkpoint.spec import build_denoiser


def untrained(folder: Path, x: np.ndarray, labels: np.ndarray | None = None, *overrides: str) -> Run:
    """A run on items x (n, *event), of which a quarter is held out. The weights are of such a size that the network
    changes what it sees, and that samples stay within a few standard deviations of the data."""
    folder.mkdir()
    np.savez(folder / "data.npz", **{"x": x} | ({} if labels is None else {"labels": labels}))
    small = ["--config.data.test_fraction=0.25", f"--config.data.root={folder / 'data.npz'}"]
    if x.ndim == 2:
        small += ["--config.model.network.width=16", "--config.model.network.layers=1"]
    else:
        small += ["--config.model.network.channels=8", "--config.model.network.channel_mult=(1,2)"]
    config = resolve(read_config(config_path("points" if x.ndim == 2 else "arrays")), [*small, *overrides])
    run = Run(folder, config, torch.device("cpu"))
    training, _ = run.data()
    spec = denoiser_spec(config, training)
    model = build_denoiser(spec)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(torch.randn(weights.shape, generator=generator) * (weights[0].numel() + 1) ** -0.5)
    run.write_config()
    save_model(run.model_file, "denoiser", spec, model.state_dict())
    return run
