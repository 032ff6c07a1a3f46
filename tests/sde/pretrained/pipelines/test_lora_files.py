"""LoRA files: every way that people write updates in, what merging makes of them, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sde.networks.lora import LoRA, add_low_rank, low_rank_layers
from sde.pretrained.pipelines.lora import merge_lora, original_names
from sde.pretrained.pipelines.lora_files import NETWORK, read_lora

RANK = 2


class Attention(nn.Module):
    """Named as in a pipeline's network."""

    def __init__(self):
        super().__init__()
        self.to_q, self.to_out = nn.Linear(6, 5), nn.ModuleList([nn.Linear(5, 6)])


def network():
    torch.manual_seed(0)
    block = nn.ModuleDict({"attn1": Attention(), "conv": nn.Conv2d(4, 3, 3)})
    return nn.ModuleDict({"down_blocks": nn.ModuleList([block])})


def encoder():
    torch.manual_seed(1)
    layer = nn.ModuleDict({"self_attn": nn.ModuleDict({"q_proj": nn.Linear(4, 4)})})
    return nn.ModuleDict({"text_model": nn.ModuleDict({"encoder": nn.ModuleDict({"layers": nn.ModuleList([layer])})})})


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


QUERY, OUTPUT = "down_blocks.0.attn1.to_q", "down_blocks.0.attn1.to_out.0"
CONVOLUTION, TEXT = "down_blocks.0.conv", "text_model.encoder.layers.0.self_attn.q_proj"
FACTORS = {
    QUERY: (normal(RANK, 6, seed=1), normal(5, RANK, seed=2)),
    OUTPUT: (normal(RANK, 5, seed=3), normal(6, RANK, seed=4)),
    CONVOLUTION: (normal(RANK, 4, 3, 3, seed=5), normal(3, RANK, 1, 1, seed=6)),
    TEXT: (normal(RANK, 4, seed=7), normal(4, RANK, seed=8)),
}
"""A and B of four layers."""


def kohya(name):
    prefix = "lora_te_" if name == TEXT else "lora_unet_"
    return prefix + name.replace(".", "_")


def diffusers(name):
    return ("text_encoder." if name == TEXT else "unet.") + name


def processors(name):
    """As diffusers had them in processors of attention."""
    if name == TEXT:
        return f"text_encoder.{name}.lora_linear_layer"
    if ".attn1." not in name:
        return f"unet.{name}.lora"
    head, _, layer = name.removesuffix(".0").rpartition(".")
    return f"unet.{head}.processor.{layer}_lora"


NAMINGS = {
    "peft": lambda name: (f"{diffusers(name)}.lora_A.weight", f"{diffusers(name)}.lora_B.weight"),
    "an adapter": lambda name: (f"{diffusers(name)}.lora_A.default.weight", f"{diffusers(name)}.lora_B.default.weight"),
    "kohya": lambda name: (f"{kohya(name)}.lora_down.weight", f"{kohya(name)}.lora_up.weight"),
    "processors": lambda name: (f"{processors(name)}.down.weight", f"{processors(name)}.up.weight"),
}


def written(path, naming, **more):
    state = {}
    for name, (down, up) in FACTORS.items():
        state |= dict(zip(NAMINGS[naming](name), (down, up), strict=True))
    save_file(state | more, path)
    return path


def parts():
    return {NETWORK: network(), "text_encoder": encoder()}


def weight(modules, name):
    return modules["text_encoder" if name == TEXT else NETWORK].get_submodule(name).weight


def check(modules, scales):
    """Every layer is W + scale B A, and all else as it was."""
    before = parts()
    for part, module in modules.items():
        for name, value in module.state_dict().items():
            layer = name.removesuffix(".weight")
            expected = before[part].state_dict()[name]
            if layer in FACTORS and name.endswith("weight"):
                down, up = FACTORS[layer]
                expected = expected + scales[layer] * torch.einsum("or,r...->o...", up.flatten(1), down)
            assert torch.allclose(value, expected, atol=1e-5), name


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_is_merged(naming, tmp_path):
    modules = parts()
    assert merge_lora(modules, written(tmp_path / "lora.safetensors", naming), 0.5) == len(FACTORS)
    check(modules, dict.fromkeys(FACTORS, 0.5))
    assert all(p.requires_grad for module in modules.values() for p in module.parameters())


def test_alpha_over_the_rank_scales_a_layer(tmp_path):
    alphas = dict(zip(FACTORS, (1.0, 4.0, 0.5, 3.0), strict=True))
    own = {f"{kohya(name)}.alpha": torch.tensor(alpha) for name, alpha in alphas.items()}
    modules = parts()
    merge_lora(modules, written(tmp_path / "lora.safetensors", "kohya", **own), 2.0)
    check(modules, {name: 2.0 * alpha / RANK for name, alpha in alphas.items()})


def test_several_files_add_up(tmp_path):
    modules, path = parts(), written(tmp_path / "lora.safetensors", "peft")
    merge_lora(modules, path, 0.75)
    merge_lora(modules, path, -0.25)
    check(modules, dict.fromkeys(FACTORS, 0.5))


def test_diffusers_options_in_the_metadata_say_alpha(tmp_path):
    state = {}
    for name, factors in FACTORS.items():
        state |= dict(zip(NAMINGS["peft"](name), factors, strict=True))
    told = {
        "unet.lora_alpha": 8, "unet.alpha_pattern": {r"attn1\.to_q": 3}, "unet.r": RANK,
        "text_encoder.lora_alpha": 4, "text_encoder.use_rslora": True,
    }  # fmt: skip
    save_file(state, tmp_path / "lora.safetensors", {"lora_adapter_metadata": json.dumps(told)})
    modules = parts()
    merge_lora(modules, tmp_path / "lora.safetensors")
    check(modules, {QUERY: 3 / RANK, OUTPUT: 8 / RANK, CONVOLUTION: 8 / RANK, TEXT: 4 / RANK**0.5})


def test_a_folder_of_peft_has_its_alpha_beside_it(tmp_path):
    down, up = FACTORS[QUERY]
    state = {f"base_model.model.{QUERY}.lora_A.weight": down, f"base_model.model.{QUERY}.lora_B.weight": up}
    save_file(state, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": 5}))
    modules = {NETWORK: network()}
    assert merge_lora(modules, tmp_path) == 1
    expected = network().get_submodule(QUERY).weight + 5 / RANK * up @ down
    assert torch.allclose(weight(modules, QUERY), expected, atol=1e-6)


def test_two_convolutions_in_a_row_are_one(tmp_path):
    """A as a convolution of one entry, and one of the kernel behind it."""
    inner, middle, up = normal(RANK, 4, 1, 1, seed=1), normal(RANK, RANK, 3, 3, seed=2), normal(3, RANK, 1, 1, seed=3)
    name = kohya(CONVOLUTION)
    save_file(
        {f"{name}.lora_down.weight": inner, f"{name}.lora_mid.weight": middle, f"{name}.lora_up.weight": up},
        tmp_path / "lora.safetensors",
    )
    modules, x = {NETWORK: network()}, normal(2, 4, 6, 6, seed=4)
    plain = network().get_submodule(CONVOLUTION)
    update = nn.functional.conv2d(nn.functional.conv2d(nn.functional.conv2d(x, inner), middle), up)
    merge_lora(modules, tmp_path / "lora.safetensors")
    assert torch.allclose(modules[NETWORK].get_submodule(CONVOLUTION)(x), plain(x) + update, atol=1e-4)


def test_a_linear_layer_takes_the_update_of_a_convolution_of_one_entry(tmp_path):
    down, up = FACTORS[QUERY]
    name = kohya(QUERY)
    save_file(
        {f"{name}.lora_down.weight": down[..., None, None], f"{name}.lora_up.weight": up[..., None, None]},
        tmp_path / "lora.safetensors",
    )
    modules = {NETWORK: network()}
    merge_lora(modules, tmp_path / "lora.safetensors")
    assert torch.allclose(weight(modules, QUERY), network().get_submodule(QUERY).weight + up @ down, atol=1e-6)


def test_half_precision_is_merged_in_full(tmp_path):
    modules = {part: module.half() for part, module in parts().items()}
    merge_lora(modules, written(tmp_path / "lora.safetensors", "peft"), 0.1)
    down, up = FACTORS[QUERY]
    expected = network().half().get_submodule(QUERY).weight.float() + 0.1 * up @ down
    assert torch.equal(weight(modules, QUERY), expected.half())


def test_a_run_of_ours_is_a_file_as_well(tmp_path):
    module = network()
    add_low_rank(module, LoRA(RANK, 3.0))
    for _, layer in low_rank_layers(module):
        nn.init.normal_(layer.lora_B.weight)
    state = {f"network.model.{n}": p.detach() for n, p in module.named_parameters() if p.requires_grad}
    about = {"format": "1", "kind": "denoiser", "spec": {"lora": {"rank": RANK, "alpha": 3.0, "targets": ["all"]}}}
    save_file(state, tmp_path / "model.safetensors", {"score_sde": json.dumps(about)})
    modules = {NETWORK: network()}
    assert merge_lora(modules, tmp_path) == 3
    for name, layer in low_rank_layers(module):
        assert torch.allclose(weight(modules, name), layer.weight, atol=1e-6)


def without(name, key):
    return {k: v for k, v in {**dict(zip(NAMINGS["peft"](name), FACTORS[name], strict=True))}.items() if k != key}


A, B = NAMINGS["peft"](QUERY)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({}, "holds no low-rank updates"),
        ({"conv.weight": torch.ones(2, 2)}, "holds no low-rank updates, but conv.weight"),
        (without(QUERY, B), "has no B .* for the layer down_blocks.0.attn1.to_q"),
        (without(QUERY, A), "holds no low-rank updates"),
        ({A: torch.ones(2, 6), B: torch.ones(5, 3)}, r"A of shape \(2, 6\) and B of shape \(5, 3\)"),
        ({A: torch.ones(2, 7), B: torch.ones(5, 2)}, r"that layer's weight has \(5, 6\): it is of another model"),
        ({A: torch.ones(2, 6), B: torch.ones(4, 2)}, r"that layer's weight has \(5, 6\): it is of another model"),
        (
            {"unet.up_blocks.7.lora_A.weight": torch.ones(2, 6), "unet.up_blocks.7.lora_B.weight": torch.ones(5, 2)},
            "updates layers that the network of this model has not: up_blocks_7; it is of another model",
        ),
        (
            {"lora_te2_x.lora_down.weight": torch.ones(2, 6), "lora_te2_x.lora_up.weight": torch.ones(5, 2)},
            "has updates of text_encoder_2, which this model has not: it has network and text_encoder",
        ),
        (
            {A: torch.ones(2, 6), B: torch.ones(5, 2), "unet.x.lora_magnitude_vector": torch.ones(5)},
            "unet.x.lora_magnitude_vector beside its low-rank updates",
        ),
        ({"lora_unet_x.hada_w1_a": torch.ones(2, 6)}, "holds no low-rank updates, but lora_unet_x.hada_w1_a"),
    ],
)
def test_what_is_none_or_of_another_model_is_refused(state, words, tmp_path):
    save_file(state, tmp_path / "lora.safetensors")
    modules = parts()
    with pytest.raises(ValueError, match=words):
        merge_lora(modules, tmp_path / "lora.safetensors")
    check(modules, dict.fromkeys(FACTORS, 0.0))


def test_a_folder_without_updates_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is a folder with none of pytorch_lora_weights\.safetensors"):
        read_lora(tmp_path)
    for name in ("a", "b"):
        save_file({"x": torch.ones(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(ValueError, match=r"is a folder with 2 \.safetensors: name one of them"):
        read_lora(tmp_path)


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("down_blocks.1.attentions.0.proj_in", "input_blocks.4.1.proj_in"),
        ("down_blocks.0.resnets.1.conv1", "input_blocks.2.0.in_layers.2"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
        ("mid_block.attentions.0.proj_out", "middle_block.1.proj_out"),
        ("mid_block.resnets.1.time_emb_proj", "middle_block.2.emb_layers.1"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv"),
        ("up_blocks.2.upsamplers.0.conv", "output_blocks.8.1.conv"),
        ("up_blocks.1.resnets.2.conv_shortcut", "output_blocks.5.0.skip_connection"),
        ("up_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k",
         "output_blocks.1.1.transformer_blocks.0.attn2.to_k"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("add_embedding.linear_1", "label_emb.0.0"),
        ("conv_in", "input_blocks.0.0"),
        ("conv_out", "out.2"),
    ],
)  # fmt: skip
def test_names_of_stable_diffusion_xl_s_own_network(name, original):
    """As its published weights have them: three levels of two residual layers, attention at the two lower ones."""
    assert [*original_names(name, 2, {"down_blocks.1", "down_blocks.2", "up_blocks.0", "up_blocks.1"})] == [original]
