"""Masks: which entries of an item are observed, as ``--mask`` says by a word or a file."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from score_sde.kinds.masks import MASKS, MaskOf
from sde.data.folders import SUFFIXES
from sde.data.pixels import read_picture
from sde.data.sizes import real, trim
from sde.inverse.operators import Mask

WORDS = "upper, lower, left, right (the half that is observed), box (all but the center), random:SHARE, or a file"
"""Words for masks of any kind of data, as messages name them."""


def read_mask(
    text: str, shape: tuple[int, ...], seed: int, masks: Mapping[str, MaskOf] = MASKS, sizes: Tensor | None = None
) -> Mask:
    """``--mask`` for items of a shape, a word of ``masks`` or a file. A word's mask is the same in all channels, a
    random one that of the seed. Of items of these ``sizes`` (n,) each has its own, a word's that of an item as large.
    Raises ValueError for anything else, and where the mask is not boolean or does not fit
    the items."""
    word, colon, value = text.partition(":")
    make = masks.get(word) if not colon else None
    make = make or masks.get(f"{word}:")
    if sizes is None:
        return Mask(make(shape[1:] or shape, value, seed) if make else _read_file(text, masks), shape)
    if not make:
        inside = Mask(_read_file(text, masks), shape).mask & real(sizes, shape)
        return Mask(inside.expand(len(sizes), *shape), shape)
    each = torch.zeros(len(sizes), *shape, dtype=torch.bool)
    for mask, size in zip(each, sizes.tolist(), strict=True):
        inside = trim(mask, size)
        inside.copy_(make(tuple(inside.shape[1:] or inside.shape), value, seed).expand(inside.shape))
    return Mask(each, shape)


def _read_file(text: str, masks: Mapping[str, MaskOf]) -> Tensor:
    """The booleans of a .npy or .npz file, or a black and white image."""
    path = Path(text)
    if not path.is_file():
        own = "".join(f"{word}, " for word in masks if word not in MASKS)
        raise ValueError(f"there is no such file, and no such word: needs {own}{WORDS}")
    if path.suffix.lower() in SUFFIXES:
        pixels = read_picture(path, "L", ground=None)[0]
        between = len(np.setdiff1d(pixels, (0, 255)))
        if between:
            raise ValueError(
                f"it holds {between} shade{'s' * (between > 1)} between black (0) and white (255): needs these two "
                "alone, white where x is observed, as a PNG without smooth edges"
            )
        return torch.from_numpy(pixels == 255)
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"mask": loaded}
        mask = arrays["mask"] if len(arrays) > 1 else next(iter(arrays.values()))
    # numpy and zipfile raise many unrelated exceptions for damaged files.
    except Exception as error:
        raise ValueError(f"it is no image, and no .npy or .npz file with a mask ({error})") from None
    if mask.dtype != np.bool_:
        raise ValueError(f"it holds {mask.dtype}: needs booleans, True where x is observed, as mask > 0.5")
    return torch.from_numpy(mask)
