"""Every mode of the command line on a simulated device without float64, which says what it says on the CPU."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from score_sde.cli import main
from score_sde.cli.modes import MODES
from score_sde.modes import restore as restoring
from sde.data.transform import Transform
from tests.oracles import simulated_device as sim
from tests.score_sde.runs import SMALL, trained_once, without_rendering

pytestmark = pytest.mark.skipif(not sim.available, reason="this torch has no interface for devices written in Python")
FEW = {"num_samples": 6, "steps": 3, "sampler": "heun"}
COMMANDS = {
    "sample": FEW,
    "guidance_sweep": {"num_samples": 40, "steps": 3, "guidance_scale": "1,2"},
    "evaluate": {"num_samples": 50, "steps": 3, "metrics": "frechet"},
    "likelihood": {"num_samples": 6, "rtol": 0.1, "atol": 0.1},
    "encode": {"num_samples": 4},
    "interpolate": {"items": "0,1", "frames": 3},
    "restore": {"task": "inpaint", "mask": "random:0.5", "items": "0,1", "steps": 3},
    "edit": {"items": "0,1", "start_time": 0.5, "steps": 3, "sampler": "heun"},
    "compare": {"samplers": "heun,ddim", "nfe": "4", "num_samples": 40},
    "pairs": FEW,
    "ema": {"relative_std": 0.1},
    "check": {},
    "visualize": {"plots": "trajectory", "num_samples": 4, "steps": 3},
    "train": {"config.training.steps": 65},
    "train_classifier": {"config.classifier.steps": 35},
    "train_autoencoder": {
        "config.autoencoder.network.name": "linear",
        "config.autoencoder.network.latent_shape": "(1,)",
        "config.autoencoder.steps": 5,
        "config.autoencoder.batch_size": 32,
    },
    "distill": {"config.training.steps": 6, "config.training.sample_every": 6, "guidance_scale": "1,3"},
}
"""A small command of every mode that computes."""


def test_every_mode_that_computes_is_here():
    assert {*MODES} - {*COMMANDS} == {"import", "export"}


@pytest.fixture(scope="module", autouse=True)
def narrow():
    with sim.without_float64():
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A run for each device."""
    made = {}
    for device in ("cpu", sim.NAME):
        made[device] = tmp_path_factory.mktemp("devices") / device
        shutil.copytree(trained_once(tmp_path_factory), made[device])
        # Averages to rebuild others from.
        averages = {"config.training.power_ema_stds": "0.05,0.1", "config.training.seed": 1}
        again = [*SMALL, *(f"--{flag}={value}" for flag, value in averages.items()), "--config.training.steps=20"]
        train = ["--mode", "train", "--config", "points", "--workdir", str(made[device] / "again"), "--device", device]
        with without_rendering():
            assert main.main([*train, *again, "--config.training.checkpoint_every=5"]) == 0
    return made


@pytest.mark.filterwarnings("ignore:the samples (miss|leave)")
@pytest.mark.parametrize("mode", COMMANDS)
def test_modes(folders, capsys, mode):
    """The last line of every mode is that of the CPU, but for how long it took."""
    found = {}
    for device, folder in folders.items():
        flags = [f"--{flag}={value}" for flag, value in COMMANDS[mode].items()]
        if mode == "distill":
            flags, folder = [*flags, f"--teacher={folder}"], folder / "student"
        folder = folder / "again" if mode == "ema" else folder
        assert main.main(["--mode", mode, "--workdir", str(folder), "--device", device, *flags]) == 0
        last = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
        if mode == "distill":
            sampled = ["--mode", "sample", "--workdir", str(folder), "--num_samples=6"]
            assert main.main([*sampled, "--device", device, "--guidance_scale=2", f"--out={folder / 'drawn'}"]) == 0
            last["drawn"] = np.load(folder / "drawn.npz")["x"].tolist()
            runs = ["--mode", "compare", "--runs", f"{folder.parent},{folder}", "--out", str(folder / "compared")]
            few = ["--samplers=ddim", "--nfe=2,4", "--num_samples=40", "--guidance_scale=2"]
            assert main.main([*runs, *few, "--device", device]) == 0
            rows = json.loads((folder / "compared.json").read_text())["rows"]
            last["compared"] = [{key: row[key] for key in ("run", "nfe", "error")} for row in rows]
            capsys.readouterr()
        found[device] = {key: value for key, value in flat(last) if not key.endswith(("seconds", "second", "out"))}
    here, there = found.values()
    assert here.keys() == there.keys()
    for key, value in here.items():
        if isinstance(value, float):
            assert there[key] == pytest.approx(value, rel=1e-3, abs=1e-5), key
        elif not isinstance(value, str):
            assert there[key] == value, key


def test_measurements_that_need_float64_are_refused(tmp_path_factory, monkeypatch, capsys):
    """Of data so far from zero that float32 does not tell them apart, where the device has none."""
    far = SimpleNamespace(transform=Transform((1e9,), (2.0,)))
    monkeypatch.setattr(restoring, "open_split", lambda run, split, files: (far, far, None))
    command = ["--mode", "restore", "--workdir", str(trained_once(tmp_path_factory)), "--task", "inpaint"]
    assert main.main([*command, "--device", sim.NAME]) == 2
    assert capsys.readouterr().err == (
        "error: --device=sim: these data lie so far from zero that what is measured of them needs float64, which it "
        "does not have; take --device cpu\n"
    )


def flat(value, name=""):
    """Pairs of a path and a value of nested dicts and lists."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(inner, f"{name}.{key}")
    else:
        yield name, value
