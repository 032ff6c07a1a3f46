"""Families: what the pipelines of each network of diffusers are told, and how."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sde.autoencoder import LatentTransform
from sde.condition.text.base import TextEncoder
from sde.condition.tree import Condition
from sde.pretrained.pipelines.components import Components
from sde.pretrained.pipelines.controlnet import no_controls
from sde.pretrained.pipelines.micro_conditions import SCORES, MicroConditions
from sde.pretrained.pipelines.network import PipelineNetwork, UNet
from sde.pretrained.pipelines.sdxl import SDXLText
from sde.pretrained.pipelines.text import CLIPText


@dataclass(frozen=True)
class Options:
    """What a user decides at loading: the height and width of images, the layers of text encoders that are left out,
    and the scale of guidance that a distilled network is told."""

    size: tuple[int, int]
    clip_skip: int = 0
    embedded_guidance: float = 3.5


Built = tuple[PipelineNetwork, TextEncoder | None]


def unet(components: Components, transform: LatentTransform, options: Options) -> Built:
    """Stable Diffusion 1, 2 and XL, and the networks of these that are told an image."""
    model = components.network
    addition = model.config.get("addition_embed_type")
    if addition not in (None, "text_time"):
        raise ValueError(f"{components.source}: addition_embed_type = {addition!r} is not known here: needs text_time")
    if model.config.get("class_embed_type") or model.config.get("num_class_embeds"):
        raise ValueError(f"{components.source}: its network is told classes beside the text, which is not known here")
    text = _sdxl(components, options) if addition else _clip(components, options)
    null = text.null
    further = model.config["in_channels"] - transform.autoencoder.latent_shape[0]
    if further:
        null = null | {"image": _null_image(transform, further, options.size)}
    null = null | no_controls(components.controls, options.size)
    numbers = len(text.micro.numbers()) if isinstance(text, SDXLText) else 0
    return UNet(model, null, numbers, components.controls), text


def _clip(components: Components, options: Options) -> CLIPText:
    return CLIPText(_part(components, "tokenizer"), _part(components, "text_encoder"), options.clip_skip)


def _sdxl(components: Components, options: Options) -> SDXLText:
    scored = bool(components.options.get("requires_aesthetics_score", False))
    micro = MicroConditions(options.size, options.size, score=SCORES[0] if scored else None)
    encoders = [one for one in components.named("text_encoder") if one is not None]
    tokenizers = [one for one in components.named("tokenizer") if one is not None]
    _part(components, "text_encoder_2")
    if len(encoders) != len(tokenizers):
        raise ValueError(f"{components.source} has {len(encoders)} text encoders and {len(tokenizers)} tokenizers")
    zeros = bool(components.options.get("force_zeros_for_empty_prompt", True))
    return SDXLText(tokenizers, encoders, micro, zeros, options.clip_skip)


def _part(components: Components, name: str) -> Any:
    part = components.parts.get(name)
    if part is None:
        raise ValueError(f"{components.source} lacks the part {name}, which tells its network the text")
    return part


@torch.no_grad()
def _null_image(transform: LatentTransform, channels: int, size: tuple[int, int]) -> Tensor:
    """What stands for no image: all of it masked, and the latents of a gray one behind the mask."""
    latents = transform.autoencoder.latent_shape[0]
    weight = next(transform.autoencoder.parameters())
    gray = torch.zeros(1, transform.autoencoder.event_shape[0], *size, device=weight.device)
    inside = (transform.autoencoder.encode(gray)[0] - _column(transform.shift)) / _column(transform.scale)
    masks = inside.new_ones(1, max(channels - latents, 0), *inside.shape[2:])
    return torch.cat([masks, inside], 1)[:, :channels].float()


def _column(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


FAMILIES: dict[str, Callable[[Components, LatentTransform, Options], Built]] = {
    "UNet2DConditionModel": unet,
}
"""How a network of diffusers is wrapped, with its text encoder, by its class."""

__all__ = ["FAMILIES", "Built", "Condition", "Options"]
