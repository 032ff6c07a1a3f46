"""Steps: the times at which a scheduler of diffusers calls its network."""

from dataclasses import replace

import pytest
import torch

from tests.oracles import pipelines
from tests.sde.pretrained.pipelines.drawing import assert_alike, drawn, guided, loaded, noise

pytest.importorskip("diffusers", reason="the extra latent is not installed")
pytest.importorskip("transformers", reason="the extra latent is not installed")


@pytest.fixture(scope="module")
def pipeline():
    return pipelines.stable_diffusion()


NAMES = ["DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler",
         "HeunDiscreteScheduler", "UniPCMultistepScheduler"]  # fmt: skip


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_timesteps(name, spacing, offset, pipeline):
    """j / (n - 1) of each of their timesteps j; between them by the noise level, whose path is ours."""
    own = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    scheduler = pipelines.scheduler(name, timestep_spacing=spacing, steps_offset=offset, **own)
    pipeline.scheduler = scheduler
    steps = loaded(pipeline).steps(7)
    scheduler.set_timesteps(7)
    wanted = scheduler.timesteps.double().unique_consecutive()
    torch.testing.assert_close(999 * steps.times[: len(wanted)], wanted, rtol=0, atol=2e-2)
    assert len(wanted) == 7
    # PNDM ends at the first level of the chain: a call there has nothing to do.
    assert steps.denoise == (name != "PNDMScheduler")
    assert steps.calls == 7 - (not steps.denoise and wanted[-1].item() == 0)


@pytest.mark.parametrize(
    "options",
    [
        {"timestep_spacing": "linspace"},
        {"timestep_spacing": "trailing"},
        {"timestep_spacing": "leading", "steps_offset": 1},
        {"final_sigmas_type": "sigma_min"},
        {"use_karras_sigmas": True},
    ],
    ids=str,
)
def test_pictures_of_euler(options, pipeline):
    """Also where they lie between the steps of the chain, and where the last step leaves noise."""
    pipeline.scheduler = pipelines.scheduler("EulerDiscreteScheduler", **options)
    found = loaded(pipeline)
    call = {"prompt": ["a cat, 2", "dog."], "num_inference_steps": 5, "guidance_scale": 3.0}
    steps = found.steps(5)
    assert steps.denoise == ("final_sigmas_type" not in options)
    # What begins at the largest noise level has it alone, sigma in place of 1.
    sigma = found.model.sde.sigma(steps.times[0]).item()
    assert steps.std == pytest.approx(1 if options.get("timestep_spacing") == "leading" else sigma, abs=1e-6)
    ours = drawn(guided(found.model, scale=3.0), "ddim", steps.std * noise(), steps)
    assert_alike(ours, pipelines.pictures(pipeline, latents=noise(), **call))


def test_pictures_of_levels_that_are_rounded(pipeline):
    """DPM-Solver tells the network the nearest steps of Karras' levels, of which two may be one."""
    pipeline.scheduler = pipelines.scheduler("DPMSolverMultistepScheduler", use_karras_sigmas=True)
    found = loaded(pipeline)
    assert found.steps(40).calls == 40
    found.model.noise_input = replace(found.model.noise_input, rounding="nearest")
    call = {"prompt": ["a cat, 2", "dog."], "num_inference_steps": 5, "guidance_scale": 3.0}
    ours = drawn(guided(found.model, scale=3.0), "dpmpp", noise(), found.steps(5))
    assert_alike(ours, pipelines.pictures(pipeline, latents=noise(), **call))


def test_the_last_step_of_ddim(pipeline):
    """Without set_alpha_to_one it ends at the first level of the chain, and leaves its noise."""
    steps = {}
    for whole in (True, False):
        pipeline.scheduler = pipelines.scheduler(set_alpha_to_one=whole)
        steps[whole] = loaded(pipeline).steps(5)
    assert steps[True].denoise
    torch.testing.assert_close(steps[True].times, steps[False].times)
    pipeline.scheduler = pipelines.scheduler(set_alpha_to_one=False, steps_offset=1)
    found = loaded(pipeline).steps(5)
    assert not found.denoise
    torch.testing.assert_close(999 * found.times, torch.tensor([801.0, 601, 401, 201, 1, 0], dtype=torch.float64))


def test_parts_of_a_run(pipeline):
    pipeline.scheduler = pipelines.scheduler("EulerDiscreteScheduler", timestep_spacing="trailing")
    found = loaded(pipeline)
    steps = found.steps(10)
    assert steps.of_strength(0.35).calls == 3
    assert steps.of_strength(1).calls == 10
    torch.testing.assert_close(999 * steps.times, torch.arange(999.0, 0, -100, dtype=torch.float64))
    # Of 1000 steps, those from 200 on are the base's after 80 %.
    switch = found.switch(0.8)
    torch.testing.assert_close(999 * steps.until(switch).times[-2:], torch.tensor([299.0, 199], dtype=torch.float64))
    assert not steps.until(switch).denoise
    torch.testing.assert_close(999 * steps.since(switch).times, torch.tensor([199.0, 99], dtype=torch.float64))


@pytest.mark.parametrize(("call", "words"), [
    (lambda found: found.steps(5, "CatScheduler"), "scheduler = 'CatScheduler': diffusers has no"),
    (lambda found: found.steps(2000), "steps = 2000: DDIMScheduler does not take them"),
    (lambda found: found.steps(5).of_strength(0), "strength = 0: needs a number above 0"),
    (lambda found: found.steps(5).of_strength(0.2), "strength = 0.2: of 5 calls it leaves no step"),
    (lambda found: found.switch(1.0), "fraction = 1: needs a number between 0 and 1"),
    (lambda found: found.steps(5).until(0.0), "time = 0: needs one between"),
])  # fmt: skip
def test_what_there_is_not(call, words, pipeline):
    pipeline.scheduler = pipelines.scheduler()
    with pytest.raises(ValueError, match=words):
        call(loaded(pipeline))
