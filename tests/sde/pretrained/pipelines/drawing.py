"""What our samplers draw with a loaded pipeline, as pictures in 0 .. 1."""

import torch

from samplers import SAMPLERS, sample
from sde.guidance import ClassifierFree, Conditional
from sde.pretrained.pipelines import read_pipeline

PROMPTS = ["a cat, 2", "dog."]

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpmpp": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
}
"""Our samplers by name, and the schedulers of diffusers that are the same method."""


def noise(rows=2, shape=(4, 8, 8), seed=0):
    return torch.randn((rows, *shape), generator=torch.Generator().manual_seed(seed))


def guided(model, prompts=PROMPTS, scale=5.0, **further):
    cond = model.text(prompts) | further
    return Conditional(model, cond) if scale == 1 else ClassifierFree(model, cond, scale)


def as_pictures(model, x):
    with torch.no_grad():
        return ((model.transform.decode(x) - 0.5) / 255).clamp(0, 1)


def drawn(model, name, x, steps):
    """From the state x at the first of the steps."""
    return as_pictures(model, sample(model, SAMPLERS[name](), x, steps.times, denoise=steps.denoise))


def drawn_from_noise(model, name, z, steps):
    """From the latents that the pipeline is given."""
    return drawn(model, name, steps.std * z, steps)


def loaded(pipeline, **options):
    """The pipeline, from memory."""
    return read_pipeline(pipeline, **options)


def assert_alike(ours, theirs, atol=1e-4):
    assert theirs.std() > 0.02, "a picture without contrast shows nothing"
    assert ((theirs > 0) & (theirs < 1)).float().mean() > 0.5
    torch.testing.assert_close(ours, theirs.to(ours), rtol=0, atol=atol)
