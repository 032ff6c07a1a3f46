"""The options of a U-Net, which the denoising network and the classifier share."""

import inspect
import math
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sde.networks.layers import check_choice, check_counts, groups_of

RESAMPLINGS = ("conv", "fir")
PROGRESSIVE_INPUTS = ("none", "residual")
T = TypeVar("T", bound=type)


@dataclass(frozen=True)
class UNetOptions:
    """``channel_mult`` gives the channels of each level in units of ``channels``, ``num_res_blocks`` the residual
    blocks per level, ``attention_resolutions`` the resolutions (sizes of the longest axis) that get self-attention.
    The following options, together, give the U-Net FIR resampling and residual inputs (Song et al. 2021, appendix H):

    - ``resampling``: "conv" halves by strided convolutions and doubles by repeating before a convolution; "fir" filters
      by ``Resample`` before a convolution both ways.
    - ``resample_blocks``: residual blocks resample instead (Brock et al. 2019), by averaging and repeating for "conv".
    - ``noise_embedding``: "sinusoidal", or "fourier" with random frequencies of scale ``fourier_scale``.
    - ``skip_rescale``: residual sums are divided by sqrt 2.
    - ``progressive_input``: "residual" adds to the way down, after each halving, the sum after the one before (first
      the input), halved and projected by a convolution.

    ``sequence_layers`` of a transformer see a sequence of the condition before it is attended to, and add to the
    embedding. With ``activation_checkpointing``, in training, activations inside stages are computed again instead of
    kept. Raises ValueError for unknown names and counts below 1; warns where group norm can form one group only.
    """

    channels: int = 64
    channel_mult: Sequence[int] = (1, 2)
    num_res_blocks: int = 2
    attention_resolutions: Sequence[int] = ()
    dropout: float = 0.0
    resampling: str = "conv"
    resample_blocks: bool = False
    noise_embedding: str = "sinusoidal"
    fourier_scale: float = 16.0
    skip_rescale: bool = False
    progressive_input: str = "none"
    activation_checkpointing: bool = False
    sequence_layers: int = 0

    def __post_init__(self) -> None:
        check_choice("resampling", self.resampling, RESAMPLINGS)
        check_choice("progressive_input", self.progressive_input, PROGRESSIVE_INPUTS)
        check_counts(channels=self.channels, num_res_blocks=self.num_res_blocks, channel_mult=self.channel_mult)
        if groups_of(self.channels) == 1:
            warnings.warn(
                f"channels = {self.channels} can be normalized in one group only: a multiple of 8 suits group norm "
                "better",
                UserWarning,
                stacklevel=3,
            )

    @property
    def factor(self) -> int:
        """By how much the last level is coarser than the first."""
        return 2 ** (len(self.channel_mult) - 1)

    def attended(self, space: Sequence[int]) -> list[bool]:
        """Whether each level has self-attention, for items of this size. Raises ValueError for attention at a
        resolution that no level has."""
        return attended_levels(space, len(self.channel_mult), self.attention_resolutions)


def attended_levels(space: Sequence[int], levels: int, resolutions: Sequence[int]) -> list[bool]:
    """Whether each of the levels of a U-Net, whose sizes halve, is among the resolutions (sizes of the longest axis)
    with attention, for items of this size. Raises ValueError for a resolution that no level has."""
    factor = 2 ** (levels - 1)
    longest = math.ceil(max(space) / factor) * factor
    sizes = [longest >> level for level in range(levels)]
    unknown = set(resolutions) - set(sizes)
    if unknown:
        raise ValueError(f"attention at resolution {min(unknown)}: the resolutions are {', '.join(map(str, sizes))}")
    return [size in resolutions for size in sizes]


def takes_options(options: type, without: Collection[str] = ()) -> Callable[[T], T]:
    """Decorates a class whose ``**options`` go to a dataclass: its fields, but those that it goes ``without``, are in
    the signature, where help and configs look."""

    def take(network: T) -> T:
        parameters = inspect.signature(network).parameters.values()
        own = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
        known = inspect.signature(options).parameters.values()
        fields = [p.replace(kind=p.KEYWORD_ONLY) for p in known if p.name not in without]
        network.__signature__ = inspect.Signature([*own, *fields])  # type: ignore[attr-defined]
        return network

    return take
