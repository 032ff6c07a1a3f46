"""Pickles of modules: what EDM's files hold, as plain values and tensors, without running anything that they name."""

import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sde.pretrained.plain import Plain

UNSAFE = re.compile(r"GLOBAL (\w+(?:\.\w+)*)|(?:class|type) (\w+(?:\.\w+)+)")
"""How torch says which name it would not build."""
REASON = re.compile(r"WeightsUnpickler error:\s*(\S.*)")
"""How torch says what else was wrong, between pieces of advice that are not ours."""


def naming(name: str) -> ValueError:
    """The error of a file that names what is not built."""
    return ValueError(
        f"it names {name}, which a file of weights has no need of: nothing of it was run; save its state_dict() instead"
    )


def refused_by_torch(error: pickle.UnpicklingError) -> ValueError:
    """What torch's reader of weights found, in our words."""
    text = str(error)
    if named := UNSAFE.search(text):
        return naming(named[1] or named[2])
    reason = REASON.search(text) or re.match("(.*)", text.partition("Weights only load failed")[0])
    why = f" ({reason[1].rstrip('.')})" if reason and reason[1] else ""
    return ValueError(f"it cannot be read{why}: it may be cut short, or damaged")


def read_pickle(file: IO[bytes]) -> Any:
    """The value of the next pickle in a file, of which nothing is built but tensors, arrays, plain values and ``Plain``
    in the place of modules and objects. Raises ValueError for one that names anything else, before that is looked for,
    and for one that is cut short."""
    try:
        return _Reader(file).load()
    except ValueError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"it cannot be read as a pickle ({reason}): it may be cut short, or damaged") from None


def _persistent(about: dict[str, Any], *_: Any) -> Plain:
    """An object that carries the text of its class, which is not looked at."""
    found = Plain()
    found.kind = str(about.get("class_name", ""))
    found.__setstate__(about.get("state"))
    return found


def _storage(content: bytes) -> Any:
    """A storage of tensors, a file of torch in itself."""
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise refused_by_torch(error) from None


def _tensor(
    storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any, dtype: torch.dtype | None = None
) -> Tensor:
    whole = torch.tensor([], dtype=dtype or storage.dtype)
    storage = getattr(storage, "_untyped_storage", storage)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # torch would make the storage longer, by memory that holds anything.
    if min((offset, *size, *stride)) < 0 or (0 not in size and (last + 1) * whole.element_size() > storage.nbytes()):
        raise ValueError(f"it holds a tensor of shape {tuple(size)} that is larger than its storage")
    return whole.set_(storage, offset, tuple(size), tuple(stride))


def _parameter(data: Tensor, *_: Any) -> Tensor:
    return data


def _array(kind: type, shape: tuple[int, ...], typecode: Any) -> "_Array":
    return _Array()


class _Array:
    """A numpy array: its state is its version, shape, dtype, order and bytes."""

    value: Any = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        self.value = np.frombuffer(content, dtype.value).reshape(shape, order="F" if fortran else "C")


class _Dtype:
    """A numpy dtype, of numbers alone."""

    def __init__(self, code: str, *_: Any) -> None:
        if np.dtype(code).kind not in "biufc":
            raise ValueError(f"it holds an array of {code}: only numbers are read")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in (">", "<"):
            self.value = self.value.newbyteorder(state[1])


def _scalar(dtype: _Dtype, content: bytes) -> Any:
    return np.frombuffer(content, dtype.value)[0].item()


def _plainly(value: str, *_: Any) -> Any:
    return value


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """Bytes, as older protocols of pickle write them."""
    if encoding.replace("-", "").replace("_", "") not in ("latin1", "ascii", "utf8"):
        raise ValueError(f"it holds a text encoded as {encoding!r}")
    return text.encode(encoding)


def _from_buffer(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str = "C") -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", content))
    return array


def _object(kind: type, *_: Any) -> Any:
    """An object as protocols below 2 make it, of a class that is built at all."""
    return kind()


_NUMPY: dict[str, Callable[..., Any]] = {"_reconstruct": _array, "scalar": _scalar}

BUILT: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "slice"): slice,
    ("builtins", "complex"): complex,
    ("builtins", "bytearray"): bytearray,
    ("_codecs", "encode"): _encoded,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch", "Size"): tuple,
    ("torch", "device"): _plainly,
    ("dnnlib.util", "EasyDict"): dict,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    **{(module, name): made for module in ("numpy.core.multiarray", "numpy._core.multiarray")
       for name, made in _NUMPY.items()},
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("copyreg", "_reconstructor"): _object,
    ("builtins", "object"): object,
}  # fmt: skip
"""What is built in the place of each name that a pickle may hold."""


class _Reader(pickle._Unpickler):
    """Builds what is in BUILT, and ``Plain`` for torch's own modules. A state is given to these objects alone: one that
    is given to a function or a class would stay behind in BUILT, and one of a tensor may be of any memory."""

    stack: list[Any]

    def load_build(self) -> None:
        state, built = self.stack.pop(), self.stack[-1]
        if isinstance(built, Plain | _Array | _Dtype):
            built.__setstate__(state)
        # Attributes of a dict, as the versions beside a state_dict, are not looked at.
        elif not isinstance(built, dict):
            raise ValueError(f"it gives a state to a {type(built).__name__}, which has none in a file of weights")

    dispatch: ClassVar[dict] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        if (module, name) in BUILT:
            return BUILT[module, name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module.startswith("torch.nn.modules."):
            return type(name, (Plain,), {"kind": name})
        raise naming(f"{module}.{name}")

    def persistent_load(self, key: Any) -> Any:
        raise ValueError(f"it refers to {key!r} outside of itself: needs a pickle that is whole")
