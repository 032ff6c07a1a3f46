"""The options of ADM, which the denoising network and the classifier share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sde.networks.layers import BlockOptions, capped_group_norm, check_counts


@dataclass(frozen=True)
class ADMOptions:
    """``channel_mult`` gives the channels of each level in units of ``channels``, which may be fractions.
    ``num_res_blocks`` are the residual blocks per level, ``attention_resolutions`` the resolutions (sizes of the
    longest axis) that get self-attention. The other options are the paper's ablations (tables 1 to 3):

    - ``num_heads`` heads of attention, or, where it is 0, as many as have ``head_channels`` channels.
    - ``embedding_mult``: width of the embedding in units of ``channels``.
    - ``middle_attention``: self-attention between the two middle blocks.
    - ``adaptive``: the embedding scales and shifts after group norm (adaptive group norm); else it is added before.
    - ``resample_blocks``: residual blocks halve and double (BigGAN's). Else levels are halved and doubled between
      blocks, with a convolution for ``resample_conv``, and by averaging and repeating alone without.
    - ``group_channels``: group norm has 32 groups, or fewer, so that each has at least this many channels. It is 1
      in the paper's code, and 4 in that of Karras et al. 2022.
    - ``augment_dim``: how many numbers ``cond["augmentation"]`` has, by which the network is told how its input was
      augmented (Karras et al. 2022, appendix F.2); it need not be there.

    ``sequence_layers`` of a transformer see a sequence of the condition before it is attended to, and add to the
    embedding. With ``activation_checkpointing``, in training, activations inside stages are computed again instead of
    kept. Raises ValueError for counts below 1, or channels that are no whole numbers.
    """

    channels: int = 64
    channel_mult: Sequence[float] = (1, 2)
    num_res_blocks: int = 2
    attention_resolutions: Sequence[int] = ()
    dropout: float = 0.0
    num_heads: int = 0
    head_channels: int = 64
    embedding_mult: int = 4
    middle_attention: bool = True
    adaptive: bool = True
    resample_blocks: bool = True
    resample_conv: bool = True
    group_channels: int = 4
    augment_dim: int = 0
    activation_checkpointing: bool = False
    sequence_layers: int = 0

    def __post_init__(self) -> None:
        check_counts(
            channels=self.channels,
            num_res_blocks=self.num_res_blocks,
            head_channels=self.head_channels,
            group_channels=self.group_channels,
            embedding_mult=self.embedding_mult,
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

    def blocks(self, dims: int) -> BlockOptions:
        """What the blocks share, for so many axes of space."""
        return BlockOptions(
            dims,
            self.embedding_mult * self.channels,
            self.dropout,
            norm=partial(capped_group_norm, group_channels=self.group_channels, eps=1e-5),
            adaptive=self.adaptive,
            head_channels=self.head_channels,
            num_heads=self.num_heads or None,
        )
