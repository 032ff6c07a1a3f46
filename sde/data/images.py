"""Images as items: one sub-folder per class where there are any."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sde.data.array_files import ArrayFile
from sde.data.arrays import IN_MEMORY
from sde.data.cache import cached
from sde.data.folders import Folder
from sde.data.names import ordered
from sde.data.pixels import MODES, header_of, left_out, pixels_of
from sde.data.prefetch import in_order
from sde.files import expanded


class ImageFiles:
    """The pixels (n, channels, height, width), uint8, of image files, decoded on indexing by a tensor of positions.

    They are read as by ``pixels_of``, in ``mode``, a key of MODES. With ``resized``, they are cropped to the shape
    about their center and resized; a JPEG is then decoded at the smallest resolution of its own that is at least twice
    that.
    """

    dtype = torch.uint8

    def __init__(
        self, folder: Folder, names: Sequence[str], mode: str, size: tuple[int, int], resized: bool = False
    ) -> None:
        self.folder, self.names, self.mode, self.size, self.resized = folder, names, mode, size, resized
        self.shape = torch.Size((len(names), MODES[mode], size[1], size[0]))

    def _pixels(self, image) -> np.ndarray:
        return pixels_of(image, self.mode, self.size if self.resized else None)

    def __getitem__(self, index: Tensor) -> Tensor:
        pixels = np.empty((len(index), *self.shape[1:]), np.uint8)
        for row, i in zip(pixels, index.tolist(), strict=True):
            row[:] = self.folder.read(self.names[i], self._pixels)
        return torch.from_numpy(pixels)

    def part(self, index: Tensor) -> "ImageFiles":
        """The files at some positions, still not decoded."""
        return ImageFiles(self.folder, [self.names[i] for i in index.tolist()], self.mode, self.size, self.resized)

    def decoded(self, workers: int) -> Iterator[Tensor]:
        """All pixels in order, in parts that ``workers`` threads decode."""
        return in_order(self.__getitem__, torch.arange(len(self.names), device="cpu").split(64), workers)


def _table(kinds: Sequence[str], names: Sequence[str]) -> str:
    """How many images of each kind there are, and the first names of each."""
    groups: dict[str, list[str]] = {}
    for kind, name in zip(kinds, names, strict=True):
        groups.setdefault(kind, []).append(name)
    rows = sorted(groups.items(), key=lambda row: -len(row[1]))
    shown = [f"{len(g)} {kind} ({', '.join(g[:3])}{', ...' if len(g) > 3 else ''})" for kind, g in rows[:5]]
    return ", ".join(shown) + (f" and {len(rows) - 5} other kinds" if len(rows) > 5 else "")


def _checked(folder: Folder, color_mode: str, resolution: int, workers: int) -> ImageFiles:
    """The files, after their headers were found to agree with each other or with what is asked for."""
    if color_mode and color_mode not in MODES:
        raise ValueError(
            f"color_mode = {color_mode!r}: needs one of {', '.join(MODES)}, or nothing for the images' own"
        )
    if resolution < 0:
        raise ValueError(f"resolution = {resolution}: needs the side of a square, or 0 for the images' own size")
    headers = list(in_order(lambda name: folder.read(name, header_of), folder.names, workers))
    modes, sizes = [header.mode for header in headers], [header.size for header in headers]
    if any(header.deep for header in headers):
        raise ValueError(
            f"{folder.source} holds images of more than 256 levels: {_table(modes, folder.names)}; save them with 8 "
            "bits, or as an array for dataset=points with `num_levels`"
        )
    if not color_mode and (len(set(modes)) > 1 or modes[0] not in MODES):
        raise ValueError(
            f"{folder.source} holds images of these modes: {_table(modes, folder.names)}; set `color_mode` to one "
            f"of {', '.join(MODES)}, to which they are converted"
        )
    if not resolution and len(set(sizes)) > 1:
        named = _table([f"{width}x{height}" for width, height in sizes], folder.names)
        raise ValueError(
            f"{folder.source} holds images of these sizes: {named}; set `resolution` to the side of the square to "
            "which they are cropped and resized"
        )
    for sentence in left_out(headers, folder.names, color_mode or modes[0]):
        keep = "; color_mode = RGBA keeps it" if "transparency" in sentence else ""
        warnings.warn(f"{folder.source}: {sentence}{keep}", stacklevel=2)
    smaller = sum(min(size) < resolution for size in sizes)
    if smaller:
        warnings.warn(
            f"{folder.source}: {smaller} of {len(sizes)} images are enlarged to {resolution}x{resolution}; a smaller "
            "`resolution`, or 0 for their own size, leaves them as they are",
            stacklevel=2,
        )
    size = (resolution, resolution) if resolution else sizes[0]
    return ImageFiles(folder, folder.names, color_mode or modes[0], size, bool(resolution))


def read_images(
    source: Path | Folder,
    color_mode: str = "",
    resolution: int = 0,
    workers: int = 0,
    cache: str = "",
    names: Sequence[str] | None = None,
) -> tuple[Tensor | ArrayFile | ImageFiles, Tensor | None, list[str]]:
    """Pixels (n, channels, height, width), labels (n,) or None, and the names of the classes.

    ``color_mode`` is "L", "RGB" or "RGBA", to which every image is converted, or "" for the mode that all of them
    share; ``resolution`` the side of the square to which they are cropped and resized, or 0 for the size that all of
    them share. Classes are the folders that hold the images, in natural order, or those of ``names``. ``workers``
    threads read. Sets above IN_MEMORY are decoded once into a file in the folder ``cache``, where that is given, and
    else whenever their items are read. Raises ValueError, which names the files, for mixed modes or sizes, damaged
    images and empty folders.
    """
    folder = source if isinstance(source, Folder) else Folder(source)
    files = _checked(folder, color_mode, resolution, workers)
    classes = ordered(folder.classes) if names is None else list(names)
    numbers = {name: number for number, name in enumerate(classes)}
    unknown = [name for name in ordered(folder.classes) if name not in numbers] if len(classes) > 1 else []
    if unknown:
        raise ValueError(
            f"{folder.source} has the classes {ordered(folder.classes)}, the images to train on have {classes}: leave "
            f"{unknown[0]} out, or train on it"
        )
    labels = torch.tensor([numbers[name] for name in folder.classes], device="cpu") if len(classes) > 1 else None
    return _placed(files, workers, cache), labels, [] if labels is None else classes


def _placed(files: ImageFiles, workers: int, cache: str) -> Tensor | ArrayFile | ImageFiles:
    """The pixels in memory, on disk, or in their files."""
    if files.shape.numel() <= IN_MEMORY:
        pixels = torch.empty(files.shape, dtype=files.dtype, device="cpu")
        for rows, part in zip(pixels.split(64), files.decoded(workers), strict=True):
            rows.copy_(part)
        return pixels
    if not cache:
        return files
    stamp = (
        str(files.folder.source.resolve()),
        files.names,
        files.folder.stamps(files.names),
        files.resized,
    )
    return ArrayFile(cached(files.decoded(workers), files.shape, stamp, Path(expanded(cache))))
