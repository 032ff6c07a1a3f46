"""A U-Net with a mapping network and adaptive group norm in every layer: that of k-diffusion's models image_v1."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sde.condition.tree import Condition, Shapes
from sde.networks.attention import Context, may_fuse
from sde.networks.encoding import Encoding, with_residuals
from sde.networks.layers import (
    CONVOLUTIONS,
    check_counts,
    check_input,
    crop,
    pad,
    per_level,
    run,
    split_shape,
    zero_init,
)
from sde.networks.mapped_blocks import MappedStage, patches_of, positions_of
from sde.networks.mapped_embedding import FourierFeatures, MappedEmbedding
from sde.networks.resample import Resample


class MappedUNet(nn.Module):
    """forward(x, c_noise, cond) -> a tensor of the shape of x (B, channels, *space); any size, by padding and
    cropping.

    A level has ``widths`` channels and ``depths`` residual blocks each way, with self-attention behind each in
    ``attended_levels``, numbered from 0; levels halve and double by ``Resample`` that reflects at borders. Fourier
    features of the noise level, with what else is known, go through two layers of ``mapping_width`` features to
    adaptive group norm in front of every convolution and attention. With ``patch_size`` above 1, the blocks work on
    patches, whose positions are channels (Shi et al. 2016). ``stem_width`` is that of the first and last convolution,
    the first level's for 0. With ``log_variance`` the last convolution has one channel more, the log-variance of a
    model that was trained with it, which is left out of what is returned.

    ``cond`` holds labels below ``num_classes``, -1 for null, and what ``conditions`` gives the shapes of: a vector
    joins the embedding, an image the channels of x, and in ``crossed_levels``, the attended ones unless told otherwise,
    positions attend to the tokens of a sequence (sde.condition), which ``sequence_layers`` of a transformer see first;
    None is all null. It may have an ``augmentation`` (B, augment_dim), which says how items were augmented. With
    ``activation_checkpointing``, in training, activations inside stages are computed again instead of kept.

    Raises ValueError for an event shape without 1 to 3 axes of space, and for options that do not fit each other.
    """

    decoder = ("up", "doubles", "head")
    tokens = False

    def __init__(
        self,
        event_shape: Sequence[int],
        num_classes: int | None = None,
        patch_size: int = 1,
        widths: Sequence[int] = (64, 128),
        depths: Sequence[int] = (2, 2),
        attended_levels: Sequence[int] = (1,),
        crossed_levels: Sequence[int] = (),
        mapping_width: int = 256,
        dropout: float = 0.0,
        augment_dim: int = 0,
        stem_width: int = 0,
        log_variance: bool = False,
        activation_checkpointing: bool = False,
        sequence_layers: int = 0,
        conditions: Shapes | None = None,
    ) -> None:
        super().__init__()
        self.inputs, space = split_shape(event_shape, "U-Net")
        self.dims, self.patch_size, count = len(space), patch_size, len(widths)
        check_counts(widths=widths, depths=depths, patch_size=patch_size, mapping_width=mapping_width)
        depths = per_level("depths", depths, widths=widths)
        for name, levels in (("attended_levels", attended_levels), ("crossed_levels", crossed_levels)):
            if not set(levels) <= set(range(count)):
                raise ValueError(f"{name} = {tuple(levels)}: the levels are numbered from 0 to {count - 1}")
        self.activation_checkpointing, self.num_classes = activation_checkpointing, num_classes
        self.factor = patch_size * 2 ** (count - 1)
        self.embedding = embedding = MappedEmbedding(
            mapping_width,
            num_classes,
            conditions,
            event_shape,
            FourierFeatures(1, mapping_width),
            nn.Linear(augment_dim, mapping_width, bias=False) if augment_dim else None,
            augment_dim,
            mapping_layers(mapping_width),
            sequence_layers,
        )
        self.conditions = embedding.conditions
        conv, stem, patch = CONVOLUTIONS[self.dims], stem_width or widths[0], patch_size**self.dims
        outer = [stem, *widths[:-1]]
        self.tap_channels = [*widths]
        self.hint_shape = (stem, *(math.ceil(size / patch_size) for size in space))
        crossed = (crossed_levels or attended_levels) if embedding.features else ()
        self.outputs = self.inputs * patch

        def stage(level: int, inputs: int, outputs: int) -> MappedStage:
            return MappedStage(
                self.dims,
                mapping_width,
                inputs,
                outputs,
                widths[level],
                dropout,
                level in attended_levels,
                embedding.features if level in crossed else 0,
            )

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            ins, outs = [outer[level], *[width] * (depth - 1)], [width] * depth
            self.down.append(nn.ModuleList(stage(level, *pair) for pair in zip(ins, outs, strict=True)))
            # All but the coarsest level join the skip.
            ins = [width * (2 if level < count - 1 else 1), *[width] * (depth - 1)]
            outs = [*[width] * (depth - 1), outer[level]]
            self.up.append(nn.ModuleList(stage(level, *pair) for pair in zip(ins, outs, strict=True)))
        self.halves = nn.ModuleList(Resample(self.dims, reflect=True) for _ in outer[1:])
        self.doubles = nn.ModuleList(Resample(self.dims, up=True, reflect=True) for _ in outer[1:])
        self.stem = conv((self.inputs + embedding.channels) * patch, stem, 1)
        self.head = zero_init(conv(stem, self.outputs + int(log_variance), 1))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        return self.decode(x, c_noise, self.encode(x, c_noise, cond))

    def encode(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None, hint: Tensor | None = None) -> Encoding:
        """The way down (sde.networks.encoding); the coarsest level is the last tap."""
        check_input(x, self.inputs, self.dims)
        inputs, embedding, context = self.embedding(x, c_noise, cond)
        fused, taps = may_fuse(self, x), []
        h = self.stem(patches_of(pad(inputs, self.factor), self.patch_size))
        h = h if hint is None else h + pad(hint, self.factor // self.patch_size)
        for level, stages in enumerate(self.down):
            h = self._run(stages, self.halves[level - 1](h) if level else h, embedding, context, fused)
            taps.append(h)
        return Encoding(taps, embedding, context)

    def decode(self, x: Tensor, c_noise: Tensor, encoding: Encoding, residuals: Sequence[Tensor] = ()) -> Tensor:
        """The way up."""
        fused, embedding, context = may_fuse(self, x), encoding.embedding, encoding.context
        *skips, h = with_residuals(encoding.taps, residuals)
        for level in reversed(range(len(self.up))):
            h = h if level == len(self.up) - 1 else torch.cat([h, skips[level]], dim=1)
            h = self._run(self.up[level], h, embedding, context, fused)
            h = self.doubles[level - 1](h) if level else h
        return crop(positions_of(self.head(h)[:, : self.outputs], self.patch_size), x.shape[2:])

    def _run(self, stages: nn.Module, h: Tensor, embedding: Tensor, context: Context | None, fused: bool) -> Tensor:
        for stage in stages.children():
            h = run(stage, h, embedding, context, fused, recompute=self.activation_checkpointing)
        return h


def mapping_layers(width: int) -> nn.Sequential:
    """Two layers with GELU behind each; orthogonal at first, as their input has unit variance."""
    first, second = nn.Linear(width, width), nn.Linear(width, width)
    for layer in (first, second):
        nn.init.orthogonal_(layer.weight)
    return nn.Sequential(first, nn.GELU(), second, nn.GELU())
