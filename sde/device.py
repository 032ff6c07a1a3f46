"""Devices: tensors on their way to one."""

import torch
from torch import Tensor


def pinned(x: Tensor, device: torch.device) -> Tensor:
    """x, in page-locked memory where a CUDA device will fetch it from there without the CPU waiting."""
    return x.pin_memory() if device.type == "cuda" and x.device.type == "cpu" else x


def send(x: Tensor, device: torch.device) -> Tensor:
    """x on a device; the CPU does not wait for what the device is doing."""
    return pinned(x, device).to(device, non_blocking=True)
