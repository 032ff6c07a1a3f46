"""Pipelines of a command: what takes the place of a run folder, and what training begins with."""

from dataclasses import replace
from pathlib import Path

import torch
from absl import flags

from score_sde.cli.tolerance import overrides_of
from score_sde.config.config import override, pick, resolve
from score_sde.config.options import COMPILING, Config
from score_sde.config.schema import CHOICES_OF_SAMPLER
from score_sde.run.folder import Run
from score_sde.run.low_rank import Updates
from score_sde.run.pipelines import DTYPES, LoadedPipeline, output_folder, read_size
from sde.distributed.world import World


def of_pipeline(config: Config, source: str) -> tuple[Config, LoadedPipeline]:
    """The config of training that begins with a pipeline, and the pipeline: pictures in a folder are brought to its
    size, or it to theirs where config.data.resolution says that."""
    side = config.data.resolution if config.data.dataset == "images" else 0
    loaded = LoadedPipeline(source, size=(side,) if side else ())
    return of_size(config, loaded), loaded


def of_size(config: Config, loaded: LoadedPipeline) -> Config:
    """The config with pictures in a folder brought to the size of a pipeline's, unless it says one itself."""
    if config.data.dataset != "images" or config.data.resolution:
        return config
    return replace(config, data=replace(config.data, own={**config.data.own, "resolution": loaded.side}))


def open_pipeline(options: flags.FlagValues, overrides: list[str], device: torch.device) -> Run:
    """What takes the place of a run folder: a pipeline of diffusers, and a folder for its outputs. Raises ValueError
    for flags of a run folder beside it."""
    for name in ("workdir", "weights", "imports", "runs"):
        if options[name].present:
            raise ValueError(
                f"--pipeline={options.pipeline} and --{name}={options[name].value}: a pipeline takes the place of a "
                "run folder and its weights; leave one of them out"
            )
    if options.sampler:
        overrides = [*overrides, f"--config.sampler.name={pick('--sampler', options.sampler, CHOICES_OF_SAMPLER)}"]
    root = Path(override(overrides, "data.root") or "")
    values = {"data": {"dataset": "points" if root.is_file() else "images"}}
    config = resolve(values, overrides)
    if options.tolerance is not None:
        config = resolve(values, [*overrides, *overrides_of(options, overrides, config.sampler.name)])
    compile = pick("--compile", options.compile or Run.compile, COMPILING)
    loaded = LoadedPipeline(
        options.pipeline,
        pick("--dtype", options.dtype or "float32", DTYPES),
        read_size(options.image_size) if options.image_size else (),
        Updates.read(options.lora),
        tuple(name.strip() for name in options.controls.split(",")) if options.controls else (),
        options.pipeline_config,
    )
    folder = output_folder(options.pipeline)
    if config.data.root:
        config = of_size(config, loaded)
    return Run(folder, config, device, World.start(device), compile=compile, pipeline=loaded)
