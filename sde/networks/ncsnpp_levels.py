"""The levels of NCSN++: what each resolution is made of, on the way down and on the way up."""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from sde.networks.blocks import ResidualBlock, Stage
from sde.networks.layers import BlockOptions, run
from sde.networks.ncsnpp_options import NCSNppOptions
from sde.networks.progressive import ResidualInput, ResidualOutput, SkipInput, SkipOutput
from sde.networks.resample import ConvolutionDown, ConvolutionUp, resampler


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


def way_down(
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


def way_up(
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
    filtered = resampler(shared.dims, options.taps, up)
    if options.resample_blocks:
        return ResidualBlock(shared, channels, channels, filtered)
    if not options.resample_conv:
        return filtered
    return (ConvolutionUp if up else ConvolutionDown)(shared.dims, channels, channels, options.taps)
