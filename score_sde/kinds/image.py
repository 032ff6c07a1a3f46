"""Images (channels, height, width)."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from score_sde.config.naming import with_flag
from score_sde.kinds.base import About, Event, Kind, no_images
from score_sde.kinds.elements import image
from score_sde.kinds.tasks import TASKS
from sde.data.folders import SUFFIXES
from sde.data.pixels import MODES, read_picture
from sde.data.transform import Transform


class Image(Kind):
    """Items of one, three or four channels are gray, colored, or colored and transparent; of others the first channel
    is shown, in gray."""

    name = "image"
    layout = "sheet"
    files = SUFFIXES
    tasks = TASKS

    def fits(self, shape: Event) -> bool:
        return len(shape) == 3

    def read(self, file: Path, shape: Event, levels: int | None, about: About, flag: str) -> Tensor:
        """Black is 0 and white the highest level; cropped and resized as the data were."""
        mode = next((mode for mode, channels in MODES.items() if self.fits(shape) and channels == shape[0]), None)
        if mode is None or not levels:
            what = "quantized" if levels else "continuous"
            raise ValueError(
                f"{flag}={file}: a picture stands for quantized images with 1, 3 or 4 channels, and here are {what} "
                f"items of shape {shape}: give a .npy or .npz file in their units"
            )
        with with_flag(flag, file):
            side = about.get("resolution")
            pixels = torch.from_numpy(read_picture(file, mode, (side, side) if side else None).copy())
        return pixels[None] * ((levels - 1) / 255)

    def shown(self, x: Tensor, lead: int = 1) -> Tensor | None:
        return colors(x, lead) if x.ndim - lead == 3 else None

    def element(self, item: Tensor, levels: int | None, about: About) -> str:
        return pixels(self, item, levels) or super().element(item, levels, about)

    def network_input(self, transform: Transform, shape: Event, flag: str) -> Callable[[Tensor], Tensor]:
        return byte_images(transform, shape, flag)

    def judge(self, shape: Event, width: int, features: int) -> nn.Sequential:
        """Two convolutions."""
        return nn.Sequential(
            nn.Conv2d(shape[0], width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(4), nn.Flatten(),
            nn.Linear(32 * width, features), nn.ReLU(),
        )  # fmt: skip

    def examples(self, shape: Event) -> int:
        return in_a_row(shape)


def colors(x: Tensor, lead: int) -> Tensor:
    """Images x (*lead, channels, height, width) with channels that a picture has: the first alone, in gray, of two or
    of more than four."""
    return x if x.shape[lead] in MODES.values() else x.narrow(lead, 0, 1)


def in_a_row(shape: Event) -> int:
    """How many images of a shape (..., width) a row takes."""
    return max(2, min(10, 640 // shape[-1]))


def pixels(kind: Kind, item: Tensor, levels: int | None) -> str:
    """The element of a page with what a sheet shows of an item (*event), "" for nothing."""
    shown = kind.shown(item[None])
    if shown is None:
        return ""
    found = scaled(shown[0].double().numpy(), *kind.scale(shown, levels))
    return image("png", png(found), f"an item of {found.shape[2]} by {found.shape[1]} pixels")


def byte_images(transform: Transform, shape: Event, flag: str) -> Callable[[Tensor], Tensor]:
    """What takes images (B, channels, height, width) in data units to bytes (B, 3, height, width) from 0 to 255, as the
    networks of the FID read them; gray ones three times, with a warning. Raises ValueError for data that are no such
    images."""
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise no_images(shape, flag)
    if not transform.num_levels:
        raise ValueError(
            f"{flag} reads bytes, and these data are continuous, without a white and a black: store them as "
            "integers with config.data.num_levels, or use --features data or classifier"
        )
    if shape[0] == 1:
        # At the line of the mode that asked for the features.
        warnings.warn(f"{flag} reads colors: gray images are repeated to 3 channels", stacklevel=4)
    factor = 255 / (transform.num_levels - 1)
    return lambda x: (x * factor).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def scaled(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values of images as uint8: ``low`` is black and ``high`` white."""
    return np.clip((pixels - low) / max(high - low, 1e-12) * 255, 0, 255).round().astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """The file of one image (channels, height, width), uint8."""
    from PIL import Image as Pillow

    buffer = io.BytesIO()
    Pillow.fromarray(pixels.transpose(1, 2, 0) if len(pixels) > 1 else pixels[0]).save(buffer, "PNG")
    return buffer.getvalue()
