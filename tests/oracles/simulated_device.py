"""A device that is none: tensors on "sim" hold their values on the CPU, and what a GPU would punish is seen.

- A CPU tensor with dimensions among tensors on it is an error, as on CUDA; one without is a scalar.
- ``seen.waits`` are the read-backs: what makes the CPU wait for the device, each with the line that asked for it.
- ``seen.launches`` are the kernels that would be started: all operations but views and allocations; fused ones and
  those on lists of tensors count once.
- ``seen.sent`` are the copies to it.
- ``without_float64()`` makes it a device that has none, as MPS: a tensor of that type on it is an error.

It stands on torch's interface for backends written in Python, which older versions lack: ``available`` says whether it
is there. What is not simulated: autocast casts nothing, and pinned memory is as any other.
"""

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

try:
    from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

    available = True
except ImportError:
    available = False

NAME = "sim"
ROOT = Path(__file__).parents[2]
READING = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "unique_dim", "unique_consecutive"}
"""Operations whose result, or its shape, the CPU waits for."""

COSTLESS = {"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "detach", "alias", "lift_fresh"}
MOVING = {"_to_copy", "copy_"}
WIDE = {torch.float64, torch.complex128}
REFUSED: set[torch.dtype] = set()
"""The types that the device does not have."""


@dataclass
class Seen:
    """What happened on the device."""

    waits: list[str] = field(default_factory=list)
    launches: Counter = field(default_factory=Counter)
    sent: int = 0


seen = Seen()


@contextmanager
def watching() -> Iterator[Seen]:
    """What happens on the device inside the block, which is its own from then on."""
    before, own = vars(seen).copy(), Seen()
    vars(seen).update(vars(own))
    try:
        yield own
    finally:
        # Counters are shared, numbers are not.
        own.sent = seen.sent
        vars(seen).update(before)


@contextmanager
def without_float64() -> Iterator[None]:
    """Within, tensors in float64 cannot be on the device."""
    REFUSED.update(WIDE)
    try:
        yield
    finally:
        REFUSED.clear()


def asked_at() -> str:
    """The innermost line of the project, this file left out."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and path != Path(__file__) and "site-packages" not in path.parts:
            return f"{path.relative_to(ROOT)}:{frame.lineno}: {frame.line}"
    return "torch"


class SimTensor(Tensor):
    """A tensor on the device, its values in ``held`` on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "SimTensor":
        if held.dtype in REFUSED:
            raise TypeError(f"{NAME} has no {held.dtype}, at {asked_at()}")
        like = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        made = Tensor._make_wrapper_subclass(cls, held.size(), **like, device=torch.device(NAME, 0))
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __reduce_ex__(self, protocol: int):
        """Files hold the values; where they were is not kept, as of no device."""
        return self.held.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return operate(func, args, kwargs or {})


def operate(func, args, kwargs):
    """An operation with tensors of the device, or that makes one there."""
    name = func._schema.name.removeprefix("aten::")
    given = [a for a in tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
    ours = [a for a in given if isinstance(a, SimTensor)]
    device = kwargs.get("device")
    there = device is not None and torch.device(device).type == NAME
    if there:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if ours and name not in MOVING:
        check_placement(name, [a for a in given if not isinstance(a, SimTensor) and a.ndim])
    if ours and name in READING:
        seen.waits.append(f"{name} at {asked_at()}")
    plain = tree_map_only(SimTensor, lambda a: a.held, (args, kwargs))
    out = func(*plain[0], **plain[1])
    if name == "copy_":
        return copied(args[0], args[1])
    if name == "_to_copy" and ours and device is not None and not there:
        if not kwargs.get("non_blocking"):
            seen.waits.append(f"a copy to the CPU at {asked_at()}")
        return out
    if not (there or ours):
        return out
    seen.sent += name == "_to_copy" and not ours
    if name not in COSTLESS and not is_view(func):
        seen.launches[name] += 1
    # What an operation changes in place, it returns.
    same = {id(a.held): a for a in ours}

    def placed(o: Tensor) -> Tensor:
        if isinstance(o, SimTensor):
            return o
        return same[id(o)] if id(o) in same else SimTensor(o)

    return tree_map_only(Tensor, placed, out)


def check_placement(name: str, others: list[Tensor]) -> None:
    """Raises RuntimeError where CPU tensors meet those of the device. Indices may, at the price of a copy."""
    if not others:
        return
    if name.startswith("index") and not any(a.is_floating_point() for a in others):
        seen.waits.append(f"{name} by an index on the CPU at {asked_at()}")
        return
    raise RuntimeError(f"{name}: a tensor {tuple(others[0].shape)} on cpu among tensors on {NAME}, at {asked_at()}")


def copied(target: Tensor, source: Tensor) -> Tensor:
    """What ``target.copy_(source)`` costs, which is done."""
    if isinstance(target, SimTensor):
        seen.launches["copy_"] += 1
        seen.sent += not isinstance(source, SimTensor)
    elif isinstance(source, SimTensor):
        seen.waits.append(f"a copy to the CPU at {asked_at()}")
    return target


def is_view(func) -> bool:
    return any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)


def install() -> None:
    """The device for this process, once."""
    if hasattr(torch, NAME):
        return

    class Backend(_DummyBackendModule):
        def get_amp_supported_dtype(self):
            return [torch.float16, torch.bfloat16]

        def synchronize(self, device=None):
            seen.waits.append(f"synchronize at {asked_at()}")

        def get_rng_state(self, device=None):
            return torch.zeros(8, dtype=torch.uint8)

        def set_rng_state(self, state, device=None):
            pass

    _setup_privateuseone_for_python_backend(NAME, Backend())
    install.library = torch.library.Library("_", "IMPL")
    install.library.fallback(lambda func, *args, **kwargs: operate(func, args, kwargs), dispatch_key="PrivateUse1")
    # Autocast lets everything through.
    install.library.fallback(torch.library.fallthrough_kernel, dispatch_key="AutocastPrivateUse1")
