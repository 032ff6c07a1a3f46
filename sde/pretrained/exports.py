"""Exports: the formats in which models go out."""

from collections.abc import Callable
from pathlib import Path

from sde.model.denoiser import Denoiser
from sde.pretrained.program import write_program

EXPORTS: dict[str, Callable[[Denoiser, Path], list[Path]]] = {"torch_export": write_program}
"""By name functions that write a model into a folder, and return the files. They raise ValueError for what their format
cannot express, before they write."""
