"""Transformers: SD3, PixArt, Flux and DiT draw their pipelines' pictures."""

from dataclasses import replace

import pytest
import torch

from sde.guidance import ClassifierFree, Conditional
from tests.oracles import pipelines
from tests.sde.pretrained.pipelines.drawing import PROMPTS, assert_alike, drawn, drawn_from_noise, guided, loaded, noise

pytest.importorskip("diffusers", reason="the extra latent is not installed")
pytest.importorskip("transformers", reason="the extra latent is not installed")

CALL = {"prompt": PROMPTS, "num_inference_steps": 5}


@pytest.mark.parametrize("t5", [True, False], ids=["with T5", "without T5"])
def test_sd3(t5):
    """Their Euler is ours on the straight path, and so is DDIM."""
    pipeline = pipelines.sd3(t5)
    found = loaded(pipeline)
    wanted = pipelines.pictures(pipeline, latents=noise(), guidance_scale=4.0, **CALL)
    assert found.model.text.null["sequence"].shape == (1, 77 + 256, 64)
    for name in ("euler", "ddim"):
        assert_alike(drawn_from_noise(guided(found.model, scale=4.0), name, noise(), found.steps(5)), wanted)


def test_another_solver_on_the_path():
    """Of use_flow_sigmas, which tells the network whole timesteps."""
    options = {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}
    pipeline = pipelines.sd3(False, scheduler=pipelines.scheduler("DPMSolverMultistepScheduler", **options))
    found = loaded(pipeline)
    found.model.noise_input = replace(found.model.noise_input, rounding="down")
    wanted = pipelines.pictures(pipeline, latents=noise(), guidance_scale=4.0, **CALL)
    steps = found.steps(5)
    assert steps.denoise
    assert_alike(drawn(guided(found.model, scale=4.0), "dpmpp", noise(), steps), wanted)


def test_pixart():
    """Tokens behind the text are left out, its learned variance, too."""
    pipeline = pipelines.pixart()
    found = loaded(pipeline)
    wanted = pipelines.pictures(pipeline, latents=noise(), guidance_scale=4.0, use_resolution_binning=False, **CALL)
    assert_alike(drawn_from_noise(guided(found.model, scale=4.0), "dpmpp", noise(), found.steps(5)), wanted)
    ends = found.model.text(["a", "a b, c"])["sequence"][..., 0].isnan().logical_not().sum(1)
    assert ends[0] < ends[1] < 120


def test_pixart_is_told_the_size():
    pipeline = pipelines.pixart(128)
    found = loaded(pipeline, size=(16, 24))
    z = noise(shape=(4, 8, 12))
    further = {"use_resolution_binning": False, "height": 16, "width": 24}
    wanted = pipelines.pictures(pipeline, latents=z, guidance_scale=4.0, **further, **CALL)
    assert_alike(drawn(guided(found.model, scale=4.0), "dpmpp", z, found.steps(5)), wanted)


def test_flux():
    """Squares of latents as tokens, a scale that the network is told, and a shift that follows from the size."""
    pipeline = pipelines.flux()
    found = loaded(pipeline, size=(16, 24), embedded_guidance=2.0)
    z = noise(shape=(4, 8, 12))
    packed = pipeline._pack_latents(z, 2, 4, 8, 12)
    wanted = pipelines.pictures(pipeline, latents=packed, guidance_scale=2.0, height=16, width=24, **CALL)
    assert_alike(drawn(guided(found.model, scale=1), "euler", z, found.steps(5)), wanted)
    other = loaded(pipeline, size=(16, 24)).model
    assert (drawn(guided(other, scale=1), "euler", z, found.steps(5)) - wanted).abs().max() > 1e-3


@pytest.mark.parametrize("make", [pipelines.sd3, pipelines.pixart, pipelines.flux, pipelines.dit])
def test_sizes_that_are_no_whole_squares(make):
    with pytest.raises(ValueError, match=r"size = \(16, 18\): its networks take multiples of 4, as 16"):
        loaded(make(), size=(16, 18))


def test_dit():
    """Of classes: the row behind them is none."""
    pipeline = pipelines.dit()
    found = loaded(pipeline)
    assert found.model.text is None
    labels = [7, 900]
    for scale in (1.0, 4.0):
        wanted = pipeline(class_labels=labels, guidance_scale=scale, num_inference_steps=5, output_type="np",
                          generator=torch.Generator().manual_seed(3)).images  # fmt: skip
        z = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(3))
        told = torch.tensor(labels)
        model = Conditional(found.model, told) if scale == 1 else ClassifierFree(found.model, told, scale)
        assert_alike(drawn(model, "ddim", z, found.steps(5)), torch.from_numpy(wanted).permute(0, 3, 1, 2))
