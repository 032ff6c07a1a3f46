"""The device of a run, and how a network's weights lie on it."""

import difflib
import os

import torch
from torch import nn

from sde.device import ACCELERATORS, devices_here


def arrange(network: nn.Module, memory_format: str) -> None:
    """Lay the weights of convolutions out in ``memory_format``, which activations follow; values stay as they are."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d} if memory_format == "channels_last" else {}
    for parameter in network.parameters():
        wanted = formats.get(parameter.ndim, torch.contiguous_format)
        parameter.data = parameter.data.contiguous(memory_format=wanted)


def choose_device(name: str) -> torch.device:
    """The device of a name that torch knows; "auto" is the accelerator where there is one, and one of several is each
    process's own under torchrun. Raises ValueError with those that are here."""
    here = devices_here()
    kinds = [found.partition(":")[0] for found in here]
    kind = next(kind for kind in (*ACCELERATORS, "cpu") if kind in kinds) if name == "auto" else name
    if kind in ("cuda", "xpu") and "LOCAL_RANK" in os.environ:
        kind = f"{kind}:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(kind)
        # What describes tensors without numbers is none.
        if device.type != "meta" and (device.index or 0) < max(1, kinds.count(device.type)):
            torch.empty(0, device=device)
            return device
        why = "it is not here"
    except (NotImplementedError, ImportError):
        why = "this torch does not compute there"
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        why = "torch knows no such device" if "device string" in why.lower() else why
    near = difflib.get_close_matches(name.lower(), here, 1, 0.7)
    hint = f" (did you mean {near[0]}?)" if near and name not in here else ""
    raise ValueError(f"--device={name}: {why}{hint}; here are auto, {', '.join(here)}")
