"""Controls of samples: what they are read as, and the model that they act in."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from score_sde.run.control_files import read_control
from score_sde.run.folder import Run
from score_sde.run.guidance import GuidanceOptions
from score_sde.run.inputs import read_floats
from sde import Denoiser
from sde.condition.tree import Condition, control_kind
from sde.data import Dataset


@dataclass(frozen=True)
class Controls(ABC):
    """The controls of a command, in order: the ``shapes`` of their images, without rows, the ``limits`` of these, black
    and white, the ``scales`` that they act at, and the ``runs`` that they are of, where they are of runs."""

    shapes: Sequence[tuple[int, ...]]
    limits: Sequence[Sequence[float]]
    scales: list[float]
    runs: Sequence[Run]

    noun = "control"

    @abstractmethod
    def around(self, model: Denoiser) -> Denoiser:
        """The model with all of them at their scales. Raises ValueError for one that was trained on another base."""

    @abstractmethod
    def held_out(self, data: Dataset) -> Dataset:
        """The data with all controls, computed of their items. Raises ValueError for those that cannot be computed."""

    @property
    def counted(self) -> str:
        """As in 1 control, 2 ControlNets."""
        return f"{len(self.shapes)} {self.noun}{'s' * (len(self.shapes) > 1)}"

    def read(self, text: str) -> Condition:
        """``--control``: by kind the controls of the files, with rows of their own number. Raises ValueError for
        another number of files."""
        files = [part.strip() for part in text.split(",")]
        if len(files) != len(self.shapes):
            raise ValueError(
                f"--control={text} names {len(files)} file{'s' * (len(files) > 1)} for {self.counted}: needs one each, "
                "with commas between them; a folder holds several pictures of one control"
            )
        each = enumerate(zip(files, self.shapes, self.limits, strict=True))
        return {
            control_kind(n): read_control(f"--control={file}", file, shape, limits) for n, (file, shape, limits) in each
        }


def refuse_controls(options: GuidanceOptions, why: str) -> None:
    """Raise ValueError for flags of controls where there are none, and ``why`` there are none."""
    for flag in ("control", "control_scale"):
        value = getattr(options, flag)
        if value is not None:
            raise ValueError(f"--{flag}={value}: {why}")


def read_scales(options: GuidanceOptions, count: int) -> list[float]:
    """``--control_scale``, one for each control, 1 where it is not given."""
    if options.control_scale is None:
        return [1.0] * count
    scales = read_floats("--control_scale", options.control_scale, "numbers, one for each control, as in 1,0.5")
    if len(scales) != count or not all(np.isfinite(scales)):
        raise ValueError(
            f"--control_scale={options.control_scale}: needs {count} finite number{'s' * (count > 1)}, one for each "
            "control"
        )
    return scales
