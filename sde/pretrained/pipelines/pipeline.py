"""The pipeline: a latent diffusion model of diffusers as a denoiser of ours, and the steps of its scheduler."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sde.autoencoder import LatentTransform
from sde.model.denoiser import Denoiser
from sde.model.noise_input import NoiseInput
from sde.pretrained.diffusers_scheduler import OPTION_KINDS, OPTIONS, Scheduled, read_scheduler
from sde.pretrained.facts import Facts
from sde.pretrained.pipelines.autoencoder import check_size, factor_of, latent_transform
from sde.pretrained.pipelines.components import Components, read_components
from sde.pretrained.pipelines.controlnet import read_controlnets
from sde.pretrained.pipelines.families import FAMILIES, Options
from sde.pretrained.pipelines.lora import merge_lora
from sde.pretrained.pipelines.network import PipelineNetwork
from sde.pretrained.pipelines.steps import Steps, scheduler_steps


@dataclass(frozen=True)
class Pipeline:
    """``model`` is the denoiser, ``scheduler`` the config of the scheduler that came with it, ``levels`` (k,) the times
    of all its training steps, and ``origin`` what is known of where the weights come from, in words."""

    model: Denoiser
    scheduler: Mapping[str, Any]
    levels: Tensor
    origin: Mapping[str, str]

    def steps(self, calls: int, scheduler: str = "", **options: Any) -> Steps:
        """The times of ``calls`` network calls of its scheduler, or of another class of diffusers by the same config,
        as EulerDiscreteScheduler; ``options`` are further ones of its set_timesteps. Raises ValueError for a scheduler
        that there is not, and for what it does not take."""
        told: dict[str, Any] = {}
        if self.model.event_shape is not None and isinstance(self.model.network, PipelineNetwork):
            inside = self.model.transform.inner_shape(self.model.event_shape)
            told = self.model.network.scheduler_options(self.scheduler, calls, inside)
        return scheduler_steps(self.scheduler, self.model.sde, calls, scheduler, **told | options)

    def switch(self, fraction: float) -> float:
        """The time at which a base hands over to a refiner after this ``fraction`` of the training steps, diffusers'
        denoising_end: that of the step round(n - fraction n) of n, which is the base's. Raises ValueError for a
        fraction outside (0, 1)."""
        if not 0 < fraction < 1:
            raise ValueError(f"fraction = {fraction:g}: needs a number between 0 and 1, as 0.8")
        count = self.scheduler["num_train_timesteps"]
        # A little below, as times are rounded.
        return (round(count - fraction * count) - 1e-6) / self.model.noise_input.scale


def read_pipeline(
    source: Any,
    *,
    size: int | Sequence[int] | None = None,
    clip_skip: int = 0,
    embedded_guidance: float = 3.5,
    dtype: torch.dtype | None = None,
    loras: Sequence[tuple[str | Path, float]] = (),
    controls: Sequence[str | Path] = (),
    config: str | Path | None = None,
) -> Pipeline:
    """What ``load_pipeline`` loads, with the steps of its scheduler beside it."""
    components = read_components(source, dtype, config)
    for path, scale in loras:
        merge_lora(components.updatable, path, scale)
    found = read_controlnets(components.parts.get("controlnet"), controls, dtype)
    components = replace(components, controls=found)
    return assemble(components, size=size, clip_skip=clip_skip, embedded_guidance=embedded_guidance)


def load_pipeline(
    source: Any,
    *,
    size: int | Sequence[int] | None = None,
    clip_skip: int = 0,
    embedded_guidance: float = 3.5,
    dtype: torch.dtype | None = None,
    loras: Sequence[tuple[str | Path, float]] = (),
    controls: Sequence[str | Path] = (),
    config: str | Path | None = None,
) -> Denoiser:
    """A latent diffusion pipeline of diffusers as a denoiser: its transform is the autoencoder, ``model.text`` makes
    conditions of prompts, and the process is that of its scheduler.

    ``source`` is a folder as save_pretrained writes it, a hub's name, which diffusers resolves, or a pipeline of
    diffusers in memory, whose networks are then shared. Its network is a key of FAMILIES. ``size`` is the height and
    width of the images, one number for both; the network's own unless told otherwise. ``clip_skip`` leaves out so many
    layers of the text encoders; ``embedded_guidance`` is the scale that a distilled network is told; ``dtype`` is that
    of the networks, float32 unless told otherwise; an autoencoder that overflows in float16 stays in float32.

    ``loras`` are files of low-rank updates with their scales, which are merged with the weights, in the pipeline in
    memory as well (``merge_lora``). ``controls`` are folders of ControlNets, beside those that the pipeline has; the
    network's attribute ``scales`` has a number for each, and it takes their images as conditions, "control",
    "control_2" and so on, of values from 0 to 1. ``config`` is the folder of a pipeline of the same kind, where
    ``source`` is a single file of weights, which does not hold what tokenizers and schedulers are.

    The model is in eval mode, on the CPU or where the pipeline's parts are. Raises ImportError without the extra;
    ValueError for what is no pipeline, lacks a part, or is of a network or scheduler that is not known here, and for a
    size that the networks do not take.
    """
    return read_pipeline(
        source, size=size, clip_skip=clip_skip, embedded_guidance=embedded_guidance, dtype=dtype, loras=loras,
        controls=controls, config=config,
    ).model  # fmt: skip


def assemble(
    components: Components,
    *,
    size: int | Sequence[int] | None = None,
    clip_skip: int = 0,
    embedded_guidance: float = 3.5,
) -> Pipeline:
    """The pipeline of these components."""
    kind = type(components.network).__name__
    if kind not in FAMILIES:
        raise ValueError(f"{components.source} has a {kind} as its network: needs one of {', '.join(FAMILIES)}")
    scheduler = components.scheduler
    known = {name: value for name, value in scheduler.items() if name in OPTIONS}
    scheduled: Scheduled = read_scheduler(known, Facts({}, OPTIONS, OPTION_KINDS))
    event_shape = _event_shape(components, size)
    transform = latent_transform(components.parts["vae"], event_shape)
    network, text = FAMILIES[kind](components, transform, Options(event_shape[1:], clip_skip, embedded_guidance))
    check_size(event_shape[1:], factor_of(components.parts["vae"].config) * network.patch)
    model = Denoiser(
        network.requires_grad_(False),
        scheduled.sde,
        scheduled.parametrization,
        # On a chain alpha^2 + sigma^2 = 1, so that c_in is 1 there, and right where it is seen through another process.
        1.0,
        transform,
        event_shape=event_shape,
        noise_input=NoiseInput("time", scheduled.steps),
        scaled_input=scheduled.parametrization != "flow",
        text=text,
    )
    origin = {"project": "huggingface/diffusers", "pipeline": components.kind, "source": components.source}
    return Pipeline(model.eval(), scheduler, scheduled.levels, origin | scheduled.about)


def _event_shape(components: Components, size: int | Sequence[int] | None) -> tuple[int, int, int]:
    """The shape of the images."""
    autoencoder = components.parts["vae"].config
    if size is None:
        latent = components.network.config.get("sample_size") or 64
        sides = latent if isinstance(latent, list | tuple) else (latent, latent)
        size = [side * factor_of(autoencoder) for side in sides]
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    return autoencoder.get("out_channels", 3), int(height), int(width)


def latents_of(model: Denoiser) -> LatentTransform:
    """The learned transform of a loaded model. Raises ValueError for one without."""
    if not isinstance(model.transform, LatentTransform):
        raise ValueError(f"{type(model).__name__} has no autoencoder: needs a model of load_pipeline")
    return model.transform
