"""Folders as classes: what counts as an image, what its class is called, and which folders are parts of a split."""

import os
import re
import warnings

import numpy as np
import pytest
from PIL import Image

from sde.data.folders import Folder, folders_of
from sde.data.images import read_images
from tests.sde.small_data import config, load_dataset


def pictures(root, *names):
    """Images under root, each of one gray that is its number among the names."""
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), i, np.uint8)).save(path)
    return root


def found(source):
    """{gray: class name}, and what is warned of."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        pixels, labels, names = read_images(source)
    said = [str(w.message) for w in said if w.category is UserWarning]
    classes = [""] * len(pixels) if labels is None else [names[label] for label in labels]
    return dict(zip(pixels[:, 0, 0, 0].tolist(), classes, strict=True)), names, said


@pytest.mark.parametrize(("files", "names"), [
    (["1/a.png", "2/a.png", "10/a.png"], ["1", "2", "10"]),
    (["b/1.png", "B2/1.png", "b10/1.png", "a/1.png"], ["a", "b", "B2", "b10"]),
    (["set/cat/1.png", "set/dog/1.png"], ["cat", "dog"]),
    (["a/x/1.png", "a/y/1.png", "b/1.png"], ["a/x", "a/y", "b"]),
    (["train/1.png", "bus/1.png"], ["bus", "train"]),
    (["1.png", "2.png"], []),
    (["set/1.png", "set/2.png"], []),
])  # fmt: skip
def test_names_of_classes(tmp_path, pack, files, names):
    by_gray, classes, said = found(pack(pictures(tmp_path / "root", *files)))
    assert (classes, said) == (names, [])
    if names:
        assert all(re.search(f"(^|/){re.escape(by_gray[i])}/", file) for i, file in enumerate(files))


def test_accents_are_one_name(tmp_path, pack):
    """A disk may hold the same name in two forms."""
    root = pictures(tmp_path / "root", "caf\u00e9/1.png", "cafe\u0301/2.png", "tee/1.png")
    by_gray, names, _ = found(pack(root))
    assert names == ["caf\u00e9", "tee"]
    assert by_gray == {0: "caf\u00e9", 1: "caf\u00e9", 2: "tee"}


def test_names_that_are_no_utf_8(tmp_path):
    root = pictures(tmp_path / "root", "tee/1.png")
    os.mkdir(os.fsencode(root) + b"/caf\xe9")
    os.link(root / "tee" / "1.png", os.fsencode(root) + b"/caf\xe9/2.png")
    _, names, _ = found(root)
    assert names == ["caf\u00e9", "tee"]
    "".join(names).encode()


def test_what_does_not_count(tmp_path, pack):
    root = pictures(tmp_path / "root", "a/1.png", "b/1.png", "__MACOSX/a/1.png", "@eaDir/1.png", ".hidden/1.png",
                    "a/._1.png", "a/@eaDir/1.png")  # fmt: skip
    for name in ("a/Thumbs.db", ".DS_Store", "a/.DS_Store", "notes.txt", "a/labels.csv"):
        (root / name).write_text("x")
    (root / "empty").mkdir()
    by_gray, names, said = found(pack(root))
    assert (by_gray, names, said) == ({0: "a", 1: "b"}, ["a", "b"], [])


def test_strays(tmp_path, pack):
    source = pack(pictures(tmp_path / "root", "a/1.png", "a/2.png", "b/1.png", "stray.png"))
    by_gray, names, said = found(source)
    assert (sorted(by_gray), names) == ([0, 1, 2], ["a", "b"])
    assert said == [f"{source}: left out, as they have no class: 1 image (stray.png) beside the folders of classes"]
    source = pack(pictures(tmp_path / "more", "a/1.png", "b/1.png", "1.png", "2.png", "3.png"))
    with pytest.raises(
        ValueError, match=r"has 3 images \(1\.png, 2\.png, 3\.png\) beside the folders of classes, more "
    ):
        Folder(source)


def test_zips_within(tmp_path, pack):
    root = pictures(tmp_path / "root", "a/1.png", "b/1.png")
    (root / "more.zip").write_bytes(b"x")
    source = pack(root)
    assert found(source)[2] == [f"{source}: 1 zip within, which is not looked into"]
    (tmp_path / "zips").mkdir()
    (tmp_path / "zips" / "all.zip").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"0 dirs, 1 files; 1 zip within, to be unpacked first$"):
        Folder(tmp_path / "zips")


def test_links(tmp_path):
    elsewhere = pictures(tmp_path / "elsewhere", "1.png", "2.png")
    root = pictures(tmp_path / "root", "b/3.png", "b/4.png", "b/5.png")
    (root / "a").symlink_to(elsewhere)
    (root / "b" / "6.png").symlink_to(root / "b" / "3.png")
    (root / "b" / "up").symlink_to(root)
    (root / "b" / "gone.png").symlink_to(tmp_path / "nowhere")
    with pytest.warns(UserWarning, match=r"left out, as they lead nowhere: 1 link \(b/gone\.png\)"):
        folder = Folder(root)
    assert folder.names == ["a/1.png", "a/2.png", "b/3.png", "b/4.png", "b/5.png", "b/6.png"]
    assert folder.classes == ["a"] * 2 + ["b"] * 4


@pytest.mark.parametrize("top", ["", "data/"])
@pytest.mark.parametrize(("held_out", "left"), [("test", "val"), ("Validation", None)])
def test_folders_of_a_split(tmp_path, pack, top, held_out, left):
    files = [f"{top}Train/{c}/{i}.png" for c in ("10", "9") for i in range(3)]
    files += [f"{top}{held_out}/9/{i}.png" for i in range(2)] + ([f"{top}{left}/9/0.png"] if left else [])
    source = pack(pictures(tmp_path / "root", *files))
    with pytest.warns(UserWarning, match=f"Train is trained on and {held_out} held out"):
        train, test = load_dataset(**config("images", root=source))
    assert train.about["class_names"] == test.about["class_names"] == ["9", "10"]
    assert train.items[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert train.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert test.items[:, 0, 0, 0].tolist() == [6, 7]
    assert test.labels.tolist() == [0, 0]


def test_a_split_without_classes(tmp_path, pack):
    source = pack(pictures(tmp_path / "root", "train/1.png", "train/2.png", "test/3.png"))
    with pytest.warns(UserWarning, match="held out, as their names say"):
        train, test = load_dataset(**config("images", root=source))
    assert (train.labels, train.about, len(train), len(test)) == (None, {}, 2, 1)


def test_a_test_root_of_some_classes(tmp_path, pack):
    root = pack(pictures(tmp_path / "a", "cat/1.png", "dog/1.png", "fox/1.png"))
    part = pack(pictures(tmp_path / "b", "fox/1.png", "dog/1.png"))
    _, test = load_dataset(**config("images", root=root, test_root=part))
    assert dict(zip(test.items[:, 0, 0, 0].tolist(), test.labels.tolist(), strict=True)) == {0: 2, 1: 1}
    one = pack(pictures(tmp_path / "c", "dog/1.png"))
    assert load_dataset(**config("images", root=root, test_root=one))[1].labels.tolist() == [1]


def test_the_folder_of_a_file():
    assert folders_of(["a/b/1.png", "a/c/2.png", "a/3.png"]) == ["b", "c", "."]
    assert folders_of(["1.png"]) == [""]
    assert folders_of(["x/y/1.png"]) == ["y"]
