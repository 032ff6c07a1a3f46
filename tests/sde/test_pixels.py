"""Pictures as they are meant: deep ones refused, transparent ones over white, upright, frames said."""

import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from score_sde.kinds import KINDS
from score_sde.restoration.masks import read_mask
from score_sde.run.inputs import read_items
from sde.data.images import read_images
from sde.data.pixels import ORIENTATION, read_picture

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def write_png(path, pixels, kind, bits=16, late=b""):
    """A PNG of pixels (h, w, c), of 16 bits: kind 0 gray, 2 RGB, 4 gray and alpha, 6 RGBA, ``late`` chunks last."""
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], bits, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in pixels)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + late + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def doors(path, shape):
    """What each door that reads pictures makes of a file, pixels (c, h, w) from 0 to 255 or the refusal."""
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[shape[0]]
    readers = (
        lambda: read_images(path.parent, mode)[0][0].numpy(),
        lambda: read_items("--input", str(path), shape, 256, KINDS["image"])[0][0].numpy(),
        lambda: read_picture(path, mode),
    )
    for read in readers:
        try:
            yield read()
        except ValueError as error:
            yield str(error)


def deep_files(folder):
    noise = np.random.default_rng(0).integers(1000, 1200, (8, 8, 4))
    for name, kind, channels in (("gray", 0, 1), ("rgb", 2, 3), ("gray-alpha", 4, 2), ("rgba", 6, 4)):
        yield write_png(folder / f"{name}.png", noise[..., :channels], kind)
    for name, kind in (("I", np.int32), ("F", np.float32), ("I16", np.uint16)):
        Image.fromarray(noise[..., 0].astype(kind)).save(folder / f"{name}.tif")
        yield folder / f"{name}.tif"


@pytest.mark.parametrize("number", range(7))
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_deep_pictures_are_refused_at_every_door(tmp_path, number, channels):
    path = list(deep_files(tmp_path))[number]
    for other in tmp_path.iterdir():
        if other != path:
            other.unlink()
    for found in doors(path, (channels, 8, 8)):
        assert isinstance(found, str)
        assert "more than 256 levels" in found
    with pytest.raises(ValueError, match="more than 256 levels"):
        read_mask(str(path), (1, 8, 8), 0)


ALPHA = np.array([[0, 255], [128, 255]], np.uint8)
HIDDEN = np.full((2, 2), 10, np.uint8)
"""A gray whose transparent pixel hides a 10."""
OVER_WHITE = np.round(10 * (ALPHA / 255) + 255 * (1 - ALPHA / 255)).astype(int)


def transparent(mode):
    image = Image.fromarray(np.dstack([HIDDEN] * 3 + [ALPHA]), "RGBA")
    if mode == "tRNS of gray":
        return Image.fromarray(HIDDEN * (ALPHA > 0) + 200 * (ALPHA == 0).astype(np.uint8)), {"transparency": 200}
    if mode == "palette":
        found = Image.fromarray((ALPHA == 0).astype(np.uint8), "P")
        found.putpalette([10, 10, 10, 77, 5, 5] + [0] * 762)
        return found, {"transparency": 1}
    return image.convert(mode) if mode != "RGBA" else image, {}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "tRNS of gray", "palette"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.filterwarnings("ignore:.*laid on white")
def test_transparency_is_laid_on_white_at_every_door(tmp_path, mode, channels):
    image, options = transparent(mode)
    image.save(tmp_path / "0.png", **options)
    expected = OVER_WHITE if mode in ("RGBA", "LA") else np.where(ALPHA == 0, 255, 10)
    for found in doors(tmp_path / "0.png", (channels, 2, 2)):
        assert found.shape == (channels, 2, 2)
        assert np.abs(found - expected).max() <= 1
    with pytest.warns(UserWarning, match=r"the image 0\.png has transparency, which is laid on white"):
        read_picture(tmp_path / "0.png", "RGB")
    with pytest.raises(ValueError, match="it is transparent in part: save it without transparency"):
        read_mask(str(tmp_path / "0.png"), (1, 2, 2), 0)


def test_alpha_is_kept_where_it_is_a_channel(tmp_path):
    transparent("LA")[0].save(tmp_path / "0.png")
    for found in doors(tmp_path / "0.png", (4, 2, 2)):
        assert np.array_equal(found, np.stack([HIDDEN] * 3 + [ALPHA]))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_other_modes_are_converted(tmp_path, mode):
    image = Image.fromarray(np.full((6, 6, 3), 255, np.uint8)).convert(mode)
    path = tmp_path / "0.tif"
    image.save(path)
    for found in doors(path, (3, 6, 6)):
        assert (found >= 254).all()


def test_colors_that_nobody_converts(tmp_path):
    Image.new("LAB", (4, 4)).save(tmp_path / "0.tif")
    for found in doors(tmp_path / "0.tif", (3, 4, 4)):
        assert "its colors are LAB: save it as RGB" in found


def orientations():
    tag = Image.Exif()
    tag[ORIENTATION] = 6
    plain = Image.Exif()
    plain[ORIENTATION] = 1
    for suffix in ("jpg", "png", "webp", "tif"):
        yield f"EXIF.{suffix}", {"exif": tag}, True
    for suffix in ("jpg", "webp"):
        yield f"XMP.{suffix}", {"xmp": XMP}, True
        yield f"both.{suffix}", {"exif": tag, "xmp": XMP}, True
        # EXIF goes before XMP.
        yield f"plain.{suffix}", {"exif": plain, "xmp": XMP}, False
    yield "tag.tif", {"tiffinfo": {ORIENTATION: 6}}, True
    yield "packed.tif", {"tiffinfo": {ORIENTATION: 6}, "compression": "tiff_lzw"}, True
    yield "XMP.tif", {"tiffinfo": {700: XMP}}, True


@pytest.mark.parametrize(("name", "options", "turned"), orientations(), ids=lambda x: x if isinstance(x, str) else "")
def test_orientation_exactly_once(tmp_path, name, options, turned):
    x = np.zeros((8, 12, 3), np.uint8)
    x[:4] = 255
    quality = {"lossless": True} if name.endswith("webp") else {"quality": 95} if name.endswith("jpg") else {}
    Image.fromarray(x).save(tmp_path / name, **options, **quality)
    expected = np.rot90(x, -1) if turned else x
    for found in doors(tmp_path / name, (3, *expected.shape[:2])):
        assert np.abs(found.astype(int) - expected.transpose(2, 0, 1)).max() < 30


def test_tags_behind_the_pixels_of_a_png(tmp_path):
    tag = Image.Exif()
    tag[ORIENTATION] = 6
    x = np.random.default_rng(0).integers(0, 256, (8, 12, 3))
    write_png(tmp_path / "0.png", x, 2, 8, chunk(b"eXIf", tag.tobytes().removeprefix(b"Exif\0\0")))
    for found in doors(tmp_path / "0.png", (3, 12, 8)):
        assert np.array_equal(found, np.rot90(x, -1).transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_more_than_one_frame_is_said_at_every_door(tmp_path, suffix):
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (255, 0, 128)]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"0.{suffix}", save_all=True, append_images=frames[1:], **options)
    for read in (lambda: list(doors(tmp_path / f"0.{suffix}", (3, 8, 8))),
                 lambda: [read_mask(str(tmp_path / f"0.{suffix}"), (1, 8, 8), 0).mask.numpy()]):  # fmt: skip
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = read()
        assert all((pixels > 0).all() for pixels in found)
        words = [
            w for w in said if "has more than one frame or page, of which the first alone is read" in str(w.message)
        ]
        assert len(words) == len(found)


def test_resizing_shows_no_hidden_colors(tmp_path):
    """A red that nobody sees does not reach into what is seen."""
    x = np.zeros((8, 8, 4), np.uint8)
    x[:, :4] = (255, 0, 0, 0)
    x[:, 4:] = (0, 0, 255, 255)
    Image.fromarray(x, "RGBA").save(tmp_path / "0.png")
    seen, _, _ = read_images(tmp_path, "RGBA", resolution=4)
    assert (seen[0, 0][seen[0, 3] > 0] <= 1).all()
    with pytest.warns(UserWarning, match="transparency, which is laid on white"):
        shown, _, _ = read_images(tmp_path, "RGB", resolution=4)
    assert torch.equal(shown[0, 0], shown[0, 1])
