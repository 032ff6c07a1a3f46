"""The flags of the command line, and the modes that take them."""

from absl import flags

from commands.config import CHOICES_OF_SAMPLER, pick
from samplers import GRIDS, NOISES

MODES = ("train", "train_classifier", "sample", "likelihood", "encode", "interpolate", "ema")
TRAINING, USE = MODES[:2], MODES[2:-1]
GUIDANCE = ("guidance_scale", "classifier_scale", "negative_labels", "weak", "guidance_interval", "guidance_rescale",
            "threshold")  # fmt: skip
ONLY_FOR = {
    "config": TRAINING,
    **dict.fromkeys(("labels", *GUIDANCE[:2], "batch_size", "out", "weights"), USE),
    **dict.fromkeys(("sampler", "steps", "grid", "noise", *GUIDANCE[2:]), ("sample",)),
    **dict.fromkeys(("num_samples", "seed"), ("sample", "likelihood", "encode")),
    **dict.fromkeys(("split", "rtol", "atol"), ("likelihood", "encode", "interpolate")),
    **dict.fromkeys(("draws", "probes", "against", "unnormalised"), ("likelihood",)),
    **dict.fromkeys(("relative_std", "at_step"), ("ema",)),
    **dict.fromkeys(("items", "seeds", "frames"), ("interpolate",)),
}
"""The modes of each flag that not every mode takes."""

SECTIONS = {"sample": "sampler", "likelihood": "data", "encode": "data", "interpolate": "data", "ema": "data"}
"""What can be changed of a trained run's config."""
USAGE = """usage: python main.py --mode MODE [--workdir DIR] [options] [--config.KEY=VALUE ...]

train             train a score model: [--config FILE_OR_NAME], default digits
train_classifier  train a noise-conditional classifier into the same run folder
sample            draw samples into a picture and an .npz
likelihood        bits/dim or nats of the held-out data
encode            data to their latents and back, with the error of the round trip
interpolate       a strip of pictures between two items or two seeds
ema               averages of the weights over other lengths, after training with --config.training.power_ema=0.05,0.1

examples:
  python main.py --mode train --config digits --workdir runs/digits --config.training.steps=200
  python main.py --mode sample --workdir runs/digits --sampler pc --steps 100 --labels 0,1,2 --guidance_scale 2
  python main.py --mode sample --workdir runs/digits --sampler auto --steps 10
  python main.py --mode likelihood --workdir runs/digits --num_samples 256
  python main.py --mode encode --workdir runs/digits --num_samples 16 --split test
  python main.py --mode interpolate --workdir runs/digits --items 3,17 --frames 9
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
        "sample: how many, default 64; likelihood, encode: items, default 256 and 16",
        lower_bound=1,
    )
    define(flags.DEFINE_integer, "seed", 0, "sample, likelihood, encode: seed of the random numbers", lower_bound=0)
    define(
        flags.DEFINE_string,
        "labels",
        None,
        "sample: classes, cycled over the samples, as in 0,1,2, or none; default all; likelihood: data for p(x | y); "
        "encode, interpolate: classes of the items or strips, data for their own, or none, the default",
    )
    define(
        flags.DEFINE_float,
        "guidance_scale",
        1.0,
        "classifier-free guidance: 1 conditional, 0 unconditional, more is stronger",
    )
    define(flags.DEFINE_float, "classifier_scale", 0.0, "classifier guidance: 0 is off")
    define(
        flags.DEFINE_string,
        "negative_labels",
        None,
        "sample: classes that --guidance_scale steers away from, in place of the unconditional branch; cycled",
    )
    define(
        flags.DEFINE_string,
        "weak",
        None,
        "sample: autoguidance by another file of weights in the run folder, as in ema/0.99.safetensors, in place of "
        "the unconditional branch; --guidance_scale is its scale",
    )
    define(
        flags.DEFINE_string,
        "guidance_interval",
        None,
        "sample: LOW,HIGH: guide at noise levels sigma / alpha above LOW and up to HIGH alone, as in 0.3,5 or 0,inf",
    )
    define(
        flags.DEFINE_float,
        "guidance_rescale",
        0.0,
        "sample: how much of the contrast that guidance adds is taken back, sample by sample: 0 none, 1 all",
        lower_bound=0,
        upper_bound=1,
    )
    define(
        flags.DEFINE_string,
        "threshold",
        None,
        "sample: dynamic thresholding: QUANTILE, as in 0.995, of each sample is brought within the data's bounds; "
        "continuous data need QUANTILE,LOW,HIGH in their units",
    )
    define(flags.DEFINE_integer, "batch_size", 256, "with a trained model: items at a time", lower_bound=1)
    define(
        flags.DEFINE_string,
        "out",
        None,
        "where to write, without suffix; default samples/ in the run folder; likelihood: none",
    )
    define(flags.DEFINE_string, "split", "test", "test or train: the items that are taken")
    define(
        flags.DEFINE_integer,
        "probes",
        None,
        "likelihood: Rademacher probes for the trace, 0 for the exact trace; default exact up to 16 dimensions, else 2",
        lower_bound=0,
    )
    define(flags.DEFINE_float, "rtol", 1e-4, "likelihood, encode, interpolate: relative tolerance of the ODE solver")
    define(flags.DEFINE_float, "atol", 1e-4, "likelihood, encode, interpolate: absolute tolerance of the ODE solver")
    define(flags.DEFINE_boolean, "unnormalised", False, "likelihood: integrate a guided model, which is no density")
    define(flags.DEFINE_integer, "draws", 1, "likelihood: dequantisations of each item", lower_bound=1)
    define(
        flags.DEFINE_string, "against", None, "likelihood: an .npy or .npz of other items, for the AUROC of log p(x)"
    )
    define(
        flags.DEFINE_string, "weights", "model.safetensors", "with a trained model: a file of weights in the run folder"
    )
    define(flags.DEFINE_string, "relative_std", "0.03,0.04,0.05,0.07,0.1,0.14", "ema: lengths, as shares of the run")
    define(flags.DEFINE_integer, "at_step", None, "ema: step up to which it averages; default the last", lower_bound=1)
    define(
        flags.DEFINE_string,
        "items",
        None,
        "interpolate: pairs of items of the split, as in 3,17 or 3,17,5,8 for two strips; default the first six items",
    )
    define(
        flags.DEFINE_string,
        "seeds",
        None,
        "interpolate: pairs of seeds instead, as the .npz of --mode sample lists them",
    )
    define(flags.DEFINE_integer, "frames", 9, "interpolate: pictures a strip, the two ends among them", lower_bound=2)
    return values


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
