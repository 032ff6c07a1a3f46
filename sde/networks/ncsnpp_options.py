"""The options of the DDPM, DDPM++ and NCSN++ networks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sde.networks.layers import BlockOptions, capped_group_norm, check_choice, check_counts
from sde.networks.mapping import EMBEDDING_TYPES
from sde.networks.progressive import COMBINATIONS, PROGRESSIVE
from sde.networks.unet_options import RESAMPLINGS


@dataclass(frozen=True)
class NCSNppOptions:
    """``channel_mult`` gives the channels of each level in units of ``channels``, ``num_res_blocks`` the residual
    blocks per level, ``attention_resolutions`` the resolutions (sizes of the longest axis) with self-attention.

    - ``resampling``: "fir" filters by the taps ``fir_kernel``, brought to sum 1, before it halves and after it doubles;
      (1, 1) averages and repeats. "conv" has no filter: convolutions halve by their stride, all else as for (1, 1).
    - ``resample_blocks``: residual blocks resample (BigGAN, Brock et al. 2019), as in DDPM++ and NCSN++; without, as in
      DDPM, convolutions do, or with ``resample_conv`` False no more than averages and repetitions.
    - ``progressive_input``, ``progressive_output``: pyramids of input and output beside the U-Net. "skip" joins each
      level by a convolution of width 1 and adds the levels' outputs; "residual" adds the pyramid to the features.
      ``progressive_combine``: how "skip" joins the input, "sum" or "cat".
    - ``embedding_type``: "positional" (DDPM; c_noise is a step of about 1000) or "fourier" with random frequencies
      of scale ``fourier_scale`` (c_noise is a logarithm of the noise level), kept by ``frequency_unit`` "radian" or
      "cycle". ``embedding_mult`` and ``features_mult`` are the width of the embedding, and its number of sines and
      cosines, in units of ``channels``.
    - ``adaptive``: the embedding scales and shifts after the norm; otherwise it is added before it.
    - ``skip_rescale``: residual sums are divided by sqrt 2.
    - ``group_channels``: the least channels per group of the norms, of which there are up to 32.
    - ``augment_dim``: how many numbers ``cond["augmentation"]`` has, by which the network is told how its input was
      augmented (Karras et al. 2022, appendix F.2); it need not be there.
    - ``centered``: False for an input in [0, 1], which becomes 2 x - 1 first.
    - ``learned_variance``: the output has as many channels again, from which networks that were trained so interpolate
      the variance of a step (Nichol and Dhariwal 2021, eq. 15): they are kept, and not returned.
    - ``scale_by_sigma``: the output is divided by exp(a c_noise + b), ``log_sigma`` = (a, b).

    ``sequence_layers`` of a transformer see a sequence of the condition before it is attended to, and add to the
    embedding. With ``activation_checkpointing``, in training, activations inside blocks are computed again instead of
    kept. Raises ValueError for unknown names, counts below 1, and taps of an odd number, not symmetric or of sum 0.
    """

    channels: int = 64
    channel_mult: Sequence[int] = (1, 2)
    num_res_blocks: int = 2
    attention_resolutions: Sequence[int] = ()
    dropout: float = 0.0
    resampling: str = "fir"
    fir_kernel: Sequence[float] = (1, 3, 3, 1)
    resample_blocks: bool = True
    resample_conv: bool = True
    progressive_input: str = "residual"
    progressive_output: str = "none"
    progressive_combine: str = "sum"
    embedding_type: str = "fourier"
    fourier_scale: float = 16.0
    frequency_unit: str = "radian"
    embedding_mult: int = 4
    features_mult: int = 2
    adaptive: bool = False
    skip_rescale: bool = True
    group_channels: int = 4
    augment_dim: int = 0
    centered: bool = True
    learned_variance: bool = False
    scale_by_sigma: bool = False
    log_sigma: Sequence[float] = (4.0, 0.0)
    activation_checkpointing: bool = False
    sequence_layers: int = 0

    def __post_init__(self) -> None:
        check_choice("resampling", self.resampling, RESAMPLINGS)
        check_choice("embedding_type", self.embedding_type, EMBEDDING_TYPES)
        check_choice("progressive_input", self.progressive_input, PROGRESSIVE)
        check_choice("progressive_output", self.progressive_output, PROGRESSIVE)
        check_choice("progressive_combine", self.progressive_combine, COMBINATIONS)
        check_counts(
            **{name: getattr(self, name) for name in ("channels", "channel_mult", "num_res_blocks", "embedding_mult")},
            features_mult=self.features_mult,
            group_channels=self.group_channels,
        )
        if self.channels * self.features_mult % 2:
            raise ValueError(
                f"channels = {self.channels} with features_mult = {self.features_mult}: needs an even product, half of "
                "it sines and half cosines"
            )
        kernel = tuple(self.fir_kernel)
        if not kernel or len(kernel) % 2 or kernel != kernel[::-1] or not sum(kernel):
            raise ValueError(f"fir_kernel = {kernel}: needs an even number of symmetric taps, as (1, 3, 3, 1)")
        if len(self.log_sigma) != 2:
            raise ValueError(f"log_sigma = {tuple(self.log_sigma)}: needs the two numbers of a line, as (4, 0)")

    @property
    def factor(self) -> int:
        """By how much the last level is coarser than the first."""
        return 2 ** (len(self.channel_mult) - 1)

    @property
    def taps(self) -> tuple[float, ...] | None:
        """The filter before halving and after doubling, None for none."""
        return tuple(self.fir_kernel) if self.resampling == "fir" else None

    def blocks(self, dims: int) -> BlockOptions:
        """What the blocks share, for ``dims`` axes of space."""
        return BlockOptions(
            dims,
            self.embedding_mult * self.channels,
            self.dropout,
            self.skip_rescale,
            partial(capped_group_norm, group_channels=self.group_channels),
            self.adaptive,
            head_channels=None,
            projected=True,
        )
