"""--mode train --init: training that begins with the weights of another run."""

import json
import shutil

import numpy as np
import pytest
import torch

from sde.checkpoint import load_model, save_model
from sde.checkpoint.snapshots import stored_spec
from tests.score_sde.runs import call, run_of, untrained

SHORT = ["--config.training.steps=4", "--config.training.batch_size=8", "--config.training.checkpoint_every=2",
         "--config.training.sample_every=10", "--config.training.lr=1e-30",
         "--config.training.ema_decay=0.0", "--config.training.lr_decay=none"]  # fmt: skip


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(60, 2, 8, 8)).astype(np.float32)


def train(capsys, folder, *arguments):
    status, result, err = call(capsys, "--mode", "train", "--workdir", folder, *arguments)
    assert status == 0, err
    return result


def data(folder, x, labels=None, name="other.npz"):
    np.savez(folder / name, **{"x": x} | ({} if labels is None else {"labels": labels}))
    return f"--config.data.root={folder / name}"


def states(*folders):
    return [load_model(folder / "model.safetensors").state_dict() for folder in folders]


def same(a, b):
    """Whether weights are equal but for the smallest steps of training."""
    return a.shape == b.shape and bool(((a - b).abs() < 1e-20).all())


def test_it_begins_with_the_weights_of_the_run(images, capsys, tmp_path):
    """Without a step that changes them they stay, on other data, too; the model of the other run is not touched."""
    first = untrained(tmp_path / "first", images)
    before = (first.folder / "model.safetensors").read_bytes()
    status = call(capsys, "--mode", "train", "--init", first.folder, "--workdir", tmp_path / "second", *SHORT,
                  data(tmp_path, 3 * images + 1))  # fmt: skip
    assert status[0] == 0, status[2]
    ours, theirs = states(tmp_path / "second", first.folder)
    assert ours.keys() == theirs.keys()
    assert all(same(ours[name], theirs[name]) for name in ours)
    assert (first.folder / "model.safetensors").read_bytes() == before
    model = load_model(tmp_path / "second" / "model.safetensors")
    # The data are standardized by their own moments.
    assert model.transform.shift[0] == pytest.approx(1, abs=0.3)
    config, other = (json.loads((f / "config.json").read_text()) for f in (tmp_path / "second", first.folder))
    assert config["model"] == other["model"]
    assert config["sde"] == other["sde"]
    assert config["training"]["steps"] == 4


def test_it_goes_on_with_init_and_without(images, capsys, tmp_path):
    """As a run that was not interrupted: its own states are what it goes on from, not the other run's weights."""
    first = untrained(tmp_path / "first", images)
    root, learning = data(tmp_path, images), [*SHORT, "--config.training.lr=0.01"]
    init = ["--init", first.folder]
    train(capsys, tmp_path / "whole", *init, *learning, root)
    train(capsys, tmp_path / "half", *init, *learning, root, "--config.training.steps=2")
    shutil.copytree(tmp_path / "half", tmp_path / "other half")
    train(capsys, tmp_path / "half", *init, *learning, root)
    train(capsys, tmp_path / "other half", "--config.training.steps=4")
    whole, half, other, begun = states(tmp_path / "whole", tmp_path / "half", tmp_path / "other half", first.folder)
    assert any(not torch.equal(whole[name], begun[name]) for name in whole)
    for name in whole:
        torch.testing.assert_close(half[name], whole[name])
        torch.testing.assert_close(other[name], whole[name])


def test_other_classes_are_named_and_started_anew(images, capsys, tmp_path):
    labels = np.arange(60) % 3
    first = untrained(tmp_path / "first", images, labels)
    root = data(tmp_path, images, np.arange(60) % 5)
    status = call(capsys, "--mode", "train", "--init", first.folder, "--workdir", tmp_path / "second", *SHORT, root)
    assert status[0] == 0
    ours, theirs = states(tmp_path / "second", first.folder)
    unlike = [name for name in ours if ours[name].shape != theirs[name].shape]
    assert len(unlike) == 1, "the table of classes"
    assert all(same(ours[name], theirs[name]) for name in ours if name not in unlike)
    assert load_model(tmp_path / "second" / "model.safetensors").num_classes == 5
    from score_sde.cli import main

    shutil.rmtree(tmp_path / "second")
    assert main.main(["--mode", "train", "--init", str(first.folder), "--workdir", str(tmp_path / "second"), *SHORT,
                      root]) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert f"training begins with the weights of {first.folder}" in out
    assert f"started anew, as classes or conditions are others: {unlike[0]} is " in out


def test_a_model_without_classes_gets_some(images, capsys, tmp_path):
    first = untrained(tmp_path / "first", images)
    train(capsys, tmp_path / "second", "--init", first.folder, *SHORT, data(tmp_path, images, np.arange(60) % 5))
    ours, theirs = states(tmp_path / "second", first.folder)
    assert ours.keys() > theirs.keys()
    assert all(same(ours[name], theirs[name]) for name in theirs)


def test_weights_of_another_average(images, capsys, tmp_path):
    """What the folder's model.safetensors holds is taken, and training states are not needed."""
    first = untrained(tmp_path / "first", images)
    assert not (first.folder / "checkpoints").exists()
    train(capsys, tmp_path / "second", "--init", first.folder, *SHORT, data(tmp_path, images))


def test_the_source_of_weights_that_are_tuned(images, capsys, tmp_path):
    """What a run has of imported weights beside its config, a run that begins with it has as well."""
    first = untrained(tmp_path / "first", images)
    file = first.folder / "model.safetensors"
    state, spec = load_model(file).state_dict(), stored_spec(file)
    own = {"origin": {"project": "theirs"}, "levels": [1.0, 0.7, 0.2, 0.001], "sigma_data": 0.8, "scaled_input": False,
           "noise_input": {"of": "time", "scale": 3.0, "shift": 0.0, "rounding": None, "process": None}}  # fmt: skip
    save_model(file, "denoiser", spec | own, state)
    train(capsys, tmp_path / "second", "--init", first.folder, *SHORT, data(tmp_path, images))
    found = stored_spec(tmp_path / "second" / "model.safetensors")
    assert found["origin"] == own["origin"] | {"init": str(first.folder)}
    assert {name: found[name] for name in own if name != "origin"} == {
        name: value for name, value in own.items() if name != "origin"
    }
    status, result, err = call(capsys, "--mode", "sample", "--workdir", tmp_path / "second", "--sampler", "ddim",
                               "--num_samples", "1", "--grid", "source")  # fmt: skip
    assert (status, result["nfe"]) == (0, 4), err


def test_what_is_refused(images, capsys, tmp_path):
    first = untrained(tmp_path / "first", images)

    def sentence(*arguments):
        status, _, err = call(capsys, "--mode", "train", "--workdir", tmp_path / "second", *SHORT, *arguments)
        assert (status, err.count("\n")) == (2, 1), err
        assert not (tmp_path / "second" / "config.json").exists()
        return err

    assert "is no run folder" in sentence("--init", tmp_path / "nowhere")
    other = sentence("--init", first.folder, "--config.model.network.channels=16", data(tmp_path, images))
    assert "--init = " in other
    assert "its weights do not fit this model: " in other
    assert other.count(" there, ") == 3
    assert " more" in other
    signals = sentence("--init", first.folder, data(tmp_path, images[:, :, :, 0], name="signals.npz"))
    assert "is (8, 8, 3, 3) there, (8, 8, 3) here" in signals
    (first.folder / "model.safetensors").unlink()
    assert "model.safetensors does not exist" in sentence("--init", first.folder, data(tmp_path, images))


def test_a_config_keeps_the_model_of_the_run(capsys, tmp_path):
    """Of a config that is named, the data and the training; model and process are those of the weights."""
    (tmp_path / "first").mkdir()
    run_of("digits", tmp_path / "first")
    train(capsys, tmp_path / "second", "--config", "digits", "--init", tmp_path / "first", *SHORT)
    ours, theirs = states(tmp_path / "second", tmp_path / "first")
    assert all(same(ours[name], theirs[name]) for name in ours)
