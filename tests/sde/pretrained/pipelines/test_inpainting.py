"""Inpainting: by networks that are told the mask, and by holding the latents of any."""

import pytest
import torch

from samplers import SAMPLERS, sample
from sde.guidance import ClassifierFree
from sde.pretrained.pipelines import LatentReplacement, inpainting_condition
from tests.oracles import pipelines
from tests.sde.pretrained.pipelines.drawing import (
    PROMPTS,
    SCHEDULERS,
    as_pictures,
    assert_alike,
    drawn_from_noise,
    guided,
    loaded,
    noise,
)

pytest.importorskip("diffusers", reason="the extra latent is not installed")
pytest.importorskip("transformers", reason="the extra latent is not installed")

CALL = {"prompt": PROMPTS, "num_inference_steps": 6, "guidance_scale": 5.0, "height": 16, "width": 16}
SAME = ["ddim", "dpmpp", "heun"]


@pytest.fixture(scope="module")
def image():
    return torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def painted():
    """1 where pixels are painted: not along the latents, of which the nearest pixel decides."""
    mask = torch.zeros(2, 1, 16, 16)
    mask[0, :, 3:11, 4:] = 1
    mask[1, :, :, :7] = 1
    return mask


@pytest.mark.parametrize("name", SAME)
def test_a_network_that_is_told_the_mask(name, image, painted):
    pipeline = pipelines.stable_diffusion("StableDiffusionInpaintPipeline", in_channels=9)
    found = loaded(pipelines.with_scheduler(pipeline, SCHEDULERS[name]))
    told = inpainting_condition(found.model, 255 * image, painted == 0)
    assert told["image"].shape == (2, 5, 8, 8)
    ours = drawn_from_noise(guided(found.model, **told), name, noise(), found.steps(6))
    theirs = pipelines.pictures(pipeline, image=image, mask_image=painted, latents=noise(), strength=1.0, **CALL)
    assert_alike(ours, theirs)


def test_guidance_keeps_the_mask(image, painted):
    """Both branches are told the image, also where one of them runs alone; without an image all is painted."""
    pipeline = pipelines.stable_diffusion("StableDiffusionInpaintPipeline", in_channels=9)
    model = loaded(pipeline).model
    told = inpainting_condition(model, 255 * image, painted == 0)
    x, t = noise(), torch.tensor(0.6, dtype=torch.float64)
    with torch.no_grad():
        alone = ClassifierFree(model, model.text(PROMPTS) | told, 0.0)(x, t)
        torch.testing.assert_close(alone, model(x, t, model.text(["", ""]) | told), rtol=1e-5, atol=1e-5)
        whole = inpainting_condition(model, 255 * image, torch.zeros_like(painted).bool())
        nothing = model(x, t, model.text(PROMPTS) | {"image": torch.full_like(whole["image"], torch.nan)})
        torch.testing.assert_close(nothing, model(x, t, model.text(PROMPTS) | whole), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strength", [0.7, 1.0])
@pytest.mark.parametrize("name", SAME)
def test_latents_are_held(name, strength, image, painted):
    """Any network: known latents are noised anew to every level by one noise, and are what they were at the end."""
    pipeline = pipelines.stable_diffusion("StableDiffusionInpaintPipeline")
    found = loaded(pipelines.with_scheduler(pipeline, SCHEDULERS[name]))
    model, steps = found.model, found.steps(6).of_strength(strength)
    generator = torch.Generator().manual_seed(5)
    _, z = (torch.randn((2, 4, 8, 8), generator=generator) for _ in range(2))
    start = steps.times[0].item()
    held = LatentReplacement(guided(model), 255 * image, painted == 0, z, start if strength == 1 else None)
    x = steps.std * z if strength == 1 else model.sde.perturb(held.latents, steps.times[0], z)
    theirs = pipelines.pictures(
        pipeline, image=image, mask_image=painted, strength=strength, generator=torch.Generator().manual_seed(5), **CALL
    )
    assert_alike(_painted(held, name, x, steps), theirs)
    if strength < 1:
        # A state that has the noise in it already needs to be told of none.
        plain = LatentReplacement(guided(model), 255 * image, painted == 0)
        assert_alike(_painted(plain, name, x, steps), theirs)


def _painted(model, name, x, steps):
    found = sample(model, SAMPLERS[name](), x, steps.times, denoise=steps.denoise)
    if steps.denoise:
        torch.testing.assert_close(model.hold(found), found)
    return as_pictures(model, model.hold(found))


def test_a_network_that_is_told_no_image(image, painted):
    model = loaded(pipelines.stable_diffusion()).model
    with pytest.raises(ValueError, match="is told no image: take LatentReplacement"):
        inpainting_condition(model, 255 * image, painted == 0)
