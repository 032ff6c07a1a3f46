"""Rotary positions along the axes of a grid (Su et al. 2021; axial as in Crowson et al. 2024, section 4.2)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def grid_positions(grid: Sequence[int], like: Tensor) -> Tensor:
    """Centers of the cells of a grid in a box whose longest side goes from -1 to 1: (*grid, axes), at least float32."""
    dtype, longest = torch.float64 if like.dtype == torch.float64 else torch.float32, max(grid)
    axes = [(2 * torch.arange(n, dtype=dtype, device=like.device) + 1 - n) / longest for n in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


class AxialRotary(nn.Module):
    """Half of the features of a head, in pairs (i, i + half / 2), rotated by angles that are coordinates times
    frequencies: first those of the first axis, then those of the next.

    Frequencies are geometric from pi to 10 pi, interleaved over the heads, (heads, frequencies of an axis). The product
    of rotated queries and keys depends on the difference of their positions alone. Raises ValueError for heads of less
    than four features per axis.
    """

    frequencies: Tensor

    def __init__(self, head_width: int, heads: int, dims: int) -> None:
        super().__init__()
        count = head_width // (4 * dims)
        if not count:
            raise ValueError(f"head_widths = {head_width}: needs at least {4 * dims}, for positions on {dims} axes")
        logs = torch.linspace(math.log(math.pi), math.log(10 * math.pi), heads * count + 1)[:-1]
        self.register_buffer("frequencies", logs.exp().view(count, heads).T.contiguous())

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Positions (*grid, axes) -> cosines and sines, (heads, *grid, axes * frequencies)."""
        frequencies = self.frequencies.view(len(self.frequencies), *[1] * positions.ndim, -1)
        angles = (positions.unsqueeze(-1) * frequencies).flatten(-2)
        return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (B, heads, *grid, head_width) with its pairs rotated; what is left over stays."""
    half = cos.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest.to(cos.dtype)], dim=-1).to(x.dtype)
