"""A U-Net over signals, images or volumes (Ho et al. 2020, appendix B; Dhariwal and Nichol 2021, section 3)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sde.condition import Condition, Shapes
from sde.networks.blocks import ResidualBlock, Stage, group_norm
from sde.networks.encoder import UNetEncoder
from sde.networks.layers import CONVOLUTIONS, crop, run, zero_init
from sde.networks.resample import resampler


class UNet(nn.Module):
    """forward(x, c_noise, cond) -> a tensor of the shape of x (B, channels, *space); any size, by padding and cropping.

    A residual U-Net with adaptive group norm from the noise and class embedding, self-attention at chosen resolutions
    and in the middle, and an output that starts at zero. ``cond`` holds labels below ``num_classes``, -1 for null, and
    what ``conditions`` gives the shapes of: a vector joins the embedding, an image the channels of x, and where there
    is self-attention, and in the middle, positions attend to the tokens of a sequence (sde.condition); None is all
    null.

    ``event_shape`` is (channels, *space) with one to three axes of space; ``multipliers`` gives the channels of each
    level in units of ``channels``, ``attention`` the resolutions (sizes of the longest axis) that get self-attention.
    The other options, together, make an NCSN++ (Song et al. 2021, appendix H):

    - ``resampling``: "conv" halves by strided convolutions and doubles by repeating before a convolution; "fir" filters
      by ``Resample`` before a convolution both ways.
    - ``resample_blocks``: residual blocks resample instead (Brock et al. 2019), by averaging and repeating for "conv".
    - ``noise_embedding``: "sinusoidal", or "fourier" with random frequencies of scale ``fourier_scale``.
    - ``skip_rescale``: residual sums are divided by sqrt 2.
    - ``progressive_input``: "residual" adds to the way down, after each halving, the sum after the one before (first
      the input), halved and projected by a convolution.
    - ``checkpointing``: in training, activations inside stages are computed again instead of kept.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        num_classes: int | None = None,
        channels: int = 64,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 2,
        attention: Sequence[int] = (),
        dropout: float = 0.0,
        resampling: str = "conv",
        resample_blocks: bool = False,
        noise_embedding: str = "sinusoidal",
        fourier_scale: float = 16.0,
        skip_rescale: bool = False,
        progressive_input: str = "none",
        checkpointing: bool = False,
        conditions: Shapes | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.encoder = encoder = UNetEncoder(
            event_shape,
            num_classes,
            channels,
            multipliers,
            blocks,
            attention,
            dropout,
            resampling,
            resample_blocks,
            noise_embedding,
            fourier_scale,
            skip_rescale,
            progressive_input,
            checkpointing,
            conditions,
        )
        self.conditions, cross = encoder.embedding.conditions, encoder.embedding.sequence is not None
        options, current = encoder.options, encoder.channels
        conv = CONVOLUTIONS[options.dims]
        self.middle = nn.ModuleList(
            [Stage(options, current, current, any(encoder.attended), cross), Stage(options, current, current, False)]
        )
        self.levels, self.ups = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(multipliers))):
            stages = nn.ModuleList()
            for skip in reversed(encoder.skip_channels[level]):
                outputs = channels * multipliers[level]
                stages.append(Stage(options, current + skip, outputs, encoder.attended[level], encoder.crossed[level]))
                current = outputs
            self.levels.append(stages)
            if not level:
                self.ups.append(nn.Identity())
            elif resample_blocks:
                double = resampler(options.dims, encoder.fir, up=True)
                self.ups.append(ResidualBlock(options, current, current, double))
            else:
                self.ups.append(conv(current, current, 3, padding=1))
        self.filter = resampler(options.dims, encoder.fir, up=True)
        self.norm, self.head = group_norm(current), zero_init(conv(current, event_shape[0], 3, padding=1))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        recompute, resample_blocks = self.encoder.checkpointing, self.encoder.resample_blocks
        skips, embedding, context = self.encoder(x, c_noise, cond)
        h = skips[-1][-1]
        for stage in self.middle:
            h = run(stage, h, embedding, context, recompute=recompute)
        for stages, up in zip(self.levels, self.ups, strict=True):
            level = skips.pop()
            for stage in stages.children():
                h = run(stage, torch.cat([h, level.pop()], dim=1), embedding, context, recompute=recompute)
            if skips:
                h = run(up, h, embedding, recompute=recompute) if resample_blocks else up(self.filter(h))
        return crop(self.head(F.silu(self.norm(h))), x.shape[2:])
