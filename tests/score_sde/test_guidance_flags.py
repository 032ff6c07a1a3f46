"""The flags of guidance: they do what the library does, have plans of their own, and a sentence for every mistake."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from samplers import SAMPLERS, SCORE_SAMPLERS, encode, generate, log_likelihood, pilot_count, plan
from score_sde.cli import main
from score_sde.config.options import DataOptions
from score_sde.run.guidance import GuidanceOptions
from score_sde.run.guides import guided
from sde import VPSDE, Denoiser
from sde.checkpoint.models import load_model, save_model
from sde.checkpoint.snapshots import stored_spec
from sde.checkpoint.spec import build_denoiser
from sde.data import load_dataset
from sde.guidance.autoguidance import Autoguidance
from sde.guidance.classifier_free import ClassifierFree
from sde.guidance.conditional import Conditional
from sde.guidance.interval import GuidanceInterval
from sde.guidance.rescale import GuidanceRescale
from sde.guidance.threshold import DynamicThreshold, StaticThreshold
from tests.score_sde.runs import call

LIMITED = [
    ["--guidance_interval", "0.3,3"], ["--guidance_rescale", 0.5], ["--threshold", "0.9,-1,1"],
    ["--negative_labels", "1,0"], ["--autoguidance", "ema/0.5.safetensors"],
    ["--autoguidance", "ema/0.5.safetensors", "--guidance_interval", "0.3,inf", "--guidance_rescale", 0.5,
     "--threshold", "0.9,-1,1", "--classifier_scale", 1],
]  # fmt: skip


EARLIER, LAST = (f"checkpoints/denoiser-{step:08d}.pt" for step in (30, 60))


def samples(capsys, trained, out, *flags):
    run = ["--mode", "sample", "--workdir", trained, "--num_samples", 6, "--labels", "0,1", "--out", out]
    status, result, error = call(capsys, *run, "--guidance_scale", 3, *flags)
    assert status == 0, error
    return np.load(result["numbers"])["x"], result


def test_flags_are_the_library(trained, tmp_path, capsys):
    model, weak = (load_model(trained / name) for name in ("model.safetensors", "ema/0.5.safetensors"))
    earlier, labels = load_model(trained / EARLIER), torch.arange(6) % 2
    free = ClassifierFree(model, labels, 3.0)
    expected = {
        (): free,
        ("--guidance_interval", "0.3,3"): GuidanceInterval(free, 0.3, 3.0),
        ("--guidance_rescale", "0.5"): GuidanceRescale(free, 0.5),
        ("--threshold", "0.9,-1,1"): DynamicThreshold(free, 0.9, -1.0, 1.0),
        ("--threshold", "static,-0.4,0.4"): StaticThreshold(free, -0.4, 0.4),
        ("--negative_labels", "1"): ClassifierFree(model, labels, 3.0, torch.tensor(1)),
        ("--autoguidance", "ema/0.5.safetensors"): Autoguidance(
            Conditional(model, labels), Conditional(weak, labels), 3.0
        ),
        ("--autoguidance", EARLIER): Autoguidance(Conditional(model, labels), Conditional(earlier, labels), 3.0),
        ("--weights", EARLIER): ClassifierFree(earlier, labels, 3.0),
        ("--threshold", "0.9,-1,1", "--guidance_interval", "0.3,3", "--guidance_rescale", "0.5"): DynamicThreshold(
            GuidanceInterval(GuidanceRescale(free, 0.5), 0.3, 3.0), 0.9, -1.0, 1.0
        ),
    }
    found = {}
    for flags, score_model in expected.items():
        x = generate(score_model, SAMPLERS["ddim"](), 6, (2,), steps=8).x
        found[flags], _ = samples(capsys, trained, tmp_path / "s", "--sampler", "ddim", "--steps", 8, *flags)
        np.testing.assert_allclose(found[flags], x, rtol=1e-5, atol=1e-5, err_msg=str(flags))
    for flags in list(expected)[1:]:
        assert np.abs(found[flags] - found[()]).max() > 1e-3, flags


def test_the_last_training_state_is_the_model(trained, tmp_path, capsys):
    """What training wrote at the same step, to the last bit, by the library and by the flag of several modes."""
    state, model = (load_model(trained / name).state_dict() for name in (LAST, "model.safetensors"))
    assert state.keys() == model.keys()
    assert all(torch.equal(state[name], model[name]) for name in model)
    x, y = (samples(capsys, trained, tmp_path / "s", "--weights", name)[0] for name in (LAST, "model.safetensors"))
    assert np.array_equal(x, y)
    for mode, few in (("likelihood", ["--rtol", 0.1, "--atol", 0.1]), ("edit", ["--steps", 4])):
        results = (call(capsys, "--mode", mode, "--workdir", trained, "--num_samples", 4, *few, "--weights", name)[1]
                   for name in (LAST, "model.safetensors", EARLIER))  # fmt: skip
        last, model, earlier = (result["nats" if mode == "likelihood" else "changes"] for result in results)
        assert last == model != earlier
    assert call(capsys, "--mode", "check", "--workdir", trained, "--weights", EARLIER)[0] == 0


@pytest.mark.parametrize("name", SCORE_SAMPLERS)
def test_every_sampler(trained, tmp_path, capsys, name):
    steps = {"ode": [], "adams": [], "reverse_sde": ["--config.sampler.rtol=0.2", "--config.sampler.atol=0.2"]}.get(
        name, ["--steps", 4]
    )
    x, _ = samples(capsys, trained, tmp_path / "s", "--sampler", name, *steps, *LIMITED[-1])
    assert np.isfinite(x).all()


def test_plans_belong_to_their_guidance(trained, tmp_path, capsys):
    for count, flags in enumerate(([], *LIMITED, ["--guidance_interval", "0.3,4"]), 1):
        for _ in range(2):
            samples(capsys, trained, tmp_path / "s", "--sampler", "auto", "--steps", 3, *flags)
        assert len([*(trained / "plans").glob("3-*.json")]) == count, flags
    weights = trained / "ema" / "0.5.safetensors"
    before = weights.read_bytes()
    weights.write_bytes((trained / EARLIER).read_bytes())
    samples(capsys, trained, tmp_path / "s", "--sampler", "auto", "--steps", 3, "--autoguidance", "ema/0.5.safetensors")
    weights.write_bytes(before)
    assert len([*(trained / "plans").glob("3-*.json")]) == count + 1


def test_a_plan_is_made_for_the_weaker_model_too(trained, tmp_path, capsys):
    model, weak = (load_model(trained / name) for name in ("model.safetensors", "ema/0.5.safetensors"))
    labels = torch.arange(pilot_count(4)) % 2
    expected = plan(Autoguidance(Conditional(model, labels), Conditional(weak, labels), 3.0), (2,), 4)
    samples(capsys, trained, tmp_path / "s", "--sampler", "auto", "--steps", 4, "--autoguidance", "ema/0.5.safetensors")
    (path,) = (trained / "plans").glob("4-*.json")
    assert json.loads(path.read_text())["error"] == pytest.approx(expected.error, rel=1e-3)


def test_every_flag_is_here():
    names = [flag.removeprefix("--") for flags in LIMITED for flag in flags[::2]]
    # What is said of controls and of prompts is tested with these.
    own = {field.name for field in fields(GuidanceOptions) if not field.name.startswith(("control", "negative_prompt"))}
    assert set(names) | {"guidance_scale"} == own


MODES_OF_DATA = {
    "encode": ["--num_samples", 4, "--labels", "data"],
    "interpolate": ["--items", "0,1,2,3", "--frames", 2, "--labels", "data"],
    "likelihood": ["--num_samples", 4, "--labels", "data", "--unnormalized"],
}


def values(capsys, trained, mode, *flags):
    """What the mode makes of a few items: latents, ends of strips, or log p; their positions; and the file of both."""
    out = ["--out", trained / "scores"] if mode == "likelihood" else []
    index = {"encode": "latent", "interpolate": "latent", "likelihood": "nats"}[mode]
    status, result, error = call(capsys, "--mode", mode, "--workdir", trained, "--rtol", 1e-2, "--atol", 1e-2,
                                 *MODES_OF_DATA[mode], *out, *flags)  # fmt: skip
    assert status == 0, error
    numbers = np.load(result["numbers"])
    return numbers[index], torch.from_numpy(numbers.get("index", np.arange(4))), result["numbers"]


@pytest.mark.parametrize("mode", MODES_OF_DATA)
def test_the_other_modes_are_guided_by_the_same_flags(trained, capsys, mode):
    """Each flag does in the flow of every mode what it does in the library, and has files of its own."""
    model, weak = (load_model(trained / name) for name in ("model.safetensors", "ema/0.5.safetensors"))
    files, plain = set(), None
    for flags, wrapped in (
        ((), lambda free, labels: free),
        (("--guidance_interval", "0.3,3", "--guidance_rescale", "0.5", "--threshold", "0.9,-1,1"), lambda free, labels:
            DynamicThreshold(GuidanceInterval(GuidanceRescale(free, 0.5), 0.3, 3.0), 0.9, -1.0, 1.0)),
        (("--negative_labels", "1,0"), lambda free, labels: ClassifierFree(
            model, labels, 3.0, (torch.arange(len(labels)) + 1) % 2)),
        (("--autoguidance", "ema/0.5.safetensors"), lambda free, labels: Autoguidance(
            Conditional(model, labels), Conditional(weak, labels), 3.0)),
    ):  # fmt: skip
        found, index, file = values(capsys, trained, mode, "--guidance_scale", 3, *flags)
        files.add(file)
        config = DataOptions.of(json.loads((trained / "config.json").read_text())["data"])
        data = load_dataset(**config.arguments())[1]
        x, cond = data.batch(index)
        labels = cond["labels"]
        if mode == "interpolate":
            # A strip has the class of its first item, and what cycles over the strips is the same at both ends.
            score_model = wrapped(ClassifierFree(model, labels[::2], 3.0), labels[::2])
            score_model = score_model.rows(torch.tensor([0, 0, 1, 1]))
        else:
            score_model = wrapped(ClassifierFree(model, labels, 3.0), labels)
        if mode == "likelihood":
            expected = log_likelihood(score_model, x, rtol=1e-2, atol=1e-2, guided=True).nats
        else:
            expected = encode(score_model, x, rtol=1e-2, atol=1e-2).latent.view(found.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3, err_msg=str(flags))
        plain = found if plain is None else plain
        assert not flags or np.abs(found - plain).max() > 1e-2, flags
    assert len(files) == (1 if mode == "likelihood" else 4)


G = ["--guidance_scale", "2"]
MISTAKES = [
    (["--guidance_interval", "0.3,3"], "there is no guidance to limit"),
    (["--guidance_rescale", "0.5"], "there is no guidance to limit"),
    (["--negative_labels", "1"], "--negative_labels=1: with --guidance_scale=1 it does nothing"),
    (["--autoguidance", "ema/0.5.safetensors"], "with --guidance_scale=1 it does nothing"),
    ([*G, "--guidance_interval", "0.3"], "--guidance_interval=0.3: needs LOW,HIGH"),
    ([*G, "--guidance_interval", "low,high"], "--guidance_interval=low,high: needs LOW,HIGH"),
    ([*G, "--guidance_interval", "3,1"], "--guidance_interval=3,1: guidance interval 3 to 1: needs noise"),
    ([*G, "--guidance_interval", "1e6,1e7"], "of which this process has"),
    ([*G, "--guidance_rescale", "2"], "guidance_rescale"),
    ([*G, "--guidance_rescale", "nan"], "--guidance_rescale=nan: rescale strength nan"),
    (["--guidance_scale", "two"], "guidance_scale=two: needs a number, or several with commas between them"),
    (["--guidance_scale", "2,2"], "guidance_scale=2,2: has a number twice"),
    (["--guidance_scale", "nan"], "guidance_scale=nan: needs a number"),
    (["--guidance_scale="], "guidance_scale=: needs a number"),
    ([*G, "--labels", "none"], "give --labels"),
    *(
        (
            ["--mode", mode, "--classifier_scale", "0,2"],
            "--classifier_scale=0,2: takes a single scale here; --mode guidance_sweep takes several",
        )
        for mode in ("sample", "likelihood", "encode", "interpolate")
    ),
    (["--threshold", "0.9"], "only data with levels bring their own"),
    (["--threshold", "static"], "only data with levels bring their own"),
    (["--threshold", "static,1"], "--threshold=static,1: needs static or static,LOW,HIGH"),
    (["--threshold", "statik"], "--threshold=statik: needs QUANTILE or QUANTILE,LOW,HIGH"),
    (["--threshold", "0.9,1"], "needs QUANTILE or QUANTILE,LOW,HIGH"),
    (["--threshold", "90,-1,1"], "--threshold=90,-1,1: threshold quantile 90: needs a number above 0 and at most 1"),
    ([*G, "--negative_labels", "7"], "--negative_labels=7: class 7 is out of range, allowed are 0 to 1"),
    ([*G, "--negative_labels", "cat"], "--negative_labels=cat: needs class numbers from 0 to 1, as in 0,1,2\n"),
    ([*G, "--negative_labels", "none"], "--negative_labels=none: without it, --guidance_scale steers away from the"),
    ([*G, "--labels", "none", "--negative_labels", "1"], "give --labels"),
    ([*G, "--negative_labels", "1", "--autoguidance", "ema/0.5.safetensors"], "both given"),
    ([*G, "--autoguidance", "ema/0.7.safetensors"], "--autoguidance=ema/0.7.safetensors: there is no such file"),
    ([*G, "--autoguidance", "model.safetensors"], "these are the model's own weights"),
    ([*G, "--autoguidance", "classifier.safetensors"], "holds a classifier"),
    ([*G, "--autoguidance", LAST], "these are the model's own weights"),
    ([*G, "--autoguidance", EARLIER, "--weights", EARLIER], "these are the model's own weights"),
    ([*G, "--autoguidance", "checkpoints/classifier-00000030.pt"], "holds a classifier"),
    (
        [*G, "--autoguidance", "checkpoints"],
        "is a folder, as the states of sharded modules are: name a model.safetensors",
    ),
    (["--weights", "late.safetensors"], "beside model.safetensors it holds 1 in ema/ and 2 in checkpoints/"),
    (["--mode", "ema", "--threshold", "0.9"], "--threshold is for --mode sample"),
    (["--mode", "likelihood", *G, "--labels", "data"], "leave out --guidance_scale, or add --unnormalized"),
    (["--mode", "likelihood", *G, "--unnormalized"], "guide towards labels: give --labels"),
    (["--mode", "likelihood", "--threshold", "0.9,-1,1"], "leave out --threshold, or add --unnormalized"),
    (
        ["--mode", "encode", *G, "--labels", "1", "--guidance_interval", "3,1"],
        "guidance interval 3 to 1: needs noise levels",
    ),
    (["--mode", "interpolate", *G, "--autoguidance", "ema/0.7.safetensors"], "there is no such file"),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES)
def test_mistakes(trained, capsys, arguments, words):
    mode = [] if "--mode" in arguments else ["--mode", "sample", "--num_samples", "2"]
    status, result, error = call(capsys, *mode, "--workdir", trained, *arguments)
    assert (status, result) == (2, None)
    assert words in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(("change", "words"), [
    ({"event_shape": [3]}, "its items have shape (3,), the model's (2,); name weights of a model of the same data"),
    ({"sde": {"name": "ve"}}, "the weaker model has VESDE"),
    ({"num_classes": None}, "the model is unconditional"),
])  # fmt: skip
def test_weaker_models_that_are_none(trained, capsys, change, words):
    spec = stored_spec(trained / "model.safetensors") | change
    save_model(trained / "other.safetensors", "denoiser", spec, build_denoiser(spec).state_dict())
    flags = ["--num_samples", 2, "--guidance_scale", 2, "--autoguidance", "other.safetensors"]
    status, _, error = call(capsys, "--mode", "sample", "--workdir", trained, *flags)
    assert status == 2
    assert error.startswith("error: --autoguidance=other.safetensors: ")
    assert words in error


def test_a_model_without_condition_dropout(trained):
    """It can be guided by a negative condition or a weaker model, and not by the branch it has not."""
    model, weak = (load_model(trained / name) for name in ("model.safetensors", "ema/0.5.safetensors"))
    model.null_trained = weak.null_trained = False
    labels, options = {"labels": torch.tensor([0, 1])}, GuidanceOptions(guidance_scale=2.0)
    with pytest.raises(ValueError, match=r"--guidance_scale=2: guidance scale 2.0 needs .*cond_dropout above 0"):
        guided(model, None, labels, options)
    assert isinstance(guided(model, None, labels, replace(options, negative_labels="1")), ClassifierFree)
    assert isinstance(guided(model, None, labels, replace(options, autoguidance="w"), weak), Autoguidance)
    with pytest.raises(ValueError, match="--labels=none: this model never trained its unconditional branch"):
        guided(model, None, None, replace(options, autoguidance="w"), weak)


def test_an_unconditional_model():
    """It can be guided by a weaker one alone."""
    model, weak = (Denoiser(torch.nn.Bilinear(2, 1, 2), VPSDE()) for _ in range(2))
    options = GuidanceOptions(guidance_scale=2.0)
    with pytest.raises(ValueError, match=r"--guidance_scale=2: the model is unconditional, .* or --autoguidance"):
        guided(model, None, None, options)
    found = guided(model, None, None, replace(options, autoguidance="w"), weak)
    assert isinstance(found, Autoguidance)
    assert (found.model, found.weak) == (model, weak)


def test_help_names_them(capsys):
    assert main.main(["--help"]) == 0
    out = capsys.readouterr().out
    for field in fields(GuidanceOptions):
        assert f"--{field.name}" in out
