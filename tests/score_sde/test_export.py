"""--mode export: a run that was trained here, in the formats of other libraries."""

import json

import numpy as np
import pytest
import torch

from sde.checkpoint import load_model
from sde.pretrained import load_pretrained
from tests.score_sde.runs import call, untrained

NCSNPP = ["--config.model.network.name=ncsnpp", "--config.model.network.channels=32", "--config.data.num_levels=256",
          "--config.model.network.num_res_blocks=1"]  # fmt: skip
POSITIONAL = [*NCSNPP, "--config.model.network.embedding_type=positional", "--config.model.network.features_mult=1",
              "--config.model.noise_input=step", "--config.model.parametrization=noise"]  # fmt: skip
DDPM = [*POSITIONAL, "--config.model.network.resampling=conv", "--config.model.network.resample_blocks=False",
        "--config.model.network.progressive_input=none", "--config.model.network.skip_rescale=False",
        "--config.model.network.group_channels=1", "--config.sde.name=chain"]  # fmt: skip


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8)).astype(np.float32)


def export(capsys, run, format, *arguments):
    return call(capsys, "--mode", "export", "--workdir", run.folder, "--format", format, *arguments)


def same(ours, theirs):
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.2, 0.9])
    with torch.no_grad():
        wanted = ours(x, t)
        torch.testing.assert_close(theirs(x, t), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


def test_a_run_as_a_checkpoint_of_score_sde(images, capsys, tmp_path):
    run = untrained(tmp_path / "run", images, None, *POSITIONAL)
    status, _, err = export(capsys, run, "score_sde_pytorch", "--out", tmp_path / "out")
    assert status == 0, err
    facts = json.loads((tmp_path / "out/config.json").read_text())
    same(load_model(run.model_file), load_pretrained(tmp_path / "out/checkpoint_1.pth", facts=facts))
    about = json.loads((tmp_path / "out/about.json").read_text())
    assert about["event_shape"] == [3, 8, 8]
    status, _, err = export(capsys, run, "score_sde_pytorch", "--out", tmp_path / "out")
    assert (status, "is not an empty folder: name another one" in err) == (2, True)


def test_a_run_as_a_folder_of_diffusers(images, capsys, tmp_path):
    pytest.importorskip("diffusers")
    run = untrained(tmp_path / "run", images, None, *DDPM)
    status, result, err = export(capsys, run, "diffusers")
    assert status == 0, err
    same(load_model(run.model_file), load_pretrained(result["folder"]))


def test_a_run_as_a_program(capsys, tmp_path):
    run = untrained(tmp_path / "run", np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32))
    status, result, err = export(capsys, run, "torch_export")
    assert status == 0, err
    program = torch.export.load(f"{result['folder']}/model.pt2").module()
    x, t = torch.randn(5, 2), torch.linspace(0.1, 1, 5)
    with torch.no_grad():
        torch.testing.assert_close(program(x, t, None), load_model(run.model_file)(x, t, None))


def test_what_is_refused(images, capsys, tmp_path):
    run = untrained(tmp_path / "run", images, None, *NCSNPP)
    for format, sentence in (
        ("score_sde_pytorch", "--format=score_sde_pytorch: score_sde has no such network: "),
        ("diffusers", "--format=diffusers: diffusers has chains and flow matching, and this process is VPSDE"),
        ("onnx", "--format = 'onnx': needs one of torch_export, score_sde_pytorch, diffusers"),
    ):
        status, _, err = export(capsys, run, format, "--out", tmp_path / "out")
        assert (status, err.count("\n")) == (2, 1)
        assert sentence in err
        assert not (tmp_path / "out").exists()
