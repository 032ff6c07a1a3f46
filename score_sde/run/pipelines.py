"""A pipeline of diffusers in the place of a run folder: what is loaded, and where its outputs go."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from score_sde.config.naming import with_flag, with_keys
from score_sde.run.low_rank import Updates
from sde import Denoiser
from sde.pretrained.pipelines import Pipeline, read_pipeline

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""What the networks of a pipeline compute in."""

NAMES = {"size": "--image_size", "dtype": "--dtype", "controls": "--controls", "config": "--pipeline_config"}
"""What the library calls what a pipeline is loaded with is the flag."""


@dataclass(frozen=True)
class LoadedPipeline:
    """The pipeline of ``--pipeline``, a folder, a single file or a hub's name, with low-rank ``updates``, ``controls``,
    folders of ControlNets, and where it is a single file the folder ``config``; loaded once, when it is asked for."""

    source: str
    dtype: str = "float32"
    size: tuple[int, ...] = ()
    updates: Updates = Updates()
    controls: tuple[str, ...] = ()
    config: str | None = None

    @cached_property
    def pipeline(self) -> Pipeline:
        """What it is. Raises ValueError for what is no pipeline, or lacks a part."""
        size = self.size[0] if len(self.size) == 1 else self.size or None
        with with_keys(**NAMES), with_flag("--pipeline", self.source):
            return read_pipeline(
                self.source,
                size=size,
                dtype=DTYPES[self.dtype],
                loras=self.updates.files,
                controls=self.controls,
                config=self.config,
            )

    @property
    def model(self) -> Denoiser:
        """Its denoiser, on the CPU."""
        return self.pipeline.model

    @property
    def spec(self) -> dict:
        """What a run's model file would say of it."""
        shape = self.model.event_shape or ()
        about = {"resolution": shape[-1]} if len({*shape[1:]}) == 1 else {}
        return {
            "event_shape": list(shape),
            "num_classes": None,
            "about": about,
            "levels": self.pipeline.levels.tolist(),
            "origin": dict(self.pipeline.origin),
        }

    @property
    def side(self) -> int:
        """The longer side of its pictures."""
        return max((self.model.event_shape or (0,))[1:], default=0)

    @cached_property
    def fingerprint(self) -> str:
        """What names the plans that are made for it: the names, sizes and times of its files, which take no minute to
        read, and what else decides what it computes."""
        path = Path(self.source)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        held = [
            (str(file), file.stat().st_size, file.stat().st_mtime_ns)
            for file in [*files, *(Path(own) for own, _ in self.updates.files)]
            if file.is_file()
        ]
        told = [self.source, self.dtype, self.size, self.updates.files, self.controls, self.config, held]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def is_pipeline(folder: str) -> bool:
    """Whether it is the folder of a pipeline."""
    return (Path(folder) / "model_index.json").is_file()


def output_folder(source: str) -> Path:
    """Where outputs of a pipeline go: runs/ and its name, beside where the command is run, and no run folder."""
    path = Path("runs") / Path(source).stem
    return path.with_name(f"{path.name}-pipeline") if (path / "config.json").exists() else path


def read_size(text: str) -> tuple[int, ...]:
    """``--image_size``: one side, or height and width."""
    try:
        sides = tuple(int(side) for side in text.replace("x", ",").split(","))
    except ValueError:
        sides = ()
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise ValueError(f"--image_size={text}: needs the side of the images, as 512, or height and width, as 512,768")
    return sides
