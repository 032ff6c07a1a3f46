"""The mappings of NCSN++ and of ADM: noise level, class and augmentation, embedded together by two layers."""

import math

import torch
from torch import Tensor, nn

from sde.condition.tree import AUGMENTATION, Condition
from sde.networks.embedding import fourier_frequencies
from sde.networks.layers import check_choice, zero_init

EMBEDDING_TYPES = ("positional", "fourier")
FREQUENCY_UNITS = ("radian", "cycle")


def positional_frequencies(count: int) -> Tensor:
    """10000^(-i / (count - 1)), from 1 to 1e-4: (count,) (Ho et al. 2020)."""
    return (torch.arange(count, dtype=torch.float32) * -(math.log(10_000) / max(count - 1, 1))).exp()


class Mapping(nn.Module):
    """(c_noise, labels, augmentation) -> (B, width): sines and cosines of c_noise, to which class and augmentation are
    added, then two layers (Song et al. 2021, appendix H; Karras et al. 2022, appendix F).

    ``features`` is the number of sines and cosines. Random frequencies w have a ``frequency_unit``: their angles are
    w c_noise, or 2 pi (w c_noise) for "cycle". These are rounded differently, at some hundred radians, and a network
    that was trained with one of them differs in the fifth digit with the other.

    A class adds a column of a matrix times sqrt(num_classes), and a bias that null has as well; ``augmentation``
    (B, augment_dim) says how the data were transformed, zero or None for not at all (Karras et al. 2022, table 6), by a
    matrix without bias.
    """

    frequencies: Tensor

    def __init__(
        self,
        features: int,
        width: int,
        embedding_type: str,
        fourier_scale: float,
        num_classes: int | None = None,
        augment_dim: int = 0,
        frequency_unit: str = "radian",
    ) -> None:
        super().__init__()
        check_choice("embedding_type", embedding_type, EMBEDDING_TYPES)
        check_choice("frequency_unit", frequency_unit, FREQUENCY_UNITS)
        fourier = embedding_type == "fourier"
        count = features // 2
        frequencies = fourier_frequencies(count, fourier_scale) if fourier else positional_frequencies(count)
        self.turns = fourier and frequency_unit == "cycle"
        frequencies = frequencies / (2 * math.pi) if self.turns else frequencies
        # In files, since steps of a thousand times the positional ones show their last digit.
        self.register_buffer("frequencies", frequencies)
        self.label = nn.Linear(num_classes, features) if num_classes else None
        self.augment = nn.Linear(augment_dim, features, bias=False) if augment_dim else None
        self.layers = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, c_noise: Tensor, labels: Tensor | None = None, augmentation: Tensor | None = None) -> Tensor:
        angle = c_noise[:, None] * self.frequencies
        angle = angle * (2 * math.pi) if self.turns else angle
        h = torch.cat([angle.sin(), angle.cos()], dim=1)
        if self.label is not None and labels is not None:
            columns = self.label.weight.t()[labels.clamp(min=0)] * math.sqrt(self.label.in_features)
            h = h + torch.where(labels[:, None] < 0, 0, columns) + self.label.bias
        if self.augment is not None and augmentation is not None:
            h = h + self.augment(augmentation.to(h.dtype))
        return self.layers(h)


def geometric_frequencies(count: int, max_period: float = 10_000.0) -> Tensor:
    """max_period^(-i / count) for i from 0, (count,) (Vaswani et al. 2017, section 3.5)."""
    return (-math.log(max_period) * torch.arange(count, dtype=torch.float32) / count).exp()


class ADMMapping(nn.Module):
    """(c_noise, labels, augmentation) -> (B, width): cosines and sines of c_noise, to which the augmentation is added,
    then two layers, to which the class is added (Dhariwal and Nichol 2021; Karras et al. 2022, appendix F).

    ``features`` is the number of cosines and sines. A class adds its row of a table, and null adds nothing;
    ``augmentation`` (B, augment_dim) is as in ``Mapping``.
    """

    frequencies: Tensor

    def __init__(self, features: int, width: int, num_classes: int | None = None, augment_dim: int = 0) -> None:
        super().__init__()
        count = features // 2
        self.register_buffer("frequencies", geometric_frequencies(count))
        self.label = nn.Embedding(num_classes, width) if num_classes else None
        self.augment = zero_init(nn.Linear(augment_dim, 2 * count, bias=False)) if augment_dim else None
        self.layers = nn.Sequential(nn.Linear(2 * count, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, c_noise: Tensor, labels: Tensor | None = None, augmentation: Tensor | None = None) -> Tensor:
        angle = c_noise[:, None] * self.frequencies
        h = torch.cat([angle.cos(), angle.sin()], dim=1)
        if self.augment is not None and augmentation is not None:
            h = h + self.augment(augmentation.to(h.dtype))
        h = self.layers(h)
        if self.label is not None and labels is not None:
            h = h + torch.where(labels[:, None] < 0, 0, self.label(labels.clamp(min=0)))
        return h


def split_augmentation(cond: Condition | None, count: int) -> tuple[Condition | None, Tensor | None]:
    """A condition without what says how its data were augmented, and that. Raises ValueError for another shape."""
    if not isinstance(cond, dict) or AUGMENTATION not in cond or not count:
        return cond, None
    augmentation = cond[AUGMENTATION]
    if augmentation.shape[1:] != (count,):
        raise ValueError(f"augmentation has shape {tuple(augmentation.shape)}: this network takes (B, {count})")
    rest = type(cond)({kind: value for kind, value in cond.items() if kind != AUGMENTATION})
    return rest or None, augmentation
