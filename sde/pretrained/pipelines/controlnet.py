"""ControlNets of diffusers: what they add to the activations of a U-Net, of control images by kind."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sde.condition.tree import Condition, control_kind
from sde.networks.diffusers_network import diffusers_library

RANGE = (0.0, 1.0)
"""Black and white of the control images that ControlNets were trained with."""


def read_controlnets(held: Any, folders: Sequence[str | Path] = (), dtype: torch.dtype | None = None) -> list[Any]:
    """The ControlNets of a pipeline, in order: those that it holds itself, one, several or None, and those of folders
    as save_pretrained writes them. Raises ValueError for a folder without one."""
    own = [] if held is None else [*getattr(held, "nets", [held])]
    return own + [_read(folder, dtype) for folder in folders]


def _read(folder: str | Path, dtype: torch.dtype | None) -> Any:
    try:
        return diffusers_library().ControlNetModel.from_pretrained(str(folder), dtype=dtype or torch.float32)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"controls = {folder}: it was not loaded as a ControlNet ({told})") from error


def no_controls(controls: Sequence[Any], size: Sequence[int]) -> Condition:
    """What stands for no control, by kind: a row (1, C, H, W) of NaN for each of the ControlNets."""
    return {
        control_kind(number): torch.full((1, control.config.get("conditioning_channels", 3), *size), torch.nan)
        for number, control in enumerate(controls)
    }


def residuals(
    controls: Sequence[Any],
    scales: Sequence[float],
    x: Tensor,
    time: Tensor,
    told: Condition,
    call: Mapping[str, Any],
) -> dict[str, Any]:
    """What a U-Net's call at x (B, C, h, w) and ``time`` (B,) takes of its ``controls``: for every activation on the
    way down, and the middle one, the sum of their outputs, each times its scale (Zhang et al. 2023, section 3.4).

    ``told`` has the control images, ``call`` what the network is told of the text. A row with a NaN has no control,
    and a ControlNet at scale 0 is not called.
    """
    down: list[Tensor] = []
    middle: Tensor | None = None
    for number, (control, scale) in enumerate(zip(controls, scales, strict=True)):
        image = told[control_kind(number)]
        absent = image.flatten(1).isnan().any(1).view(-1, 1, 1, 1)
        if scale == 0:
            continue
        own, its_middle = control(
            x, time, controlnet_cond=image.nan_to_num().to(x.dtype), conditioning_scale=scale, return_dict=False, **call
        )
        own = [torch.where(absent, 0.0, one) for one in own]
        its_middle = torch.where(absent, 0.0, its_middle)
        down = [a + b for a, b in zip(down, own, strict=True)] if down else own
        middle = its_middle if middle is None else middle + its_middle
    if middle is None:
        return {}
    return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
