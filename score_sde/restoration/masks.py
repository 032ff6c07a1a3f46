"""Masks: which entries of an item are observed, as ``--mask`` says by a word or a file."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from score_sde.run.inputs import read_pixels
from sde.data.folders import SUFFIXES
from sde.inverse.operators import Mask

HALVES = {"upper": (-2, False), "lower": (-2, True), "left": (-1, False), "right": (-1, True)}
"""The axis that each half is one of, and whether it is the second."""

WORDS = f"{', '.join(HALVES)} (the half that is observed), box (all but the centre), random:SHARE, or a file"


def read_mask(text: str, shape: tuple[int, ...], seed: int) -> Mask:
    """``--mask`` for items of a shape. A word's mask is the same in all channels, a random one that of the seed. Raises
    ValueError for anything else than WORDS, and where the mask is not boolean or does not fit the items."""
    word, _, share = text.partition(":")
    space = shape[1:] or shape
    if word in HALVES and not share:
        mask = _half(word, space)
    elif text == "box":
        mask = ~_centre(space)
    elif word == "random":
        mask = _random(share, space, seed)
    else:
        mask = _read_file(text)
    return Mask(mask, shape)


def _half(word: str, space: tuple[int, ...]) -> Tensor:
    axis, second = HALVES[word]
    if len(space) < -axis:
        raise ValueError(
            f"the items have the axes {space}, and no rows: needs left, right, box, random:SHARE or a file"
        )
    index = torch.arange(space[axis]).view(-1, *[1] * (-1 - axis))
    return ((2 * index >= space[axis]) == second).expand(space)


def _centre(space: tuple[int, ...]) -> Tensor:
    """True in the middle half of every axis."""
    inside = torch.ones(space, dtype=torch.bool)
    for axis, size in enumerate(space):
        index = torch.arange(size).view(-1, *[1] * (len(space) - 1 - axis))
        inside &= (index >= size // 4) & (index < size - size // 4)
    return inside


def _random(share: str, space: tuple[int, ...], seed: int) -> Tensor:
    try:
        observed = float(share)
    except ValueError:
        observed = -1
    if not 0 < observed < 1:
        raise ValueError("needs random:SHARE, the share that is observed, above 0 and below 1, as in random:0.5")
    mask = torch.zeros(space, dtype=torch.bool).flatten()
    order = torch.randperm(len(mask), generator=torch.Generator().manual_seed(seed))
    mask[order[: max(1, round(observed * len(mask)))]] = True
    return mask.view(space)


def _read_file(text: str) -> Tensor:
    """The booleans of a .npy or .npz file, or a black and white image."""
    path = Path(text)
    if not path.is_file():
        raise ValueError(f"there is no such file, and no such word: needs {WORDS}")
    if path.suffix.lower() in SUFFIXES:
        pixels = read_pixels("--mask", path, "L")
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
