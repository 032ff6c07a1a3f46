"""A command: its flags and overrides, the run that they name, what its mode does, and its exit status."""

import json
import os
import re
import sys
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from absl import flags

from samplers.compiled import lacking
from score_sde.cli.flags import check_flags, define_flags, refuse_old
from score_sde.cli.modes import MODES, PIPELINE_FLAGS
from score_sde.cli.pipelines import of_pipeline, open_pipeline
from score_sde.cli.tolerance import overrides_of
from score_sde.config.config import config_path, differences, override, pick, read_config, read_run_config, resolve
from score_sde.config.naming import with_flag, with_words
from score_sde.config.options import COMPILING, Config
from score_sde.config.registration import Registered, nothing_registered
from score_sde.config.schema import CHOICES_OF_SAMPLER, MOVABLE, SETTLED
from score_sde.config.students import DEFAULT_METHOD, check_overrides, student_values, without_updates
from score_sde.kinds import KINDS
from score_sde.pages.links import renew_links
from score_sde.run.device import choose_device
from score_sde.run.folder import Run
from score_sde.run.lock import one_writer
from score_sde.run.low_rank import Updates
from score_sde.run.outputs import check_folder, check_out, settings_of
from score_sde.run.pipelines import is_pipeline
from score_sde.training.log import summary_writer
from sde.distributed.world import World
from sde.files import expanded, finite


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The flags, and the ``--config.key=value`` overrides."""
    plain, overrides = [], []
    rest = iter(arguments)
    for argument in rest:
        if argument.startswith(("--config.", "-config.")):
            overrides.append(argument if "=" in argument else f"{argument}={next(rest, '')}")
        else:
            plain.append(argument)
    return plain, overrides


def given_paths(flag: flags.Flag) -> None:
    """Write out what stands for a path in the text of a flag. Raises ValueError for one that is empty."""
    if not (flag.present and isinstance(flag.value, str)):
        return
    if not flag.value:
        raise ValueError(f"--{flag.name} is empty: give a value, or leave it out")
    with with_words(f"--{flag.name}"):
        flag.value = expanded(flag.value)


def expanded_override(argument: str) -> str:
    """``--config.key=value`` with what stands for a path written out."""
    key, equals, value = argument.partition("=")
    with with_words(key):
        return f"{key}{equals}{expanded(value)}" if value.startswith(("~", "$")) else argument


def open_run(options: flags.FlagValues, overrides: list[str]) -> Run:
    """The run folder of the command, with its resolved config."""
    mode, device = MODES[options.mode], choose_device(options.device or "auto")
    if options.pipeline:
        return open_pipeline(options, overrides, device)
    name = Path(options.config or options.pretrained or "digits").stem
    if options.mode == "distill" and options.teacher:
        name = f"{Path(options.teacher).name}-{options.method or DEFAULT_METHOD}"
    elif options.base and not options.config:
        name = f"{Path(options.base).name}-control"
    # Of several runs the first one's data are those that are measured by.
    first = (options.runs or "").partition(",")[0].strip()
    folder = Path(options.workdir or first or f"runs/{name}")
    exists = started(folder)
    if options.base and folder.resolve() == Path(options.base).resolve():
        raise ValueError(f"--base={options.base} is the --workdir too: the control needs a run folder of its own")
    if options.sampler:
        overrides = [*overrides, f"--config.sampler.name={pick('--sampler', options.sampler, CHOICES_OF_SAMPLER)}"]
    if options.tolerance is not None:
        own = resolve(read_run_config(folder), overrides).sampler.name
        overrides = [*overrides, *overrides_of(options, overrides, own)]
    if options.mode == "train_classifier" and not (options.config or exists):
        raise ValueError(f"--workdir={folder} is no run folder: train there first, or name a --config")
    if mode.makes:
        # Of images in a folder, or of arrays in a file.
        root = Path(override(overrides, "data.root") or "")
        config = resolve({"data": {"dataset": "points" if root.is_file() else "images"}}, overrides)
    elif options.mode == "distill":
        config = resolve(_student_values(folder, options, overrides), overrides)
    elif mode.training and (options.config or not exists):
        named = options.config or (None if options.init or options.base else "digits")
        values = _read(config_path(named)) if named else {}
        if options.init and is_pipeline(options.init):
            root = Path(override(overrides, "data.root") or "")
            values = values or {"data": {"dataset": "points" if root.is_file() else "images"}}
        elif options.init:
            values = begun(values, options.init, "init")
        values = controlled_values(values, options.base, overrides) if options.base else values
        config = resolve(values, overrides)
    else:
        config = resolve(read_run_config(folder), overrides)
    if config.data.kind:
        pick("config.data.kind", config.data.kind, KINDS)
    imports = tuple((options.imports or "").split(",")) if options.imports else ()
    compile = pick("--compile", options.compile or Run.compile, COMPILING)
    lack = lacking(device) if compile == "on" else None
    if lack:
        with with_flag("--compile", compile, compile="--compile"):
            raise ValueError(lack)
    weights = Run.weights if mode.makes else options.weights or Run.weights
    begins = options.init or options.base
    init = None if begins is None or is_pipeline(begins) else Path(begins) / Run.weights
    around = None
    if options.init and is_pipeline(options.init):
        config, around = of_pipeline(config, options.init)
    updates = Updates.read(options.lora)
    return Run(folder, config, device, World.start(device), weights, imports, compile, init, updates, None, around)


def _student_values(folder: Path, options: flags.FlagValues, overrides: list[str]) -> dict:
    """The values of a student's config. Raises ValueError for keys of what is its teacher's or its method's."""
    named = options.config or (None if options.teacher or started(folder) else "digits")
    own = _read(config_path(named)) if named else None
    values = student_values(folder, own, options.teacher, options.method, options.guidance_scale)
    check_overrides(overrides, values["distillation"]["teacher"])
    return values


def begun(values: dict, folder: str, flag: str) -> dict:
    """The values of a config with the model and the process of the run that a flag, --init or --base, names, and all of
    that run's where there are none."""
    if not started(Path(folder)):
        raise ValueError(f"--{flag}={folder} is no run folder: needs one that training or --mode import has written")
    other = without_updates(read_run_config(Path(folder)))
    return other | {name: value for name, value in values.items() if name not in ("model", "sde")}


def controlled_values(values: dict, base: str, overrides: list[str]) -> dict:
    """The values of a config whose model is that of the run ``--base`` with a control, on the data of it unless it
    names others. Raises ValueError for keys of what is the base's."""
    for argument in overrides:
        if argument.lstrip("-").startswith(("config.model.", "config.sde.")):
            raise ValueError(f"{argument}: a ControlNet has the network and the process of its --base; leave it out")
    found, data = begun(values, base, "base"), values.get("data", {})
    own = read_run_config(Path(base))["data"]
    if data.get("dataset", own["dataset"]) == own["dataset"]:
        # What the config does not say of the same data set is as for the base.
        found["data"] = {**own, **data}
    return found | {"control": {**values.get("control", {}), "base": str(Path(base))}}


def _read(path: Path) -> dict:
    """The values of a config file. Raises ValueError for one that registers a kind of data, too."""
    try:
        with nothing_registered({"config.data.kind": KINDS}):
            return read_config(path)
    except Registered as error:
        raise ValueError(f"--config={path} {error}") from None


def check_outputs(run: Run, options: flags.FlagValues) -> None:
    """Refuse before any work what could not be written at its end, and what is not installed."""
    mode = MODES[options.mode]

    def check() -> None:
        if options.out is not None and not mode.suffixes:
            check_folder(Path(options.out), f"--out={options.out}")
        elif options.out is not None:
            check_out(options.out, mode.suffixes, options.mode)
        elif mode.writes or ("out" in mode.flags and options.mode != "likelihood"):
            check_folder(run.folder, f"--workdir={run.folder}")

    run.world.broadcast_from_main(check)
    if mode.training and run.config.training.tensorboard:
        summary_writer()


def started(folder: Path) -> bool:
    """Whether it is a run folder."""
    return (folder / "config.json").exists()


def continued(run: Run, overrides: list[str]) -> Run:
    """The run that a command trains, as it goes on where training has left something. What was found by trying is part
    of it, unless an override asks for "auto" again. Raises ValueError where the run has changed too much to go on."""
    if not (started(run.folder) and run.started):
        return run
    before, config = resolve(read_run_config(run.folder), []), run.config
    # An autoencoder knows of the data alone, and denoisers of any kind may follow it.
    trained = run.model_file.exists() or any(run.checkpoints(name).paths() for name in ("denoiser", "classifier"))
    check_unchanged(before, config, run.folder, SECTIONS if trained else SECTIONS[:1])
    kept = {
        key: getattr(before.training, key)
        for key in SETTLED
        if getattr(config.training, key) == "auto" and override(overrides, f"training.{key}") is None
    }
    return replace(run, config=config.settled(**kept).of_kind(config.data.kind or before.data.kind))


def alone(run: Run, options: flags.FlagValues) -> AbstractContextManager[None]:
    """Within, no other command writes models and training states of the run folder."""
    if not MODES[options.mode].writes:
        return nullcontext()
    remedy = "wait for its end, or name another --workdir"
    return one_writer(run.folder / ".run.lock", f"--mode {options.mode}", remedy, run.world)


SECTIONS = ("data", "sde", "model", "distillation", "control")
"""What a run is continued with, as it was begun."""


def check_unchanged(old: Config, new: Config, folder: Path, sections: Sequence[str] = SECTIONS) -> None:
    """Refuse to continue a run with other data, another process or another architecture."""
    changed = [
        f"config.{key}: {before!r}, now {after!r}"
        for section in sections
        for key, before, after in differences(old.to_dict()[section], new.to_dict()[section], section)
        if key not in MOVABLE
    ]
    if changed:
        raise ValueError(
            f"{folder} was trained with another {', '.join(changed)}: train into a new --workdir, or leave "
            "these keys as they were"
        )


def run_mode(options: flags.FlagValues, overrides: list[str]) -> dict:
    """Do what the flags say; the result is the last line printed."""
    check_flags(options, overrides)
    if options.threads:
        torch.set_num_threads(options.threads)
    mode, run = MODES[options.mode], open_run(options, overrides)
    given = {name: options[name].value for name in options if options[name].present}
    if not (mode.training or mode.makes):
        own: dict[str, Any] = {"weights": Run.weights, "imports": "", "compile": Run.compile, "tolerance": None}
        usual = {} if run.pipeline else read_run_config(run.folder)
        own |= {"lora": "", "sampler": resolve(usual, []).sampler.name}
        own |= dict.fromkeys(PIPELINE_FLAGS, "")
        if run.student is not None and not mode.students:
            raise ValueError(run.no_score)
        run.settings = settings_of(given, overrides, own | mode.defaults)
    check_outputs(run, options)
    with alone(run, options):
        run = continued(run, overrides) if mode.training else run
        if mode.training:
            root = run.config.data.root
            print(f"reading the data: {run.config.data.dataset}{f', {root}' if root else ''} ...", flush=True)
        result = mode.function(run, **mode.arguments(given))
        if run.world.is_main:
            # What is read is never a reason to fail for what was measured.
            with suppress(OSError, UnicodeError):
                renew_links(run.folder)
    return result if mode.training or mode.makes else result | {"settings": run.settings}


def command(arguments: list[str]) -> int:
    """Exit status: 0, or 2 with one sentence for what a user can mend."""
    plain, overrides = split_arguments(arguments)
    options = define_flags()
    # A sentence for those who use the command, without the line of code that it came from.
    warnings.formatwarning = lambda message, *where: f"warning: {message}\n"
    try:
        mode = re.search(r"-mode[= ](\w+)", " ".join(plain))
        if mode and {"--help", "-h"} & {*plain}:
            # One that there is not: of the others main has told.
            pick("--mode", mode[1], MODES)
        refuse_old(plain)
        unused = options(["main.py", *plain])[1:]
        for name in options:
            given_paths(options[name])
        overrides = [expanded_override(argument) for argument in overrides]
        if unused:
            raise ValueError(f"unknown argument {unused[0]}: options start with --")
        # Of the processes that torchrun starts, one speaks.
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere if World.others() else sys.stdout):
            print(json.dumps(finite(run_mode(options, overrides)), allow_nan=False))
    except BrokenPipeError:
        raise
    except (flags.Error, ValueError, ArithmeticError, OSError, ImportError) as error:
        if options.is_parsed() and options.debug:
            raise
        # In one piece, as several processes may have something to say.
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        print(
            "interrupted: nothing half written; training continues from its last checkpoint by the same command",
            file=sys.stderr,
        )
        return 130
    finally:
        World.stop()
    return 0
