"""Labels of items as files hold them: numbers of classes, or their names."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sde.data.names import class_of, composed, ordered


def class_labels(labels: np.ndarray, count: int) -> tuple[Tensor, list[str]]:
    """Labels (n,) of a data set as int64, and the names of its classes, none where they are numbers.

    Booleans, integers of any type and floats that are whole number the classes from 0; texts name them, and are
    numbered in natural order. Raises ValueError for anything else than ``count`` of these.
    """
    _check_shape(labels, count)
    if labels.dtype.kind in "US":
        texts = _texts(labels)
        names = ordered(texts)
        numbers = {name: number for number, name in enumerate(names)}
        return torch.tensor([numbers[text] for text in texts]), names
    found = _whole(labels)
    low, high = int(found.min()), int(found.max())
    if low:
        hint = " (are they 1-based?)" if low == 1 else ""
        raise ValueError(f"the labels run from {low} to {high}, but classes are numbered from 0{hint}: renumber them")
    if high >= count:
        raise ValueError(f"the labels run to {high} for {count} items: number the classes without gaps, from 0")
    return torch.from_numpy(found), []


def known_labels(labels: np.ndarray, count: int, names: Sequence[str] = ()) -> Tensor:
    """Labels (n,) as int64 of items beside a data set whose classes have these names: some of its classes, as names or
    numbers, or -1 for none. Raises ValueError for anything else than ``count`` of these."""
    _check_shape(labels, count)
    if labels.dtype.kind in "US":
        return torch.tensor([class_of(text, names) for text in _texts(labels)])
    return torch.from_numpy(_whole(labels))


def _check_shape(labels: np.ndarray, count: int) -> None:
    if labels.shape == (count,):
        return
    remedy = ""
    if labels.ndim == 2 and len(labels) == count:
        remedy = ": flatten them" if labels.shape[1] == 1 else ": if they are one-hot, store their argmax"
    raise ValueError(f"the labels have shape {labels.shape}, needs ({count},), one integer per item{remedy}")


def _texts(labels: np.ndarray) -> list[str]:
    try:
        texts = [composed((x.decode() if isinstance(x, bytes) else x).strip()) for x in labels.tolist()]
    except UnicodeDecodeError as error:
        raise ValueError(f"the labels are texts in another encoding than UTF-8 ({error})") from None
    if "" in texts:
        raise ValueError(f"label {texts.index('')} is empty: name a class for each item, or leave the item out")
    return texts


def _whole(labels: np.ndarray) -> np.ndarray:
    """Numbers as int64."""
    if labels.dtype.kind == "f":
        bad = np.flatnonzero(~(np.isfinite(labels) & (labels == np.round(labels))))
        if len(bad):
            raise ValueError(
                f"the labels have type {labels.dtype}, and label {bad[0]} is {labels[bad[0]]:g}: store the numbers of "
                "the classes, from 0, as integers"
            )
    elif labels.dtype.kind not in "biu":
        raise ValueError(f"the labels have type {labels.dtype}: store the numbers of the classes, from 0, as integers")
    if labels.size and max(abs(float(labels.max())), abs(float(labels.min()))) >= 2**62:
        raise ValueError(f"the labels run to {labels.max():g}: number the classes without gaps, from 0")
    return labels.astype(np.int64)
