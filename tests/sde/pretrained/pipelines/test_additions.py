"""What is put into a pipeline at loading, LoRA and ControlNets: the pictures of diffusers' own pipelines with them."""

import json
import shutil
import warnings

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from sde.condition.tree import control_kind
from sde.networks.lora import LoRA, add_low_rank, low_rank_layers
from sde.pretrained.pipelines import load_pipeline
from sde.pretrained.pipelines.controlnet import read_controlnets
from tests.oracles.pipelines import lively, pictures, sdxl, stable_diffusion, unet, with_scheduler
from tests.sde.pretrained.pipelines.drawing import PROMPTS, drawn_from_noise, guided, loaded, noise

SCALE, STEPS = 5.0, 4


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


SAMPLERS = {"DDIMScheduler": "ddim", "EulerDiscreteScheduler": "ddim", "DPMSolverMultistepScheduler": "dpmpp"}


def theirs(pipeline, **call):
    return pictures(pipeline, prompt=PROMPTS, latents=noise(), guidance_scale=SCALE, num_inference_steps=STEPS, **call)


def ours(pipeline, images=(), scales=(), sampler="ddim", **loading):
    """From the same latents; Euler on x / alpha as a function of sigma / alpha is DDIM."""
    found = loaded(pipeline, **loading)
    found.model.network.scales = list(scales) or found.model.network.scales
    controls = {control_kind(number): image for number, image in enumerate(images)}
    told = guided(found.model, PROMPTS, SCALE, **controls)
    return drawn_from_noise(told, sampler, noise(), found.steps(STEPS))


def controlnet(seed, network=None):
    """A ControlNet of a U-Net whose zero convolutions are not zero."""
    import diffusers

    network = network or unet()
    torch.manual_seed(seed)
    found = diffusers.ControlNetModel.from_unet(network, conditioning_embedding_out_channels=(4, 8))
    return lively(found)


def images(seed):
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def controlled(*seeds, kind="StableDiffusionControlNetPipeline", make=stable_diffusion):
    nets = [controlnet(seed, make().unet) for seed in seeds]
    return make(kind, controlnet=nets[0] if len(nets) == 1 else nets)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_controlnet_s_pictures(name):
    pipeline = with_scheduler(controlled(7), name)
    found = ours(pipeline, [images(1)], [0.8], SAMPLERS[name])
    expected = theirs(pipeline, image=images(1), controlnet_conditioning_scale=0.8)
    assert (found - expected).abs().max() < 1e-4
    plain = theirs(with_scheduler(stable_diffusion(), name))
    assert (plain - expected).abs().max() > 0.01


def test_several_controlnets_add_up_at_their_scales():
    pipeline = controlled(7, 8)
    found = ours(pipeline, [images(1), images(2)], [0.5, 1.2])
    expected = theirs(pipeline, image=[images(1), images(2)], controlnet_conditioning_scale=[0.5, 1.2])
    assert (found - expected).abs().max() < 1e-4


def test_a_controlnet_of_sdxl():
    pipeline = controlled(7, kind="StableDiffusionXLControlNetPipeline", make=sdxl)
    found = ours(pipeline, [images(1)], [0.7])
    expected = theirs(pipeline, image=images(1), controlnet_conditioning_scale=0.7)
    assert (found - expected).abs().max() < 1e-4


def test_controlnets_of_folders_stand_behind_those_of_the_pipeline(tmp_path):
    controlnet(8).save_pretrained(tmp_path / "net")
    found = ours(controlled(7), [images(1), images(2)], [0.5, 1.2], controls=[tmp_path / "net"])
    assert (found - ours(controlled(7, 8), [images(1), images(2)], [0.5, 1.2])).abs().max() < 1e-6
    with pytest.raises(ValueError, match="it was not loaded as a ControlNet"):
        read_controlnets(None, [tmp_path])


@torch.no_grad()
def test_a_row_without_a_control_and_a_scale_of_zero_are_the_network_alone():
    model, plain = load_pipeline(controlled(7)), load_pipeline(stable_diffusion())
    cond, t = plain.text(PROMPTS), torch.tensor(0.5)
    image = images(1)
    image[1] = torch.nan
    alone = plain(noise(), t, cond)
    found = model(noise(), t, cond | {"control": image})
    assert torch.equal(found[1], alone[1])
    assert not torch.allclose(found[0], alone[0], atol=1e-3)
    assert torch.equal(model(noise(), t, cond), alone)
    model.network.scales = [0.0]
    assert torch.equal(model(noise(), t, cond | {"control": images(1)}), alone)


def updates(pipeline, file, naming, seed=3, rank=2, alpha=3.0):
    """A file of updates of a pipeline's attention, convolutions and text encoder."""
    generator, state = torch.Generator().manual_seed(seed), {}
    parts = {"unet": (pipeline.unet, "lora_unet_")}
    encoders = {"text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}
    parts |= {name: (part, begin) for name, begin in encoders.items() if (part := getattr(pipeline, name, None))}
    if "text_encoder_2" in parts:
        parts["text_encoder"] = (pipeline.text_encoder, "lora_te1_")
    for part, (module, begin) in parts.items():
        for name, layer in module.named_modules():
            last = name.rpartition(".")[2]
            if not (last in ("to_q", "q_proj", "out_proj", "proj_in") or name.endswith("to_out.0")):
                continue
            # As large as the weights, which keep variances.
            down = layer.weight[0].numel() ** -0.5 * torch.randn(rank, *layer.weight.shape[1:], generator=generator)
            up = 0.5 * torch.randn(layer.weight.shape[0], rank, *[1] * (layer.weight.ndim - 2), generator=generator)
            # transformers 5 has no module between a model and its layers; files of others do.
            full = f"text_model.{name}" if part != "unet" and not name.startswith("text_model.") else name
            if naming == "kohya":
                flat = begin + full.replace(".", "_")
                state |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
                state[f"{flat}.alpha"] = torch.tensor(alpha)
            else:
                state |= {f"{part}.{full}.lora_A.weight": down, f"{part}.{full}.lora_B.weight": up}
    options = {"r": rank, "lora_alpha": alpha}
    told = {f"{part}.{key}": value for part in parts for key, value in options.items()}
    told |= {f"{part}.target_modules": ["q_proj", "out_proj"] for part in parts}
    told["unet.target_modules"] = ["to_q", "to_out.0", "proj_in"]
    metadata = {} if naming == "kohya" else {"lora_adapter_metadata": json.dumps(told)}
    save_file({name: value.contiguous() for name, value in state.items()}, file, metadata or None)
    return file


@pytest.mark.parametrize("make", [stable_diffusion, sdxl])
@pytest.mark.parametrize("naming", ["peft", "kohya"])
def test_updates_that_diffusers_loads(make, naming, tmp_path):
    pytest.importorskip("peft", reason="peft is not installed")
    file = updates(make(), tmp_path / "pytorch_lora_weights.safetensors", naming)
    with_updates = make()
    with_updates.load_lora_weights(tmp_path, adapter_name="one", weight_name=file.name)
    with_updates.set_adapters(["one"], [0.6])
    expected = theirs(with_updates)
    assert (ours(make(), loras=[(file, 0.6)]) - expected).abs().max() < 1e-4
    assert (ours(make()) - expected).abs().max() > 0.01
    twice = ours(make(), loras=[(file, 0.4), (tmp_path, 0.2)])
    assert (twice - expected).abs().max() < 1e-4


def test_updates_of_ours_are_read_by_diffusers(tmp_path):
    pytest.importorskip("peft", reason="peft is not installed")
    from sde.pretrained.lora_export import write_lora

    pipeline = stable_diffusion()
    model = load_pipeline(pipeline)
    add_low_rank(model.network, LoRA(2, 3.0, ("to_q", "conv1")))
    for number, (_, layer) in enumerate(low_rank_layers(model.network)):
        layer.lora_B.weight.data = normal(*layer.lora_B.weight.shape, seed=number)
    write_lora(model, tmp_path)
    expected = ours(stable_diffusion(), loras=[(tmp_path, 1.0)])
    other = stable_diffusion()
    other.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    assert (theirs(other) - expected).abs().max() < 1e-4
    assert (theirs(stable_diffusion()) - expected).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_an_autoencoder_that_overflows_in_float32(dtype, tmp_path):
    pipeline = stable_diffusion()
    pipeline.save_pretrained(tmp_path / "pipe")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_pipeline(tmp_path / "pipe", dtype=dtype)
    kinds = {p.dtype for p in model.network.model.parameters()}
    assert kinds == {dtype}
    assert model.transform.autoencoder.model.dtype == (torch.float32 if dtype == torch.float16 else dtype)
    cond = model.text(PROMPTS)
    exact = load_pipeline(pipeline)
    half = stable_diffusion().to(dtype=dtype)
    shared = load_pipeline(half)
    assert shared.transform.autoencoder.model.dtype == model.transform.autoencoder.model.dtype
    assert half.vae.dtype == dtype, "the pipeline itself is left as it was"
    with torch.no_grad():
        found, expected = (one(noise(), torch.tensor(0.5), cond) for one in (model, exact))
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    shutil.rmtree(tmp_path / "pipe" / "unet")
    with pytest.raises(ValueError, match=r"lacks the part unet \(UNet2DConditionModel\)"):
        load_pipeline(tmp_path / "pipe")
