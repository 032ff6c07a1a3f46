"""Runs of version 0.1: sampled from and continued as then; old names are read in silence and refused from people.

tests/fixtures/run_0_1 holds a run folder of that version, with a classifier, two plans, two further averages and
training states of step 200, and what that version drew from it and made of it in five more steps, to step 205.
"""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from samplers import SAMPLERS, SeededNoise
from score_sde.cli import main
from score_sde.config.migration import (
    KEYS,
    RENAMED_OPTIONS,
    RENAMED_SAMPLERS,
    current_config,
    current_line,
    current_plan,
    current_sampler,
    new_key,
    new_value,
)
from score_sde.config.schema import DEFAULTS, NAMED, options_of
from score_sde.training.log import Metrics
from sde.checkpoint.migration import NETWORK_OPTIONS, current_spec
from sde.networks import NETWORKS
from tests.oracles.noises import of_then

FIXTURE = Path(__file__).parent.parent / "fixtures" / "run_0_1"
EXPECTED = dict(np.load(FIXTURE / "expected.npz"))
COMMON = ["--threads", 1, "--device", "cpu"]


def same(found, name):
    """To the rounding of float32: kernels that were fused since round once less, and processors differ."""
    expected = EXPECTED[name]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max(), err_msg=name)


def call(capsys, *arguments):
    status = main.main([str(a) for a in arguments])
    return status, *capsys.readouterr()


def unpack(folder):
    with zipfile.ZipFile(FIXTURE / "run.zip") as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    return unpack(tmp_path_factory.mktemp("old") / "run")


@pytest.mark.parametrize(("name", "flags"), [
    ("heun", ["--sampler", "heun", "--steps", 5]),
    ("eab", ["--sampler", "deis", "--steps", 8]),
    ("auto", ["--sampler", "auto", "--steps", 5]),
    ("auto_classifier", ["--sampler", "auto", "--steps", 5, "--classifier_scale", 2]),
    ("heun_classifier", ["--sampler", "heun", "--steps", 5, "--classifier_scale", 2]),
    ("heun_weak", ["--sampler", "heun", "--steps", 5, "--guidance_scale", 2, "--autoguidance", "ema/0.5.safetensors"]),
    ("heun_state", ["--sampler", "heun", "--steps", 5, "--weights", "checkpoints/denoiser-00000200.pt"]),
])  # fmt: skip
def test_samples_are_those_of_then(old, tmp_path, capsys, monkeypatch, name, flags):
    """From the numbers of then, which were others for a seed."""
    monkeypatch.setattr(SeededNoise, "__call__", of_then)
    plans = sorted(old.glob("plans/*"))
    status, out, err = call(capsys, "--mode", "sample", "--workdir", old, *COMMON, "--num_samples", 12, "--seed", 5,
                            *flags, "--out", tmp_path / "x")  # fmt: skip
    assert status == 0, err
    assert "warning" not in err
    assert "planned" not in out, "the plans of then are found"
    assert sorted(old.glob("plans/*")) == plans
    with np.load(tmp_path / "x.npz") as arrays:
        same(arrays["x"], name)


def flat(arrays):
    return np.concatenate([np.asarray(arrays[name], np.float32).ravel() for name in sorted(arrays)])


def test_training_goes_on_as_then(tmp_path, capsys):
    run = unpack(tmp_path / "run")
    train = ["--workdir", run, *COMMON, "--config.training.steps=205"]
    status, out, err = call(capsys, "--mode", "train", *train)
    assert (status, "continuing" in out, "warning" in err) == (0, True, False), err
    status, _, err = call(capsys, "--mode", "train_classifier", *train, "--config.classifier.steps=205")
    assert status == 0, err
    files = ("model", "classifier", "ema/0.5", "ema/power-0.1-00000205")
    for name in files:
        same(flat(load_file(run / f"{name}.safetensors")), f"{name.replace('/', '-')}.safetensors")
    for kind in ("denoiser", "classifier"):
        state = torch.load(run / "checkpoints" / f"{kind}-00000205.pt", weights_only=True)
        same(flat({name: value.numpy() for name, value in state["module"].items()}), f"state-{kind}")
    config = json.loads((run / "config.json").read_text())
    assert config["training"]["extra_ema_decays"] == [0.5]
    assert config["model"]["network"]["channel_mult"] == [1]
    lines = [line for line in Metrics(run / "metrics.jsonl").read() if "by_noise" in line]
    assert len(lines) >= 2, "those of then and those of now"
    assert all("noise_level" in level for line in lines for level in line["by_noise"])


OLD_KEYS = [(f"config.{section}.{old}", f"config.{section}.{new}") for section, keys in KEYS.items()
            for old, new in keys.items()]  # fmt: skip
OLD_KEYS += [(f"config.model.network.{old}", f"config.model.network.{new}")
             for old, new in NETWORK_OPTIONS["unet"].items()]  # fmt: skip


@pytest.mark.parametrize(("key", "now"), OLD_KEYS)
def test_an_old_key_on_the_command_line(old, capsys, key, now):
    status, _, err = call(capsys, "--mode", "train", "--workdir", old, f"--{key}=1")
    assert (status, err) == (2, f"error: {key} has a new name: take {now}\n")


def test_an_old_key_in_a_config_of_ones_own(tmp_path, capsys):
    file = tmp_path / "own.py"
    text = '{"training": {"ema": 0.9}}'
    file.write_text(f"from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict({text})\n")
    status, _, err = call(capsys, "--mode", "train", "--config", file, "--workdir", tmp_path / "run")
    assert status == 2
    assert err == "error: config.training.ema has a new name: take config.training.ema_decay\n"


def test_an_old_value_on_the_command_line(tmp_path, capsys):
    status, _, err = call(capsys, "--mode", "train", "--config", "points", "--workdir", tmp_path / "run",
                          "--config.data.channels=channels_last")  # fmt: skip
    assert (status, err) == (2, "error: config.data.channels = 'channels_last' has a new name: take last\n")


@pytest.mark.parametrize("name", [old for old, (new, _) in RENAMED_SAMPLERS.items() if new in SAMPLERS])
def test_an_old_sampler_on_the_command_line(old, capsys, name):
    status, _, err = call(capsys, "--mode", "sample", "--workdir", old, "--sampler", name)
    assert (status, f"has a new name: take {RENAMED_SAMPLERS[name][0]}" in err) == (2, True), err


def test_new_names_are_there():
    """Each new name is a key of today, and no old one is."""
    for section, keys in KEYS.items():
        assert {*keys.values()} <= DEFAULTS[section].keys()
        assert not keys.keys() & DEFAULTS[section].keys()
    for name, options in NETWORK_OPTIONS.items():
        known = options_of(NETWORKS[name])
        assert {*options.values()} <= known.keys()
        assert not options.keys() & known.keys()
    for name, _ in RENAMED_OPTIONS:
        assert name in NAMED["sampler"] or any(name == new for new, _ in RENAMED_SAMPLERS.values())


def deis(solver_order=3, prediction="noise"): ...


def sa_solver(solver_order=2, prediction="denoised", eta=1.0): ...


TABLE = {"deis": deis, "sa_solver": sa_solver}


@pytest.mark.parametrize(("then", "now"), [
    ({"name": "eab", "order": 2}, {"name": "deis", "solver_order": 2}),
    ({"name": "dpmpp_sde", "points": 3, "eta": 0.5}, {"name": "sa_solver", "solver_order": 3, "eta": 0.5}),
    ({"name": "seeds", "points": 2, "eta": 1.0},
     {"name": "sa_solver", "solver_order": 2, "prediction": "noise", "eta": 1.0}),
    ({"name": "seeds"}, {"name": "sa_solver", "solver_order": 1, "prediction": "noise"}),
    ({"name": "deis", "solver_order": 4}, {"name": "deis", "solver_order": 4}),
    ({"name": "own", "order": 4}, {"name": "own", "order": 4}),
])  # fmt: skip
def test_samplers(then, now):
    assert current_sampler(then, TABLE) == now
    assert current_sampler(now, TABLE) == now


def test_what_is_of_today_stays():
    config = {
        "data": {"dataset": "points", "channels": "last"},
        "training": {"ema_decay": 0.9},
        "sampler": {"name": "heun"},
    }
    assert current_config(config) == config
    spec = {"network": {"name": "dit", "patch_size": 2}, "transform": {"shift": [0.0], "scale": [1.0]}}
    assert current_spec(spec) == spec
    plan = {"sampler": "linear_multistep", "options": {"times": [1.0], "weights": [[0.1]]}, "times": [1.0, 0.0]}
    assert current_plan(plan) == plan
    line = {"step": 1, "by_noise": [{"noise_level": 0.1}]}
    assert current_line(line) == line
    assert current_line({"step": 1, "by_noise": [{"sigma": 0.1}]}) == line
    assert current_line({"step": 1, "images_per_second": 7.0}) == {"step": 1, "items_per_second": 7.0}
    assert new_key("config.training.lr") is None
    assert new_value("heun") is None


def test_a_key_under_both_names_is_refused(old, tmp_path, capsys):
    run = shutil.copytree(old, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["training"] |= {"ema": 0.9, "ema_decay": 0.99}
    (run / "config.json").write_text(json.dumps(config))
    status, _, err = call(capsys, "--mode", "sample", "--workdir", run)
    assert (status, err) == (2, "error: config.training.ema has a new name: take config.training.ema_decay\n")
