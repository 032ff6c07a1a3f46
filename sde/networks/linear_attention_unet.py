"""A U-Net with linear attention at every level and RMS norm: that of denoising-diffusion-pytorch (Wang 2020)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from sde.condition.tree import Condition, Shapes
from sde.networks.attention import may_fuse
from sde.networks.embedding import ClassEmbedding, Embedding, fourier_frequencies
from sde.networks.encoding import Encoding, with_residuals
from sde.networks.layers import (
    CONVOLUTIONS,
    BlockOptions,
    check_choice,
    check_counts,
    check_input,
    crop,
    pad,
    per_level,
    run,
    split_shape,
    zero_init,
)
from sde.networks.linear_attention import AttendedBlock, ChannelRMSNorm, ModulatedBlock
from sde.networks.resample import resampler, space_to_channels

NOISE_FEATURES = ("sinusoidal", "fourier", "learned")


class NoiseFeatures(nn.Module):
    """(c_noise, labels) -> (B, width): sines and cosines of c_noise, then two layers with a GELU between, to which a
    learned embedding of the class, or of null, is added.

    ``kind`` "sinusoidal" has ``channels`` / 2 frequencies from 1 to 1e-4, in a geometric series. "fourier" has as many
    random ones, times 2 pi, and c_noise itself beside them; those of "learned" are parameters.
    """

    frequencies: Tensor

    def __init__(self, width: int, kind: str, channels: int, num_classes: int | None = None) -> None:
        super().__init__()
        check_choice("noise_features", kind, NOISE_FEATURES)
        self.fourier, count = kind != "sinusoidal", channels // 2
        if self.fourier:
            values = fourier_frequencies(count, 1 / (2 * math.pi))
        else:
            values = (-math.log(10_000) / max(count - 1, 1) * torch.arange(count, dtype=torch.float32)).exp()
        if kind == "learned":
            self.frequencies = nn.Parameter(values)
        else:
            self.register_buffer("frequencies", values)
        features = 2 * count + self.fourier
        self.layers = nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, width))
        self.label = ClassEmbedding(num_classes, width) if num_classes else None

    def forward(self, c_noise: Tensor, labels: Tensor | None = None, *_: Tensor | None) -> Tensor:
        angle = c_noise[:, None] * self.frequencies
        # One factor after the other: the angles of random frequencies are large, and their rounding is seen.
        angle = angle * 2 * math.pi if self.fourier else angle
        features = [c_noise[:, None]] if self.fourier else []
        h = self.layers(torch.cat([*features, angle.sin(), angle.cos()], dim=1))
        return h if self.label is None or labels is None else h + self.label(labels)


class LinearAttentionUNet(nn.Module):
    """forward(x, c_noise, cond) -> a tensor of the shape of x (B, channels, *space); any size, by padding and cropping.

    At each level of channels ``channel_mult`` times ``channels`` there are two blocks and attention, which is linear
    but for levels of ``full_attention``, a value per level, () for the innermost alone. ``heads`` of ``head_channels``
    are those of each level, or of all. ``stem_channels`` are those of the first convolution, 0 for ``channels``.
    ``noise_features`` is one of NOISE_FEATURES; but for "sinusoidal", there are ``fourier_channels`` / 2 frequencies.

    ``cond`` holds labels below ``num_classes``, -1 for null, and what ``conditions`` gives the shapes of, as for
    ``UNet``; None is all null. A network with ``self_condition`` sees an estimate of the data beside x, here always
    zero, as in half of its training. With ``learned_variance`` the head has as many channels again, which are kept, and
    not returned. ``sequence_layers`` are as in ``UNetOptions``. With ``activation_checkpointing``, in training,
    activations inside blocks are computed again instead of kept. Raises ValueError for an event shape without 1 to 3
    axes of space, counts below 1, and options per level that are not of as many levels.
    """

    decoder = ("ups", "upsample", "last", "head")
    tokens = False

    def __init__(
        self,
        event_shape: Sequence[int],
        num_classes: int | None = None,
        channels: int = 64,
        channel_mult: Sequence[int] = (1, 2),
        stem_channels: int = 0,
        heads: Sequence[int] = (4,),
        head_channels: Sequence[int] = (32,),
        full_attention: Sequence[bool] = (),
        dropout: float = 0.0,
        noise_features: str = "sinusoidal",
        fourier_channels: int = 16,
        self_condition: bool = False,
        learned_variance: bool = False,
        activation_checkpointing: bool = False,
        sequence_layers: int = 0,
        conditions: Shapes | None = None,
    ) -> None:
        super().__init__()
        self.inputs, space = split_shape(event_shape, "linear-attention U-Net")
        check_counts(
            channels=channels,
            channel_mult=channel_mult,
            heads=heads,
            head_channels=head_channels,
            fourier_channels=fourier_channels,
        )
        self.num_classes, self.self_condition = num_classes, self_condition
        self.activation_checkpointing, count = activation_checkpointing, len(channel_mult)
        full = full_attention or [False] * (count - 1) + [True]
        each = partial(per_level, channel_mult=channel_mult)
        own = each("heads", heads), each("head_channels", head_channels), each("full_attention", full)
        shapes = list(zip(*own, strict=True))
        self.dims = dims = len(space)
        conv = CONVOLUTIONS[dims]
        options = BlockOptions(dims, 4 * channels, dropout, norm=ChannelRMSNorm)
        mapping = NoiseFeatures(
            options.width,
            noise_features,
            channels if noise_features == "sinusoidal" else fourier_channels,
            num_classes,
        )
        self.embedding = Embedding(
            options.width, num_classes, conditions, event_shape, mapping=mapping, sequence_layers=sequence_layers
        )
        self.conditions, cross = self.embedding.conditions, self.embedding.sequence is not None
        self.factor = 2 ** (count - 1)
        sizes = [stem_channels or channels, *(channels * multiplier for multiplier in channel_mult)]
        self.tap_channels = [sizes[0], *(size for size in sizes[:-1] for _ in range(2)), sizes[-1]]
        self.hint_shape = (sizes[0], *space)
        inputs = self.inputs + self.embedding.channels + (self.inputs if self_condition else 0)
        self.stem = conv(inputs, sizes[0], 7, padding=3)
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for level, ((inner, outer), shape) in enumerate(zip(pairwise(sizes), shapes, strict=True)):
            last = level == count - 1
            self.downs.append(
                nn.ModuleDict(
                    {
                        "first": ModulatedBlock(options, inner, inner),
                        "second": AttendedBlock(options, inner, inner, *shape, cross and shape[-1]),
                        "resample": conv(inner, outer, 3, padding=1) if last else conv(2**dims * inner, outer, 1),
                    }
                )
            )
            # On the way up, levels come from the last to the first.
            self.ups.insert(
                0,
                nn.ModuleDict(
                    {
                        "first": ModulatedBlock(options, outer + inner, outer),
                        "second": AttendedBlock(options, outer + inner, outer, *shape, cross and shape[-1]),
                        "resample": conv(outer, inner, 3, padding=1),
                    }
                ),
            )
        self.middle = nn.ModuleList(
            [
                AttendedBlock(options, sizes[-1], sizes[-1], *shapes[-1][:2], True, cross),
                ModulatedBlock(options, sizes[-1], sizes[-1]),
            ]
        )
        self.upsample = resampler(dims, up=True)
        self.last = ModulatedBlock(options, 2 * sizes[0], sizes[0])
        self.head = zero_init(conv(sizes[0], self.inputs * (2 if learned_variance else 1), 1))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        return self.decode(x, c_noise, self.encode(x, c_noise, cond))

    def encode(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None, hint: Tensor | None = None) -> Encoding:
        """The way down and the middle (sde.networks.encoding)."""
        check_input(x, self.inputs, self.dims)
        recompute, fused = self.activation_checkpointing, may_fuse(self, x)
        inputs, embedding, context = self.embedding(x, c_noise, cond)
        if self.self_condition:
            inputs = torch.cat([torch.zeros_like(x), inputs], dim=1)
        h = self.stem(pad(inputs, self.factor))
        h = h if hint is None else h + pad(hint, self.factor)
        taps = [h]
        for level, down in enumerate(_levels(self.downs), 1):
            h = run(down["first"], h, embedding, recompute=recompute)
            taps.append(h)
            h = run(down["second"], h, embedding, context, fused, recompute=recompute)
            taps.append(h)
            h = down["resample"](h if level == len(self.downs) else space_to_channels(h))
        h = run(self.middle[0], h, embedding, context, fused, recompute=recompute)
        h = run(self.middle[1], h, embedding, recompute=recompute)
        return Encoding([*taps, h], embedding, context)

    def decode(self, x: Tensor, c_noise: Tensor, encoding: Encoding, residuals: Sequence[Tensor] = ()) -> Tensor:
        """The way up."""
        recompute, fused = self.activation_checkpointing, may_fuse(self, x)
        stem, *skips, h = with_residuals(encoding.taps, residuals)
        embedding, context = encoding.embedding, encoding.context
        for level, up in enumerate(_levels(self.ups), 1):
            h = run(up["first"], torch.cat([h, skips.pop()], dim=1), embedding, recompute=recompute)
            h = torch.cat([h, skips.pop()], dim=1)
            h = run(up["second"], h, embedding, context, fused, recompute=recompute)
            h = up["resample"](h if level == len(self.ups) else self.upsample(h))
        h = run(self.last, torch.cat([h, stem], dim=1), embedding, recompute=recompute)
        return crop(self.head(h)[:, : x.shape[1]], x.shape[2:])


def _levels(way: nn.ModuleList) -> Iterator[Mapping[str, nn.Module]]:
    for level in way:
        yield dict(cast(nn.ModuleDict, level).items())
