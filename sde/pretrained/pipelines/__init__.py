"""Pipelines: latent diffusion models of diffusers, with their autoencoder, text encoders and scheduler."""

from sde.pretrained.pipelines.components import Components, read_components
from sde.pretrained.pipelines.inpainting import LatentReplacement, inpainting_condition
from sde.pretrained.pipelines.micro_conditions import MicroConditions
from sde.pretrained.pipelines.pipeline import Pipeline, assemble, load_pipeline, read_pipeline
from sde.pretrained.pipelines.steps import Steps, scheduler_steps

__all__ = [
    "Components", "LatentReplacement", "MicroConditions", "Pipeline", "Steps", "assemble", "inpainting_condition",
    "load_pipeline", "read_components", "read_pipeline", "scheduler_steps",
]  # fmt: skip
