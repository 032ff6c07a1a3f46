"""Augmentation: transformed items beside those of the data, and what the network is told of them."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sde.condition.tree import AUGMENTATION, CONTROL, Condition
from sde.data.draws import per_item
from sde.device import double, send

SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
    0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
    0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
"""The low-pass filter of the symlet with 6 vanishing moments: with itself reversed it is a half-band filter."""

SCALE_STD = 0.2
"""Standard deviation of the binary logarithms of scales and of stretches."""

SHIFT_STD = 0.125
"""Standard deviation of shifts, in sides of the image."""

DRAWS = 14
"""Random numbers of an item."""


class Augmented(NamedTuple):
    """Transformed items x (B, C, H, W), and ``told`` (B, k), zero where an item is as it was, or None: nothing."""

    x: Tensor
    told: Tensor | None


def as_they_are(x: Tensor, seeds: Tensor, probability: float) -> Augmented:
    """Nothing is done."""
    return Augmented(x, None)


def flip(x: Tensor, seeds: Tensor, probability: float) -> Augmented:
    """Half of the images are mirrored, left for right: the law that is learned is that of both."""
    _check_images(x)
    mirrored = send(_numbers(seeds)[:, 0] < 0.5, x.device)
    return Augmented(torch.where(_over(mirrored, x), x.flip(-1), x), None)


def crop(x: Tensor, seeds: Tensor, probability: float) -> Augmented:
    """Half of the images are mirrored, and all are moved by whole pixels, up to an eighth of each side, what comes in
    being the edge repeated (He et al. 2016, section 4.2): the law that is learned is that of the moved ones."""
    y, u = flip(x, seeds, probability).x, _numbers(seeds)[:, 1:3]
    margins = [size // 8 for size in x.shape[2:]]
    padded = F.pad(y, (margins[1], margins[1], margins[0], margins[0]), mode="replicate")
    rows, columns = (
        send((u[:, i, None] * (2 * margin + 1)).floor().long() + torch.arange(size, device="cpu"), x.device)
        for i, (margin, size) in enumerate(zip(margins, x.shape[2:], strict=True))
    )
    which = torch.arange(len(x), device=x.device)[:, None, None]
    return Augmented(padded[which, :, rows[:, :, None], columns[:, None]].movedim(-1, 1), None)


def edm(x: Tensor, seeds: Tensor, probability: float) -> Augmented:
    """The non-leaky augmentation of Karras et al. 2022, appendix F.2, table 6, with its 9 numbers.

    Half of the images are mirrored left for right. Each with ``probability``, they are mirrored top to bottom; scaled;
    turned by any angle; stretched along one direction and shrunk across it; shifted. The network is told all of it, and
    at zero, as in sampling, has learned the law of the data alone.
    """
    _check_images(x)
    told, back, shift = transformations(_numbers(seeds), probability)
    mirrored, upside_down = (send(told[:, column] > 0, x.device) for column in (0, 1))
    y = torch.where(_over(mirrored, x), x.flip(-1), x)
    y = torch.where(_over(upside_down, x), y.flip(-2), y)
    moved = (told[:, 2:] != 0).any(1).nonzero()[:, 0]
    if len(moved):
        # The others keep every digit, and cost nothing.
        rows = send(moved, x.device)
        y = y.index_copy(0, rows, resampled(y[rows], back[moved], shift[moved]))
    return Augmented(y, send(told.to(x.dtype), x.device))


AUGMENTATIONS: dict[str, Callable[[Tensor, Tensor, float], Augmented]] = {
    "none": as_they_are,
    "flip": flip,
    "crop": crop,
    "edm": edm,
}
"""By name functions of items x (B, *event) in units of about 1, their seeds (B,), and the probability of each
transform."""

TOLD = {"edm": 9}
"""How many numbers a network is told, of the augmentations that tell any."""


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of training items: a key of AUGMENTATIONS, the probability of each of its transforms, and how
    many numbers the network is told of it, its ``augment_dim``."""

    augmentation: str = "none"
    probability: float = 0.12
    augment_dim: int = 0

    def check(self, event_shape: Sequence[int], padded: bool, conditions: Collection[str], coded: bool = False) -> None:
        """Raise ValueError unless the network takes what it is told, and items of this shape can be augmented, with
        ``conditions`` of these kinds. ``coded`` says whether the data have ``codes`` (sde.data)."""
        given, none = f"augmentation = {self.augmentation!r}", "set it to none"
        told = TOLD.get(self.augmentation)
        if self.augmentation == "none":
            return
        if coded:
            raise ValueError(
                f"{given}: with `codes` the latents of an item are computed once, and those of a mirrored one would be "
                "others: take one of the two"
            )
        if padded:
            raise ValueError(f"{given}: items of unequal size, which are padded, are not augmented: {none}")
        if len(event_shape) != 3:
            raise ValueError(f"{given}: items of shape {tuple(event_shape)} are no images (C, H, W): {none}")
        for kind in ("image", CONTROL):
            if kind in conditions:
                raise ValueError(f"{given}: the {kind} of the condition would not be transformed with its item: {none}")
        if told and self.augment_dim != told:
            has = f"`augment_dim` = {self.augment_dim}" if self.augment_dim else "no `augment_dim`"
            raise ValueError(
                f"{given} tells the network {told} numbers, and the network has {has}: set that to {told}, with a "
                "network that has it, or take none or flip, which tell nothing"
            )

    def __call__(self, y: Tensor, cond: Condition | None, seeds: Tensor) -> tuple[Tensor, Condition | None]:
        """Items y (B, *event) in units of about 1, augmented by their own ``seeds`` (B,), and their conditions with
        what a network that has an ``augment_dim`` is told of it: zero where nothing is done."""
        y, told = AUGMENTATIONS[self.augmentation](y, seeds, self.probability)
        if not self.augment_dim:
            return y, cond
        told = y.new_zeros(len(y), self.augment_dim) if told is None else told
        return y, {**(cond or {}), AUGMENTATION: told}


AS_THEY_ARE = Augmentation()
"""No augmentation."""


def transformations(u: Tensor, probability: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of uniform numbers u (B, DRAWS): what a network is told, (B, 9): mirrored, upside down, scale, cosine less 1 and
    sine of the angle, stretch times cosine and sine of its direction, shifts right and down. And the maps of the
    plane (right, down) by which a transformed image's point p shows what was at back (p - shift) from the middle: back
    (B, 2, 2) and shift (B, 2), in sides of the image. All in float64 on the CPU."""
    normal = math.sqrt(2) * torch.erfinv(2 * u[:, 8:12] - 1)
    upside_down, scaled, turned, stretched, shifted = (u[:, 1:6] < probability).double().unbind(1)
    upside_down = upside_down * (u[:, 7] < 0.5)
    scale, stretch = scaled * normal[:, 0], stretched * normal[:, 1]
    angle = turned * math.pi * (2 * u[:, 12] - 1)
    # Half of the stretches are along the axes.
    direction = (u[:, 6] < 0.5) * math.pi * (2 * u[:, 13] - 1)
    shift = shifted[:, None] * normal[:, 2:]
    # A stretch and its inverse, in opposite directions, are told alike, as in the paper's code.
    told = torch.stack(
        [
            (u[:, 0] < 0.5).double(), upside_down, scale, angle.cos() - 1, angle.sin(), stretch * direction.cos(),
            stretch * direction.sin(), *shift.unbind(1),
        ],
        1,
    )  # fmt: skip
    along = torch.diag_embed(torch.stack([2 ** (-SCALE_STD * stretch), 2 ** (SCALE_STD * stretch)], 1))
    back = (2 ** (-SCALE_STD * scale))[:, None, None] * _turn(angle) @ _turn(-direction) @ along @ _turn(direction)
    return told, back, SHIFT_STD * shift


def resampled(x: Tensor, back: Tensor, shift: Tensor) -> Tensor:
    """Images x (B, C, H, W) whose pixel at p from the middle, in pixels, shows what was at back (p - shift): mirrored
    at their edges, twice as fine by SYM6, read between the four nearest, and coarse again. The identity changes no
    digit but by rounding. back (B, 2, 2), and shift (B, 2) in sides, on the CPU."""
    size = double([x.shape[3], x.shape[2]])
    taps = double(SYM6) / math.sqrt(2)
    # The filter is not quite symmetric: where it has its weight is where a pixel is.
    center = (taps * torch.arange(len(SYM6), device="cpu")).sum() / taps.sum()
    # Where each fine sample that the coarse ones are made of comes from, in coarse pixels from the middle.
    columns, rows = ((torch.arange(2 * n + len(SYM6) - 2, device="cpu") - center) / 2 for n in (x.shape[3], x.shape[2]))
    points = torch.stack(torch.meshgrid(columns - (size[0] - 1) / 2, rows - (size[1] - 1) / 2, indexing="xy"), -1)
    origin = torch.einsum("bij,bhwj->bhwi", back, points - (shift * size)[:, None, None])
    need = (origin.abs().amax((0, 1, 2)) - (size - 1) / 2).ceil() + 1
    margin = need.clamp(min=torch.zeros_like(size), max=size - 1).long().tolist()
    padded = F.pad(x, (margin[0], margin[0], margin[1], margin[1]), mode="reflect")
    fine = _filtered(padded, 2 * taps, F.conv_transpose2d)
    place = 2 * (origin + (size - 1) / 2 + double(margin)) + center
    ends = double([fine.shape[3], fine.shape[2]]) - 1
    grid = send((2 * place / ends - 1).to(x.dtype), x.device)
    read = F.grid_sample(fine, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return _filtered(read, taps, F.conv2d)


def _filtered(x: Tensor, taps: Tensor, convolve: Callable[..., Tensor]) -> Tensor:
    """Rows and columns of x by a filter, in steps of two."""
    kernel, channels = send(taps.to(x.dtype), x.device), x.shape[1]
    for shape, stride in (((-1, 1), (2, 1)), ((1, -1), (1, 2))):
        weight = kernel.view(1, 1, *shape).expand(channels, 1, -1, -1)
        x = convolve(x, weight, stride=stride, groups=channels)
    return x


def _turn(angle: Tensor) -> Tensor:
    """The matrices (B, 2, 2) that turn (right, down) by angles (B,), from right to down."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)


def _numbers(seeds: Tensor) -> Tensor:
    """Uniform numbers in (0, 1) of items by their seeds (B,), (B, DRAWS) in float64 on the CPU."""
    return per_item(torch.rand, seeds + 2, (DRAWS,)).double().clamp(1e-6, 1 - 1e-6)


def _over(rows: Tensor, x: Tensor) -> Tensor:
    return rows.view(-1, *[1] * (x.ndim - 1))


def _check_images(x: Tensor) -> None:
    """Raise ValueError for items that are no images."""
    if x.ndim != 4:
        raise ValueError(f"items of shape {tuple(x.shape[1:])} are no images (C, H, W): set `augmentation` to none")
