"""The command line as a user meets it: every mode and sampler from one small run."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from samplers import SCORE_SAMPLERS
from score_sde.cli import main
from score_sde.cli.modes import MODES
from sde.checkpoint.states import Checkpoints
from tests.score_sde.runs import SMALL, call

ROOT = Path(__file__).resolve().parents[2]


def test_run_folder(trained):
    names = {p.name for p in trained.iterdir()}
    assert {"config.json", "model.safetensors", "classifier.safetensors", "checkpoints", "metrics.jsonl", "curves.png",
            "samples"} <= names  # fmt: skip
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [10, 20, 30, 40, 50, 60]
    assert [line["step"] for line in lines if "held_out_loss" in line] == [30, 60]
    assert (trained / "samples" / "train-0000030.png").exists()
    assert torch.load(Checkpoints(trained / "checkpoints", "denoiser").paths()[0], weights_only=True)["step"] == 60


# The kind of guidance is no matter of the sampler.
@pytest.mark.parametrize(("name", "guidance"), [
    *((name, []) for name in SCORE_SAMPLERS), pytest.param("heun", ["--guidance_scale", 2], marks=pytest.mark.rendered),
    ("pc", ["--guidance_scale", 2]), ("ancestral", ["--guidance_scale", 0, "--classifier_scale", 1.5]),
])  # fmt: skip
def test_every_sampler(trained, tmp_path, capsys, name, guidance):
    status, result, _ = call(capsys, "--mode", "sample", "--workdir", trained, "--sampler", name, "--num_samples", 6,
                             "--labels", "0,1,1", "--out", tmp_path / "s", *guidance,
                             *([] if name == "ode" else ["--steps", 4]))  # fmt: skip
    assert status == 0
    assert result["sampler"] == name
    assert result["nfe"] >= 5
    with Image.open(tmp_path / "s.png") as image:
        image.load()
    numbers = np.load(tmp_path / "s.npz")
    assert numbers["x"].shape == (6, 2)
    assert np.isfinite(numbers["x"]).all()
    assert numbers["labels"].tolist() == [0, 1, 1, 0, 1, 1]
    assert len(set(numbers["seeds"].tolist())) == 6


def test_options_of_a_sampler(trained, tmp_path, capsys):
    def draw(*options):
        assert call(capsys, "--mode", "sample", "--workdir", trained, "--num_samples", 3, "--steps", 3, "--out",
                    tmp_path / "s", "--sampler", "pc", *options)[0] == 0  # fmt: skip
        return np.load(tmp_path / "s.npz")["x"]

    plain = draw()
    assert np.array_equal(plain, draw("--config.sampler.snr=0.16"))
    assert not np.allclose(plain, draw("--config.sampler.snr=0.3"))
    assert not np.allclose(plain, draw("--config.sampler.predictor=ddim"))
    assert not np.allclose(plain, draw("--grid", "karras"))
    assert not np.allclose(plain, draw("--seed", 1))


def test_likelihood(trained, capsys):
    base = ["--mode", "likelihood", "--workdir", trained, "--num_samples", 40]
    status, result, _ = call(capsys, *base)
    assert status == 0
    assert (result["density"], result["trace"], result["num_samples"]) == ("p(x)", "exact", 40)
    assert np.isfinite(result["nats"])
    assert result["stderr"] > 0
    assert "bits_per_dim" not in result, "continuous data have nats"
    assert call(capsys, *base, "--labels", "data")[1]["density"] == "p(x | y)"
    assert call(capsys, *base, "--probes", 3)[1]["trace"] == "3 probes"
    status, _, err = call(capsys, *base, "--guidance_scale", 2)
    assert status == 2
    assert "--unnormalized" in err
    guided = "--unnormalized", "--labels", "data"
    assert call(capsys, *base, "--guidance_scale", 2, *guided)[1]["density"] == "unnormalized"
    for options, words in ((guided, "nothing is guided"), (("--probes", 1), "probes = 1: needs"),
                           (("--dequantizations", 2), "--dequantizations = 2: these data are continuous"),
                           (("--ood_file", "x.npy", "--labels", "data"), "one set has p(x | y)")):  # fmt: skip
        status, _, err = call(capsys, *base, *options)
        assert status == 2
        assert words in err


def test_scores_and_another_dataset(trained, tmp_path, capsys):
    base = ["--mode", "likelihood", "--workdir", trained, "--num_samples", 30]
    far = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32) * 0.1 + 5
    np.savez(tmp_path / "far.npz", x=far)
    status, result, _ = call(capsys, *base, "--ood_file", tmp_path / "far.npz", "--out", tmp_path / "scores.npz")
    assert status == 0
    assert result["auroc"] > 0.99
    assert {"variational", "discrete", "bound_at_zero", "training", "stderr_parts", "tolerance_change"} <= result.keys()
    scores = np.load(tmp_path / "scores.npz")
    assert scores["nats"].mean() == pytest.approx(result["nats"])
    assert (scores["nats"].shape, scores["others"].shape) == ((30,), (20,))
    assert len(set(scores["index"].tolist())) == 30
    assert (scores["stderr"] == 0).all()
    for wrong, words in ((tmp_path / "none.npz", "does not exist"), (tmp_path / "flat.npy", "have shape (3,)")):
        np.save(tmp_path / "flat.npy", np.zeros((5, 3), np.float32))
        status, _, err = call(capsys, *base, "--ood_file", wrong)
        assert status == 2
        assert words in err


def test_bits_per_dimension_of_quantised_data(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 4, (400, 3)))
    run = ["--workdir", tmp_path / "run"]
    data = [f"--config.data.root={tmp_path / 'x.npy'}", "--config.data.num_levels=4"]
    assert call(capsys, "--mode", "train", "--config", "points", *run, *SMALL, *data)[0] == 0
    result = call(capsys, "--mode", "likelihood", *run)[1]
    assert result["num_samples"] == 40
    assert 1.5 < result["bits_per_dim"] < 4
    assert call(capsys, "--mode", "sample", *run, "--num_samples", 3)[1]["picture"].endswith(".png")
    result = call(capsys, "--mode", "encode", *run)[1]
    assert result["exact"] == 1
    numbers = np.load(result["numbers"])
    assert np.array_equal(numbers["x"], numbers["decoded"])
    assert not np.allclose(numbers["latent"], numbers["latent_dequantized"], atol=0.01)
    result = call(capsys, "--mode", "interpolate", *run, "--items", "0,1")[1]
    assert np.array_equal(np.load(result["numbers"])["x"], np.round(np.load(result["numbers"])["x"]))
    status, _, err = call(capsys, "--mode", "encode", *run, "--labels", "data")
    assert status == 2
    assert "unconditional" in err


@pytest.mark.rendered
def test_encode(trained, tmp_path, capsys):
    run = ["--mode", "encode", "--workdir", trained, "--out", tmp_path / "e.png"]
    status, result, _ = call(capsys, *run)
    assert status == 0
    assert (result["mode"], result["split"], result["num_samples"]) == ("encode", "test", 16)
    assert 0 < result["round_trip_error"] < 0.02
    assert "exact" not in result, "continuous data come back to the tolerance"
    assert abs(result["latent_mean"]) < 1
    assert 0.5 < result["latent_std"] < 2
    assert 0 <= result["latent_correlation"] <= 1
    numbers = np.load(tmp_path / "e.npz")
    assert numbers["x"].shape == numbers["latent"].shape == numbers["decoded"].shape == numbers["nfe"].shape
    assert np.abs(numbers["decoded"] - numbers["x"]).max() < 0.1
    assert numbers["nfe"].mean(0).tolist() == pytest.approx([result["nfe_encode"], result["nfe_decode"]], abs=0.06)
    assert (numbers["labels"] < 2).all()
    assert "conditions" not in numbers
    with Image.open(tmp_path / "e.png") as image:
        image.load()
    loose, tight = (call(capsys, *run, "--rtol", tol, "--atol", tol)[1]["round_trip_error"] for tol in (1e-3, 1e-6))
    assert tight < result["round_trip_error"] < loose
    assert tight < loose / 10
    parts = call(capsys, *run, "--batch_size", 5)[1]
    assert parts["round_trip_error"] == pytest.approx(result["round_trip_error"], rel=0.2)
    assert call(capsys, *run, "--labels", "data", "--guidance_scale", 2, "--split", "train")[0] == 0
    numbers = np.load(tmp_path / "e.npz")
    assert np.array_equal(numbers["conditions"], numbers["labels"])
    assert call(capsys, *run, "--labels", "1", "--classifier_scale", 1)[0] == 0
    assert (np.load(tmp_path / "e.npz")["conditions"] == 1).all()


@pytest.mark.rendered
def test_interpolate(trained, tmp_path, capsys):
    run = ["--mode", "interpolate", "--workdir", trained, "--out", tmp_path / "i", "--frames", 5]
    status, result, _ = call(capsys, *run, "--items", "3,17,5,8")
    assert status == 0
    assert result["items"] == [[3, 17], [5, 8]]
    assert result["end_error"] < 0.02
    numbers = np.load(tmp_path / "i.npz")
    assert numbers["x"].shape == numbers["latent"].shape == (2, 5, 2)
    assert numbers["nfe"].shape == (2, 5)
    assert numbers["weights"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    call(capsys, "--mode", "encode", "--workdir", trained, "--num_samples", 10**6, "--out", tmp_path / "all")
    items = np.load(tmp_path / "all.npz")["x"]
    assert np.abs(numbers["x"][:, [0, -1]] - items[[[3, 17], [5, 8]]]).max() < 0.05
    with Image.open(tmp_path / "i.png") as image:
        image.load()
    result = call(capsys, *run, "--items", "3,17", "--labels", "data")[1]
    assert result["conditions"] == np.load(tmp_path / "all.npz")["labels"][[3]].tolist()
    assert len(call(capsys, *run)[1]["items"]) == 3


def test_a_strip_between_seeds_ends_at_their_samples(trained, tmp_path, capsys):
    options = ["--workdir", trained, "--labels", "1", "--guidance_scale", "1.5"]
    assert call(capsys, "--mode", "sample", *options, "--sampler", "ode", "--num_samples", 6, "--out", tmp_path / "s",
                "--config.sampler.rtol=1e-4", "--config.sampler.atol=1e-4")[0] == 0  # fmt: skip
    status, result, _ = call(capsys, "--mode", "interpolate", *options, "--seed_pairs", "0,5", "--out", tmp_path / "i")
    assert status == 0
    assert (result["seeds"], result["frames"], result["conditions"]) == ([[0, 5]], 9, [1])
    numbers, samples = np.load(tmp_path / "i.npz"), np.load(tmp_path / "s.npz")
    np.testing.assert_allclose(numbers["x"][0, [0, -1]], samples["x"][[0, 5]], atol=1e-3)
    assert numbers["seeds"].tolist() == [[0, 5]]


def test_the_same_command_continues(trained, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    assert main.main(["--mode", "train", "--workdir", str(folder)]) == 0
    assert "already at step 60" in capsys.readouterr().out
    newest = Checkpoints(folder / "checkpoints", "denoiser").paths()[0]
    newest.write_bytes(newest.read_bytes()[:1000])
    assert main.main(["--mode", "train", "--workdir", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "is damaged" in out
    assert "at step 30" in out
    first, second = ((p / "metrics.jsonl").read_text().splitlines() for p in (trained, folder))
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in second) + '{"step": 6')
    shutil.rmtree(folder / "checkpoints")
    assert main.main(["--mode", "train", "--workdir", str(folder)]) == 0
    second = (folder / "metrics.jsonl").read_text().splitlines()
    losses = [[json.loads(x)["loss"] for x in lines if '"loss"' in x] for lines in (first, second)]
    assert losses[0] == losses[1]
    assert (trained / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("shape", "options"), [
    ((5,), ["--config", "points", "--config.model.network.width=16"]),
    ((3, 17), ["--config", "arrays"]), ((1, 14, 14), ["--config", "arrays"]), ((3, 13, 18), ["--config", "arrays"]),
    ((2, 5, 6, 7), ["--config", "arrays"]),
])  # fmt: skip
def test_every_shape_trains_samples_and_has_a_likelihood(tmp_path, capsys, shape, options):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(12, *shape)).astype(np.float32))
    small = ["--config.data.test_fraction=0.2", "--config.training.steps=2", "--config.training.batch_size=4"]
    if shape != (5,):
        small += ["--config.model.network.channels=8", "--config.model.network.channel_mult=(1,2)"]
    run = "--workdir", tmp_path / "run"
    assert call(capsys, "--mode", "train", *options, *run, f"--config.data.root={tmp_path}/x.npy", *small)[0] == 0
    status, result, _ = call(capsys, "--mode", "sample", *run, "--num_samples", 2, "--steps", 2)
    assert status == 0
    assert np.load(result["numbers"])["x"].shape == (2, *shape)
    status, result, _ = call(capsys, "--mode", "likelihood", *run, "--num_samples", 2, "--probes", 2, "--rtol", 0.1,
                             "--atol", 0.1)  # fmt: skip
    assert status == 0
    assert np.isfinite(result["nats"])


def test_not_finite_is_never_a_picture(trained, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    status, _, err = call(capsys, "--mode", "train", "--config", "points", "--workdir", tmp_path / "nan", *SMALL,
                          "--config.training.lr=1e30", "--config.training.max_grad_norm=0")  # fmt: skip
    assert status == 2
    assert "10 of the last 100 steps were skipped" in err
    assert not (tmp_path / "nan" / "model.safetensors").exists()
    from safetensors.torch import load_file

    from sde.checkpoint.models import load_model, save_model
    from tests.sde.small_training import SPEC

    state = load_file(folder / "model.safetensors")
    spec = json.loads(open_metadata(folder / "model.safetensors")["score_sde"])["spec"]
    assert SPEC.keys() | {"class_counts"} == spec.keys()
    state["network.head.bias"][:] = float("nan")
    save_model(folder / "model.safetensors", "denoiser", spec, state)
    assert load_model(folder / "model.safetensors")
    status, _, err = call(capsys, "--mode", "sample", "--workdir", folder, "--out", tmp_path / "bad")
    assert status == 2
    assert "became non-finite in step 1 of" in err
    assert not list(tmp_path.glob("bad*"))


def open_metadata(path):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata()


def test_help(capsys):
    assert main.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(mode in out for mode in MODES)
    assert "--guidance_scale" in out
    assert main.main(["--mode", "evaluate", "--help"]) == 0
    out = capsys.readouterr().out
    assert "how many samples or items [default 1000]" in out
    assert "--frames" not in out
    assert main.main(["--help", "--mode", "evalute"]) == 2
    assert "did you mean evaluate?" in capsys.readouterr().err


def test_a_reader_who_stops_early():
    """As in ``--help | head``."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, str(ROOT / "main.py"), "--help"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_warning_is_a_sentence(monkeypatch):
    """Without the line of code that it came from."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    assert main.main(["--help"]) == 0
    assert warnings.formatwarning(UserWarning("it is late"), UserWarning, "late.py", 3) == "warning: it is late\n"
