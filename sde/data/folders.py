"""Folders and zips of images: the files, and the class of each by the folder that it lies in."""

import copy
import os
import stat
import threading
import warnings
import zipfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import TypeVar

from sde.data.captions import folder_captions
from sde.data.names import composed, readable

T = TypeVar("T")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif")

ARRAYS = (".npz", ".npy", ".csv")

TRAINING = ("train", "training")
"""Names of folders to train on."""

HELD_OUT = ("test", "testing", "val", "valid", "validation", "eval", "dev", "holdout", "held_out")
"""Names of folders that are held out, the first that there is."""

LEFT_BY_SYSTEMS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found")
"""Folders that systems make, with pictures of their own."""


def _counts(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return not any(part.startswith(".") or part in LEFT_BY_SYSTEMS for part in parts)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _top(names: Sequence[str]) -> tuple[str, ...]:
    """The folders that all of these files lie in together."""
    return PurePosixPath(os.path.commonpath([PurePosixPath(name).parent for name in names])).parts if names else ()


def folders_of(names: Sequence[str]) -> list[str]:
    """The class of each file: the folder that it lies in, below those that all lie in together; "." for one that lies
    beside the folders, and where all lie in one folder its name."""
    top = _top(names)
    parents = [PurePosixPath(name).parent.parts for name in names]
    if all(parent == top for parent in parents):
        return [composed(top[-1]) if top else ""] * len(names)
    return [composed("/".join(parent[len(top) :])) or "." for parent in parents]


def _walk(root: Path) -> tuple[list[str], int, list[str]]:
    """As ``Folder._contents`` of a folder on disk."""
    files, folders, broken = [], 0, []
    ancestors = {str(root): {os.path.realpath(root)}}
    for place, dirs, here in os.walk(root, followlinks=True):
        above = ancestors.pop(place)
        for name in list(dirs):
            inner = os.path.join(place, name)
            real = os.path.realpath(inner)
            if real in above:
                # A link to a folder that it lies in.
                dirs.remove(name)
            else:
                ancestors[inner] = above | {real}
        folders += len(dirs)
        for name in here:
            path = Path(place, name)
            found = path.relative_to(root).as_posix()
            if path.is_file():
                files.append(found)
            elif path.is_symlink():
                broken.append(found)
    return files, folders, sorted(broken)


class Folder:
    """The images in a folder or a zip: their ``names`` relative to it, sorted, and ``classes``, the name of the folder
    that each lies in, "" where there is one folder at most.

    Links are followed, but not in circles. Dot-files, what systems leave beside pictures, and other files do not count.
    Warns of links that lead nowhere, of zips within, and of images beside the folders of classes, which are left out.
    Raises ValueError where there are no images, and where most lie beside the folders.
    """

    def __init__(self, source: Path) -> None:
        self.source, self._local = source, threading.local()
        if source.suffix.lower() in ARRAYS and source.is_file():
            raise ValueError(
                f"{readable(str(source))} holds arrays, and no images: take the data set points (`dataset`), and for "
                "integers their `num_levels`, as 256"
            )
        files, dirs, broken = self._contents()
        self._files = files
        pictures = [name for name in sorted(files) if name.lower().endswith(SUFFIXES) and _counts(name)]
        zips = sum(name.lower().endswith(".zip") and _counts(name) for name in files)
        if not pictures:
            unpack = f"; {_plural(zips, 'zip')} within, to be unpacked first" * bool(zips)
            raise ValueError(
                f"no images found in {readable(str(source.resolve()))} (looked for {' '.join(SUFFIXES)}, in "
                f"sub-folders too). It contains: {dirs} dirs, {len(files)} files{unpack}"
            )
        if zips:
            self._warn(f"{_plural(zips, 'zip')} within, which {'is' if zips == 1 else 'are'} not looked into")
        if broken:
            self._warn(f"left out, as they lead nowhere: {_plural(len(broken), 'link')} ({', '.join(broken[:3])})")
        self._take(pictures)

    def _take(self, pictures: list[str]) -> None:
        self.names, self.classes = pictures, folders_of(pictures)
        strays = [name for name, kind in zip(pictures, self.classes, strict=True) if kind == "."]
        if not strays:
            return
        shown = f"{', '.join(strays[:3])}{', ...' if len(strays) > 3 else ''}"
        beside = f"{_plural(len(strays), 'image')} ({shown}) beside the folders of classes"
        if 2 * len(strays) > len(pictures):
            raise ValueError(
                f"{readable(str(self.source))} has {beside}, more than in them: put each image into the folder of its "
                "class, or the folders elsewhere"
            )
        self._warn(f"left out, as they have no class: {beside}")
        kept = [i for i, kind in enumerate(self.classes) if kind != "."]
        self.names, self.classes = [pictures[i] for i in kept], [self.classes[i] for i in kept]

    def _warn(self, sentence: str) -> None:
        warnings.warn(f"{readable(str(self.source))}: {sentence}", stacklevel=4)

    def parts(self) -> tuple["Folder", "Folder | None"]:
        """What to train on and what to hold out, where folders named so are all that there is, such as train and test;
        or all of it, and None. Warns of what is left out."""
        top = _top(self.names)
        firsts = {
            PurePosixPath(name).parts[len(top)] for name in self.names if len(PurePosixPath(name).parts) > len(top) + 1
        }
        known = {first.casefold(): first for first in firsts}
        training = next((known[name] for name in TRAINING if name in known), None)
        lie_within = all(len(PurePosixPath(name).parts) > len(top) + 1 for name in self.names)
        if training is None or not lie_within or not known.keys() <= {*TRAINING, *HELD_OUT}:
            return self, None
        held_out = next((known[name] for name in HELD_OUT if name in known), None)
        others = sorted(firsts - {training, held_out})
        if held_out is not None:
            rest = f"; {' and '.join(others)} is left out" if others else ""
            self._warn(f"{training} is trained on and {held_out} held out, as their names say{rest}")
        return self._part((*top, training)), None if held_out is None else self._part((*top, held_out))

    def _part(self, start: tuple[str, ...]) -> "Folder":
        part = copy.copy(self)
        part._take([name for name in self.names if PurePosixPath(name).parts[: len(start)] == start])
        return part

    def captions(self) -> list[str]:
        """The captions of the images, one for each, as ``folder_captions`` finds them. Raises ValueError as that
        does."""
        try:
            return folder_captions(self.names, self._files, self._content)
        except ValueError as error:
            raise ValueError(f"{readable(str(self.source))}: {error}") from None

    def _content(self, name: str) -> bytes:
        if self.source.is_dir():
            return (self.source / name).read_bytes()
        with zipfile.ZipFile(self.source) as archive:
            return archive.read(name)

    def _contents(self) -> tuple[list[str], int, list[str]]:
        """The names of all files, how many folders there are, and the links that lead nowhere."""
        if self.source.is_dir():
            return _walk(self.source)
        try:
            with zipfile.ZipFile(self.source) as archive:
                members = [info for info in archive.infolist() if not info.is_dir()]
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(f"{self.source} is neither a folder nor a readable zip ({error})") from None
        links = [info.filename for info in members if stat.S_ISLNK(info.external_attr >> 16)]
        files = [info.filename for info in members if info.filename not in links]
        return (
            files,
            len({folder for name in files for folder in PurePosixPath(name).parents} - {PurePosixPath()}),
            links,
        )

    def stamps(self, names: Sequence[str]) -> list[tuple[int, int]]:
        """Sizes and times of the files, or of the zip: they change when the images do."""
        paths = [self.source / name for name in names] if self.source.is_dir() else [self.source]
        return [(found.st_size, found.st_mtime_ns) for found in (path.stat() for path in paths)]

    def read(self, name: str, function: Callable[..., T]) -> T:
        """function(image) of one image, opened by Pillow but not decoded; from any thread.

        Raises ValueError that names the image where that fails.
        """
        from PIL import Image

        try:
            with ExitStack() as stack:
                if self.source.is_dir():
                    file = stack.enter_context(open(self.source / name, "rb"))
                else:
                    # One handle per thread, since those that share one wait for each other.
                    self._local.archive = getattr(self._local, "archive", None) or zipfile.ZipFile(self.source)
                    file = stack.enter_context(self._local.archive.open(name))
                return function(stack.enter_context(Image.open(file)))
        # Pillow and zipfile raise a dozen unrelated exceptions for damaged, encrypted and oversized files.
        except Exception as error:
            raise ValueError(f"{self.source}: image {name} is damaged ({error}): remove or replace it") from None
