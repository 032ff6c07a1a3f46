"""Conditioning of a data set: its conditions, and its resolution, as asked for."""

from dataclasses import replace

from sde.condition.tree import CONDITION_NOISE, CONTROL, KINDS
from sde.data.block_means import BlockMeans
from sde.data.captions import TEXT
from sde.data.dataset import Dataset
from sde.data.names import CLASS_NAMES
from sde.data.transform import Transform

OF_DATA = tuple(kind for kind in KINDS if kind not in (CONDITION_NOISE, CONTROL))
"""The kinds that `conditions` can name: noise on them, and a control, are asked for beside them."""

SUPERRES = "superres"
"""The condition image that consists of the block means of the item itself."""


def downsampled(parts: tuple[Dataset, Dataset], factor: int) -> tuple[Dataset, Dataset]:
    """Both parts with block means in the place of the items: continuous data, standardized by those of the first."""
    key = "downsample"

    def smaller(part: Dataset) -> Dataset:
        # A block that is real in part counts as real.
        sizes = None if part.sizes is None else (part.sizes + factor - 1) // factor
        items = BlockMeans(part.items, factor, key).held()
        return replace(part, items=items, transform=Transform(), sizes=sizes)

    train, test = (smaller(part) for part in parts)
    transform = Transform.standardize(train.statistics)
    return replace(train, transform=transform), replace(test, transform=transform)


def conditioned(part: Dataset, names: tuple[str, ...], factor: int) -> Dataset:
    """The data with the conditions of these names alone, OF_DATA, SUPERRES or TEXT; no names stand for labels where
    there are any. Data with captions keep their classes, by which what is made of captions can be judged. Raises
    ValueError for what the data have not."""
    if not names:
        return part
    conditions, key = dict(part.conditions), f"conditions = {names}"
    if SUPERRES in names:
        conditions["image"] = BlockMeans(part.items, factor, "superres_factor").of
    held = [*(["labels"] if part.labels is not None else []), *(kind for kind in conditions if kind != CONTROL)]
    held += [TEXT] if part.captions is not None else []
    for name in names:
        if name == CONTROL:
            raise ValueError(f"{key}: a control is asked for by `control`, beside them; leave it out here")
        if name not in (*OF_DATA, SUPERRES, TEXT):
            raise ValueError(f"{key}: {name!r} is not one of {', '.join((*OF_DATA, SUPERRES, TEXT))}")
        if name == TEXT and name not in held:
            raise ValueError(
                f"{key}: the data have no captions; take the data sets images or points, with captions in the folder "
                "or in an array captions of the .npz"
            )
        if name != SUPERRES and name not in held:
            raise ValueError(
                f"{key}: the data hold {' and '.join(held) or 'no conditions'}, not {name}; store an array {name} "
                "beside x in an .npz, or leave it out"
            )
    if {"image", SUPERRES} <= set(names):
        raise ValueError(f"{key}: image and {SUPERRES} are both condition images; choose one")
    if "labels" not in names and TEXT not in names:
        about = {name: value for name, value in part.about.items() if name != CLASS_NAMES}
        part = replace(part, labels=None, num_classes=None, about=about)
    return replace(part, conditions=conditions)
