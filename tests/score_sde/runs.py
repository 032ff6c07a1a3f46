"""Run folders that tests share: models on random weights, of data of any shape, and one small run that is trained."""

import fcntl
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from score_sde.cli import main
from score_sde.config.config import config_path, read_config, resolve
from score_sde.run.folder import Run
from score_sde.training.spec import denoiser_spec
from sde.checkpoint.models import save_model
from sde.checkpoint.spec import build_denoiser

SMALL = ["--config.training.steps=60", "--config.training.batch_size=64", "--config.training.checkpoint_every=30",
         "--config.training.sample_every=30", "--config.training.log_every=10", "--config.classifier.steps=30",
         "--config.model.network.width=16", "--config.model.network.layers=1"]  # fmt: skip


def call(capsys, *arguments):
    """Exit status, the last line as JSON where it is, and the error output."""
    status = main.main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    last = out.strip().splitlines()[-1] if out.strip() else ""
    return status, json.loads(last) if last.startswith("{") else None, err


def made_once(tmp_path_factory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder that ``make(folder)`` fills for the first who asks, in whichever process; not to be written into."""
    base = tmp_path_factory.getbasetemp()
    # The workers of pytest-xdist have folders of their own in one of the session.
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    once = base / "made-once"
    folder, done = once / name, once / f"{name}.done"
    once.mkdir(exist_ok=True)
    with (once / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            with without_rendering():
                make(folder)
            done.touch()
    return folder


def trained_once(tmp_path_factory) -> Path:
    """The folder of a run of points and its classifier, with two states and a shorter average."""

    def make(folder: Path) -> None:
        train = ["--mode", "train", "--config", "points", "--workdir", str(folder), *SMALL]
        assert main.main([*train, "--config.training.extra_ema_decays=0.5", "--config.training.lr=0.02"]) == 0
        assert main.main(["--mode", "train_classifier", "--workdir", str(folder)]) == 0

    return made_once(tmp_path_factory, "points", make)


DISTILLING = [f"--config.training.{key}={value}" for key, value in {
    "steps": 12, "batch_size": 32, "checkpoint_every": 3, "sample_every": 12, "log_every": 1, "warmup_steps": 2,
    "lr": 0.01, "power_ema_stds": "()", "extra_ema_decays": "()",
}.items()]  # fmt: skip


def distilling(teacher: Path, folder: Path, method: str, *more: str) -> list[str]:
    """The command of a small student."""
    command = ["--mode", "distill", "--teacher", teacher, "--method", method, "--workdir", folder]
    return [*map(str, command), *DISTILLING, *more]


def students_once(tmp_path_factory) -> Path:
    """The folder of two students of the run of ``trained_once``: "two", of two steps at times of its own, which is told
    its guidance scale from 1 to 4; and "any", of any steps, which is not."""
    teacher = trained_once(tmp_path_factory)
    halving = ["--config.distillation.method.first_steps=4", "--config.distillation.method.steps=2"]

    def make(folder: Path) -> None:
        two = distilling(teacher, folder / "two", "progressive", *halving, "--guidance_scale", "1,4")
        assert main.main(two) == 0
        assert main.main(distilling(teacher, folder / "any", "meanflow")) == 0

    return made_once(tmp_path_factory, "students", make)


def blank_picture(figure, file, format="png", **_) -> None:
    """What ``Figure.savefig`` writes in tests that do not look at pictures: an empty one of the same kind."""
    if format == "svg":
        file.write(b'<svg xmlns="http://www.w3.org/2000/svg" width="9pt" height="9pt" viewBox="0 0 9 9"></svg>')
        return
    blank = io.BytesIO()
    Image.new("RGB", (9, 9)).save(blank, format)
    file.write(blank.getvalue())


RENDER = Figure.savefig


def with_rendering():
    """Within ``without_rendering``, for what does look."""
    return patch.object(Figure, "savefig", RENDER)


def without_rendering():
    """Within, figures are drawn by the program's own code, but not rendered by matplotlib, which takes most of the time
    of a small command: for what does not look at a picture's pixels."""
    return patch.object(Figure, "savefig", blank_picture)


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


CONFIGS = {
    "points": ["--config.data.toy=ring", "--config.model.network.width=16", "--config.model.network.layers=1"],
    "digits": ["--config.model.network.channels=8", "--config.model.network.attention_resolutions=()"],
    "arrays": ["--config.model.network.channels=8"],
}


def run_of(name, folder):
    """A run folder of a config with random weights: nothing here depends on how good they are."""
    overrides = list(CONFIGS[name])
    if name == "arrays":
        waves = np.sin(np.linspace(0, 6, 32) + np.random.default_rng(0).uniform(0, 6, (60, 2, 1)))
        np.save(folder / "waves.npy", waves)
        overrides.append(f"--config.data.root={folder / 'waves.npy'}")
    run = Run(folder, resolve(read_config(config_path(name)), overrides), torch.device("cpu"))
    data, _ = run.data()
    spec = json.loads(json.dumps(denoiser_spec(run.config, data)))
    model, generator = build_denoiser(spec), torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.data.normal_(std=0.05, generator=generator)
    save_model(run.model_file, "denoiser", spec, model.state_dict())
    run.write_config()
    return run


def disagreements(capsys, folder):
    """The keys in which --mode check finds the config and the model of a run apart."""
    status, last, err = call(capsys, "--mode", "check", "--workdir", folder, "--num_samples", 16, "--device", "cpu")
    assert status == 0, err
    return [found["key"] for found in last["disagreements"]]


def change_config(folder, section, key, value):
    """Set a key in the config.json of a run, as no command does."""
    config = json.loads((folder / "config.json").read_text())
    config[section][key] = value
    (folder / "config.json").write_text(json.dumps(config))
