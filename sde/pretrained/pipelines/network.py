"""Networks of pipelines, as networks of ours: what is told of the text, and what stands for none."""

import abc
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sde.condition.tree import Condition, is_control
from sde.pretrained.pipelines.controlnet import residuals


class PipelineNetwork(nn.Module, abc.ABC):
    """``forward(x, c_noise, cond)`` of a network ``model`` of diffusers: x (B, C, H, W), c_noise (B,) its timestep.

    ``null`` has a single row of every condition that it takes, which stands for none: rows of NaN, and a condition that
    is left out, become it. Guidance keeps the kinds ``kept`` in its branch without conditions. The network computes in
    the dtype of its weights.
    """

    num_classes: int | None = None
    casts = True
    """It takes states of float32, whatever the dtype of its weights."""

    def __init__(self, model: Any, null: Mapping[str, Tensor], kept: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.model, self.kept = model, kept
        self.conditions = {kind: tuple(value.shape[1:]) for kind, value in null.items()}
        for kind, value in null.items():
            self.register_buffer(f"null_{kind}", value.detach().clone())

    @property
    def patch(self) -> int:
        """The side of the squares of latents that it takes as one position."""
        return int(self.model.config.get("patch_size") or 1)

    def null(self, kind: str) -> Tensor:
        """The row (1, ...) that stands for none of a kind."""
        return self.get_buffer(f"null_{kind}")

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        own = self.model.dtype
        told = {kind: self._told(kind, cond, len(x)) for kind in self.conditions}
        return self.predict(x.to(own), c_noise, told, own).to(x.dtype)

    def scheduler_options(self, config: Mapping[str, Any], calls: int, latent_shape: Sequence[int]) -> dict[str, Any]:
        """What its pipelines tell the scheduler of this ``config`` beside the number of ``calls``: with a shift that
        follows from the size, mu, linear in the number of tokens of the latents."""
        if not config.get("use_dynamic_shifting"):
            return {}
        return {"mu": self.shift(config, latent_shape)}

    def shift(self, config: Mapping[str, Any], latent_shape: Sequence[int]) -> float:
        """``dynamic_shift`` of the number of positions of the latents."""
        return dynamic_shift(config, (latent_shape[1] // self.patch) * (latent_shape[2] // self.patch))

    @abc.abstractmethod
    def predict(self, x: Tensor, time: Tensor, told: Condition, dtype: torch.dtype) -> Tensor:
        """The network's output, of the shape of x; no row of ``told`` is null, and x is of the dtype of its weights."""

    def _told(self, kind: str, cond: Condition | None, rows: int) -> Tensor:
        null = self.null(kind)
        if cond is None or kind not in cond:
            return null.expand(rows, *null.shape[1:])
        given = cond[kind]
        if given.shape[1:] != null.shape[1:] and given.ndim == null.ndim and not torch.compiler.is_compiling():
            # A sequence of another length has no null to stand beside; an image of another size neither.
            if not bool(given.isnan().flatten(1).all(1).any()):
                return given
            raise ValueError(
                f"the condition {kind!r} has rows of shape {tuple(given.shape[1:])}, and what stands for none is "
                f"{tuple(null.shape[1:])}: give both conditions, or one of that shape"
            )
        missing = given.isnan().flatten(1).all(1).view(-1, *[1] * (given.ndim - 1))
        return torch.where(missing, null.to(given.dtype), given)


def dynamic_shift(config: Mapping[str, Any], tokens: int) -> float:
    """mu of a scheduler whose shift exp(mu) follows from the number of tokens: the straight line through base_shift at
    base_image_seq_len and max_shift at max_image_seq_len."""
    least, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return low + (high - low) * (tokens - least) / (most - least)


class UNet(PipelineNetwork):
    """A UNet2DConditionModel, which attends to the sequence. Of SDXL it takes the vector, whose last ``numbers`` are
    the micro-conditions; with more channels than the latents, an image of the further ones, which lies behind x. The
    ``controls`` are ControlNets, each of which is told a control, and added at its one of the ``scales``. A network
    that was distilled with guidance is told the scale ``embedded_guidance`` (Meng et al. 2023). Raises ValueError for a
    vector that is not as long as its config says."""

    distilled: Tensor | None

    def __init__(
        self,
        model: Any,
        null: Mapping[str, Tensor],
        numbers: int = 0,
        controls: Sequence[Any] = (),
        embedded_guidance: float = 3.5,
    ) -> None:
        super().__init__(model, null, tuple(kind for kind in null if kind == "image" or is_control(kind)))
        self.numbers, self.controls, config = numbers, nn.ModuleList(controls), model.config
        self.scales = [1.0] * len(controls)
        if numbers:
            pooled, given = null["vector"].shape[1] - numbers, config["projection_class_embeddings_input_dim"]
            taken = (given - pooled) / config["addition_time_embed_dim"]
            if taken != numbers:
                raise ValueError(
                    f"the network takes {taken:g} micro-conditions beside the {pooled} numbers of the text, and the "
                    f"pipeline has {numbers}: requires_aesthetics_score of its index decides"
                )
        width = config.get("time_cond_proj_dim")
        told = None if width is None else scale_embedding(embedded_guidance, width)
        self.register_buffer("distilled", told, persistent=False)

    def predict(self, x: Tensor, time: Tensor, told: Condition, dtype: torch.dtype) -> Tensor:
        further: dict[str, Any] = {}
        if self.numbers:
            vector = told["vector"]
            pooled, numbers = vector[:, : -self.numbers], vector[:, -self.numbers :]
            further["added_cond_kwargs"] = {"text_embeds": pooled.to(dtype), "time_ids": numbers}
        if self.distilled is not None:
            further["timestep_cond"] = self.distilled.to(x).expand(len(x), -1)
        call = {"encoder_hidden_states": told["sequence"].to(dtype), **further}
        # ControlNets see the latents alone.
        added = residuals([*self.controls], self.scales, x, time, told, call) if self.controls else {}
        if "image" in told:
            x = torch.cat([x, told["image"].to(x.dtype)], 1)
        return self.model(x, time, **call, **added).sample


def scale_embedding(scale: float, width: int) -> Tensor:
    """What a distilled network is told of a scale of guidance w: sines and cosines of 1000 (w - 1) at ``width`` // 2
    frequencies from 1 to 1e-4, (1, width)."""
    half = width // 2
    frequencies = torch.exp(-math.log(1e4) * torch.arange(half) / (half - 1))
    phases = 1000 * (scale - 1) * frequencies
    return torch.cat([phases.sin(), phases.cos(), phases.new_zeros(width % 2)])[None]
