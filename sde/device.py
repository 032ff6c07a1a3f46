"""Devices: tensors on their way to one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

ACCELERATORS = ("cuda", "xpu", "mps")
"""Kinds of accelerators that torch brings itself, the one to take first."""


def devices_here() -> list[str]:
    """The devices that compute on this machine by name: the accelerators, one of a backend that was registered with
    torch among them, with their number where there are several of a kind; and "cpu"."""
    found = []
    for kind in (*ACCELERATORS, torch._C._get_privateuse1_backend_name()):
        module = getattr(torch, kind, None)
        if module is not None and module.is_available():
            count = module.device_count()
            found += [kind] if count == 1 else [f"{kind}:{number}" for number in range(count)]
    return [*found, "cpu"]


@contextmanager
def forked_random(device: torch.device) -> Iterator[None]:
    """Within, torch's global random numbers are drawn as they would be, and afterwards they are as before: those of the
    CPU, and of a device whose generator can be read."""
    known = device.type in ("cuda", "xpu")
    with torch.random.fork_rng([device] if known else [], device_type=device.type if known else "cuda"):
        yield


def seed_random(device: torch.device, seed: int) -> None:
    """Seed torch's global random numbers of the CPU and of a device; those of kinds of devices that are not used, to
    which ``torch.manual_seed`` also goes with a record of the whole stack each time, stay."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def pinned(x: Tensor, device: torch.device) -> Tensor:
    """x, in page-locked memory where a CUDA device will fetch it from there without the CPU waiting."""
    return x.pin_memory() if device.type == "cuda" and x.device.type == "cpu" else x


def send(x: Tensor, device: torch.device) -> Tensor:
    """x on a device; the CPU does not wait for what the device is doing, but for MPS, which would read memory that is
    another tensor's by then (pytorch issue 139550)."""
    return pinned(x, device).to(device, non_blocking=device.type != "mps")


def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64: MPS does not, nor do all of Intel's."""
    if device.type in ("cpu", "cuda"):
        return True
    if device.type == "xpu":
        return bool(torch.xpu.get_device_properties(device).has_fp64)
    try:
        torch.empty(0, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return False
    return True


def wide(x: Tensor) -> Tensor:
    """x in float64, on the CPU where its device has none."""
    return x.double() if has_float64(x.device) else x.cpu().double()


def widest(x: Tensor) -> Tensor:
    """x in float64 where its device has that, and else as it is."""
    return x.double() if has_float64(x.device) else x


def fits(x: Tensor, device: torch.device) -> bool:
    """Whether a device can hold x in its type."""
    return x.dtype != torch.float64 or has_float64(device)


def placed(x: Tensor, device: torch.device) -> Tensor:
    """x on a device, or as it is where the device cannot hold it: data that need float64 stay on the CPU, and what they
    are encoded to is sent."""
    return x.to(device) if fits(x, device) else x


def double(values) -> Tensor:
    """A number, or numbers in lists or an array, as a tensor in float64 on the CPU, whatever torch's default dtype and
    device are."""
    if isinstance(values, np.ndarray):
        # Its bytes may be in another order, or backwards.
        values = np.array(values, np.float64, order="C")
    return torch.tensor(values, dtype=torch.float64, device="cpu")


def as_tensor(values: Any) -> Tensor:
    """A tensor as it is, or a copy of one from inference mode, through which nothing could be differentiated; a number,
    numbers in lists or an array as a tensor on the CPU, reals in torch's default type, or float32 where that has less.
    Raises ValueError for what makes none."""
    if isinstance(values, Tensor):
        if not values.is_inference():
            return values
        with torch.inference_mode(False):
            return values.clone()
    wanted = torch.promote_types(torch.get_default_dtype(), torch.float32)
    try:
        if isinstance(values, np.ndarray | np.generic):
            values = np.array(values, values.dtype.newbyteorder("="), order="C")
        with torch.inference_mode(False):
            found = torch.tensor(values, device="cpu")
            return torch.tensor(values, dtype=wanted, device="cpu") if found.is_floating_point() else found
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(
            f"a {type(values).__name__} that is no tensor ({error}): give numbers, one row per sample"
        ) from None


def free_memory(device: torch.device) -> int | None:
    """Bytes of a device that nothing takes, or None where it does not tell."""
    module = torch.get_device_module(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return module.mem_get_info(device)[0] if hasattr(module, "mem_get_info") else None


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """torch's default type of floats, for what is made inside."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def building() -> Iterator[None]:
    """A context in which modules are made in float32 on the CPU, whatever torch's defaults; the weights that they begin
    with leave the global random state alone."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), default_dtype(torch.float32):
        yield


def without_autocast(x: Tensor) -> torch.autocast:
    """A context in which operations on the device of x keep their dtype, whatever autocast is around."""
    return torch.autocast(x.device.type, enabled=False)


@contextmanager
def differentiating(device: torch.device) -> Iterator[None]:
    """A context for losses and their gradients, whatever is around it: neither inference mode nor no_grad nor autocast,
    which would take part in backward passes as well."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        yield


def differentiating_forward() -> bool:
    """Whether forward-mode derivatives are being taken, by ``torch.autograd.forward_ad`` or ``torch.func.jvp``: fused
    and compiled code has none, and would lose the tangents."""
    return forward_ad._current_level >= 0


def wait_for(device: torch.device | None) -> None:
    """Wait until a device has done what was asked of it; the CPU always has."""
    if device is not None and device.type != "cpu":
        # That of MPS has one device, and asks for none.
        torch.get_device_module(device).synchronize(*([] if device.type == "mps" else [device]))
