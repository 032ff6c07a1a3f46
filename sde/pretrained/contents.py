"""Contents: what a file of foreign weights holds, read without running anything of it."""

import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.serialization import MAGIC_NUMBER

from sde.files import read_json
from sde.pretrained.pickles import read_pickle, refused_by_torch
from sde.pretrained.plain import Plain


def _array(*_: Any) -> np.ndarray:
    """An array that will get its state, and holds nothing until then."""
    return np.empty(0, np.uint8)


SCALAR: Any = np.float64(0).__reduce__()[0]
NUMBERS: list[Any] = [np.dtype, np.ndarray, *{type(np.dtype(code)) for code in "?bhilqBHILQefd"}]
for core in ("core", "_core"):
    NUMBERS += [(SCALAR, f"numpy.{core}.multiarray.scalar"), (_array, f"numpy.{core}.multiarray._reconstruct")]
"""What of numpy a checkpoint may hold beside tensors."""


DESCRIBING = ("model_index.json", "config.json", "*/config.json", "*/scheduler_config.json")
"""The files that describe the models in a folder."""


@dataclass(frozen=True)
class Contents:
    """A file or folder at ``path``. ``kind`` is "torch", a file of ``torch.save``; "pickle", one of modules (EDM);
    "safetensors"; or "folder", of which ``data`` has the files DESCRIBING by their paths in it. ``data`` are nested
    dicts and lists of plain values and tensors, and ``Plain`` in pickles. ``metadata`` is the text beside
    safetensors."""

    path: Path
    kind: str
    data: Any
    metadata: dict[str, str] = field(default_factory=dict)

    def tensors(self, *keys: str) -> dict[str, Tensor]:
        """The tensors by name in the dict under these keys; none where there is no such dict."""
        found = self.data
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, Plain):
            return dict(found.tensors())
        return {k: v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, dict) else {}


def read_contents(path: Path) -> Contents:
    """What is at ``path``; tensors of torch's files are mapped, and read when they are used, those of safetensors files
    are copied. Raises ValueError for a file that names code, that is cut short, or that is of none of these kinds."""
    if path.is_dir():
        return Contents(path, "folder", _json_files(path))
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(name.endswith(".npy") for name in archive.namelist()):
                    raise ValueError("it is an archive of arrays (.npz), and holds no weights")
            return Contents(path, "torch", _torch_file(path, mapped=True))
        with open(path, "rb") as file:
            start = file.read(16)
        if start[:2] == b"PK":
            raise ValueError("it is an archive without its end: it was cut short")
        if start[8:9] == b"{":
            return _safetensors(path)
        if start[:1] != b"\x80":
            raise ValueError("it is neither a file of torch.save, nor a pickle, nor safetensors, nor whole")
        if _is_old_torch(path):
            return Contents(path, "torch", _torch_file(path, mapped=False))
        with open(path, "rb") as file:
            return Contents(path, "pickle", read_pickle(file))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} was not loaded: {error}") from None


def _is_old_torch(path: Path) -> bool:
    """Whether a file begins with the number that torch.save wrote before its files were archives."""
    with open(path, "rb") as file:
        try:
            return read_pickle(file) == MAGIC_NUMBER
        except ValueError:
            return False


def _torch_file(path: Path, mapped: bool) -> Any:
    with torch.serialization.safe_globals(NUMBERS):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except pickle.UnpicklingError as error:
            raise refused_by_torch(error) from None
        except (RuntimeError, EOFError, LookupError, TypeError, AttributeError, OSError) as error:
            raise ValueError(f"it cannot be read ({_sentence(error)}): it may be cut short, or damaged") from None


def _safetensors(path: Path) -> Contents:
    from safetensors.torch import safe_open

    try:
        with safe_open(path, "pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return Contents(path, "safetensors", tensors, file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ValueError(f"it cannot be read ({_sentence(error)}): it may be cut short, or damaged") from None


def _json_files(folder: Path) -> dict[str, Any]:
    paths = (path for pattern in DESCRIBING for path in sorted(folder.glob(pattern)))
    return {path.relative_to(folder).as_posix(): read_described(path) for path in paths}


def read_described(path: Path) -> Any:
    """The value in a JSON file of a folder. Raises ValueError, with its path, for one that is none."""
    try:
        return read_json(path)
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path} was not read: {_sentence(error)}") from None


def _sentence(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
