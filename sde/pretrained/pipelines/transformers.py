"""Transformers of diffusers, as networks of ours: of SD3, PixArt, Flux and DiT."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sde.condition.tree import Condition
from sde.pretrained.pipelines.network import PipelineNetwork


class SD3Transformer(PipelineNetwork):
    """An SD3Transformer2DModel, which is told the sequence and the vector."""

    def predict(self, x: Tensor, time: Tensor, told: Condition, dtype: torch.dtype) -> Tensor:
        return self.model(
            hidden_states=x,
            timestep=time,
            encoder_hidden_states=told["sequence"].to(dtype),
            pooled_projections=told["vector"].to(dtype),
        ).sample


class PixArtTransformer(PipelineNetwork):
    """A PixArtTransformer2DModel, which attends to the tokens of the sequence that are there, those that are not NaN;
    ``factor`` is how many pixels a latent is wide, for networks that are told the size. The channels of a learned
    variance are left out."""

    def __init__(self, model: Any, null: Mapping[str, Tensor], factor: int) -> None:
        super().__init__(model, null)
        self.factor = factor
        self.sized = model.config.get("sample_size") == 128

    def predict(self, x: Tensor, time: Tensor, told: Condition, dtype: torch.dtype) -> Tensor:
        sequence = told["sequence"]
        there = ~sequence.isnan().any(-1)
        size: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if self.sized:
            height, width = (self.factor * side for side in x.shape[2:])
            size = {
                "resolution": x.new_tensor([height, width]).expand(len(x), 2),
                "aspect_ratio": x.new_tensor([height / width]).expand(len(x), 1),
            }
        output = self.model(
            x,
            encoder_hidden_states=sequence.nan_to_num().to(dtype),
            encoder_attention_mask=there.to(dtype),
            timestep=time,
            added_cond_kwargs=size,
        ).sample
        return output[:, : x.shape[1]]


class FluxTransformer(PipelineNetwork):
    """A FluxTransformer2DModel, which sees squares of 2 x 2 latents as tokens, with their rows and columns; one that
    was distilled with guidance is told the scale ``embedded_guidance``. It takes latents of even sides."""

    patch = 2

    def __init__(self, model: Any, null: Mapping[str, Tensor], embedded_guidance: float) -> None:
        super().__init__(model, null)
        self.embedded_guidance = embedded_guidance

    def scheduler_options(self, config: Mapping[str, Any], calls: int, latent_shape: Sequence[int]) -> dict[str, Any]:
        """Noise levels 1 to 1 / calls, which the scheduler shifts."""
        levels = [1 - (1 - 1 / calls) * number / max(calls - 1, 1) for number in range(calls)]
        return {"sigmas": levels, "mu": self.shift(config, latent_shape)}

    def predict(self, x: Tensor, time: Tensor, told: Condition, dtype: torch.dtype) -> Tensor:
        rows, channels, height, width = x.shape
        squares = x.unflatten(3, (width // 2, 2)).unflatten(2, (height // 2, 2)).permute(0, 2, 4, 1, 3, 5)
        places = torch.zeros(height // 2, width // 2, 3, device=x.device, dtype=dtype)
        places[..., 1] = torch.arange(height // 2, device=x.device)[:, None]
        places[..., 2] = torch.arange(width // 2, device=x.device)
        guided = self.model.config.get("guidance_embeds", False)
        tokens = self.model(
            hidden_states=squares.reshape(rows, -1, 4 * channels),
            # The network multiplies by 1000 itself.
            timestep=time.to(dtype) / 1000,
            guidance=time.new_full((rows,), self.embedded_guidance) if guided else None,
            pooled_projections=told["vector"].to(dtype),
            encoder_hidden_states=told["sequence"].to(dtype),
            txt_ids=places.new_zeros(told["sequence"].shape[1], 3),
            img_ids=places.flatten(0, 1),
        ).sample
        squares = tokens.view(rows, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return squares.reshape(rows, channels, height, width)


class DiT(PipelineNetwork):
    """A DiTTransformer2DModel of classes: none is the row of its table behind them. The channels of a learned variance
    are left out, and it knows whole timesteps alone."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, {})
        self.num_classes: int = model.config["num_embeds_ada_norm"]

    def predict(self, x: Tensor, time: Tensor, told: Condition, dtype: torch.dtype) -> Tensor:
        labels = told["labels"]
        labels = torch.where(labels < 0, self.num_classes, labels)
        return self.model(x, timestep=time.round().long(), class_labels=labels).sample[:, : x.shape[1]]

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        none = torch.full_like(c_noise, -1, dtype=torch.long)
        told = {"labels": none if cond is None else cond["labels"]}
        own = self.model.dtype
        return self.predict(x.to(own), c_noise, told, own).to(x.dtype)
