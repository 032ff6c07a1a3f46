"""Stable Diffusion 1 and 2: their pipelines' pictures from the same latents, by our samplers on their timesteps."""

from dataclasses import dataclass

import pytest
import torch

from samplers import SAMPLERS, generate, sample
from sde import SDE, ChainSDE, Denoiser, NoiseInput
from sde.pretrained.pipelines import scheduler_steps
from tests.oracles import pipelines
from tests.sde.pretrained.pipelines.drawing import (
    PROMPTS,
    SCHEDULERS,
    as_pictures,
    assert_alike,
    drawn,
    drawn_from_noise,
    guided,
    loaded,
    noise,
)

pytest.importorskip("diffusers", reason="the extra latent is not installed")
pytest.importorskip("transformers", reason="the extra latent is not installed")

CALLS = 5
CALL = {"prompt": PROMPTS, "num_inference_steps": CALLS, "guidance_scale": 5.0}


@pytest.fixture(scope="module")
def first():
    return pipelines.stable_diffusion()


@pytest.fixture(scope="module")
def second():
    """Stable Diffusion 2's: it predicts v, its attention_head_dim are numbers of heads, attention is computed in
    float32, and its chain ends without signal."""
    network = {"attention_head_dim": (2, 4), "use_linear_projection": True, "upcast_attention": True}
    chain = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
             "steps_offset": 1}  # fmt: skip
    return pipelines.stable_diffusion(
        unet=pipelines.unet(**network), scheduler=pipelines.scheduler(set_alpha_to_one=False, **chain)
    )


@pytest.mark.parametrize("name", SCHEDULERS)
def test_pictures(name, first):
    """Euler on x / alpha as a function of sigma / alpha is DDIM."""
    found = loaded(pipelines.with_scheduler(first, SCHEDULERS[name]))
    ours = drawn_from_noise(guided(found.model), "ddim" if name == "euler" else name, noise(), found.steps(CALLS))
    assert_alike(ours, pipelines.pictures(first, latents=noise(), **CALL))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_pictures_of_the_second(name, second):
    """Their DDIM begins without signal, as we do. Other solvers of theirs have a last level of sigma / alpha = 4096 in
    its place: seen through that chain, the network draws the same."""
    found = loaded(pipelines.with_scheduler(second, SCHEDULERS[name]))
    model = found.model if name == "ddim" else closed(found.model, second.scheduler)
    steps = scheduler_steps(found.scheduler, model.sde, CALLS)
    ours = drawn_from_noise(guided(model), "ddim" if name == "euler" else name, noise(), steps)
    # States of 4096 times the data have few digits in float32, and theirs are such.
    large = name in ("euler", "heun")
    assert_alike(ours, pipelines.pictures(second, latents=noise(), **CALL), 1e-3 if large else 1e-4)


def closed(model, scheduler):
    """The model on the chain that a scheduler has."""
    chain = ChainSDE.of_alphas_cumprod(scheduler.alphas_cumprod.double().numpy())
    return Denoiser(model.network, chain, "v", 1.0, model.transform, text=model.text, event_shape=model.event_shape,
                    noise_input=NoiseInput("time", chain.steps - 1.0))  # fmt: skip


@dataclass(frozen=True)
class Ratio(SDE):
    """The process whose time is sigma / alpha (Karras et al. 2022)."""

    t_min: float = 0.02
    t_max: float = 200.0

    def log_alpha(self, t):
        return torch.zeros_like(t)

    def sigma(self, t):
        return t


def test_euler_through_another_process(first):
    """Their Euler is ours where the time is sigma / alpha: the network is seen through that process."""
    pipelines.with_scheduler(first, "EulerDiscreteScheduler")
    found = loaded(first)
    model, steps = found.model, found.steps(CALLS)
    seen = Denoiser(model.network, Ratio(), model.parametrization, 1.0, model.transform, text=model.text,
                    noise_input=model.noise_input, scaled_input=model.scaled_input)  # fmt: skip
    levels = model.sde.noise_level(steps.times)
    x = steps.std * noise() / model.sde.alpha(steps.times[0]).float()
    ours = as_pictures(model, sample(guided(seen), SAMPLERS["euler"](), x, levels))
    assert_alike(ours, pipelines.pictures(first, latents=noise(), **CALL))


def test_negative_prompt(first):
    pipelines.with_scheduler(first, "DDIMScheduler")
    found = loaded(first)
    model = guided(found.model)
    negative = ["9 a", "b, c"]
    model.negative = found.model.text.negative(negative)
    ours = drawn_from_noise(model, "ddim", noise(), found.steps(CALLS))
    assert_alike(ours, pipelines.pictures(first, latents=noise(), negative_prompt=negative, **CALL))


def test_guidance_of_one_takes_one_call_of_the_batch(first):
    pipelines.with_scheduler(first, "DDIMScheduler")
    found = loaded(first)
    rows = []
    handle = first.unet.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    try:
        ours = drawn_from_noise(guided(found.model, scale=1), "ddim", noise(), found.steps(CALLS))
        assert rows == [2] * CALLS
        rows.clear()
        drawn_from_noise(guided(found.model), "ddim", noise(), found.steps(CALLS))
        assert rows == [4] * CALLS
    finally:
        handle.remove()
    assert_alike(ours, pipelines.pictures(first, latents=noise(), **CALL | {"guidance_scale": 1.0}))


def test_null_is_the_encoding_of_the_empty_text(first):
    """Rows of NaN and no condition at all are what the pipeline encodes the empty text to; rows do not see each
    other."""
    model = loaded(first).model
    x, t = noise(), torch.tensor(0.5, dtype=torch.float64)
    with torch.no_grad():
        (empty,) = first.text_encoder(first.tokenizer([""], padding="max_length", return_tensors="pt").input_ids)[:1]
        told = {"sequence": torch.cat([empty, model.text(["cat"])["sequence"]])}
        mixed = {"sequence": torch.cat([torch.full_like(empty, torch.nan), told["sequence"][1:]])}
        torch.testing.assert_close(model(x, t, mixed), model(x, t, told), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(model(x, t)[0], model(x, t, told)[0], rtol=1e-5, atol=1e-5)


def test_heads(second):
    """attention_head_dim of the config is a number of heads, and attention of the second version in float32."""
    model = loaded(second).model.network.model
    attention = [module for name, module in model.named_modules() if name.endswith("attn1")]
    assert {module.heads for module in attention} == {4}
    assert all(module.upcast_attention for module in attention)


def test_the_chain_ends_without_signal(second):
    found = loaded(second)
    assert found.model.sde.open_end
    assert found.model.parametrization == "v"
    assert found.steps(CALLS).times[0] == 1


def test_image_to_image(first):
    """The last of the timesteps, from the picture's latents with noise at the first of them."""
    import diffusers

    pipelines.with_scheduler(first, "DDIMScheduler")
    pipeline = diffusers.StableDiffusionImg2ImgPipeline(**first.components, requires_safety_checker=False)
    pipelines.quiet(pipeline)
    found = loaded(pipeline)
    model = found.model
    image = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(4))
    # One draw is that of the encoder's posterior, which has no width here.
    generator = torch.Generator().manual_seed(5)
    _, z = (torch.randn((2, 4, 8, 8), generator=generator) for _ in range(2))
    with torch.no_grad():
        latents = model.transform.encode(model.transform.dequantize(255 * image, 0.5))
    call = CALL | {"num_inference_steps": 8, "strength": 0.6, "image": image}
    for name in ("ddim", "dpmpp", "heun"):
        pipelines.with_scheduler(pipeline, SCHEDULERS[name])
        theirs = pipelines.pictures(pipeline, generator=torch.Generator().manual_seed(5), **call)
        steps = found.steps(8, SCHEDULERS[name]).of_strength(0.6)
        assert_alike(drawn(guided(model), name, model.sde.perturb(latents, steps.times[0], z), steps), theirs)


def test_a_network_that_was_distilled_with_guidance():
    """It is told the scale, and takes one call."""
    pipeline = pipelines.stable_diffusion(unet=pipelines.unet(time_cond_proj_dim=7))
    found = loaded(pipeline, embedded_guidance=5.0)
    ours = drawn_from_noise(guided(found.model, scale=1), "ddim", noise(), found.steps(CALLS))
    assert_alike(ours, pipelines.pictures(pipeline, latents=noise(), **CALL))
    other = loaded(pipeline, embedded_guidance=2.0).model
    assert (drawn_from_noise(guided(other, scale=1), "ddim", noise(), found.steps(CALLS)) - ours).abs().max() > 1e-3


def test_generation_in_data_units(first):
    """Pictures are integers, whatever the chunks, and calls are counted."""
    model = loaded(first).model
    whole = generate(guided(model), SAMPLERS["dpmpp"](), 2, model.event_shape, steps=4, seed=3)
    parts = generate(guided(model), SAMPLERS["dpmpp"](), 2, model.event_shape, steps=4, seed=3, batch_size=1)
    assert whole.x.shape == (2, 3, 16, 16)
    assert torch.equal(whole.x, whole.x.round())
    assert whole.x.std() > 20
    assert (whole.x - parts.x).abs().max() <= 1
    # Two passes for each of four steps and the last call.
    assert whole.nfe.tolist() == [10, 10]
