"""Prompts from the command line: in every mode that takes conditions, cycled, recorded, exact beside Python's."""

import json
import shutil

import numpy as np
import pytest
import torch

from samplers import generate
from samplers.heun import Heun
from score_sde.run.folder import Run
from score_sde.run.text import read_prompts
from sde.checkpoint.models import load_model, load_text, read_description
from sde.guidance.classifier_free import ClassifierFree
from tests.oracles import simulated_device as sim
from tests.score_sde.runs import call, untrained

pytestmark = [pytest.mark.xdist_group("prompts"), pytest.mark.usefixtures("unrendered")]

WORDS = ["red heart", "blue car", "car", "green leaf, red", "heart of blue", "leaf"]
STEPS = ["--sampler", "heun", "--steps", "2"]


def text_run(folder, *overrides, name="text", conditions="('text',)"):
    rng = np.random.default_rng(0)
    count, path = 240, folder / f"{name}.npz"
    captions = np.array([WORDS[i % len(WORDS)] for i in range(count)])
    held = {"x": rng.normal(size=(count, 2)), "captions": captions, "labels": np.arange(count) % 3}
    np.savez(path, **held)
    own = [f"--config.data.root={path}", f"--config.data.conditions={conditions}", *overrides]
    return untrained(folder / name, held["x"], None, *own)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on captions alone, whose classes are there to judge by."""
    return text_run(tmp_path_factory.mktemp("prompts"))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return text_run(tmp_path_factory.mktemp("both"), conditions="('labels','text')", name="both")


def sampled(capsys, run, out, *flags, count=4):
    status, _last, err = call(capsys, "--mode", "sample", "--workdir", run.folder, "--num_samples", count, *STEPS,
                             "--out", out, *flags)  # fmt: skip
    assert status == 0, err
    with np.load(f"{out}.npz") as arrays:
        return dict(arrays), err


def test_prompts_are_cycled_and_recorded(capsys, run, tmp_path):
    """A sample is that of its seed and its own prompt, whatever the others are asked for."""
    file = tmp_path / "prompts.txt"
    file.write_text("red heart\n\n  blue car \n", "utf-8-sig")
    mixed, _ = sampled(capsys, run, tmp_path / "mixed", "--prompt", file)
    assert mixed["prompts"].tolist() == ["red heart", "blue car"] * 2
    assert "sequence" not in mixed
    for row, prompt in enumerate(mixed["prompts"][:2].tolist()):
        alone, _ = sampled(capsys, run, tmp_path / f"{row}", "--prompt", prompt)
        assert alone["prompts"].tolist() == [prompt] * 4
        np.testing.assert_array_equal(alone["x"][row::2], mixed["x"][row::2])
        assert (alone["x"][1 - row] != mixed["x"][1 - row]).all()


def test_by_default_the_captions_of_held_out_items_are_prompts(capsys, run, tmp_path):
    found, _ = sampled(capsys, run, tmp_path / "default")
    held_out = run.data()[1].captions
    assert {*found["prompts"].tolist()} <= {*held_out}
    asked = tmp_path / "asked.txt"
    asked.write_text("\n".join(found["prompts"].tolist()))
    again, _ = sampled(capsys, run, tmp_path / "again", "--prompt", asked)
    np.testing.assert_array_equal(again["x"], found["x"])


def test_a_negative_prompt_stands_in_the_place_of_null(capsys, run, tmp_path):
    found, _ = sampled(capsys, run, tmp_path / "guided", "--prompt", "red heart", "--negative_prompt", "leaf",
                       "--guidance_scale", "3")  # fmt: skip
    model = load_model(run.model_file)
    told, other = (model.text([text] * 4) for text in ("red heart", "leaf"))
    guided = ClassifierFree(model, told, 3.0, negative=other)
    expected = generate(guided, Heun(), 4, (2,), steps=2, seed=0, batch_size=256)
    np.testing.assert_allclose(found["x"], expected.x, rtol=1e-5, atol=1e-5)
    usual, _ = sampled(capsys, run, tmp_path / "usual", "--prompt", "red heart", "--guidance_scale", "3")
    assert (found["x"] != usual["x"]).all()


def test_what_is_not_seen_of_a_prompt_is_named(capsys, run, tmp_path):
    prompt = "Zebra heart of red and blue"
    with pytest.warns(UserWarning, match="--prompt: ") as found:
        sampled(capsys, run, tmp_path / "odd", "--prompt", prompt)
    said = [str(warning.message) for warning in found]
    assert f"--prompt: the tokenizer does not know 'Z' in the prompt '{prompt}'" in said
    cut = "has 26 tokens, of which the model is told 15: 'ed and blue' is left out"
    assert f"--prompt: the prompt '{prompt}' {cut}" in said


def test_a_run_needs_neither_data_nor_files_of_tokens(capsys, run, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(run.folder, moved)
    (moved / "data.npz").unlink()
    config = json.loads((moved / "config.json").read_text())
    config["data"]["root"] = "nowhere.npz"
    (moved / "config.json").write_text(json.dumps(config))
    there = Run(moved, run.config, run.device)
    here, _ = sampled(capsys, run, tmp_path / "here", "--prompt", "car")
    found, _ = sampled(capsys, there, tmp_path / "there", "--prompt", "car")
    np.testing.assert_array_equal(found["x"], here["x"])


@pytest.mark.parametrize("flags", [
    ["edit", "--num_samples", "2", "--start_time", "0.5", *STEPS],
    ["encode", "--num_samples", "2", "--rtol", "1e-2", "--atol", "1e-2"],
    ["interpolate", "--items", "0,1", "--frames", "3", "--rtol", "1e-2", "--atol", "1e-2"],
    ["restore", "--num_samples", "2", "--samples_per_item", "1", "--method", "replacement", "--repaint_steps", "1",
     *STEPS],
    ["likelihood", "--num_samples", "2", "--rtol", "1e-2", "--atol", "1e-2"],
    ["pairs", "--num_samples", "3", *STEPS],
    ["visualize", "--num_samples", "4", "--plots", "trajectory", *STEPS],
    ["compare", "--num_samples", "16", "--samplers", "heun", "--nfe", "3"],
    ["evaluate", "--num_samples", "50", "--subsamples", "2", *STEPS],
], ids=lambda flags: flags[0])  # fmt: skip
def test_modes_take_prompts(capsys, run, tmp_path, flags):
    """And draw something else than for another prompt."""
    mode, *rest = flags
    results = []
    for place, prompt in enumerate(("red heart", "leaf")):
        out = [] if mode in ("evaluate", "compare") else ["--out", tmp_path / f"{place}"]
        if mode == "compare":
            out = ["--out", tmp_path / f"compare{place}"]
        status, last, err = call(capsys, "--mode", mode, "--workdir", run.folder, "--prompt", prompt, *rest, *out)
        assert status == 0, err
        assert last["settings"]["prompt"] == prompt
        results.append({k: v for k, v in last.items() if isinstance(v, float | list) and "seconds" not in k})
    files = [sorted(tmp_path.glob(f"{place}*.npz")) for place in (0, 1)]
    if files[0]:
        with np.load(files[0][0]) as first, np.load(files[1][0]) as second:
            numbers = [k for k in first.files if first[k].dtype.kind == "f" and first[k].shape == second[k].shape]
            assert any((first[k] != second[k]).any() for k in numbers)
    else:
        assert results[0] != results[1]


def test_a_prompt_beside_classes(capsys, both, tmp_path):
    """Without --labels the class is none; with it both are told."""
    none, _ = sampled(capsys, both, tmp_path / "none", "--prompt", "car")
    assert none["labels"].tolist() == [-1] * 4
    told, _ = sampled(capsys, both, tmp_path / "told", "--prompt", "car", "--labels", "1,2")
    assert told["labels"].tolist() == [1, 2, 1, 2]
    assert (told["x"] != none["x"]).all()
    model = load_model(both.model_file)
    cond = model.text(["car"] * 4) | {"labels": torch.tensor([1, 2, 1, 2])}
    expected = generate(ClassifierFree(model, cond, 1.0), Heun(), 4, (2,), steps=2, seed=0)
    np.testing.assert_allclose(told["x"], expected.x, rtol=1e-5, atol=1e-5)


def test_a_sweep_of_prompts_asks_for_classes(capsys, both):
    sweep = ["--mode", "guidance_sweep", "--workdir", both.folder, "--prompt", "car", "--num_samples", "40"]
    status, _, err = call(capsys, *sweep)
    assert status == 2, err
    assert "a sweep asks for classes" in err


@pytest.mark.parametrize(("flags", "sentence"), [
    (["--prompt", "none.txt"], "--prompt=none.txt does not exist"),
    (["--labels", "0"], "--labels=0: the model is told captions, and has no classes; give --prompt, or leave them"),
    (["--prompt", "red", "--negative_prompt", "no"], "--negative_prompt=no: with --guidance_scale=1 it does nothing"),
    (["--prompt", "{empty}"], "holds no prompt: it needs one in each line"),
    (["--prompt", "{latin}"], "is no text in UTF-8"),
    (["--prompt", "red", "--condition", "{npz}"], "both give vector: choose one"),
    (["--prompt", "red", "--labels", "1"], "labels"),
    (["--prompt", "red", "--guidance_scale", "2", "--negative_prompt", "blue", "--autoguidance", "a.safetensors"],
     "each takes the place of the unconditional branch: choose one"),
])  # fmt: skip
def test_bad_prompts_are_refused(capsys, run, tmp_path, flags, sentence):
    files = {name: tmp_path / f"{name}.txt" for name in ("empty", "latin")} | {"npz": tmp_path / "c.npz"}
    files["empty"].write_text("\n \n")
    files["latin"].write_bytes("café".encode("latin-1"))
    np.savez(files["npz"], vector=np.zeros((1, run.model().conditions["vector"][0])))
    flags = [flag.format(**files) for flag in flags]
    status, _, err = call(capsys, "--mode", "sample", "--workdir", run.folder, *flags)
    assert status == 2, err
    assert sentence in err
    assert err.count("\n") == 1


def test_likelihood_takes_one_prompt(capsys, run, tmp_path):
    file = tmp_path / "two.txt"
    file.write_text("red\nblue\n")
    status, _, err = call(capsys, "--mode", "likelihood", "--workdir", run.folder, "--prompt", file)
    assert status == 2
    assert "it is the condition of every item; got 2 prompts" in err


def test_a_model_without_text_refuses_a_prompt(capsys, tmp_path):
    rng = np.random.default_rng(0)
    plain = untrained(tmp_path / "plain", rng.normal(size=(40, 2)), np.arange(40) % 2)
    for flags in (["--prompt", "red"], ["--negative_prompt", "red", "--guidance_scale", "2"]):
        status, _, err = call(capsys, "--mode", "sample", "--workdir", plain.folder, *flags)
        assert status == 2, err
        assert f"{flags[0]}='red': the model is conditioned on labels, not on text; leave it out, or train one" in err


def test_a_long_prompt_is_no_name_of_a_file():
    assert read_prompts("--prompt", "a " * 5000) == ["a " * 5000]


@pytest.mark.skipif(not sim.available, reason="this torch has no interface for devices written in Python")
def test_prompts_on_a_device_are_those_of_the_cpu(capsys, run, tmp_path):
    flags = ["--prompt", "red heart", "--negative_prompt", "leaf", "--guidance_scale", "2"]
    here, _ = sampled(capsys, run, tmp_path / "here", *flags)
    with sim.without_float64():
        there, _ = sampled(capsys, run, tmp_path / "there", *flags, "--device", sim.NAME)
    np.testing.assert_allclose(there["x"], here["x"], rtol=1e-3, atol=1e-4)
    assert there["prompts"].tolist() == here["prompts"].tolist()


def train(capsys, folder, data, steps, *more):
    small = {
        "steps": steps,
        "lr_decay": "none",
        "batch_size": 8,
        "checkpoint_every": 2,
        "sample_every": 100,
        "log_every": 2,
        "warmup_steps": 1,
        "lr": 0.02,
    }
    return call(capsys, "--mode", "train", "--config", "points", "--workdir", folder, f"--config.data.root={data}",
                "--config.data.conditions=('text',)", "--config.model.network.width=16",
                "--config.model.network.layers=1", "--config.model.network.sequence_layers=1",
                *(f"--config.training.{key}={value}" for key, value in small.items()), *more)  # fmt: skip


def test_a_run_that_is_continued_equals_an_uninterrupted_one(capsys, tmp_path):
    data = tmp_path / "data.npz"
    x = np.random.default_rng(0).normal(size=(40, 2))
    np.savez(data, x=x, captions=[WORDS[i % 6] for i in range(40)])
    vectors = tmp_path / "vectors.npy"
    letters = len({*"".join(WORDS)})
    np.save(vectors, np.random.default_rng(1).normal(size=(letters, 3)))
    more = [f"--config.model.text.vectors={vectors}", "--config.model.text.max_tokens=9"]
    sentence = "of 6 captions: the caption 'green leaf, red' has 15 tokens, of which the model is told 9: 'f, red'"
    with pytest.warns(UserWarning, match=sentence):
        status, _, err = train(capsys, tmp_path / "whole", data, 4, *more)
    assert status == 0, err
    with pytest.warns(UserWarning, match=sentence):
        assert train(capsys, tmp_path / "parts", data, 2, *more)[0] == 0
    # The vectors are the run's own from now on.
    vectors.unlink()
    status, _, err = train(capsys, tmp_path / "parts", data, 4, *more)
    assert status == 0, err
    whole, parts = (load_model(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
    assert whole.text.table.shape == (letters, 3)
    assert "text.table" in whole.state_dict()
    assert read_description(tmp_path / "whole/model.safetensors")["spec"]["text"]["max_tokens"] == 9
    state = load_text(next((tmp_path / "whole/checkpoints").glob("denoiser-*")))
    assert torch.equal(state.table, whole.text.table)
    other, _, err = train(capsys, tmp_path / "parts", data, 6, more[0], "--config.model.text.max_tokens=5")
    assert other == 2
    assert "max_tokens" in err
