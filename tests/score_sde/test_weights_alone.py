"""--mode train in folders of weights that no training state stands behind, and --init, which goes on from them."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from sde.checkpoint import load_model
from sde.checkpoint.states import Checkpoints
from tests.score_sde.runs import call, untrained

X = np.random.default_rng(0).standard_normal((80, 2)).astype(np.float32)


@pytest.fixture
def given(tmp_path):
    """A run folder of weights alone, as --mode import leaves one."""
    untrained(tmp_path / "given", X, np.arange(80) % 2)
    return tmp_path / "given"


def spec_of(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["score_sde"])["spec"]


def test_weights_without_a_training_state_are_not_written_over(given, capsys):
    before = (given / "model.safetensors").read_bytes()
    status, _, err = call(capsys, "--mode", "train", "--workdir", given)
    assert status == 2
    assert f"{given}/model.safetensors has no training state" in err
    assert f"--mode train --init {given} --workdir OTHER" in err
    assert (given / "model.safetensors").read_bytes() == before
    assert not (given / "checkpoints").exists()
    (given / "classifier.safetensors").write_bytes(b"one that was imported")
    status, _, err = call(capsys, "--mode", "train_classifier", "--workdir", given)
    assert status == 2
    assert "classifier.safetensors has no training state" in err
    assert (given / "classifier.safetensors").read_bytes() == b"one that was imported"


def test_training_begins_with_other_weights_once(given, tmp_path, capsys):
    """With a rate of learning of nearly nothing they stay; the second command goes on from the state of the first. A
    classifier's training states are none of the model's."""
    new = tmp_path / "new"
    train = ("--mode", "train", "--init", given, "--workdir", new, "--config.training.batch_size=32",
             "--config.training.lr=1e-12")  # fmt: skip
    status, _, err = call(capsys, *train, "--config.training.steps=2")
    assert status == 0, err
    theirs, ours = (load_model(folder / "model.safetensors") for folder in (given, new))
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert spec_of(new / "model.safetensors")["origin"] == {"init": str(given)}
    status, _, err = call(capsys, *train, "--config.training.steps=3")
    assert status == 0, err
    assert Checkpoints(new / "checkpoints", "denoiser").paths()[0].name == "denoiser-00000003.pt"
    assert spec_of(new / "model.safetensors")["origin"] == {"init": str(given)}
    (given / "checkpoints").mkdir()
    (given / "checkpoints" / "classifier-00000001.pt").write_bytes(b"")
    assert "has no training state" in call(capsys, "--mode", "train", "--workdir", given)[2]
