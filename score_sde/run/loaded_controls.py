"""ControlNets of a pipeline."""

from typing import Any

from score_sde.run.controls import Controls, read_scales, refuse_controls
from score_sde.run.guidance import GuidanceOptions
from score_sde.run.pipelines import LoadedPipeline
from sde import Denoiser
from sde.condition.tree import is_control
from sde.data import Dataset
from sde.pretrained.pipelines.controlnet import RANGE


class LoadedControls(Controls):
    """The ControlNets of a pipeline, which are its network's own."""

    noun = "ControlNet"

    def around(self, model: Denoiser) -> Denoiser:
        network: Any = model.network
        network.scales = [*self.scales]
        return model

    def held_out(self, data: Dataset) -> Dataset:
        """Raises ValueError: what the pictures are computed by, a pipeline does not say."""
        raise ValueError(self.needed)

    @property
    def needed(self) -> str:
        """What is said where there is no picture."""
        return (
            f"--control is needed: this pipeline has {self.counted}; give a picture for each, with commas between "
            "them, or --control_scale 0"
        )


def loaded_controls(pipeline: LoadedPipeline, model: Denoiser, options: GuidanceOptions) -> LoadedControls | None:
    """The ControlNets of a pipeline, with the scales of the command; None where it has none. Raises ValueError for
    flags without any, and for a ControlNet without a picture."""
    shapes = [tuple(shape) for kind, shape in model.conditions.items() if is_control(kind)]
    if not shapes:
        refuse_controls(options, f"{pipeline.source} has no ControlNet; name the folder of one by --controls")
        return None
    found = LoadedControls(shapes, [RANGE] * len(shapes), read_scales(options, len(shapes)), ())
    if options.control is None and any(found.scales):
        raise ValueError(found.needed)
    return found
