"""Files of controls: pictures, folders of pictures and arrays, in the units of a control."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from score_sde.config.naming import with_flag
from sde.condition.tree import CONTROL
from sde.data import existing
from sde.data.arrays import condition_array
from sde.data.folders import SUFFIXES
from sde.data.pixels import MODES, read_picture


def read_control(flag: str, path: str, shape: Sequence[int], limits: Sequence[float]) -> Tensor:
    """The controls (n, *shape) of a picture, a folder of pictures, a .npy or an .npz, whose array "control", or only
    one, is taken. Black is the least of the limits and white the largest; arrays are in the units of the control, with
    NaN for none. Raises ValueError for what cannot be read, is of another shape, or in other units."""
    file = existing(path, flag.partition("=")[0])
    if file.is_dir():
        pictures = sorted(one for one in file.iterdir() if one.suffix.lower() in SUFFIXES)
        if not pictures:
            raise ValueError(f"{flag} holds no pictures ({', '.join(SUFFIXES)})")
        return torch.cat([_picture(flag, one, shape, limits) for one in pictures])
    if file.suffix.lower() in SUFFIXES:
        return _picture(flag, file, shape, limits)
    found = _array(flag, file, tuple(shape))
    low, high = limits
    values = found[~found.isnan()]
    if values.numel() and (values.min() < low - (high - low) or values.max() > high + (high - low)):
        raise ValueError(
            f"{flag} holds values from {values.min():g} to {values.max():g}, and the model's control those from "
            f"{low:g} to {high:g}: give it in these units"
        )
    return found


def _picture(flag: str, file: Path, shape: Sequence[int], limits: Sequence[float]) -> Tensor:
    mode = next((mode for mode, channels in MODES.items() if len(shape) == 3 and channels == shape[0]), None)
    if mode is None:
        raise ValueError(f"{flag}: a picture has 1, 3 or 4 channels, and the control has shape {tuple(shape)}: give a "
                         ".npy or .npz")  # fmt: skip
    with with_flag(flag.partition("=")[0], file):
        pixels = torch.from_numpy(read_picture(file, mode, None).copy())
        if tuple(pixels.shape) != tuple(shape):
            height, width = pixels.shape[1:]
            raise ValueError(
                f"the picture is {width} wide and {height} high, the control {shape[2]} and {shape[1]}: bring it to "
                "this size"
            )
    low, high = limits
    return low + pixels[None].float() * ((high - low) / 255)


def _array(flag: str, file: Path, shape: tuple[int, ...]) -> Tensor:
    try:
        held: Any = np.load(file, allow_pickle=False)
        if not isinstance(held, np.ndarray):
            with held:
                names = held.files
                name = CONTROL if CONTROL in names else names[0] if len(names) == 1 else None
                if name is None:
                    raise ValueError(f"it holds {', '.join(names) or 'nothing'}, and no array {CONTROL}")
                held = held[name]
    # numpy and zipfile raise many unrelated exceptions for damaged files.
    except (OSError, TypeError, AttributeError, EOFError, ValueError) as error:
        raise ValueError(f"{flag} is no picture and no readable .npy or .npz ({error})") from None
    held = held[None] if held.shape == shape else held
    if held.shape[1:] != shape:
        raise ValueError(f"{flag} has shape {held.shape}, the control (n, {', '.join(map(str, shape))})")
    with with_flag(*flag.split("=", 1)):
        return condition_array(CONTROL, held)
