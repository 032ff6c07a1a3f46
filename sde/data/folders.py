"""Folders and zips of images."""

import threading
import zipfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import TypeVar

T = TypeVar("T")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif")


class Folder:
    """The images in a folder or a zip: their ``names`` relative to it, sorted, without dot-files and other files.

    Raises ValueError where there are none.
    """

    def __init__(self, source: Path) -> None:
        self.source, self._local = source, threading.local()
        files, dirs = self._contents()
        self.names = [
            name
            for name in sorted(files)
            if name.lower().endswith(SUFFIXES)
            and not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)
        ]
        if not self.names:
            raise ValueError(
                f"no images found in {source.resolve()} (looked for {' '.join(SUFFIXES)}, in sub-folders too). It "
                f"contains: {dirs} dirs, {len(files)} files"
            )

    def _contents(self) -> tuple[list[str], int]:
        """The names of all files, and how many folders there are."""
        if self.source.is_dir():
            paths = list(self.source.rglob("*"))
            files = [path.relative_to(self.source).as_posix() for path in paths if path.is_file()]
            return files, sum(path.is_dir() for path in paths)
        try:
            with zipfile.ZipFile(self.source) as archive:
                files = [info.filename for info in archive.infolist() if not info.is_dir()]
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(f"{self.source} is neither a folder nor a readable zip ({error})") from None
        return files, len({folder for name in files for folder in PurePosixPath(name).parents} - {PurePosixPath()})

    def classes(self) -> list[str]:
        """The folder that each image lies in."""
        return [PurePosixPath(name).parent.as_posix() for name in self.names]

    def stamps(self, names: Sequence[str]) -> list[tuple[int, int]]:
        """Sizes and times of the files, or of the zip: they change when the images do."""
        paths = [self.source / name for name in names] if self.source.is_dir() else [self.source]
        return [(stat.st_size, stat.st_mtime_ns) for stat in (path.stat() for path in paths)]

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
