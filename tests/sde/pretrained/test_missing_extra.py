"""Folders of diffusers where the library is not installed: what is missing is said, by the name of its extra."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file

from sde.pretrained import load_pretrained
from tests.score_sde.runs import call

SENTENCE = r"pip install 'score-sde\[diffusers\]'"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A pipeline as the library writes it, in a place where importing the library fails as it does without it."""
    monkeypatch.setitem(sys.modules, "diffusers", None)
    files = {
        "model_index.json": {"_class_name": "DDPMPipeline"},
        "scheduler/scheduler_config.json": {"_class_name": "DDPMScheduler", "beta_schedule": "linear"},
        "unet/config.json": {"_class_name": "UNet2DModel", "in_channels": 3, "sample_size": 8},
    }
    for name, content in files.items():
        path = tmp_path / "theirs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    save_file({"conv_in.weight": torch.zeros(1)}, tmp_path / "theirs/unet/diffusion_pytorch_model.safetensors")
    return tmp_path / "theirs"


def test_the_extra_is_named(folder):
    with pytest.raises(ImportError, match=SENTENCE):
        load_pretrained(folder)


def test_an_import_names_it_and_writes_nothing(folder, capsys, tmp_path):
    run = tmp_path / "run"
    status, _, err = call(capsys, "--mode", "import", "--pretrained", folder, "--workdir", run)
    assert (status, err.count("\n")) == (2, 1)
    assert "pip install 'score-sde[diffusers]'" in err
    assert not run.exists() or not [*run.iterdir()]
