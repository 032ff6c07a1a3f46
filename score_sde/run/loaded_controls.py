"""ControlNets of a pipeline: their pictures and scales, as the flags of controls give them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from score_sde.run.control_files import read_control
from score_sde.run.controls import read_scales
from score_sde.run.folder import Run
from sde import Denoiser
from sde.condition.tree import Condition, control_kind, is_control
from sde.data import Dataset
from sde.pretrained.pipelines.controlnet import RANGE


@dataclass(frozen=True)
class LoadedControls:
    """The ControlNets of a pipeline, with the ``shapes`` of their images, without rows, and their ``scales``."""

    shapes: list[tuple[int, ...]]
    scales: list[float]

    @property
    def runs(self) -> list[Run]:
        """None: the pipeline has them."""
        return []

    def around(self, model: Denoiser) -> Denoiser:
        """The model with all of them at their scales."""
        network: Any = model.network
        network.scales = [*self.scales]
        return model

    def held_out(self, data: Dataset) -> Dataset:
        """Raises ValueError: what the pictures are computed by, a pipeline does not say."""
        raise ValueError(
            f"--control is needed: this pipeline has {count_of(self.shapes)}; give a picture for each, with commas "
            "between them"
        )

    def read(self, text: str) -> Condition:
        """``--control``: by kind the controls of the files, with rows of their own number."""
        files = [part.strip() for part in text.split(",")]
        if len(files) != len(self.shapes):
            raise ValueError(
                f"--control={text} names {len(files)} files, and this pipeline has {count_of(self.shapes)}: needs one "
                "each, with commas between them"
            )
        pairs = enumerate(zip(files, self.shapes, strict=True))
        return {control_kind(n): read_control(f"--control={file}", file, shape, RANGE) for n, (file, shape) in pairs}


def count_of(controls: Sequence[Any]) -> str:
    """As in 1 ControlNet, 2 ControlNets."""
    return f"{len(controls)} ControlNet{'s' * (len(controls) > 1)}"


def loaded_controls(run: Run, model: Any, options: Any) -> LoadedControls | None:
    """The ControlNets of a pipeline, with the pictures and scales of the command; None where it has none. Raises
    ValueError for flags without any, and for a ControlNet without a picture."""
    shapes = [tuple(shape) for kind, shape in model.conditions.items() if is_control(kind)]
    for name in ("control", "control_scale"):
        value = getattr(options, name)
        if value is not None and not shapes:
            raise ValueError(
                f"--{name}={value}: {run.pipeline.source if run.pipeline else run.folder} has no ControlNet; name the "
                "folder of one by --controls"
            )
    if not shapes:
        return None
    found = LoadedControls(shapes, read_scales(options, len(shapes)))
    if options.control is None and any(found.scales):
        raise ValueError(
            f"--control is needed: this pipeline has {count_of(shapes)}; give a picture for each, with commas between "
            "them, or --control_scale 0"
        )
    return found
