"""--mode train_autoencoder: what it leaves, what it says, and that it goes on where it was."""

import json
import os
import signal
from unittest.mock import patch

import numpy as np
import pytest
import torch

from score_sde.cli import main
from score_sde.config.config import config_path, read_config, resolve
from score_sde.evaluation.reconstruction import measured
from score_sde.run.folder import Run
from sde.checkpoint.models import load_model, read_description
from sde.checkpoint.states import Checkpoints
from sde.checkpoint.transforms import build_autoencoder
from sde.training.fit import fit
from tests.score_sde.runs import call, made_once

SMALL = ["--mode", "train_autoencoder", "--config.autoencoder.steps=24", "--config.autoencoder.batch_size=16",
         "--config.autoencoder.network.channels=8", "--config.autoencoder.network.latent_channels=2",
         "--config.autoencoder.lr=0.01", "--config.autoencoder.warmup_steps=2", "--config.training.checkpoint_every=8",
         "--config.training.log_every=4", "--config.training.sample_every=100",
         # A denoiser that is still to be trained in the latents changes nothing.
         "--config.model.autoencoder=own"]  # fmt: skip
FILE = "autoencoder.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_once(
        tmp_path_factory, "autoencoder", lambda path: main.main([*SMALL, "--config", "digits", "--workdir", str(path)])
    )


def opened(folder):
    return Run(folder, resolve(json.loads((folder / "config.json").read_text()), []), torch.device("cpu"))


def test_what_a_run_leaves(folder):
    names = {path.name for path in folder.iterdir()}
    assert {FILE, "autoencoder.json", "autoencoder.png", "autoencoder_metrics.jsonl", "autoencoder_curves.png",
            "config.json", "checkpoints"} <= names  # fmt: skip
    assert "model.safetensors" not in names
    lines = [json.loads(line) for line in (folder / "autoencoder_metrics.jsonl").read_text().splitlines()]
    # A quarter of the steps at least, for a curve.
    assert [line["step"] for line in lines if "psnr" in line] == [6, 12, 18, 24]
    assert {path.stem for path in (folder / "checkpoints").iterdir()} == {
        "autoencoder-00000016",
        "autoencoder-00000024",
    }


def test_report_is_that_of_the_file(folder):
    """Measured anew on the file that was left, digit for digit."""
    run, found = opened(folder), json.loads((folder / "autoencoder.json").read_text())
    model = run.autoencoder()
    assert not model.training
    assert model.latent_shape == (2, 4, 4)
    train, held_out = run.items
    assert measured(model, held_out, run.device).to_dict(16) == found["held_out"]
    assert found["held_out"]["items"] == 360
    assert found["peak"] == 16
    own = measured(model, train, run.device)
    assert own.to_dict(16) == found["training"]
    torch.testing.assert_close(model.noise_std.tolist(), own.noise_std.tolist())
    assert found["noise_std"] == own.noise_std.tolist()
    assert read_description(folder / FILE)["spec"] == {
        "network": run.config.autoencoder.network.to_dict() | {"channel_mult": [1, 2], "attention_resolutions": []},
        "event_shape": [1, 8, 8],
        "outer": {"shift": [8.5], "scale": [8.5], "levels": 17},
    }


def test_a_run_that_was_stopped_goes_on_as_if_it_was_not(folder, tmp_path, capsys, unrendered):
    """Bit for bit; and a finished one says so, and reports the same."""
    command = [*SMALL, "--config", "digits", "--workdir", tmp_path]

    def halt(step, done):
        if step == 11:
            os.kill(os.getpid(), signal.SIGTERM)

    def short(trainer, callbacks, stop):
        return fit(trainer, [*callbacks, (1, halt)], stop=stop)

    with patch("score_sde.training.session.fit", short):
        status, last, _ = call(capsys, *command)
    assert (status, last["steps"]) == (0, 12)
    status, last, _ = call(capsys, *command)
    assert (status, last["steps"], last["mode"]) == (0, 24, "train_autoencoder")
    assert (tmp_path / FILE).read_bytes() == (folder / FILE).read_bytes()
    found = json.loads((folder / "autoencoder.json").read_text())
    assert {key: last[key] for key in ("held_out", "training", "noise_std")} == {
        key: found[key] for key in ("held_out", "training", "noise_std")
    }
    (tmp_path / FILE).unlink()
    status, again, _ = call(capsys, *SMALL, "--workdir", tmp_path)
    assert status == 0
    assert again["held_out"] == last["held_out"]
    assert (tmp_path / FILE).read_bytes() == (folder / FILE).read_bytes()
    # What a training state has are the same averaged weights.
    newest = Checkpoints(tmp_path / "checkpoints", "autoencoder").paths()[0]
    means = [load_model(path, "autoencoder").encode(torch.zeros(1, 1, 8, 8))[0] for path in (newest, folder / FILE)]
    assert torch.equal(*means)
    status, _, err = call(capsys, *SMALL, "--workdir", tmp_path, "--config.autoencoder.network.channels=16")
    assert status == 2
    assert "autoencoder.network.channels: 8, now 16" in err


def test_tiny_ones_see_values_from_0_to_1(tmp_path, capsys, unrendered):
    """Trained as others are; its units are led to from those of the data, and it has no rate."""
    keys = {"steps": 2, "batch_size": 16, "augmentation": "flip", "reconstruction": "l1", "network.name": "tiny",
            "network.width": 8, "network.encoder_blocks": (1, 1), "network.decoder_blocks": (1, 1)}  # fmt: skip
    own = [f"--config.autoencoder.{key}={value}" for key, value in keys.items()]
    status, last, err = call(capsys, *SMALL[:2], "--config", "digits", "--workdir", tmp_path, *own)
    assert status == 0, err
    assert last["held_out"]["bits_per_item"] is None
    assert last["latent_shape"] == [4, 4, 4]
    assert read_description(tmp_path / FILE)["spec"]["outer"] == {"shift": [0.5], "scale": [16.0], "levels": 17}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--config.autoencoder.batch_size=2000"], "config.autoencoder.batch_size = 2000 is larger than the 1437"),
        (["--config.autoencoder.reconstruction=l3"], "config.autoencoder.reconstruction = 'l3': needs one of l1, l2"),
        (["--config.autoencoder.augmentation=edm"], "config.autoencoder.augmentation = 'edm': needs one of none, flip"),
        (["--config.autoencoder.kl_weight=-1"], "config.autoencoder.kl_weight = -1.0: needs a number from 0"),
        (["--config.autoencoder.perceptual_weight=1"], "config.autoencoder.perceptual_weight = 1: needs "
                                                       "config.autoencoder.features"),
        (["--config.autoencoder.features=x"], "config.autoencoder.features = 'x': has no use with a "
                                              "config.autoencoder.perceptual_weight of 0"),
        (["--config.autoencoder.network.name=lk"], "config.autoencoder.network.name = 'lk': needs one of kl, tiny"),
        (["--config.autoencoder.network.patch_size=0"], "config.autoencoder.network.patch_size = 0: needs whole"),
        (["--config.autoencoder.time_mean=1"], "unknown key config.autoencoder.time_mean"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path, capsys, options, sentence):
    status, _, err = call(capsys, *SMALL, "--config", "digits", "--workdir", tmp_path / "new", *options)
    assert status == 2
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "new" / FILE).exists()


def test_points_have_no_autoencoder_of_images(tmp_path, capsys):
    status, _, err = call(capsys, *SMALL, "--config", "points", "--workdir", tmp_path)
    assert status == 2
    assert "a KL autoencoder takes items of shape (channels, *space)" in err


def test_another_folders_weights_are_not_written_over(folder, tmp_path, capsys):
    (tmp_path / FILE).write_bytes((folder / FILE).read_bytes())
    status, _, err = call(capsys, *SMALL, "--config", "digits", "--workdir", tmp_path)
    assert status == 2
    assert "autoencoder.safetensors has no training state" in err


def test_signals_of_unequal_size(tmp_path, capsys, unrendered):
    """Padded items count by what is real, in the loss and in the report, and are drawn as curves."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(9, 14, 80)
    x = np.where(np.arange(13) < sizes[:, None, None], rng.normal(size=(80, 2, 13)), 0)
    np.savez(tmp_path / "x.npz", x=x, sizes=sizes)
    status, last, err = call(capsys, *SMALL, "--config", "arrays", "--workdir", tmp_path / "run",
                             f"--config.data.root={tmp_path / 'x.npz'}", "--config.autoencoder.steps=8")  # fmt: skip
    assert status == 0, err
    assert last["latent_shape"] == [2, 7]
    assert len(last["noise_std"]) == 2
    assert (tmp_path / "run" / "autoencoder.png").exists()


def test_latents_of_the_emoji_are_as_small_as_is_said():
    config = resolve(read_config(config_path("emoji_latent")), [])
    described = {**config.autoencoder.network.to_dict(), "event_shape": config.data.event_shape}
    with torch.device("meta"):
        assert build_autoencoder(described).latent_shape == (4, 8, 8)
