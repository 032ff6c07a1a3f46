"""Folders of pipelines: what they are read from, and what is missing in one."""

import json
import shutil
import sys

import pytest
import torch

from sde import Denoiser
from sde.pretrained.pipelines import load_pipeline, read_components, read_pipeline
from tests.oracles import pipelines
from tests.sde.pretrained.pipelines.drawing import PROMPTS, drawn, guided, loaded, noise

diffusers = pytest.importorskip("diffusers", reason="the extra latent is not installed")
pytest.importorskip("transformers", reason="the extra latent is not installed")


@pytest.fixture(scope="module")
def pipeline():
    return pipelines.stable_diffusion()


@pytest.fixture(scope="module")
def whole(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def test_a_folder_is_what_it_was_in_memory(pipeline, whole):
    model, found = load_pipeline(whole), loaded(pipeline)
    assert isinstance(model, Denoiser)
    assert model.event_shape == (3, 16, 16)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    steps = found.steps(4)
    torch.testing.assert_close(drawn(guided(model), "ddim", noise(), steps),
                               drawn(guided(found.model), "ddim", noise(), steps))  # fmt: skip
    assert read_pipeline(whole).origin["source"] == str(whole)


def test_the_size_is_asked_for(whole):
    model = load_pipeline(whole, size=(24, 16))
    assert model.event_shape == (3, 24, 16)
    assert model.transform.inner_shape(model.event_shape) == (4, 12, 8)
    with pytest.raises(ValueError, match=r"size = .*multiples of 2"):
        load_pipeline(whole, size=15)


def test_half_precision(whole):
    model = load_pipeline(whole, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.network.model.parameters()} == {torch.bfloat16}
    x = noise()
    with torch.no_grad():
        found = model(x, torch.tensor(0.5, dtype=torch.float64), model.text(PROMPTS))
    assert found.dtype == torch.float32


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part(part, folder):
    shutil.rmtree(folder / part)
    with pytest.raises(ValueError, match=rf"{folder} lacks the part {part} \(\w+\), which its model_index.json names"):
        load_pipeline(folder)
    index = json.loads((folder / "model_index.json").read_text())
    del index[part]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=part):
        load_pipeline(folder)


def test_missing_weights(folder):
    for path in (folder / "unet").glob("*.safetensors"):
        path.unlink()
    with pytest.raises(ValueError, match=rf"{folder} was not loaded as a pipeline: .*unet"):
        load_pipeline(folder)


def test_what_is_no_pipeline(folder, tmp_path):
    with pytest.raises(
        ValueError, match=r"unet has no model_index.json: it is the part of a pipeline: name the folder"
    ):
        load_pipeline(folder / "unet")
    with pytest.raises(ValueError, match=r"has no model_index.json: a pipeline is a folder as save_pretrained"):
        load_pipeline(tmp_path)
    with pytest.raises(ValueError, match="does not exist: needs the folder of a pipeline"):
        load_pipeline(tmp_path / "none")
    with pytest.raises(ValueError, match="is no pipeline: needs a folder, a hub's name"):
        load_pipeline(3)
    (folder / "model_index.json").write_text("{")
    with pytest.raises(ValueError, match=r"model_index\.json was not read"):
        load_pipeline(folder)


def test_a_name_is_handed_to_diffusers(pipeline, monkeypatch):
    """Which resolves it, and says what it did not find."""
    asked = []

    def from_pretrained(name, **options):
        asked.append(name)
        if name != "someone/something":
            raise OSError(f"{name} is not a name that the hub knows\nand more")
        return pipeline

    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", from_pretrained)
    assert load_pipeline("someone/something").event_shape == (3, 16, 16)
    with pytest.raises(ValueError, match="someone/nothing was not loaded as a pipeline: someone/nothing is not a name"):
        load_pipeline("someone/nothing")
    assert asked == ["someone/something", "someone/nothing"]


def test_another_network(pipeline):
    other = diffusers.DDPMPipeline(unet=diffusers.UNet2DModel(sample_size=8, block_out_channels=(4, 4),
                                   down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
                                   norm_num_groups=2), scheduler=pipelines.scheduler("DDPMScheduler"))  # fmt: skip
    with pytest.raises(ValueError, match="DDPMPipeline has no vae: it is no pipeline of latents"):
        load_pipeline(other)
    assert read_components(pipeline).kind == "StableDiffusionPipeline"


def test_without_the_extra(whole, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"need transformers installed: pip install 'score-sde\[latent\]'"):
        load_pipeline(whole)
    # Who mistypes a name need not install it to be told.
    with pytest.raises(ValueError, match="does not exist: needs the folder of a pipeline"):
        load_pipeline("./none/there")
