"""The host: what of torch's surroundings a run does not depend on, its defaults and modes and the kinds of arrays."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")


def double(values) -> Tensor:
    """A number, or numbers in lists, as a tensor in float64 on the CPU, whatever torch's default dtype and device."""
    return torch.tensor(values, dtype=torch.float64, device="cpu")


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


def placed(x: Tensor, device: torch.device) -> Tensor:
    """x on a device, or as it is where the device has none of its type: data that need float64 stay on the CPU, and
    what they are encoded to is sent."""
    return x if x.dtype == torch.float64 and not has_float64(device) else x.to(device)


def send(x: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """x on a device, in a dtype, without a wait for what the device is doing, but for MPS, which would read memory that
    is another tensor's by then (pytorch issue 139550); in float32 for float64 where the device has none."""
    if device.type == "cuda" and x.device.type == "cpu":
        # From where the device fetches it without the CPU.
        x = x.pin_memory()
    if dtype == torch.float64 and not has_float64(device):
        dtype = torch.float32
    return x.to(device, dtype, non_blocking=device.type != "mps")


def as_tensor(values, name: str) -> Tensor:
    """A tensor as it is, or a copy of one from inference mode, which could not be differentiated; an array, or numbers
    in lists, as a tensor on the CPU. Raises TypeError for anything else."""
    if isinstance(values, Tensor):
        return values.clone() if values.is_inference() else values
    try:
        array = np.array(values, order="C")
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except (TypeError, ValueError):
        raise TypeError(f"{name} has type {type(values).__name__}: needs a tensor or an array of numbers") from None


def as_python(values):
    """The numbers of an array or tensor as Python has them; anything else itself."""
    return values.tolist() if isinstance(values, Tensor | np.ndarray | np.generic) else values


def undisturbed(function: Callable[P, R]) -> Callable[P, R]:
    """A function that neither inference mode nor autocast around its call reaches into.

    Derivatives are taken of models inside, and states stay in their dtype. A network runs in another one by the
    ``autocast`` of its denoiser, or by autocast within a model's own ``forward``.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            for device in AUTOCAST_DEVICES:
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            return function(*args, **kwargs)

    return call
