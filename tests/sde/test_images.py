"""Folders and zips of images: what is read, how, and the sentence for each thing that cannot be."""

import io
import os
import re
import threading
import warnings
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from sde.data import images as images_module
from sde.data.array_files import ArrayFile
from sde.data.dataset import Dataset
from sde.data.folders import Folder
from sde.data.images import ImageFiles, read_images
from sde.data.pixels import ORIENTATION
from sde.data.prefetch import Prefetch
from sde.data.transform import Transform
from tests.sde.small_data import config, load_dataset, packed, refused


def picture(size=(5, 4), mode="RGB", seed=0):
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
    return Image.fromarray(pixels, mode)


def folder(root, count=6, size=(5, 4), mode="RGB", classes=("cat", "dog"), suffix="png"):
    for i in range(count):
        path = root / classes[i % len(classes)] if classes else root
        path.mkdir(parents=True, exist_ok=True)
        picture(size, mode, i).save(path / f"{i}.{suffix}")
    return root


@pytest.fixture
def on_demand(monkeypatch):
    monkeypatch.setattr(images_module, "IN_MEMORY", 0)


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("in_memory", [2**31, 0])
def test_folders_and_zips(tmp_path, monkeypatch, pack, in_memory, workers):
    monkeypatch.setattr(images_module, "IN_MEMORY", in_memory)
    root = folder(tmp_path / "set")
    (root / "cat" / ".hidden.png").write_bytes(b"not an image")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "0.png").write_bytes(b"not an image")
    (root / "notes.txt").write_text("x")
    train, test = load_dataset(**config("images", root=pack(root), test_fraction=0.34, workers=workers))
    assert isinstance(train.items, torch.Tensor if in_memory else ImageFiles)
    assert (len(train), len(test), train.event_shape, train.num_classes) == (4, 2, (3, 4, 5), 2)
    x, cond = train.batch(torch.arange(4))
    files = {np.asarray(Image.open(p)).tobytes(): p.parent.name for p in root.glob("[cd]*/[0-9]*.png")}
    for image, label in zip(x, cond["labels"], strict=True):
        assert files[image.permute(1, 2, 0).to(torch.uint8).numpy().tobytes()] == ("cat", "dog")[label]


def test_without_classes(tmp_path):
    train, _ = load_dataset(**config("images", root=folder(tmp_path, classes=(), mode="L"), test_fraction=0.2))
    assert (train.labels, train.num_classes, train.event_shape) == (None, None, (1, 4, 5))


def test_a_held_out_part_of_its_own(tmp_path):
    keys = {"root": folder(tmp_path / "a"), "test_root": folder(tmp_path / "b", 2)}
    train, test = load_dataset(**config("images", **keys))
    assert (len(train), len(test)) == (6, 2)
    folder(tmp_path / "b", 1, classes=("fox",))
    refused(f"{tmp_path / 'b'} has the classes ['cat', 'dog', 'fox'], the images to train on have ['cat', 'dog']: "
            "leave fox out, or train on it", load_dataset, **config("images", **keys))  # fmt: skip
    keys["test_root"] = folder(tmp_path / "c", 2, mode="RGBA")
    refused("the held-out images have the shape (4, 4, 5), those to train on (3, 4, 5): set config.data.color_mode "
            "and config.data.resolution, to which both are converted", load_dataset,
            **config("images", **keys))  # fmt: skip


def test_images_that_are_enlarged_are_said(tmp_path):
    root = folder(tmp_path / "a")
    with pytest.warns(UserWarning, match=r"6 of 6 images are enlarged to 8x8"):
        train, _ = load_dataset(**config("images", root=root, resolution=8))
    assert train.about["resolution"] == 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_dataset(**config("images", root=root, resolution=4))


def test_row_4_mixed_modes(tmp_path, pack):
    """Demands, row 4: a table of modes and names; ``mode`` converts."""
    root = folder(tmp_path / "a")
    folder(root, 2, mode="L", classes=("fox",))
    folder(root, 1, mode="RGBA", classes=("owl",))
    folder(root, 1, mode="CMYK", classes=("cow",), suffix="jpg")
    picture(mode="L").convert("P").save(root / "cow" / "1.gif")
    source = pack(root)
    refused(
        f"{source} holds images of these modes: 6 RGB (cat/0.png, cat/2.png, cat/4.png, ...), 2 L (fox/0.png, "
        "fox/1.png), 1 CMYK (cow/0.jpg), 1 P (cow/1.gif), 1 RGBA (owl/0.png); set config.data.color_mode to one of L, "
        "RGB, RGBA, to which they are converted",
        load_dataset, **config("images", root=source),
    )  # fmt: skip
    for mode, channels in (("L", 1), ("RGB", 3), ("RGBA", 4)):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            pixels, _, classes = read_images(source, mode)
        wanted = f"{source}: the image owl/0.png has transparency, which is laid on white; color_mode = RGBA keeps it"
        assert [str(w.message) for w in said if w.category is UserWarning] == ([] if mode == "RGBA" else [wanted])
        assert (tuple(pixels.shape), classes) == ((11, channels, 4, 5), ["cat", "cow", "dog", "fox", "owl"])
        for name, image in zip(sorted(Folder(source).names), pixels, strict=True):
            opened = Image.open(root / name)
            if opened.mode == "RGBA" and mode != "RGBA":
                opened = Image.alpha_composite(Image.new("RGBA", opened.size, "white"), opened).convert("RGB")
            expected = np.asarray(opened.convert(mode)).reshape(4, 5, channels)
            assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
    refused("config.data.color_mode = 'BGR': needs one of L, RGB, RGBA, or nothing for the images' own",
            read_images, source, "BGR")  # fmt: skip


@pytest.mark.parametrize("mode", ["", "L"])
def test_row_4_deep_images_are_not_cut_to_8_bits(tmp_path, mode):
    folder(tmp_path, 2, mode="L", classes=())
    Image.fromarray(np.full((4, 5), 40_000, np.uint16)).save(tmp_path / "deep.png")
    refused(
        f"{tmp_path} holds images of more than 256 levels: 2 L (0.png, 1.png), 1 I;16 (deep.png); save them with 8 "
        "bits, or as an array for config.data.dataset=points with config.data.num_levels",
        read_images, tmp_path, mode,
    )  # fmt: skip


def read_ahead(files):
    with Prefetch(lambda step: files[torch.tensor([step])], workers=2, end=len(files.names)) as batches:
        return torch.cat([batches.get(step) for step in range(len(files.names))])


@pytest.mark.parametrize("in_memory", [2**31, 0])
def test_row_4_truncated_image(tmp_path, monkeypatch, pack, in_memory):
    monkeypatch.setattr(images_module, "IN_MEMORY", in_memory)
    root = folder(tmp_path / "a", size=(60, 50))
    path = root / "dog" / "3.png"
    path.write_bytes(path.read_bytes()[:-300])
    source = pack(root)
    pattern = f"^{re.escape(str(source))}: image dog/3\\.png is damaged \\(.*truncated.*\\): remove or replace it$"
    with pytest.raises(ValueError, match=pattern):
        read_ahead(read_images(source)[0])
    path.write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"image dog/3\.png is damaged \(cannot identify"):
        read_images(pack(root))


def test_row_5_empty_folder(tmp_path, pack, monkeypatch):
    (tmp_path / "set" / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    looked = "(looked for .png .jpg .jpeg .bmp .webp .tif .tiff .gif, in sub-folders too)"
    source = pack(tmp_path / "set")
    dirs = 2 if source.is_dir() else 0
    refused(f"no images found in {source} {looked}. It contains: {dirs} dirs, 0 files", Folder, source)
    (tmp_path / "set" / "a" / "b" / "notes.txt").write_text("x")
    (tmp_path / "set" / ".thumb.png").write_text("x")
    name = pack(tmp_path / "set").name
    refused(f"no images found in {source} {looked}. It contains: 2 dirs, 2 files",
            load_dataset, **config("images", root=name))  # fmt: skip
    (tmp_path / "c.zip").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"c\.zip is neither a folder nor a readable zip"):
        load_dataset(**config("images", root=tmp_path / "c.zip"))
    np.save(tmp_path / "d.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"d\.npy holds arrays, and no images: take the data set points"):
        load_dataset(**config("images", root=tmp_path / "d.npy"))


def test_mixed_sizes(tmp_path):
    folder(tmp_path)
    folder(tmp_path, 1, size=(9, 9), classes=("fox",))
    refused(
        f"{tmp_path} holds images of these sizes: 6 5x4 (cat/0.png, cat/2.png, cat/4.png, ...), 1 9x9 (fox/0.png); set "
        "config.data.resolution to the side of the square to which they are cropped and resized",
        load_dataset, **config("images", root=tmp_path),
    )  # fmt: skip
    assert load_dataset(**config("images", root=tmp_path, resolution=3, test_fraction=0.2))[0].event_shape == (3, 3, 3)
    refused("config.data.resolution = -3: needs the side of a square, or 0 for the images' own size",
            load_dataset, **config("images", root=tmp_path, resolution=-3))  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*are enlarged")
@pytest.mark.parametrize("size", [(40, 24), (24, 40), (16, 16), (9, 12)])
def test_resizing_is_lanczos_of_the_central_square(tmp_path, size):
    """Against a square cut out by hand, where the halves of what is cut off are whole pixels."""
    image = picture(size)
    image.save(tmp_path / "0.png")
    side = min(size)
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    expected = image.resize((16, 16), Image.Resampling.LANCZOS, (left, top, left + side, top + side))
    pixels, _, _ = read_images(tmp_path, resolution=16)
    assert np.array_equal(pixels[0].permute(1, 2, 0).numpy(), np.asarray(expected))


def test_large_photographs_are_decoded_at_a_smaller_scale(tmp_path, monkeypatch):
    x, y = np.meshgrid(np.linspace(0, 6, 800), np.linspace(0, 4, 600))
    smooth = Image.fromarray((128 + 100 * np.sin(x) * np.cos(y)).astype(np.uint8))
    smooth.save(tmp_path / "0.jpg", quality=95)
    decoded = []
    fit = ImageOps.fit
    monkeypatch.setattr(ImageOps, "fit", lambda image, *rest: decoded.append(image.size) or fit(image, *rest))
    pixels, _, _ = read_images(tmp_path, resolution=64)
    assert decoded == [(200, 150)]
    expected = np.asarray(fit(smooth, (64, 64), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(pixels[0, 0].numpy() - expected).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [0, 8])
def test_photographs_stand_upright(tmp_path, orientation, size):
    image = picture((16, 8))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image.save(tmp_path / "0.tif", exif=exif)
    image.save(tmp_path / "0.webp", exif=exif, lossless=True)
    pixels, _, _ = read_images(tmp_path, resolution=size)
    turn = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}[orientation]
    upright = image if turn is None else image.transpose(Image.Transpose(turn))
    expected = np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS) if size else upright)
    for row in pixels:
        assert np.array_equal(row.permute(1, 2, 0).numpy(), expected)


def test_a_batch_depends_on_its_positions_alone(tmp_path, pack, on_demand):
    """Read by threads from the start and from the middle, and again by one: the same pixels for the same step."""
    files, labels, _ = read_images(pack(folder(tmp_path / "set", 40)))
    data = Dataset(files, labels, 2, Transform.of_levels(256))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))

    def fetch(step):
        return data.batch(order[4 * step : 4 * step + 4])

    runs = []
    for workers, steps in ((0, range(10)), (4, range(10)), (3, range(5, 10))):
        with Prefetch(fetch, workers, end=10) as batches:
            runs.append([batches.get(step) for step in steps])
    assert len({x.numpy().tobytes() for x, _ in runs[0]}) == 10
    for run in (runs[1], runs[2]):
        for (x, y), (x0, y0) in zip(run, runs[0][-len(run) :], strict=True):
            assert torch.equal(x, x0)
            assert torch.equal(y["labels"], y0["labels"])


def test_every_thread_has_its_own_handle_of_a_zip(tmp_path, monkeypatch):
    opened = []
    original = zipfile.ZipFile

    def counted(*arguments, **keys):
        opened.append(threading.current_thread().name)
        return original(*arguments, **keys)

    source = Folder(packed(folder(tmp_path / "set", 8)))
    monkeypatch.setattr(zipfile, "ZipFile", counted)
    met = threading.Barrier(3, timeout=10)

    def read(step):
        met.wait()
        return source.read(source.names[step], lambda image: image.size)

    with Prefetch(read, workers=3, end=6) as values:
        assert [values.get(step) for step in range(6)] == [(5, 4)] * 6
    assert len(opened) == len(set(opened)) == 3


class Decodes:
    """Counts the images that are decoded."""

    def __init__(self, monkeypatch):
        self.count = 0
        original = ImageFiles._pixels

        def pixels(files, image):
            self.count += 1
            return original(files, image)

        monkeypatch.setattr(ImageFiles, "_pixels", pixels)


def test_a_large_set_is_decoded_once_into_a_cache(tmp_path, monkeypatch, pack, on_demand):
    source, store = pack(folder(tmp_path / "set", 9)), tmp_path / "cache"
    everything = read_images(source)[0][torch.arange(9)]
    decodes = Decodes(monkeypatch)
    keys = {"root": source, "cache": str(store), "test_fraction": 0.34, "workers": 2}
    train, _ = load_dataset(**config("images", **keys))
    assert decodes.count == 9
    assert isinstance(train.items, ArrayFile)
    again, _ = load_dataset(**config("images", **keys))
    assert decodes.count == 9, "the second time, nothing is decoded"
    for data in (train, again):
        batch = data.items[torch.arange(6)]
        assert all(any(torch.equal(row, other) for other in everything) for row in batch)
        assert len(batch.unique(dim=0)) == 6
    read_images(source, color_mode="L", cache=str(store))
    assert decodes.count == 18, "another mode is another set"
    read_images(source, resolution=4, cache=str(store))
    assert decodes.count == 27
    assert len(list(store.iterdir())) == 3


def test_a_cache_notices_changed_files(tmp_path, monkeypatch, on_demand):
    root, store = folder(tmp_path / "set", 3), tmp_path / "cache"
    read_images(root, cache=str(store))
    picture(seed=77).save(root / "cat" / "0.png")
    pixels, _, _ = read_images(root, cache=str(store))
    assert np.array_equal(pixels[torch.tensor([0])][0].permute(1, 2, 0).numpy(), np.asarray(picture(seed=77)))


def test_a_cache_notices_renamed_files(tmp_path, on_demand):
    root, store = folder(tmp_path / "set", 3, classes=(), suffix="bmp"), tmp_path / "cache"
    for path in root.iterdir():
        os.utime(path, (1, 1))
    first = read_images(root, cache=str(store))[0][torch.arange(3)]
    (root / "0.bmp").rename(root / "9.bmp")
    assert torch.equal(read_images(root, cache=str(store))[0][torch.arange(3)], first[[1, 2, 0]])


def test_an_interrupted_cache_is_no_cache(tmp_path, monkeypatch, on_demand):
    root, store = folder(tmp_path / "set", 3, size=(60, 50)), tmp_path / "cache"
    broken = root / "dog" / "1.png"
    content = broken.read_bytes()
    broken.write_bytes(content[:-300])
    with pytest.raises(ValueError, match=r"image dog/1\.png is damaged"):
        read_images(root, cache=str(store))
    assert not list(store.iterdir())
    broken.write_bytes(content)
    read_images(root, cache=str(store))
    (kept,) = store.iterdir()
    for damaged in (kept.read_bytes()[:-10], b"", b"junk"):
        kept.write_bytes(damaged)
        pixels, _, _ = read_images(root, cache=str(store))
    assert np.array_equal(pixels[torch.tensor([2])][0].permute(1, 2, 0).numpy(), np.asarray(picture((60, 50), seed=1)))
    monkeypatch.setattr("os.fsync", full)
    broken.touch()
    refused(f"config.data.cache = {store} cannot hold the decoded set ([Errno 28] No space left on device): name "
            "another", read_images, root, cache=str(store))  # fmt: skip
    assert list(store.iterdir()) == [kept]


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_a_cache_is_for_all_whom_the_umask_lets(tmp_path, on_demand, umask):
    before = os.umask(umask)
    try:
        read_images(folder(tmp_path / "set", 3), cache=str(tmp_path / "cache"))
    finally:
        os.umask(before)
    (kept,) = (tmp_path / "cache").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o666 & ~umask


def full(descriptor):
    raise OSError(28, "No space left on device")


def test_images_from_a_stream_are_whole(tmp_path):
    """Pillow decodes a member of a zip through the zip's own stream; here its members are compressed."""
    buffer = io.BytesIO()
    picture((300, 200)).save(buffer, "BMP")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.bmp", buffer.getvalue())
    pixels, _, _ = read_images(tmp_path / "a.zip")
    assert np.array_equal(pixels[0].permute(1, 2, 0).numpy(), np.asarray(picture((300, 200))))
