"""Exports: the formats in which models go out."""

from collections.abc import Callable
from pathlib import Path

from sde.model.denoiser import Denoiser
from sde.pretrained.diffusers_folder import write_diffusers
from sde.pretrained.program import write_program
from sde.pretrained.score_sde.checkpoint import write_score_sde

EXPORTS: dict[str, Callable[[Denoiser, Path], list[Path]]] = {
    "torch_export": write_program,
    "score_sde_pytorch": write_score_sde,
    "diffusers": write_diffusers,
}
"""By name functions that write a model into a folder, and return the files. They raise ValueError for what their format
cannot express, before they write."""
