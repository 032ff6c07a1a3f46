"""NCSN++, DDPM++ and DDPM (Ho et al. 2020; Song et al. 2021, appendix H; Karras et al. 2022, appendix F)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sde.condition.tree import Condition, Shapes
from sde.networks.attention import may_fuse
from sde.networks.blocks import Stage
from sde.networks.embedding import Embedding
from sde.networks.encoding import Encoding, with_residuals
from sde.networks.layers import CONVOLUTIONS, check_input, crop, pad, run, split_shape, zero_init
from sde.networks.mapping import Mapping, split_augmentation
from sde.networks.ncsnpp_levels import levels_of, way_down, way_up
from sde.networks.ncsnpp_options import NCSNppOptions
from sde.networks.progressive import Head
from sde.networks.unet_options import attended_levels, takes_options


@takes_options(NCSNppOptions)
class NCSNpp(nn.Module):
    """forward(x, c_noise, cond) -> a tensor of the shape of x (B, channels, *space); any size, by padding and cropping.

    A residual U-Net with one-headed self-attention at chosen resolutions, in the middle, and on the way up once per
    level. By its options it is DDPM (``resample_blocks`` and ``skip_rescale`` False, ``resampling`` "conv",
    ``embedding_type`` "positional", ``progressive_input`` "none"), DDPM++ (``fir_kernel`` (1, 1), "positional", "none")
    or NCSN++, the default. ``cond`` holds labels below ``num_classes``, -1 for null, ``augmentation`` where
    ``augment_dim`` says so, and what ``conditions`` gives the shapes of: a vector joins the embedding, an image the
    channels of x, and where there is self-attention, positions attend to the tokens of a sequence (sde.condition); None
    is all null.

    ``event_shape`` is (channels, *space) with one to three axes of space; the other keyword arguments are those of
    ``NCSNppOptions``.
    """

    decoder = ("up", "head")
    tokens = False

    def __init__(
        self,
        event_shape: Sequence[int],
        num_classes: int | None = None,
        *,
        conditions: Shapes | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.inputs, space = split_shape(event_shape, "NCSN++")
        self.num_classes, self.options = num_classes, NCSNppOptions(**options)
        chosen = self.options
        self.shared = shared = chosen.blocks(len(space))
        attended = attended_levels(space, len(chosen.channel_mult), chosen.attention_resolutions)
        mapping = Mapping(
            chosen.features_mult * chosen.channels, shared.width, chosen.embedding_type, chosen.fourier_scale,
            num_classes, chosen.augment_dim, chosen.frequency_unit,
        )  # fmt: skip
        self.embedding = Embedding(
            shared.width, num_classes, conditions, event_shape, mapping=mapping, sequence_layers=chosen.sequence_layers
        )
        self.conditions, cross = self.embedding.conditions, self.embedding.sequence is not None
        inputs = self.inputs + self.embedding.channels
        self.stem = CONVOLUTIONS[shared.dims](inputs, chosen.channels, 3, padding=1)
        self.down, skips = way_down(shared, chosen, inputs, attended, cross)
        current = skips[-1]
        self.tap_channels, self.hint_shape = [*skips, current], (chosen.channels, *space)
        self.middle = nn.ModuleList(
            [Stage(shared, current, current, True, cross), Stage(shared, current, current, False)]
        )
        outputs, last = self.inputs * (2 if chosen.learned_variance else 1), chosen.channels * chosen.channel_mult[0]
        self.up = way_up(shared, chosen, outputs, skips, attended, cross)
        self.head = None if chosen.progressive_output == "skip" else Head(shared, last, outputs)
        _initialize(self)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        return self.decode(x, c_noise, self.encode(x, c_noise, cond))

    def encode(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None, hint: Tensor | None = None) -> Encoding:
        """The way down and the middle (sde.networks.encoding)."""
        check_input(x, self.inputs, self.shared.dims)
        recompute, fused = self.options.activation_checkpointing, may_fuse(self, x)
        cond, augmentation = split_augmentation(cond, self.options.augment_dim)
        x = x if self.options.centered else 2 * x - 1
        x, embedding, context = self.embedding(x, c_noise, cond, augmentation)
        pyramid = pad(x, self.options.factor)
        h = self.stem(pyramid)
        h = h if hint is None else h + pad(hint, self.options.factor)
        taps = [h]
        for level in levels_of(self.down):
            h = level.resampled(h, embedding, recompute)
            if level.pyramid is not None:
                pyramid, h = level.pyramid(pyramid, h)
            if level.resample is not None:
                taps.append(h)
            for stage in level.stages:
                h = run(stage, h, embedding, context, fused, recompute=recompute)
                taps.append(h)
        for stage in self.middle.children():
            h = run(stage, h, embedding, context, fused, recompute=recompute)
        return Encoding([*taps, h], embedding, context)

    def decode(self, x: Tensor, c_noise: Tensor, encoding: Encoding, residuals: Sequence[Tensor] = ()) -> Tensor:
        """The way up."""
        recompute, fused = self.options.activation_checkpointing, may_fuse(self, x)
        *skips, h = with_residuals(encoding.taps, residuals)
        embedding, context = encoding.embedding, encoding.context
        output: Tensor | None = None
        for level in levels_of(self.up):
            h = level.resampled(h, embedding, recompute)
            for stage in level.stages:
                h = run(stage, torch.cat([h, skips.pop()], dim=1), embedding, context, fused, recompute=recompute)
            if level.pyramid is not None:
                output, h = level.pyramid(output, h)
        if self.head is None and output is not None:
            h = output
        h = crop(h if self.head is None else self.head(h), x.shape[2:])[:, : self.inputs]
        if not self.options.scale_by_sigma:
            return h
        slope, intercept = self.options.log_sigma
        return h / (slope * c_noise + intercept).exp().view(-1, *[1] * (h.ndim - 1))


def _initialize(network: NCSNpp) -> None:
    """Weights of variance 2 / (inputs + outputs), uniform, and biases zero; what is zero already stays (Ho et al.
    2020, in their code; Song et al. 2021)."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            zero = not module.weight.is_meta and not module.weight.any()
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if zero:
                zero_init(module)
