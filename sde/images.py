"""Images from a folder or a zip, one sub-folder a class where there are any."""

import io
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif")
MODES = {"L": 1, "RGB": 3, "RGBA": 4}
IN_MEMORY = 2**31
"""Bytes up to which a set is decoded once, at the start, into memory; larger ones are decoded as they are read."""


class ImageFiles:
    """The pixels (n, channels, height, width), uint8, of image files, decoded on indexing by a tensor of positions."""

    def __init__(self, source: Path, names: list[str], mode: str, size: tuple[int, int]) -> None:
        self.source, self.names, self.mode = source, names, mode
        self.shape = torch.Size((len(names), MODES[mode], size[1], size[0]))
        self._zip: zipfile.ZipFile | None = None

    def open(self, name: str):
        """One image, opened by Pillow but not decoded."""
        from PIL import Image

        if self.source.is_dir():
            return Image.open(self.source / name)
        self._zip = self._zip or zipfile.ZipFile(self.source)
        return Image.open(io.BytesIO(self._zip.read(name)))

    def read(self, name: str, function: Callable):
        """function(image) of one image. Raises ValueError that names the image where it cannot be read."""
        try:
            with self.open(name) as image:
                return function(image)
        # Pillow and zipfile raise a dozen unrelated exceptions for damaged, encrypted and oversized files.
        except Exception as error:
            raise ValueError(f"{self.source}: image {name} is damaged ({error}): remove or replace it") from None

    def _decode(self, name: str) -> np.ndarray:
        pixels = self.read(name, lambda image: np.asarray(image.convert(self.mode)))
        if pixels.shape[:2] != tuple(self.shape[2:]):
            raise ValueError(
                f"{self.source}: image {name} is {pixels.shape[1]}x{pixels.shape[0]} pixels, the first one is "
                f"{self.shape[3]}x{self.shape[2]}: bring all images to one size"
            )
        return pixels if pixels.ndim == 3 else pixels[:, :, None]

    def __getitem__(self, index: Tensor) -> Tensor:
        stacked = np.stack([self._decode(self.names[i]) for i in index.tolist()])
        return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()

    def part(self, index: Tensor) -> "ImageFiles":
        """The files at some positions, still not decoded."""
        return ImageFiles(
            self.source, [self.names[i] for i in index.tolist()], self.mode, (self.shape[3], self.shape[2])
        )


def list_images(source: Path) -> list[str]:
    """Names of the images in a folder or zip, sorted, relative to it; dot-files are passed over."""
    if source.is_dir():
        names = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
    else:
        try:
            with zipfile.ZipFile(source) as archive:
                names = [info.filename for info in archive.infolist() if not info.is_dir()]
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(f"{source} is neither a folder nor a readable zip ({error})") from None
    found = sorted(
        name
        for name in names
        if name.lower().endswith(SUFFIXES)
        and not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)
    )
    if not found:
        raise ValueError(
            f"no images in {source.resolve()} (looked for {', '.join(SUFFIXES)}, in sub-folders too); it holds "
            f"{len(names)} other files"
        )
    return found


def read_images(source: Path, mode: str) -> tuple[Tensor | ImageFiles, Tensor | None, list[str]]:
    """Pixels (n, channels, height, width), labels (n,) or None, and the names of the classes.

    ``mode`` is "L", "RGB" or "RGBA", to which every image is converted, or "" for the mode that all of them share.
    Classes are the folders that hold the images, in sorted order. Raises ValueError, which names the files, for mixed
    modes or sizes, damaged images and empty folders.
    """
    names = list_images(source)
    files = ImageFiles(source, names, "L", (1, 1))
    if mode and mode not in MODES:
        raise ValueError(
            f"config.data.mode = {mode!r}: needs one of {', '.join(MODES)}, or nothing for the images' own"
        )
    if not mode:
        modes = Counter(files.read(name, lambda image: image.mode) for name in names)
        if len(modes) > 1 or next(iter(modes)) not in MODES:
            counts = ", ".join(f"{count} {name}" for name, count in modes.most_common())
            raise ValueError(
                f"{source} holds images of mode {counts}: set config.data.mode to one of {', '.join(MODES)}, to "
                "which they are converted"
            )
        mode = next(iter(modes))
    files = ImageFiles(source, names, mode, files.read(names[0], lambda image: image.size))
    folders = [PurePosixPath(name).parent.as_posix() for name in names]
    classes = sorted(set(folders))
    labels = torch.tensor([classes.index(folder) for folder in folders]) if len(classes) > 1 else None
    pixels = files[torch.arange(len(names))] if files.shape.numel() <= IN_MEMORY else files
    return pixels, labels, classes if labels is not None else []
