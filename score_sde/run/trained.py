"""The data as a trained model knows them: by its transform, and with its numbers of classes."""

from dataclasses import replace

import torch

from sde.checkpoint.transforms import build_transform
from sde.data import Dataset, Split
from sde.data.names import CLASS_NAMES
from sde.data.statistics import measure
from sde.data.transform import Transform


def as_trained(parts: Split, spec: dict) -> Split:
    """Both parts of the data for the model of a spec, none for a model that is still to be trained.

    Classes have the numbers that their names had in training. Data of the same levels take the model's transform, as
    of weights that saw them in other units, and for weights from elsewhere all data do. Where the transform is that of
    all items, as versions up to 0.2 measured it, held-out ones too, it is kept; another one is left for others to
    refuse. Of a learned transform this is said of its ``outer`` one.
    """
    if not spec:
        return parts
    train, test = _numbered(parts, spec)
    stored = build_transform(spec["transform"]).outer if "transform" in spec else train.transform.outer
    if stored.digest == train.transform.digest or stored.num_levels != train.transform.num_levels:
        return train, test
    if stored.num_levels or "origin" in spec or _same(stored, _of_all(train, test)):
        train, test = replace(train, transform=stored), replace(test, transform=stored)
    return train, test


def _numbered(parts: Split, spec: dict) -> Split:
    names = parts[0].about.get(CLASS_NAMES)
    if not names or not spec.get("num_classes"):
        return parts
    # Up to 0.2 names were sorted as text.
    known = spec.get("about", {}).get(CLASS_NAMES, sorted(names))
    if names == known or not {*names} <= {*known}:
        return parts
    numbers = torch.tensor([known.index(name) for name in names])
    about = parts[0].about | {CLASS_NAMES: known}

    def renumbered(part: Dataset) -> Dataset:
        if part.labels is None:
            return part
        return replace(part, labels=numbers[part.labels], num_classes=len(known), about=about)

    return renumbered(parts[0]), renumbered(parts[1])


def _of_all(train: Dataset, test: Dataset) -> Transform:
    """The transform of both parts together."""
    found = [measure(part.items, sizes=part.sizes) for part in (train, test)]
    share = torch.tensor([part.count for part in found], dtype=torch.float64)[:, None] / sum(p.count for p in found)
    means, stds = (torch.stack(values) for values in zip(*(part.channels() for part in found), strict=True))
    mean = (share * means).sum(0)
    std = (share * (stds.square() + (means - mean).square())).sum(0).sqrt()
    return Transform(tuple(mean.tolist()), tuple(std.tolist()))


def _same(stored: Transform, other: Transform) -> bool:
    if len(stored.scale) != len(other.scale):
        return False
    pairs = zip(stored.shift, other.shift, stored.scale, other.scale, strict=True)
    return all(abs(a - b) <= 1e-4 * s and abs(s - r) <= 1e-4 * s for a, b, s, r in pairs)
