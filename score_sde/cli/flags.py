"""Flags of the command line: their types and limits, what --help says of them, and their old names."""

import inspect
import math
import textwrap
from typing import Any

from absl import flags

from samplers import GRIDS, NOISES
from score_sde.cli import keys
from score_sde.cli.modes import MODES
from score_sde.config.config import pick
from score_sde.config.program import program
from score_sde.config.schema import CHOICES_OF_SAMPLER
from score_sde.restoration.methods import AUTO
from score_sde.restoration.methods import METHODS as RESTORATIONS
from score_sde.run.outputs import written
from score_sde.run.pipelines import DTYPES
from sde.distillation import METHODS
from sde.pretrained import SOURCES
from sde.pretrained.exports import EXPORTS
from sde.renamed import sentence

TEXTS = {
    "mode": f"what to do: {', '.join(MODES)}",
    "workdir": "run folder; default runs/<name of the config>",
    "device": "auto, cpu, cuda, cuda:N, mps, xpu, or another that torch knows",
    "threads": "CPU threads; default torch's choice",
    "debug": "show the traceback of an error",
    "config": "a config file, or the name of one in configs/; default digits",
    "init": "a run folder whose model training begins with, on these data; what belongs to other classes starts anew; "
    "or the folder of a pipeline, of which low-rank updates are trained",
    "base": "a run folder whose model, which stays as it is, is given a control: config.data.control on these data",
    "teacher": "a run folder whose model the student is distilled from, and begins with; its data, process and network "
    "are the student's",
    "pretrained": "a file or folder of weights that another project wrote",
    "source": f"the project that wrote them: auto, {', '.join(SOURCES)}",
    "facts": "a JSON file of what the weights do not say, by the names of their own project's options, as in "
    '{"sigma_max": 50}',
    "format": f"what the model is exported as: {', '.join(EXPORTS)}",
    "weights": "weights in the run folder: a file, or a training state as in checkpoints/denoiser-00001200.pt, whose "
    "averaged ones count; default model.safetensors. For import, ema or raw: the averaged ones or those that were "
    "stepped",
    "lora": "low-rank updates that are merged with the weights: FILE or FILE:SCALE, several with commas between them; "
    "of diffusers, peft, kohya's scripts, or a run of config.model.lora_rank",
    "pipeline": "in place of --workdir a pipeline of diffusers: its folder, a single file of weights, or a hub's name; "
    "outputs go to runs/ and its name unless --out says otherwise",
    "dtype": f"what the networks of --pipeline compute in: {', '.join(DTYPES)}; default float32",
    "image_size": "side of the images of --pipeline, or height and width, as in 512,768; default its network's own",
    "pipeline_config": "where --pipeline is a single file, which does not hold configs and tokenizers, the folder of a "
    "pipeline of its kind",
    "imports": "networks and processes that a file of weights may import beside those of the run's config, as in "
    "package.module:Class, with commas between them",
    "sampler": f"{', '.join(CHOICES_OF_SAMPLER)}; options: --config.sampler.OPTION; auto is planned for the model",
    "steps": "steps of the sampler; default its own, 10 for auto, 30 for restore",
    "tolerance": "error of a sample, relative to data of unit size, in place of --steps: each takes as many calls as "
    "its own error asks for; by --sampler adams, or another that chooses its own steps",
    "grid": f"{', '.join(GRIDS)}, karras:RHO, flow:SHIFT, times as in 1,0.5,0.001, or of imported weights source, "
    "the steps of their own project, and source:N, N of these times; default the sampler's own",
    "noise": f"{', '.join(NOISES)}; brownian is a path that more steps refine",
    "num_samples": "how many samples or items; default 64 for sample, or with --pipeline one for each prompt, 8 for "
    "restore and edit",
    "seed": "seed of the random numbers",
    "labels": "classes, cycled, by number or name, as in 0,1,2, or none, or data: drawn as often as the data have "
    "them, the default of evaluate, compare and guidance_sweep; else by default every class in turn, but none in "
    "likelihood, encode, interpolate, restore and edit, where data is each item's own class",
    "sizes": "sizes of the samples, cycled, as in 5,8, where the items are of unequal size; by default drawn as the "
    "training items have them",
    "start_state": "a .npy or .npz file of states at the grid's first time, in model units, with which sampling begins "
    "as they are; the .npz of the samples then holds them in model units, too, as state",
    "condition": "an .npz of what samples are conditioned on: labels, vector, image or sequence, cycled; or none; "
    "by default that of held-out items, for models that are conditioned on more than classes",
    "control": "what samples are controlled by: a picture, a folder of pictures, a .npy or .npz, cycled; of several "
    "controls one each, with commas between them; by default those of held-out items",
    "control_scale": "how strongly, 1 as trained and 0 not at all; of several controls one each, as in 1,0.5",
    "controls": "further run folders, with commas between them, whose controls of the same base act together with that "
    "of --workdir, which may be the base itself; or for --pipeline folders of ControlNets beside its own",
    "control_branches": "both or conditional: whether --guidance_scale leaves the control in the unconditional branch, "
    "or guides by it, too; default both",
    "prompt": "what samples are to be, in words, of models that are told captions; or a text file with a prompt in "
    "each line, cycled; by default the captions of held-out items, and with --pipeline and in likelihood, encode, "
    "interpolate, restore and edit none",
    "cascade": "another run folder, whose samples are the images or vectors that these samples are conditioned on; of "
    "more than two stages all before the last, from the first, with commas between them",
    "cascade_scale": "classifier-free guidance of the stages of --cascade; by default they "
    "are not guided; one scale, or one for each",
    "condition_noise": "level of the noise on condition images, or vectors, of models that were trained with some; "
    "of a cascade one for all, or one for each stage that takes it; default the lowest that the model knows",
    "guidance_scale": "classifier-free guidance: 1 conditional, 0 unconditional, more is stronger; guidance_sweep "
    "takes several, as in 1,2,4",
    "classifier_scale": "classifier guidance: 0 is off; guidance_sweep takes several, as in 0,1,4",
    "negative_labels": "classes that --guidance_scale steers away from, in place of the unconditional branch; cycled",
    "negative_prompt": "a prompt, or a file of them, that --guidance_scale steers away from, in place of the "
    "unconditional branch; cycled",
    "autoguidance": "autoguidance by weaker weights in the run folder, as in ema/0.99.safetensors or "
    "checkpoints/denoiser-00001200.pt, in place of the unconditional branch; --guidance_scale is its scale",
    "guidance_interval": "LOW,HIGH: guide at noise levels sigma / alpha above LOW and up to HIGH alone, as in 0.3,5",
    "guidance_rescale": "how much of the contrast that guidance adds is taken back, sample by sample: 0 none, 1 all",
    "threshold": "dynamic thresholding: QUANTILE, as in 0.995, of each sample is brought within the data's bounds; "
    "continuous data need QUANTILE,LOW,HIGH in their units. static, or static,LOW,HIGH, clips every entry instead",
    "batch_size": "items at a time",
    "compile": "auto, on or off: networks as one graph for the whole run; auto, the default, where it pays by a trial, "
    "which long runs make once and keep",
    "out": "where to write, without suffix; default the next number and a name, as in 000012-heun-25, in samples/ of "
    "the run folder; compare/ for compare, evaluations/ for evaluate, nowhere for likelihood",
    "split": "test or train: the items that are taken, or that samples are held against",
    "probes": "Rademacher probes for the trace, 0 for the exact trace; default exact up to 16 dimensions, else 2",
    "rtol": "relative tolerance of the ODE solver",
    "atol": "absolute tolerance of the ODE solver",
    "unnormalized": "integrate a guided model, which is no density",
    "dequantizations": "how many times each item is dequantized",
    "latents_per_item": "draws of the latents of each item, by which the evidence bound of a model in latents is taken",
    "samples_per_item": "samples of each item",
    "ood_file": "an .npy or .npz of other items, for the AUROC of log p(x)",
    "samples_file": "a file of samples to measure, as --mode sample writes; by default they are drawn",
    "features": "what items are compared in: data, spectrum (of signals), classifier, inception, or a file, of "
    "TorchScript or of EfficientNet-Lite's weights",
    "download": "fetch the weights of --features inception where they are missing",
    "metrics": "some of the metrics, as in frechet,kernel; the first ranks samplers; default of evaluate: all it can",
    "subsamples": "halves of the items that an interval is made of",
    "relative_std": "lengths of the averages, as shares of the run",
    "at_step": "step up to which it averages; default the last",
    "items": "items of the split by number, as in 3,17,5,8; for interpolate pairs, by default the first six items",
    "seed_pairs": "pairs of seeds instead, as the .npz of --mode sample lists them",
    "frames": "pictures per strip, the two ends among them",
    "runs": "run folders over the same data, with commas between them, score models and students, to compare with each "
    "other; the first is --workdir unless that is given",
    "samplers": f"{', '.join(CHOICES_OF_SAMPLER)}: those that are compared, as in auto,heun",
    "nfe": "network calls per sample that they may take, as in 5,10,20; guidance takes two each time; of several runs "
    "by default 1,2,3,4,5,8,10,20, and 1,2,4 of students",
    "plots": "all, process, trajectory, denoised or field (points in the plane)",
    "task": "what was measured: inpaint, superres, deblur, colorize or sensing",
    "mask": "--task inpaint: what is observed: upper, lower, left, right half, box (all but the middle), random:0.5, a "
    ".npy, .npz or black and white image file, True or white where observed; default left",
    "factor": "--task superres: side of the blocks whose means are measured; default 2",
    "blur_std": "--task deblur: width of the Gaussian in entries; default 1.5",
    "num_measurements": "--task sensing: number of random projections; default 20",
    "sigma_y": "standard deviation of the noise in what was measured, in data units",
    "method": f"of distill, how the student is trained: {', '.join(METHODS)}; of restore, auto ({AUTO} with what "
    f"iterations can be paid), {', '.join(RESTORATIONS)}",
    "repaint_steps": "times that each step is taken, with noise added in between, which mends what is wrong (RePaint); "
    "default 4 for replacement, else 1",
    "input": "a .npy, .npz, .csv or image file of items, in place of those of the split; for likelihood also a folder, "
    "and with --out scores.csv a line for each",
    "measurements_file": "a file like that of --input with measurements, in place of items to be measured",
    "start_time": "times to which items are noised; the later, the more changes",
}
"""Help of each flag."""

OWN_TEXTS = {
    ("import", "weights"): "ema or raw: the averaged weights, or those that were stepped",
    ("distill", "method"): f"how the student is trained: {', '.join(METHODS)}",
    ("restore", "method"): f"auto ({AUTO} with what iterations can be paid), {', '.join(RESTORATIONS)}",
    ("distill", "guidance_scale"): "classifier-free guidance of the teacher, baked into the student; or a range, as in "
    "1,4, that the student is told, and from which --guidance_scale picks when it is sampled",
}
"""Help of flags that mean something of their own in a mode."""

INTEGERS = {"threads": 1, "steps": 1, "num_samples": 1, "seed": 0, "batch_size": 1, "probes": 0,
            "dequantizations": 1, "latents_per_item": 1, "samples_per_item": 1, "subsamples": 2, "at_step": 1,
            "frames": 2, "factor": 1, "num_measurements": 1, "repaint_steps": 1}  # fmt: skip
"""Flags that are whole numbers, and their least."""

NUMBERS: dict[str, dict[str, Any]] = {
    "tolerance": {}, "rtol": {}, "atol": {}, "blur_std": {}, "sigma_y": {},
    "guidance_rescale": {"lower_bound": 0, "upper_bound": 1}
}  # fmt: skip
"""Flags that are numbers, and their limits."""

LISTS = ("guidance_scale", "classifier_scale")
"""Flags that are one number or several."""

SWITCHES = ("debug", "unnormalized", "download")
EVERYWHERE = ("mode", "workdir", "device", "threads", "debug")
"""Flags that every mode takes."""

OLD_FLAGS = {
    "weak": "--autoguidance",
    "against": "--ood_file",
    "unnormalised": "--unnormalized",
    "calls": "--nfe",
    "draws": "--dequantizations in --mode likelihood, and --samples_per_item in --mode restore",
    "resamples": "--subsamples",
    "resamplings": "--repaint_steps",
    "what": "--plots",
    "measured": "--measurements_file",
    "measurements": "--num_measurements",
    "samples": "--samples_file",
    "seeds": "--seed_pairs",
}
"""New names of flags that were renamed."""

OLD_VALUES = {("method", "moments"): "mmps"}
"""New names of values, by flag and old value."""

EXAMPLES = {
    "train": "--config digits --workdir runs/digits --config.training.steps=200",
    "train_classifier": "--workdir runs/digits",
    "train_autoencoder": "--config emoji_latent --workdir runs/emoji",
    "distill": "--teacher runs/digits --method progressive --workdir runs/student --config.training.steps=4000",
    "import": "--pretrained checkpoint_8.pth --facts facts.json --workdir runs/ncsnpp",
    "sample": "--workdir runs/digits --sampler pc --steps 100 --labels 0,1,2 --guidance_scale 2",
    "pairs": "--workdir runs/digits --num_samples 10000 --sampler heun --steps 25",
    "guidance_sweep": "--workdir runs/digits --num_samples 500",
    "evaluate": "--workdir runs/digits --num_samples 1000",
    "likelihood": "--workdir runs/digits --num_samples 256",
    "encode": "--workdir runs/digits --num_samples 16 --split test",
    "interpolate": "--workdir runs/digits --items 3,17 --frames 9",
    "restore": "--workdir runs/digits --task inpaint --mask upper --items 0,1,2",
    "edit": "--workdir runs/digits --items 0,1,2 --start_time 0.3,0.5,0.7 --labels 3 --guidance_scale 2",
    "compare": "--workdir runs/digits --samplers auto,dpmpp,heun --nfe 5,10,20",
    "ema": "--workdir runs/digits --relative_std 0.05,0.1",
    "export": "--workdir runs/digits --format torch_export --out digits-program",
    "check": "--workdir runs/digits",
    "visualize": "--workdir runs/digits --plots trajectory --labels 0,1,2",
}
"""A command of each mode."""


class Numbers(flags.ArgumentParser):
    """A number, or several with commas between them, as a tuple."""

    syntactic_help = "numbers with commas between them"

    def parse(self, argument: str) -> tuple[float, ...]:
        """Raises ValueError for what is no number, not finite, or there twice."""
        try:
            values = tuple(float(part) for part in argument.split(","))
        except ValueError:
            values = ()
        if not values or not all(map(math.isfinite, values)):
            raise ValueError("needs a number, or several with commas between them, as in 1,2,4")
        if len({*values}) < len(values):
            raise ValueError("has a number twice")
        return values


def define_flags() -> flags.FlagValues:
    """The flags of every mode. One that is not given has the default of the mode's function."""
    values = flags.FlagValues()
    for name, text in TEXTS.items():
        if name in SWITCHES:
            flags.DEFINE_boolean(name, None, text, flag_values=values)
        elif name in INTEGERS:
            flags.DEFINE_integer(name, None, text, lower_bound=INTEGERS[name], flag_values=values)
        elif name in NUMBERS:
            flags.DEFINE_float(name, None, text, flag_values=values, **NUMBERS[name])
        elif name in LISTS:
            flags.DEFINE(Numbers(), name, None, text, values)
        else:
            flags.DEFINE_string(name, None, text, flag_values=values)
    return values


def usage(mode: str | None = None) -> str:
    """The modes, what they do and their flags; or those of one mode."""
    chosen = {mode: MODES[mode]} if mode in MODES else MODES
    lines = [f"usage: {program()} --mode MODE [--workdir DIR] [flags] [--config.KEY=VALUE ...]", ""]
    for name, its in chosen.items():
        lines.append(f"{name:<18}{(inspect.getdoc(its.function) or '').partition(chr(10))[0].replace('`', '')}")
    lines += ["", "for example:", *(f"  {program()} --mode {name} {EXAMPLES[name]}" for name in chosen)]
    lines += ["", "flags of every mode:", *(_describe(name, TEXTS[name], "") for name in EVERYWHERE)]
    if mode in MODES:
        lines += ["", f"flags of {mode}:"]
        for name in (name for name in TEXTS if name in MODES[mode].flags):
            own, text = _default(mode, name), OWN_TEXTS.get((mode, name), TEXTS[name])
            lines.append(_describe(name, text.partition("; default")[0] if own else text, own))
        for section in _sections(mode):
            lines += ["", *keys.lines(section, MODES[mode].settles)]
        return "\n".join(lines) + "\n"
    lines += ["", f"flags of some modes ({program()} --mode MODE --help has those of one, with their defaults):"]
    for name, text in TEXTS.items():
        takers = [other for other, its in MODES.items() if name in its.flags]
        if takers:
            lines.append(_describe(name, text, f" [{', '.join(takers)}]"))
    return "\n".join(lines) + "\n"


def _sections(mode: str) -> list[str]:
    """The sections of the config that a mode reads and that can be changed with it."""
    if not MODES[mode].training:
        return [*MODES[mode].sections]
    own = {
        "train": ("data", "sde", "model", "training", "control"),
        "train_classifier": ("data", "sde", "classifier", "training"),
        "train_autoencoder": ("data", "autoencoder", "training"),
        "distill": ("data", "sde", "model", "training", "distillation"),
    }[mode]
    return [section for section in keys.SECTIONS if section.partition(".")[0] in own]


def _default(mode: str, flag: str) -> str:
    own = MODES[mode].defaults.get(flag)
    if own in (None, False, ""):
        return ""
    return f" [default {written(own)}]"


def _describe(name: str, text: str, note: str) -> str:
    head = f"  --{name:<20}"
    return textwrap.fill(text + note, 118, initial_indent=head, subsequent_indent=" " * len(head))


def refuse_old(arguments: list[str]) -> None:
    """Raise ValueError for a flag or a value that has another name now."""
    flag = ""
    for argument in arguments:
        text = argument.partition("=")[2] if "=" in argument else argument
        if argument.startswith("-"):
            flag = argument.lstrip("-").partition("=")[0]
            negated = flag.removeprefix("no")
            name = flag if flag in OLD_FLAGS else negated
            if name in OLD_FLAGS:
                raise ValueError(sentence(f"--{flag}", OLD_FLAGS[name]))
        if (flag, text) in OLD_VALUES:
            raise ValueError(sentence(f"--{flag}={text}", f"--{flag}={OLD_VALUES[flag, text]}"))


def check_flags(options: flags.FlagValues, overrides: list[str]) -> None:
    """Refuse what the mode would ignore."""
    name = pick("--mode", options.mode or "", MODES)
    mode = MODES[name]
    taken = {*mode.flags, *EVERYWHERE}
    for flag in options:
        if options[flag].present and flag not in taken:
            in_config = mode.training and flag in ("steps", "batch_size", "seed")
            hint = f": the key is --config.training.{flag}" if in_config else ""
            takers = [other for other, its in MODES.items() if flag in its.flags]
            raise ValueError(f"--{flag} is for --mode {' and '.join(takers)}, --mode {name} would ignore it{hint}")
    for argument in overrides:
        key = argument.lstrip("-").partition("=")[0]
        section = key.split(".")[1]
        if not mode.training and section not in mode.sections:
            allowed = " and ".join(f"config.{section}" for section in mode.sections)
            what = f"only {allowed} can be changed" if allowed else "no config can be changed; leave it out"
            raise ValueError(f"{argument}: with --mode {name} {what}")
        if key.removeprefix("config.") in mode.settles:
            raise ValueError(f"{argument}: the weights say it, and --mode {name} sets it; leave it out")
        if not (mode.training or mode.makes or options.pipeline) and key == "config.data.test_fraction":
            raise ValueError(
                f"{argument}: items that the model was or may have been trained on would count as held-out ones; leave "
                "it out"
            )
