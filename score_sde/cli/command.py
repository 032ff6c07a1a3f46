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

from score_sde.cli.flags import check_flags, define_flags, refuse_old
from score_sde.cli.modes import MODES, PIPELINE_FLAGS
from score_sde.cli.runs import open_run
from score_sde.cli.values import started
from score_sde.config.config import differences, override, pick, read_run_config, resolve
from score_sde.config.naming import with_words
from score_sde.config.options import Config
from score_sde.config.schema import MOVABLE, SETTLED
from score_sde.pages.links import renew_links
from score_sde.run.folder import Run
from score_sde.run.lock import one_writer
from score_sde.run.outputs import check_folder, check_out, settings_of
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
        own |= {"lora": "", "sampler": run.usual_sampler.name, **dict.fromkeys(PIPELINE_FLAGS, "")}
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
