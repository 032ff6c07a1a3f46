"""Score-based generative modelling through SDEs: train, sample, likelihood from one command line."""

import json
import sys
from pathlib import Path

from absl import flags

from commands.config import CHOICES_OF_SAMPLER, config_path, pick, read_config, read_run_config, resolve
from commands.run import Run, choose_device
from samplers import GRIDS, NOISES

MODES = ("train", "train_classifier", "sample", "likelihood")
TRAINING, USE = MODES[:2], MODES[2:]
ONLY_FOR = {
    "config": TRAINING,
    **dict.fromkeys(("sampler", "steps", "grid", "noise", "out"), ("sample",)),
    **dict.fromkeys(("num_samples", "seed", "labels", "guidance_scale", "classifier_scale", "batch_size"), USE),
    **dict.fromkeys(("split", "probes", "rtol", "atol", "guided_likelihood"), ("likelihood",)),
}
"""The modes of each flag that not every mode takes."""

SECTIONS = {"sample": "sampler", "likelihood": "data"}
"""What can be changed of a trained run's config."""
USAGE = """usage: python main.py --mode MODE [--workdir DIR] [options] [--config.KEY=VALUE ...]

train             train a score model: [--config FILE_OR_NAME], default digits
train_classifier  train a noise-conditional classifier into the same run folder
sample            draw samples into a picture and an .npz
likelihood        bits/dim or nats of the held-out data

examples:
  python main.py --mode train --config digits --workdir runs/digits --config.training.steps=200
  python main.py --mode sample --workdir runs/digits --sampler pc --steps 100 --labels 0,1,2 --guidance_scale 2
  python main.py --mode sample --workdir runs/digits --sampler auto --steps 10
  python main.py --mode likelihood --workdir runs/digits --num_samples 256
"""


def define_flags() -> flags.FlagValues:
    """The flags of every mode."""
    values = flags.FlagValues()

    def define(kind, name: str, default, text: str, **limits) -> None:
        kind(name, default, text, flag_values=values, **limits)

    define(flags.DEFINE_string, "mode", None, "what to do: " + ", ".join(MODES))
    define(flags.DEFINE_string, "workdir", None, "run folder; default runs/<name of the config>")
    define(flags.DEFINE_string, "config", None, "train: a config file, or the name of one in configs/; default digits")
    define(flags.DEFINE_string, "device", "auto", "auto, cpu, cuda or cuda:N")
    define(flags.DEFINE_integer, "threads", 0, "CPU threads; 0 leaves torch's choice", lower_bound=0)
    define(flags.DEFINE_boolean, "debug", False, "show the traceback of an error")
    define(
        flags.DEFINE_string,
        "sampler",
        None,
        f"sample: {', '.join(CHOICES_OF_SAMPLER)}; options are --config.sampler.OPTION; auto is planned for the model",
    )
    define(flags.DEFINE_integer, "steps", None, "sample: steps; default the sampler's own, 10 for auto", lower_bound=1)
    define(
        flags.DEFINE_string,
        "grid",
        None,
        f"sample: {', '.join(GRIDS)}, karras:RHO, or times as in 1,0.5,0.001; default the sampler's own",
    )
    define(flags.DEFINE_string, "noise", NOISES[0], "sample: independent, or brownian: paths that more steps refine")
    define(
        flags.DEFINE_integer,
        "num_samples",
        None,
        "sample: how many, default 64; likelihood: items, default 256",
        lower_bound=1,
    )
    define(flags.DEFINE_integer, "seed", 0, "sample, likelihood: seed of the random numbers", lower_bound=0)
    define(
        flags.DEFINE_string,
        "labels",
        None,
        "sample: classes, cycled over the samples, as in 0,1,2, or none; default all; likelihood: data for p(x | y)",
    )
    define(
        flags.DEFINE_float,
        "guidance_scale",
        1.0,
        "classifier-free guidance: 1 conditional, 0 unconditional, more is stronger",
    )
    define(flags.DEFINE_float, "classifier_scale", 0.0, "classifier guidance: 0 is off")
    define(flags.DEFINE_integer, "batch_size", 256, "sample, likelihood: items at a time", lower_bound=1)
    define(
        flags.DEFINE_string, "out", None, "sample: where to write, without suffix; default samples/ in the run folder"
    )
    define(flags.DEFINE_string, "split", "test", "likelihood: test or train")
    define(
        flags.DEFINE_integer,
        "probes",
        None,
        "likelihood: Rademacher probes for the trace, 0 for the exact trace; default exact up to 16 dimensions, else 2",
        lower_bound=0,
    )
    define(flags.DEFINE_float, "rtol", 1e-4, "likelihood: relative tolerance of the ODE solver")
    define(flags.DEFINE_float, "atol", 1e-4, "likelihood: absolute tolerance of the ODE solver")
    define(
        flags.DEFINE_boolean, "guided_likelihood", False, "likelihood: integrate a guided model, which is no density"
    )
    return values


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The flags, and the ``--config.key`` overrides with their values."""
    plain, overrides = [], []
    rest = iter(arguments)
    for argument in rest:
        if argument.startswith(("--config.", "-config.")):
            overrides.append(argument)
            if "=" not in argument:
                overrides.append(next(rest, ""))
        else:
            plain.append(argument)
    return plain, overrides


def check_flags(options: flags.FlagValues, overrides: list[str]) -> None:
    """Refuse what the mode would ignore."""
    mode = pick("--mode", options.mode or "", MODES)
    for name, modes in ONLY_FOR.items():
        if options[name].present and mode not in modes:
            key = mode in TRAINING and name in ("steps", "batch_size", "seed")
            hint = f": the key is --config.training.{name}" if key else ""
            raise ValueError(f"--{name} is for --mode {' and '.join(modes)}, --mode {mode} would ignore it{hint}")
    for argument in overrides:
        section = SECTIONS.get(mode)
        if section and argument.startswith("-") and not argument.lstrip("-").startswith(f"config.{section}."):
            raise ValueError(f"{argument}: with --mode {mode} only config.{section} can be changed")


def open_run(options: flags.FlagValues, overrides: list[str]) -> Run:
    """The run folder of the command, with its resolved config."""
    training = options.mode in TRAINING
    name = Path(options.config or "digits").stem
    folder = Path(options.workdir or f"runs/{name}")
    exists = (folder / "config.json").exists()
    if options.sampler:
        overrides = [*overrides, f"--config.sampler.name={pick('--sampler', options.sampler, CHOICES_OF_SAMPLER)}"]
    if options.mode == "train_classifier" and not (options.config or exists):
        raise ValueError(f"--workdir={folder} is no run folder: train there first, or name a --config")
    if training and (options.config or not exists):
        config = resolve(read_config(config_path(options.config or "digits")), overrides)
    else:
        config = resolve(read_run_config(folder), overrides)
    if training and exists:
        check_unchanged(resolve(read_run_config(folder), []), config, folder)
    return Run(folder, config, choose_device(options.device))


def check_unchanged(old, new, folder: Path) -> None:
    """Refuse to continue a run with other data, another process or another architecture."""
    changed = [f"config.{key}" for key in ("data", "sde", "model") if old[key] != new[key]]
    if changed:
        raise ValueError(
            f"{folder} was trained with another {', '.join(changed)}: train into a new --workdir, or leave "
            "these keys as they were"
        )


def run_mode(options: flags.FlagValues, overrides: list[str]) -> dict:
    """Do what the flags say; the result is the last line printed."""
    import torch

    check_flags(options, overrides)
    if options.threads:
        torch.set_num_threads(options.threads)
    run = open_run(options, overrides)
    shared = {
        name: options[name].value for name in ("seed", "labels", "guidance_scale", "classifier_scale", "batch_size")
    }
    if options.mode == "train":
        from commands.train import train

        return train(run)
    if options.mode == "train_classifier":
        from commands.train import train_classifier

        return train_classifier(run)
    if options.mode == "sample":
        from commands.sample import sample

        return sample(
            run,
            steps=options.steps,
            grid=options.grid,
            noise=pick("--noise", options.noise, NOISES),
            num_samples=options.num_samples or 64,
            out=options.out,
            **shared,
        )
    from commands.likelihood import likelihood

    return likelihood(
        run,
        split=options.split,
        num_samples=options.num_samples or 256,
        probes=options.probes,
        rtol=options.rtol,
        atol=options.atol,
        guided_likelihood=options.guided_likelihood,
        **shared,
    )


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, or 2 with one sentence for what a user can mend."""
    plain, overrides = split_arguments(sys.argv[1:] if argv is None else argv)
    options = define_flags()
    if not plain or "--help" in plain or "-h" in plain:
        print(USAGE + options.get_help())
        return 0
    try:
        unused = options(["main.py", *plain])[1:]
        if unused:
            raise ValueError(f"unknown argument {unused[0]}: options start with --")
        print(json.dumps(run_mode(options, overrides)))
    except (flags.Error, ValueError, ArithmeticError, OSError, ImportError) as error:
        if options.is_parsed() and options.debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "interrupted: nothing half written; training continues from its last checkpoint by the same command",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
