"""Single files: a pipeline's weights by the names that they were published under, and a folder of its configs."""

import re

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("diffusers", reason="the extra latent is not installed")
pytest.importorskip("transformers", reason="the extra latent is not installed")

from sde.pretrained.pipelines import load_pipeline
from sde.pretrained.pipelines.lora import original_names
from tests.oracles.pipelines import stable_diffusion
from tests.sde.pretrained.pipelines.drawing import PROMPTS, noise

NORMS = {"norm1": "in_layers.0", "norm2": "out_layers.0"}
LEVELS = 2
"""Of the small networks, each with one residual block."""


def unet_name(name):
    """Of a U-Net's layer, whose norms are no layers that updates are of."""
    head, _, last = name.rpartition(".")
    if name == "conv_norm_out":
        return "out.0"
    attended = {"down_blocks.1", "up_blocks.0"}
    if ".resnets." in name and last in NORMS:
        (conv,) = original_names(f"{head}.conv1", 1, attended)
        return conv.replace("in_layers.2", NORMS[last])
    (found,) = original_names(name, 1, attended)
    return found


def autoencoder_name(name):
    """As the autoencoder of latent diffusion has it (Rombach et al. 2022, code)."""
    for pattern, new in (
        (r"down_blocks\.(\d)\.resnets\.", r"down.\1.block."),
        (r"down_blocks\.(\d)\.downsamplers\.0\.", r"down.\1.downsample."),
        (r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{LEVELS - 1 - int(m[1])}.block."),
        (r"up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"up.{LEVELS - 1 - int(m[1])}.upsample."),
        (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
        (r"mid_block\.attentions\.0", "mid.attn_1"),
        (r"attn_1\.group_norm", "attn_1.norm"),
        (r"attn_1\.to_([qkv])", r"attn_1.\1"),
        (r"attn_1\.to_out\.0", "attn_1.proj_out"),
        (r"conv_norm_out", "norm_out"),
        (r"conv_shortcut", "nin_shortcut"),
    ):
        name = re.sub(pattern, new, name)
    return name


def single_file(pipeline, path):
    state = {}
    for name, value in pipeline.unet.state_dict().items():
        layer, _, kind = name.rpartition(".")
        state[f"model.diffusion_model.{unet_name(layer)}.{kind}"] = value
    for name, value in pipeline.vae.state_dict().items():
        layer, _, kind = name.rpartition(".")
        # Its attention was of convolutions of one pixel.
        square = ".attentions." in name and value.ndim == 2
        state[f"first_stage_model.{autoencoder_name(layer)}.{kind}"] = value[..., None, None] if square else value
    for name, value in pipeline.text_encoder.state_dict().items():
        state[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = value
    save_file({name: value.contiguous().clone() for name, value in state.items()}, path)
    return path


@torch.no_grad()
def test_a_single_file_is_the_pipeline_of_its_folder(tmp_path):
    pipeline = stable_diffusion()
    pipeline.save_pretrained(tmp_path / "folder")
    # Configs and tokenizers alone.
    for file in [*(tmp_path / "folder").rglob("*.safetensors")]:
        file.unlink()
    found = load_pipeline(single_file(pipeline, tmp_path / "one.safetensors"), config=tmp_path / "folder")
    whole, t = load_pipeline(pipeline), torch.tensor(0.5)
    assert found.event_shape == whole.event_shape
    assert torch.allclose(found(noise(), t, found.text(PROMPTS)), whole(noise(), t, whole.text(PROMPTS)), atol=1e-5)
    x = torch.randint(256, (2, *whole.event_shape), generator=torch.Generator().manual_seed(0)).float()
    assert torch.allclose(found.transform.encode(x), whole.transform.encode(x), atol=1e-5)
    assert torch.allclose(found.transform.decode(noise()), whole.transform.decode(noise()), atol=1e-3)


def test_what_is_no_single_file_is_refused(tmp_path):
    save_file({"weight": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is no single file of a pipeline: it holds weight"):
        load_pipeline(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"config = .*: has no model_index\.json"):
        load_pipeline(tmp_path / "other.safetensors", config=tmp_path)
    stable_diffusion().save_pretrained(tmp_path / "folder")
    with pytest.raises(ValueError, match="config = here: is for a single file of weights"):
        load_pipeline(tmp_path / "folder", config="here")
    with pytest.raises(ValueError, match="was not loaded as a single file by the configs in"):
        load_pipeline(tmp_path / "other.safetensors", config=tmp_path / "folder")
