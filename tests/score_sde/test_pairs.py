"""--mode pairs: what a run makes of noises, the training on it, and a sentence for every mistake."""

import numpy as np
import pytest
import torch

from samplers import GRIDS, SAMPLERS, SeededNoise, generate, sample
from samplers.noise.seeded import sample_seeds
from sde.checkpoint.models import load_model
from sde.guidance import ClassifierFree
from sde.training.loss import denoising_loss
from tests.score_sde.runs import call, untrained

LEVELS = 16


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Of quantized pictures of two classes, on the straight path."""
    x = np.random.default_rng(0).integers(0, LEVELS, (40, 1, 4, 4))
    return untrained(
        tmp_path_factory.mktemp("runs") / "run", x, np.arange(40) % 2, f"--config.data.num_levels={LEVELS}",
        "--config.sde.name=flow", "--config.model.network.channel_mult=(1,)",
    )  # fmt: skip


def pairs(capsys, run, out, *flags):
    status, result, error = call(
        capsys, "--mode", "pairs", "--workdir", run.folder, "--out", out, "--sampler", "heun", "--steps", 3, *flags
    )
    assert status == 0, error
    return dict(np.load(f"{out}.npz")), result


def test_pairs_are_the_library(run, tmp_path, capsys):
    """The noise is that of the seeds; the sampler takes it to x, of which --mode sample shows the integer part."""
    flags = ["--num_samples", 5, "--labels", "1,0", "--guidance_scale", 2, "--seed", 3, "--batch_size", 2]
    held, result = pairs(capsys, run, tmp_path / "p", *flags)
    assert result["num_samples"] == 5
    model = ClassifierFree(load_model(run.model_file), torch.tensor([1, 0, 1, 0, 1]), 2.0)
    noise = SeededNoise(sample_seeds(3, 5))(torch.empty(5, 1, 4, 4))
    np.testing.assert_array_equal(held["noise"], noise)
    times = GRIDS["karras"](model.sde, 3)
    with torch.no_grad():
        state = sample(model.eval(), SAMPLERS["heun"](), noise, times)
    np.testing.assert_allclose(held["x"], model.transform.decode(state), atol=1e-4)
    np.testing.assert_array_equal(held["labels"], [1, 0, 1, 0, 1])
    drawn = generate(model, SAMPLERS["heun"](), 5, (1, 4, 4), steps=3, seed=3)
    np.testing.assert_array_equal(np.floor(held["x"]).clip(0, LEVELS - 1), drawn.x)
    np.testing.assert_array_equal(held["seeds"], drawn.seeds)
    np.testing.assert_array_equal(held["nfe"], drawn.nfe)


def test_noise_is_of_unit_variance_on_every_process(tmp_path, capsys):
    """In model units, whatever sigma the process ends with."""
    ve = untrained(tmp_path / "run", np.random.default_rng(0).normal(size=(40, 2)), None, "--config.sde.name=ve")
    held, _ = pairs(capsys, ve, tmp_path / "p", "--num_samples", 6)
    noise = SeededNoise(sample_seeds(0, 6))(torch.empty(6, 2))
    np.testing.assert_array_equal(held["noise"], noise)
    assert held["levels"] == 0
    model = load_model(ve.model_file)
    drawn = generate(model, SAMPLERS["heun"](), 6, (2,), steps=3)
    np.testing.assert_allclose(held["x"], drawn.x, rtol=1e-4, atol=1e-4)


def test_training_on_pairs(run, tmp_path, capsys, monkeypatch):
    """From the teacher's weights: the items are the pairs, the held-out part and the transform stay the run's own, and
    the same command goes on."""
    held, _ = pairs(capsys, run, tmp_path / "p", "--num_samples", 64)
    fed = []

    def seen(module, x0, cond, draws, **options):
        fed.append((x0, draws.z))
        return denoising_loss(module, x0, cond, draws, **options)

    monkeypatch.setattr("score_sde.modes.train.denoising_loss", seen)
    command = ["--mode", "train", "--init", run.folder, "--workdir", tmp_path / "reflow",
               "--config.training.batch_size=16",
               f"--config.data.pairs={tmp_path / 'p.npz'}", "--config.training.sample_every=9"]  # fmt: skip
    for steps in (2, 4):
        status, result, error = call(capsys, *command, f"--config.training.steps={steps}")
        assert (status, result and result["steps"]) == (0, steps), error
    model = load_model(tmp_path / "reflow" / "model.safetensors")
    for x0, z in fed:
        rows = [int(np.abs(held["noise"] - one.numpy()).sum((1, 2, 3)).argmin()) for one in z]
        torch.testing.assert_close(z, torch.from_numpy(held["noise"][rows]))
        torch.testing.assert_close(x0, model.transform.encode(torch.from_numpy(held["x"][rows])))
    assert model.transform.digest == load_model(run.model_file).transform.digest
    status, result, error = call(capsys, "--mode", "sample", "--workdir", tmp_path / "reflow", "--num_samples", 2,
                                 "--sampler", "euler", "--steps", 1)  # fmt: skip
    assert status == 0, error


@pytest.mark.parametrize(("flags", "words"), [
    (["--sampler", "ancestral"], "--sampler=ancestral draws noise on its way, here with its options and grid"),
    (["--sampler", "ddim", "--config.sampler.eta=0.5"], "--sampler=ddim draws noise"),
    (["--sampler", "heun", "--config.sampler.churn=1", "--config.sampler.churn_max=0.1"], "--sampler=heun draws noise"),
    (["--sampler", "reverse_sde"], "take a deterministic one, as heun"),
    (["--grid", "0.5,0.1"], "--grid: it starts at t = 0.5"),
    (["--noise", "brownian"], "--noise"),
    (["--out", "p.png"], "--out=p.png: --mode pairs writes .npz"),
])  # fmt: skip
def test_what_pairs_refuses(run, tmp_path, capsys, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    status, _, error = call(capsys, "--mode", "pairs", "--workdir", run.folder, "--num_samples", 2, *flags)
    assert (status, words in error) == (2, True), error
    assert not [*tmp_path.iterdir()]
    assert not (run.folder / "pairs").exists()


GOOD = {"x": np.full((3, 1, 4, 4), 2.5), "noise": np.zeros((3, 1, 4, 4)), "labels": [0, 1, 0], "levels": LEVELS}


@pytest.mark.parametrize(("change", "words"), [
    ({"noise": None}, "it has no array `noise`: needs noises and their samples, as --mode pairs writes them"),
    ({"x": np.ones((3, 1, 8, 8)), "noise": np.zeros((3, 1, 8, 8))}, "its samples have shape (1, 8, 8), the data ("),
    ({"noise": np.zeros((2, 1, 4, 4))}, "its noise has shape (2, 1, 4, 4): needs (3, 1, 4, 4), a row per sample"),
    ({"noise": np.full((3, 1, 4, 4), np.nan)}, "its noise is not finite"),
    ({"x": np.full((3, 1, 4, 4), np.inf)}, "p.npz"),
    ({"levels": 256}, "its samples are with 256 levels, the data with 16 levels: these are pairs of"),
    ({"noise": np.full((3, 1, 4, 4), "0")}, "its noise has type <U1: needs numbers"),
    ({"levels": [16, 16]}, "its levels have type int64 and shape (2,): needs one whole number, 0 for continuous"),
    ({"levels": 16.5}, "its levels have type float64 and shape (): needs one whole number"),
    ({"levels": 0}, "its samples are continuous, the data with 16 levels"),
    ({"labels": None}, "it has no labels, and the model is told of 2 classes: draw pairs of a run"),
    ({"labels": [0, 1, 2]}, "2"),
    ({"sizes": [4, 4, 3]}, "its samples are of unequal size, the data of one size"),
])  # fmt: skip
def test_what_training_refuses(run, tmp_path, capsys, change, words):
    np.savez(tmp_path / "p.npz", **{name: np.asarray(x) for name, x in (GOOD | change).items() if x is not None})
    status, _, error = call(
        capsys, "--mode", "train", "--init", run.folder, "--workdir", tmp_path / "new",
        f"--config.data.pairs={tmp_path / 'p.npz'}",
    )  # fmt: skip
    assert status == 2, error
    assert words in error, error
    assert f"config.data.pairs={tmp_path / 'p.npz'}: " in error, error


@pytest.mark.parametrize(("value", "more", "words"), [
    ("nowhere.npz", [], "config.data.pairs = nowhere.npz does not exist"),
    ("{data}", ["--config.training.augmentation=flip"], "config.training.augmentation = 'flip': it changes the sample"),
    ("{model}", [], "is not a readable .npy, .npz or .csv file"),
])  # fmt: skip
def test_files_that_are_no_pairs(run, tmp_path, capsys, value, more, words):
    path = value.format(data=run.folder / "data.npz", model=run.model_file)
    status, _, error = call(
        capsys,
        "--mode",
        "train",
        "--init",
        run.folder,
        "--workdir",
        tmp_path / "new",
        f"--config.data.pairs={path}",
        *more,
    )
    assert (status, words in error) == (2, True), error
