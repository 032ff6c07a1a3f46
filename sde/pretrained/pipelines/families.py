"""Families: what the pipelines of each network of diffusers are told, and how."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sde.autoencoder import LatentTransform
from sde.condition.text.base import TextEncoder
from sde.pretrained.pipelines.components import Components
from sde.pretrained.pipelines.controlnet import no_controls
from sde.pretrained.pipelines.micro_conditions import SCORES, MicroConditions
from sde.pretrained.pipelines.network import PipelineNetwork, UNet
from sde.pretrained.pipelines.sdxl import SDXLText
from sde.pretrained.pipelines.text import CLIPText
from sde.pretrained.pipelines.transformer_text import LENGTHS, FluxText, SD3Text, T5Text
from sde.pretrained.pipelines.transformers import DiT, FluxTransformer, PixArtTransformer, SD3Transformer


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
    return UNet(model, null, numbers, components.controls, options.embedded_guidance), text


def _clip(components: Components, options: Options) -> CLIPText:
    tokenizer, encoder = _parts(components, "tokenizer", "text_encoder")
    return CLIPText(tokenizer, encoder, options.clip_skip)


def _sdxl(components: Components, options: Options) -> SDXLText:
    scored = bool(components.options.get("requires_aesthetics_score", False))
    micro = MicroConditions(options.size, options.size, score=SCORES[0] if scored else None)
    _parts(components, "text_encoder_2", "tokenizer_2")
    # The refiner has no first one.
    encoders, tokenizers = ([one for one in components.named(stem) if one] for stem in ("text_encoder", "tokenizer"))
    if len(encoders) != len(tokenizers):
        raise ValueError(f"{components.source} has {len(encoders)} text encoders and {len(tokenizers)} tokenizers")
    zeros = bool(components.options.get("force_zeros_for_empty_prompt", True))
    return SDXLText(tokenizers, encoders, micro, zeros, options.clip_skip)


def sd3(components: Components, transform: LatentTransform, options: Options) -> Built:
    """Stable Diffusion 3, with or without T5."""
    model = components.network
    _parts(components, "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    encoders, tokenizers = components.named("text_encoder"), components.named("tokenizer")
    if encoders[2] is None:
        tokenizers[2] = None
    width = model.config["joint_attention_dim"]
    text = SD3Text(tokenizers, encoders, width, LENGTHS["sd3"], options.clip_skip)
    return SD3Transformer(model, text.null), text


def pixart(components: Components, transform: LatentTransform, options: Options) -> Built:
    """PixArt alpha and sigma."""
    tokenizer, encoder = _parts(components, "tokenizer", "text_encoder")
    text = T5Text(tokenizer, encoder, LENGTHS["sigma" if "Sigma" in components.kind else "pixart"])
    factor = options.size[0] // transform.autoencoder.latent_shape[1]
    return PixArtTransformer(components.network, text.null, factor), text


def flux(components: Components, transform: LatentTransform, options: Options) -> Built:
    """Flux, whose networks were distilled with guidance or without."""
    tokenizer, encoder, second, t5 = _parts(components, "tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")
    text = FluxText([tokenizer, second], [encoder, t5], LENGTHS["flux"])
    return FluxTransformer(components.network, text.null, options.embedded_guidance), text


def dit(components: Components, transform: LatentTransform, options: Options) -> Built:
    """DiT, of classes."""
    return DiT(components.network), None


def _parts(components: Components, *names: str) -> list[Any]:
    """These parts of a pipeline. Raises ValueError where one is missing."""
    missing = next((name for name in names if components.parts.get(name) is None), None)
    if missing is not None:
        raise ValueError(f"{components.source} lacks the part {missing}, which tells its network the text")
    return [components.parts[name] for name in names]


@torch.no_grad()
def _null_image(transform: LatentTransform, channels: int, size: tuple[int, int]) -> Tensor:
    """What stands for no image: all of it masked, and the latents of a gray one behind the mask."""
    latents = transform.autoencoder.latent_shape[0]
    gray = torch.zeros(1, transform.autoencoder.event_shape[0], *size, device=transform.shift.device)
    inside = transform.encode(transform.outer.decode(gray))
    masks = inside.new_ones(1, max(channels - latents, 0), *inside.shape[2:])
    return torch.cat([masks, inside], 1)[:, :channels]


FAMILIES: dict[str, Callable[[Components, LatentTransform, Options], Built]] = {
    "UNet2DConditionModel": unet,
    "SD3Transformer2DModel": sd3,
    "PixArtTransformer2DModel": pixart,
    "FluxTransformer2DModel": flux,
    "DiTTransformer2DModel": dit,
}
"""How a network of diffusers is wrapped, with its text encoder, by its class."""
