"""Laws: normal and uniform numbers from 64-bit words, elementwise, in float64."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LOW = 2**32 - 1


@dataclass(frozen=True)
class Law:
    """``numbers(words, out)`` fills out (*, n) from words (*, ceil(n / per_word)), which are int64, or of the dtype
    ``read_as`` that ``read(generator, words)`` fills from numpy's generator. ``dtype`` is what they are rounded to, and
    ``jump`` the third word of the counter, so that no law moves another."""

    numbers: Callable[[Tensor, Tensor], object]
    read: Callable[[np.random.Philox, np.ndarray], None]
    read_as: type
    per_word: int
    dtype: torch.dtype
    jump: int


def raw(generator: np.random.Philox, out: np.ndarray) -> None:
    """Words (n,) as they are."""
    out[:] = generator.random_raw(len(out)).view(np.int64)


def box_muller(words: Tensor, out: Tensor) -> None:
    """r cos a and r sin a, with r^2 / 2 = -log u, u = (low half + 1/2) / 2^32, and the angle a = 2 pi (high half) /
    2^32 (Box and Muller 1958): two standard normal numbers per word, up to 6.66.

    Logarithm, cosine and sine are taken in float64, where the logarithm resolves both ends of (0, 1), and what devices
    differ by is lost in rounding to float32, but for one number in about 10^8.
    """
    low, angle = (words & LOW).double(), (words >> 32).double().mul_(2 * math.pi / 2**32)
    u = low.add_(0.5).mul_(2.0**-32)
    # numpy's is three times as fast.
    log = torch.from_numpy(np.log(u.numpy())) if u.device.type == "cpu" else u.log_()
    # In float32 from here on, whose square root and products are rounded alike everywhere.
    radius = log.float().mul_(-2).sqrt_()
    half = out.shape[-1] // 2
    torch.mul(angle.cos().float(), radius, out=out[..., ::2])
    torch.mul(angle[..., :half].sin().float(), radius[..., :half], out=out[..., 1::2])


def numpy_fractions(generator: np.random.Philox, out: np.ndarray) -> None:
    """Numbers (n,) in [0, 1), those of ``fraction``, which numpy makes in half the time."""
    np.random.Generator(generator).random(out=out)


def fraction(words: Tensor, out: Tensor) -> None:
    """The upper 53 bits as a number in [0, 1)."""
    out.copy_(words if words.is_floating_point() else (words >> 11).bitwise_and_(2**53 - 1).double().mul_(2.0**-53))


NORMAL = Law(box_muller, raw, np.int64, 2, torch.float32, 0)
UNIFORM = Law(fraction, numpy_fractions, np.float64, 1, torch.float64, 1)
