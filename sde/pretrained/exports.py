"""Exports: the formats in which models go out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sde.pretrained.diffusers_folder import write_diffusers
from sde.pretrained.lora_export import write_lora
from sde.pretrained.program import write_program
from sde.pretrained.score_sde.checkpoint import write_score_sde

EXPORTS: dict[str, Callable[[Any, Path], list[Path]]] = {
    "torch_export": write_program,
    "score_sde_pytorch": write_score_sde,
    "diffusers": write_diffusers,
    "lora": write_lora,
}
"""By name functions that write a denoiser, or of FLOW_MAP_EXPORTS a flow map, into a folder, and return the files. They
raise ValueError for what their format cannot express, before they write."""

FLOW_MAP_EXPORTS = ("torch_export",)

UPDATES = ("lora",)
"""Those of EXPORTS that write the low-rank updates of a model alone, of one where they are not merged."""
