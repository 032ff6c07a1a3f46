"""Score-based generative modelling through SDEs: train, sample, likelihood, latents from one command line."""

import json
import sys
from pathlib import Path

from absl import flags

from commands.config import CHOICES_OF_SAMPLER, config_path, pick, read_config, read_run_config, resolve
from commands.flags import TRAINING, USAGE, check_flags, define_flags
from commands.run import Run, choose_device
from samplers import NOISES


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
    if options.mode == "train":
        from commands.train import train

        return train(run)
    if options.mode == "train_classifier":
        from commands.train import train_classifier

        return train_classifier(run)

    def values(*names: str) -> dict:
        return {name: options[name].value for name in names}

    shared = values("labels", "guidance_scale", "classifier_scale", "batch_size", "out")
    if options.mode == "sample":
        from commands.sample import sample

        noise, count = pick("--noise", options.noise, NOISES), options.num_samples or 64
        return sample(run, num_samples=count, noise=noise, **values("steps", "grid", "seed"), **shared)
    shared |= values("split", "rtol", "atol")
    if options.mode == "encode":
        from commands.encode import encode_items

        return encode_items(run, num_samples=options.num_samples or 16, seed=options.seed, **shared)
    if options.mode == "interpolate":
        from commands.interpolate import interpolate

        return interpolate(run, **values("items", "seeds", "frames"), **shared)
    from commands.likelihood import likelihood

    own = values("seed", "draws", "probes", "against", "guided_likelihood")
    return likelihood(run, num_samples=options.num_samples or 256, **own, **shared)


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
