"""The options of ADM, which the denoising network and the classifier share."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from sde.networks.layers import check_counts, heads_of, largest_divisor


@dataclass(frozen=True)
class ADMOptions:
    """``channel_mult`` gives the channels of each level in units of ``channels``, which may be fractions.
    ``num_res_blocks`` are the residual blocks per level, ``attention_resolutions`` the resolutions (sizes of the longest
    axis) that get self-attention. The other options are the paper's ablations (tables 1 to 3):

    - ``num_heads`` heads of attention, or, where it is 0, as many as have ``num_head_channels`` channels.
    - ``middle_attention``: self-attention between the two middle blocks.
    - ``scale_shift``: the embedding scales and shifts after group norm (adaptive group norm); else it is added before.
    - ``resample_blocks``: residual blocks halve and double (BigGAN's). Else levels are halved and doubled between
      blocks, with a convolution for ``conv_resample``, and by averaging and repeating alone without.
    - ``min_group_channels``: group norm has 32 groups, or fewer, so that each has at least this many channels. It is 1
      in the paper's code, and 4 in that of Karras et al. 2022.

    With ``activation_checkpointing``, in training, activations inside stages are computed again instead of kept.
    Raises ValueError for counts below 1, or channels that are no whole numbers.
    """

    channels: int = 64
    channel_mult: Sequence[float] = (1, 2)
    num_res_blocks: int = 2
    attention_resolutions: Sequence[int] = ()
    dropout: float = 0.0
    num_heads: int = 0
    num_head_channels: int = 64
    middle_attention: bool = True
    scale_shift: bool = True
    resample_blocks: bool = True
    conv_resample: bool = True
    min_group_channels: int = 4
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        check_counts(
            channels=self.channels,
            num_res_blocks=self.num_res_blocks,
            num_head_channels=self.num_head_channels,
            min_group_channels=self.min_group_channels,
        )
        if not self.channel_mult or any(m <= 0 or self.channels * m % 1 for m in self.channel_mult):
            raise ValueError(
                f"channel_mult = {self.channel_mult} of channels = {self.channels}: needs whole numbers of channels, "
                "from 1, for one level or more"
            )

    @property
    def factor(self) -> int:
        """By how much the last level is coarser than the first."""
        return 2 ** (len(self.channel_mult) - 1)

    @property
    def level_channels(self) -> list[int]:
        """Channels of each level."""
        return [int(self.channels * multiplier) for multiplier in self.channel_mult]

    def heads(self, channels: int, num_heads: int = 0) -> int:
        """Heads for channels: ``num_heads`` where given, else by the options. Raises ValueError for a number of heads
        that does not divide the channels."""
        count = num_heads or self.num_heads
        if count and channels % count:
            raise ValueError(f"num_heads = {count} does not divide {channels} channels: take a divisor, or 0")
        return count or heads_of(channels, self.num_head_channels)

    def norm(self, channels: int) -> nn.GroupNorm:
        """Group norm in at most 32 groups of ``min_group_channels`` channels or more."""
        return nn.GroupNorm(largest_divisor(channels, min(32, channels // self.min_group_channels)), channels, eps=1e-5)
