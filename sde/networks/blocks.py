"""Residual blocks of a U-Net, with adaptive group norm."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from sde.networks.attention import Context, ContextAttention, SelfAttention
from sde.networks.dropout import Dropout
from sde.networks.layers import CONVOLUTIONS, BlockOptions, residual_sum, zero_init


class ResidualBlock(nn.Module):
    """Two convolutions; between them the embedding scales and shifts what is normalized (adaptive group norm) or,
    where it is not ``adaptive``, is added before that (Ho et al. 2020). Without a ``width`` there is no embedding.

    ``resample`` halves or doubles the resolution inside the block, on both of its ways (Brock et al. 2019, figure 15).
    """

    def __init__(self, options: BlockOptions, inputs: int, outputs: int, resample: nn.Module | None = None) -> None:
        super().__init__()
        conv = CONVOLUTIONS[options.dims]
        self.norm1, self.conv1 = options.norm(inputs), conv(inputs, outputs, 3, padding=1)
        self.adaptive = options.adaptive
        told = 2 * outputs if options.adaptive else outputs
        self.modulation = nn.Linear(options.width, told) if options.width else None
        self.norm2, self.conv2 = options.norm(outputs), zero_init(conv(outputs, outputs, 3, padding=1))
        self.dropout = Dropout(options.dropout)
        same = inputs == outputs and not (options.projected and resample)
        self.skip = nn.Identity() if same else conv(inputs, outputs, 1)
        self.rescale, self.resample = options.rescale, resample or nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        h = self.conv1(self.resample(F.silu(self.norm1(x))))
        if self.modulation is None:
            h = F.silu(self.norm2(h))
            return residual_sum(self.skip(self.resample(x)), self.conv2(self.dropout(h)), self.rescale)
        modulation = self.modulation(embedding).view(x.shape[0], -1, *[1] * (x.ndim - 2))
        if self.adaptive:
            scale, shift = modulation.chunk(2, dim=1)
            h = F.silu(self.norm2(h) * (1 + scale) + shift)
        else:
            h = F.silu(self.norm2(h + modulation))
        return residual_sum(self.skip(self.resample(x)), self.conv2(self.dropout(h)), self.rescale)


class Stage(nn.Module):
    """A residual block, then self-attention and attention to a context where asked for."""

    def __init__(self, options: BlockOptions, inputs: int, outputs: int, attention: bool, cross: bool = False) -> None:
        super().__init__()
        self.block = ResidualBlock(options, inputs, outputs)
        self.attention = SelfAttention(options, outputs) if attention else None
        self.cross = ContextAttention(options, outputs) if cross else None

    def forward(
        self, x: Tensor, embedding: Tensor | None = None, context: Context | None = None, fused: bool = False
    ) -> Tensor:
        h = self.block(x, embedding)
        h = h if self.attention is None else self.attention(h, fused)
        return h if self.cross is None else self.cross(h, context, fused)


def stages_of(
    options: BlockOptions, inputs: int, outputs: int, skips: Sequence[int], attention: bool, cross: bool
) -> nn.ModuleList:
    """The stages of a level one after another, from ``inputs`` to ``outputs`` channels; each takes up the channels of
    its ``skips`` besides, 0 for none."""
    before = [inputs, *[outputs] * (len(skips) - 1)]
    return nn.ModuleList(
        Stage(options, own + skip, outputs, attention, attention and cross)
        for own, skip in zip(before, skips, strict=True)
    )
