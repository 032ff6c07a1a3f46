"""Pixels of picture files: eight bits per channel, upright, and without colors that nobody sees."""

import re
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

MODES = {"L": 1, "RGB": 3, "RGBA": 4}
"""What pictures are converted to, with its channels."""

ORIENTATION = 0x0112
"""The tag of EXIF, and of TIFF, that says which way is up."""

BITS_PER_SAMPLE = 258
"""The tag of TIFF with the bits of each channel."""

DEEP_MODES = ("I", "F")
"""How the names of modes with more than 256 levels begin."""

DEEP = re.compile(r";(?:1[0-9]|24|32|64)")
"""Within a layout of the file, as RGB;16B, that Pillow would cut to eight bits."""

CONVERTED = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
"""Modes of eight bits or fewer whose colors Pillow converts."""

ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


class Header(NamedTuple):
    """Of a picture that is not decoded: its ``mode``, which ends in ;16 where Pillow would cut it; its ``size`` (width,
    height) when it stands upright; whether it is ``deep``, of more than 256 levels, and may be ``transparent``; and how
    many ``frames`` it has."""

    mode: str
    size: tuple[int, int]
    deep: bool
    transparent: bool
    frames: int


def header_of(image) -> Header:
    """The header of a picture that Pillow has opened."""
    mode, deep = _depth(image)
    size = image.size[::-1] if _on_its_side(image) else image.size
    return Header(mode, size, deep, _transparent(image), getattr(image, "n_frames", 1))


def _depth(image) -> tuple[str, bool]:
    """The mode of the picture in its file, and whether it has more than 256 levels."""
    layouts = [str(tile[3]) for tile in getattr(image, "tile", None) or ()]
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))
    if image.mode.startswith(DEEP_MODES):
        return image.mode, True
    if any(map(DEEP.search, layouts)) or max(np.atleast_1d(bits).tolist()) > 8:
        # Pillow would cut it to eight bits.
        return f"{image.mode};16", True
    return image.mode, False


def _transparent(image) -> bool:
    return image.mode in ALPHA or "transparency" in image.info


def _on_its_side(image) -> bool:
    """Whether width and height change places when the picture is turned, as EXIF, XMP or TIFF say."""
    if ORIENTATION in getattr(image, "tag_v2", {}):
        # Pillow turns these itself.
        return False
    # Of a PNG the tags may come behind the pixels, which Pillow decodes to look for them.
    if image.format == "PNG" and not {"exif", "xmp", "XML:com.adobe.xmp"} & image.info.keys() and not _late_tags(image):
        return False
    return image.getexif().get(ORIENTATION, 1) >= 5


def _late_tags(image) -> bool:
    """Whether a PNG has a chunk that may hold tags."""
    file = image.fp
    place = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind in (b"eXIf", b"iTXt", b"zTXt", b"tEXt"):
                return True
            file.seek(length + 4, 1)
        return False
    finally:
        file.seek(place)


def pixels_of(image, mode: str, size: tuple[int, int] | None = None, ground: str | None = "white") -> np.ndarray:
    """Pixels (channels, height, width), uint8, of the first frame of a picture that Pillow has opened, in a ``mode`` of
    MODES; upright, and with a ``size`` cropped to its shape about the center and resized by the Lanczos filter.

    A mode without alpha shows what is transparent on the ``ground``, a color, or refuses it for None. Raises ValueError
    for what has more than 256 levels and for colors that are not converted.
    """
    from PIL import Image, ImageOps

    depth, deep = _depth(image)
    if deep:
        raise ValueError(f"it has more than 256 levels ({depth}): save it with 8 bits per channel")
    if image.mode not in CONVERTED:
        raise ValueError(f"its colors are {image.mode}: save it as RGB")
    if size:
        image.draft(None, (2 * size[0], 2 * size[1]))
    transparent = _transparent(image)
    image = ImageOps.exif_transpose(image)
    if transparent:
        image = _over(image, mode, ground)
    image = image.convert(mode)
    if size:
        image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]


def _over(image, mode: str, ground: str | None):
    """A picture that may be transparent as RGBA, over a ground where the mode has no alpha."""
    from PIL import Image

    # Alpha that is multiplied in already is taken out first.
    image = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)).convert("RGBA")
    if mode == "RGBA":
        return image
    if image.getextrema()[3][0] == 255:
        return image.convert("RGB")
    if ground is None:
        raise ValueError("it is transparent in part: save it without transparency")
    return Image.alpha_composite(Image.new("RGBA", image.size, ground), image).convert("RGB")


def read_picture(
    file: Path, mode: str, size: tuple[int, int] | None = None, ground: str | None = "white"
) -> np.ndarray:
    """Pixels (channels, height, width), uint8, of one file, as by ``pixels_of``. Warns of what is left out of it.
    Raises ValueError, which does not name the file, where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            header = header_of(image)
            pixels = pixels_of(image, mode, size, ground)
    except ValueError:
        raise
    # Pillow raises many unrelated exceptions for damaged files.
    except Exception as error:
        raise ValueError(f"it is not a readable image ({error})") from None
    for sentence in left_out([header], [file.name], mode):
        warnings.warn(f"{file}: {sentence}", stacklevel=3)
    return pixels


def left_out(headers: Sequence[Header], names: Sequence[str], mode: str) -> list[str]:
    """Sentences on what pictures hold that is not read of them in a ``mode``."""
    sentences = []
    several = [name for header, name in zip(headers, names, strict=True) if header.frames > 1]
    if several:
        sentences.append(
            f"{_some(several)} more than one frame or page, of which the first alone is read: save the others as "
            "pictures of their own to have them"
        )
    seen_through = [name for header, name in zip(headers, names, strict=True) if header.transparent]
    if seen_through and mode != "RGBA":
        sentences.append(f"{_some(seen_through)} transparency, which is laid on white")
    return sentences


def _some(names: Sequence[str]) -> str:
    shown = f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
    return f"the image {shown} has" if len(names) == 1 else f"{len(names)} images ({shown}) have"
