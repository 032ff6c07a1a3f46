"""NCSN++, DDPM++ and DDPM (Ho et al. 2020; Song et al. 2021, appendix H; Karras et al. 2022, appendix F)."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from sde.condition.tree import Condition, Shapes
from sde.networks.attention import may_fuse
from sde.networks.blocks import ResidualBlock, Stage
from sde.networks.embedding import Embedding
from sde.networks.layers import CONVOLUTIONS, BlockOptions, check_input, crop, pad, run, split_shape, zero_init
from sde.networks.mapping import Mapping, split_augmentation
from sde.networks.ncsnpp_options import NCSNppOptions
from sde.networks.progressive import Head, ResidualInput, ResidualOutput, SkipInput, SkipOutput
from sde.networks.resample import TAPS, ConvolutionDown, ConvolutionUp, resampler
from sde.networks.unet_options import attended_levels, takes_options


class Level(nn.Module):
    """The parts of one resolution on the way down or up, None where there is none: what ``resample``s to it, what joins
    the ``pyramid`` beside it, and its ``stages`` of residual blocks."""

    def __init__(self, resample: nn.Module | None, pyramid: nn.Module | None, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.resample, self.pyramid, self.stages = resample, pyramid, nn.ModuleList(stages)

    def resampled(self, h: Tensor, embedding: Tensor, recompute: bool) -> Tensor:
        """h at this resolution."""
        if isinstance(self.resample, ResidualBlock):
            return run(self.resample, h, embedding, recompute=recompute)
        return h if self.resample is None else self.resample(h)


def levels_of(way: nn.ModuleList) -> list[Level]:
    """The levels of the way down, from the finest, or of the way up, from the coarsest."""
    return [cast(Level, level) for level in way]


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
        self.embedding = Embedding(shared.width, num_classes, conditions, event_shape, mapping=mapping)
        self.conditions, cross = self.embedding.conditions, self.embedding.sequence is not None
        inputs = self.inputs + self.embedding.channels
        self.stem = CONVOLUTIONS[shared.dims](inputs, chosen.channels, 3, padding=1)
        self.down, skips = _way_down(shared, chosen, inputs, attended, cross)
        current = skips[-1]
        self.middle = nn.ModuleList(
            [Stage(shared, current, current, True, cross), Stage(shared, current, current, False)]
        )
        outputs, last = self.inputs * (2 if chosen.learned_variance else 1), chosen.channels * chosen.channel_mult[0]
        self.up = _way_up(shared, chosen, outputs, skips, attended, cross)
        self.head = None if chosen.progressive_output == "skip" else Head(shared, last, outputs)
        _initialize(self)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        check_input(x, self.inputs, self.shared.dims)
        recompute, fused = self.options.activation_checkpointing, may_fuse(self, x)
        cond, augmentation = split_augmentation(cond, self.options.augment_dim)
        space, x = x.shape[2:], x if self.options.centered else 2 * x - 1
        x, embedding, context = self.embedding(x, c_noise, cond, augmentation)
        pyramid = pad(x, self.options.factor)
        h = self.stem(pyramid)
        skips = [h]
        for level in levels_of(self.down):
            h = level.resampled(h, embedding, recompute)
            if level.pyramid is not None:
                pyramid, h = level.pyramid(pyramid, h)
            if level.resample is not None:
                skips.append(h)
            for stage in level.stages:
                h = run(stage, h, embedding, context, fused, recompute=recompute)
                skips.append(h)
        for stage in self.middle.children():
            h = run(stage, h, embedding, context, fused, recompute=recompute)
        output: Tensor | None = None
        for level in levels_of(self.up):
            h = level.resampled(h, embedding, recompute)
            for stage in level.stages:
                h = run(stage, torch.cat([h, skips.pop()], dim=1), embedding, context, fused, recompute=recompute)
            if level.pyramid is not None:
                output, h = level.pyramid(output, h)
        if self.head is None and output is not None:
            h = output
        h = crop(h if self.head is None else self.head(h), space)[:, : self.inputs]
        if not self.options.scale_by_sigma:
            return h
        slope, intercept = self.options.log_sigma
        return h / (slope * c_noise + intercept).exp().view(-1, *[1] * (h.ndim - 1))


def _way_down(
    shared: BlockOptions, options: NCSNppOptions, inputs: int, attended: Sequence[bool], cross: bool
) -> tuple[nn.ModuleList, list[int]]:
    """The levels of the way down, and the channels of all that the way up takes up again."""
    levels, skips, pyramid = nn.ModuleList(), [options.channels], inputs
    for number, multiplier in enumerate(options.channel_mult):
        current, resample = skips[-1], None
        joined: ResidualInput | SkipInput | None = None
        if number:
            resample = _resampling(shared, options, current, up=False)
            if options.progressive_input != "none":
                if options.progressive_input == "residual":
                    joined = ResidualInput(shared, pyramid, current, options.taps)
                else:
                    cat = options.progressive_combine == "cat"
                    joined = SkipInput(shared.dims, pyramid, current, options.taps, cat)
                pyramid, current = joined.pyramid, joined.outputs
            skips.append(current)
        stages = []
        for _ in range(options.num_res_blocks):
            outputs, here = options.channels * multiplier, attended[number]
            stages.append(Stage(shared, skips[-1], outputs, here, here and cross))
            skips.append(outputs)
        levels.append(Level(resample, joined, stages))
    return levels, skips


def _way_up(
    shared: BlockOptions,
    options: NCSNppOptions,
    outputs: int,
    skips: Sequence[int],
    attended: Sequence[bool],
    cross: bool,
) -> nn.ModuleList:
    """The levels of the way up, from the coarsest."""
    levels, left, pyramid = nn.ModuleList(), list(skips), None
    current = left[-1]
    for number in reversed(range(len(options.channel_mult))):
        first = number == len(options.channel_mult) - 1
        resample = None if first else _resampling(shared, options, current, up=True)
        stages = []
        for block in range(options.num_res_blocks + 1):
            channels, here = options.channels * options.channel_mult[number], attended[number]
            here = here and block == options.num_res_blocks
            stages.append(Stage(shared, current + left.pop(), channels, here, here and cross))
            current = channels
        joined: nn.Module | None = None
        if options.progressive_output == "skip":
            joined = SkipOutput(shared, first, current, outputs, options.taps)
        elif options.progressive_output == "residual":
            joined = ResidualOutput(shared, pyramid, current, options.taps)
            pyramid = current
        levels.append(Level(resample, joined, stages))
    return levels


def _resampling(shared: BlockOptions, options: NCSNppOptions, channels: int, up: bool) -> nn.Module:
    """What halves or doubles the resolution of features."""
    filtered = resampler(shared.dims, options.taps is not None, up, options.taps or TAPS)
    if options.resample_blocks:
        return ResidualBlock(shared, channels, channels, filtered)
    if not options.resample_conv:
        return filtered
    return (ConvolutionUp if up else ConvolutionDown)(shared.dims, channels, channels, options.taps)


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
