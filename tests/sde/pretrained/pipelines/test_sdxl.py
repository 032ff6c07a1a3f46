"""SDXL: base and refiner, and what their networks are told beside the text."""

from dataclasses import replace

import pytest
import torch

from samplers import SAMPLERS, sample
from sde.guidance import ClassifierFree, Experts
from sde.pretrained.pipelines import MicroConditions
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

CALL = {"prompt": PROMPTS, "num_inference_steps": 6, "guidance_scale": 5.0}


@pytest.fixture(scope="module")
def base():
    return pipelines.sdxl()


@pytest.fixture(scope="module")
def refiner():
    return pipelines.sdxl("StableDiffusionXLImg2ImgPipeline", refiner=True)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_pictures(name, base):
    found = loaded(pipelines.with_scheduler(base, SCHEDULERS[name]))
    ours = drawn_from_noise(guided(found.model), "ddim" if name == "euler" else name, noise(), found.steps(6))
    assert_alike(ours, pipelines.pictures(base, latents=noise(), **CALL))


@pytest.mark.parametrize("zeros", [True, False])
def test_what_stands_for_no_text(zeros, base):
    """Zeros, beside the sizes; or where the pipeline says so, the encoding of the empty text, which it always is where
    it is asked for."""
    base.register_to_config(force_zeros_for_empty_prompt=zeros)
    found = loaded(pipelines.with_scheduler(base, "DDIMScheduler"))
    null, empty = found.model.text.null, found.model.text([""])
    assert bool((null["sequence"] == 0).all()) == zeros
    assert bool((null["vector"][:, :-6] == 0).all()) == zeros
    torch.testing.assert_close(null["vector"][:, -6:], empty["vector"][:, -6:])
    ours = drawn_from_noise(guided(found.model), "ddim", noise(), found.steps(6))
    assert_alike(ours, pipelines.pictures(base, latents=noise(), **CALL))
    model = ClassifierFree(found.model, found.model.text(PROMPTS), 5.0, negative=found.model.text.negative(["", ""]))
    wanted = pipelines.pictures(base, latents=noise(), negative_prompt=["", ""], **CALL)
    assert_alike(drawn_from_noise(model, "ddim", noise(), found.steps(6)), wanted)
    base.register_to_config(force_zeros_for_empty_prompt=True)


def test_sizes_in_their_order(base):
    sizes = {"original_size": (48, 32), "crops_coords_top_left": (3, 5), "target_size": (24, 40)}
    found = loaded(pipelines.with_scheduler(base, "DDIMScheduler"))
    text = found.model.text
    assert text.micro.numbers() == (16, 16, 0, 0, 16, 16)
    told = MicroConditions((48, 32), (24, 40), (3, 5))
    assert told.numbers() == (48, 32, 3, 5, 24, 40)
    assert replace(told, score=6.0).numbers() == (48, 32, 3, 5, 6.0)
    text.micro = told
    text.micro_negative = MicroConditions((8, 9), (10, 11), (1, 2))
    against = {"negative_original_size": (8, 9), "negative_crops_coords_top_left": (1, 2),
               "negative_target_size": (10, 11)}  # fmt: skip
    model = ClassifierFree(found.model, text(PROMPTS[:1]), 5.0, negative=text.negative(["9"]))
    # One prompt: the sizes of several are in another order there than the prompts.
    call = CALL | {"prompt": PROMPTS[:1], "negative_prompt": ["9"]}
    wanted = pipelines.pictures(base, latents=noise(1), **sizes, **against, **call)
    assert_alike(drawn_from_noise(model, "ddim", noise(1), found.steps(6)), wanted)


@pytest.mark.parametrize("name", ["ddim", "euler"])
def test_base_and_refiner_in_one_run(name, base, refiner):
    """The base to the level that one is told, denoising_end, and the refiner from there, as one model."""
    scheduler = SCHEDULERS[name]
    first, second = (loaded(pipelines.with_scheduler(one, scheduler)) for one in (base, refiner))
    switch = first.switch(0.6)
    experts = Experts(guided(first.model), guided(second.model), switch)
    ours = drawn_from_noise(experts, "ddim", noise(), first.steps(6))
    assert_alike(ours, _both(base, refiner))


def test_base_and_refiner_in_two_runs(base, refiner):
    """A solver with a memory begins anew with the refiner, as there."""
    first, second = (loaded(pipelines.with_scheduler(one, SCHEDULERS["dpmpp"])) for one in (base, refiner))
    steps, switch = first.steps(6), first.switch(0.6)
    before, after = steps.until(switch), steps.since(switch)
    half = sample(guided(first.model), SAMPLERS["dpmpp"](), steps.std * noise(), before.times, denoise=False)
    ours = as_pictures(second.model, sample(guided(second.model), SAMPLERS["dpmpp"](), half, after.times))
    assert_alike(ours, _both(base, refiner))


def _both(base, refiner):
    half = base(latents=noise(), denoising_end=0.6, output_type="latent", **CALL).images
    return pipelines.pictures(refiner, image=half, denoising_start=0.6, **CALL)


def test_the_refiner_is_told_a_score(refiner):
    """6 for its prompt, and 2.5 for what it is steered away from, after the sizes."""
    text = loaded(refiner).model.text
    assert text(["a"])["vector"][0, -5:].tolist() == [16, 16, 0, 0, 6.0]
    assert (
        text.null["vector"][0, -5:].tolist() == text.negative(["a"])["vector"][0, -5:].tolist() == [16, 16, 0, 0, 2.5]
    )


def test_clip_skip(base):
    """The states before the last layer but one, of both, where one is left out; nothing of it for the empty text."""
    found = loaded(pipelines.with_scheduler(base, "DDIMScheduler"), clip_skip=1)
    ours = drawn_from_noise(guided(found.model), "ddim", noise(), found.steps(6))
    assert_alike(ours, pipelines.pictures(base, latents=noise(), clip_skip=1, **CALL))


def test_an_index_that_contradicts_the_network(refiner):
    refiner.register_to_config(requires_aesthetics_score=False)
    try:
        with pytest.raises(ValueError, match=r"takes 5 micro-conditions beside the 32 numbers of the text.*has 6"):
            loaded(refiner)
    finally:
        refiner.register_to_config(requires_aesthetics_score=True)
