"""The run of a command: a run folder, or a pipeline of diffusers in the place of one."""

from dataclasses import replace
from pathlib import Path

import torch
from absl import flags

from samplers.compiled import lacking
from score_sde.cli.modes import MODES, PIPELINE_FLAGS
from score_sde.cli.tolerance import overrides_of
from score_sde.cli.values import of_root, started, values_of
from score_sde.config.config import pick, read_run_config, resolve
from score_sde.config.naming import with_flag
from score_sde.config.options import COMPILING, Config
from score_sde.config.schema import CHOICES_OF_SAMPLER
from score_sde.config.students import DEFAULT_METHOD
from score_sde.kinds import KINDS
from score_sde.run.device import choose_device
from score_sde.run.folder import Run
from score_sde.run.low_rank import Updates
from score_sde.run.pipelines import DTYPES, LoadedPipeline, is_pipeline, output_folder, read_size
from sde.distributed.world import World


def open_run(options: flags.FlagValues, overrides: list[str]) -> Run:
    """The run folder of the command, or the pipeline, with its resolved config."""
    mode, device = MODES[options.mode], choose_device(options.device or "auto")
    if options.pipeline:
        return _open_pipeline(options, overrides, device)
    for name in PIPELINE_FLAGS:
        if options[name].present:
            raise ValueError(f"--{name}={options[name].value} is of a --pipeline, and there is none; leave it out")
    folder = _folder(options)
    if options.base and folder.resolve() == Path(options.base).resolve():
        raise ValueError(f"--base={options.base} is the --workdir too: the control needs a run folder of its own")
    if options.mode == "train_classifier" and not (options.config or started(folder)):
        raise ValueError(f"--workdir={folder} is no run folder: train there first, or name a --config")
    if options.tolerance is not None:
        overrides = _with_sampler(options, overrides, read_run_config(folder))
    elif options.sampler:
        overrides = _with_sampler(options, overrides, {})
    config = resolve(values_of(options, overrides, folder), overrides)
    if config.data.kind:
        pick("config.data.kind", config.data.kind, KINDS)
    imports = tuple((options.imports or "").split(",")) if options.imports else ()
    compile = _compile(options, device)
    weights = Run.weights if mode.makes else options.weights or Run.weights
    begins, around = options.init or options.base, None
    init = None if begins is None or is_pipeline(begins) else Path(begins) / Run.weights
    if options.init and is_pipeline(options.init):
        side = config.data.resolution if config.data.dataset == "images" else 0
        around = LoadedPipeline(options.init, size=(side,) if side else ())
        config = _of_size(config, around)
    updates = Updates.read(options.lora)
    return Run(folder, config, device, World.start(device), weights, imports, compile, init, updates, None, around)


def _folder(options: flags.FlagValues) -> Path:
    """The run folder, by default in runs/, of the name of the config, or of what training begins with."""
    name = Path(options.config or options.pretrained or "digits").stem
    if options.mode == "distill" and options.teacher:
        name = f"{Path(options.teacher).name}-{options.method or DEFAULT_METHOD}"
    elif options.base and not options.config:
        name = f"{Path(options.base).name}-control"
    # Of several runs the first one's data are those that are measured by.
    first = (options.runs or "").partition(",")[0].strip()
    return Path(options.workdir or first or f"runs/{name}")


def _with_sampler(options: flags.FlagValues, overrides: list[str], values: dict) -> list[str]:
    """The overrides with what --sampler and --tolerance stand for, where the config has these ``values``."""
    if options.sampler:
        overrides = [*overrides, f"--config.sampler.name={pick('--sampler', options.sampler, CHOICES_OF_SAMPLER)}"]
    if options.tolerance is not None:
        own = resolve(values, overrides).sampler.name
        overrides = [*overrides, *overrides_of(options, overrides, own)]
    return overrides


def _compile(options: flags.FlagValues, device: torch.device) -> str:
    """``--compile``. Raises ValueError where it is on and cannot be."""
    compile = pick("--compile", options.compile or Run.compile, COMPILING)
    lack = lacking(device) if compile == "on" else None
    if lack:
        with with_flag("--compile", compile, compile="--compile"):
            raise ValueError(lack)
    return compile


def _open_pipeline(options: flags.FlagValues, overrides: list[str], device: torch.device) -> Run:
    """A pipeline, and a folder for its outputs. Raises ValueError for flags of a run folder beside it."""
    for name in ("workdir", "weights", "imports", "runs", "autoguidance", "classifier_scale"):
        if options[name].present:
            raise ValueError(
                f"--pipeline={options.pipeline} and --{name}={options[name].value}: a pipeline takes the place of a "
                "run folder and its weights; leave one of them out"
            )
    values = of_root(overrides)
    config = resolve(values, _with_sampler(options, overrides, values))
    loaded = LoadedPipeline(
        options.pipeline,
        pick("--dtype", options.dtype or "float32", DTYPES),
        read_size(options.image_size) if options.image_size else (),
        Updates.read(options.lora),
        tuple(name.strip() for name in options.controls.split(",")) if options.controls else (),
        options.pipeline_config,
    )
    if config.data.root:
        config = _of_size(config, loaded)
    world, compile = World.start(device), _compile(options, device)
    return Run(output_folder(options.pipeline), config, device, world, compile=compile, pipeline=loaded)


def _of_size(config: Config, loaded: LoadedPipeline) -> Config:
    """The config with pictures in a folder brought to the size of a pipeline's, unless it says one itself."""
    if config.data.dataset != "images" or config.data.resolution:
        return config
    return replace(config, data=replace(config.data, own={**config.data.own, "resolution": loaded.side}))
