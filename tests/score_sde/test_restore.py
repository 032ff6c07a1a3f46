"""--mode restore: it does what the library does, says so in numbers that are right, and has a sentence for mistakes."""

import math
import warnings
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from samplers import SAMPLERS, generate
from samplers.noise.seeded import SeededNoise, sample_seeds
from samplers.repaint import RePaint
from score_sde.kinds import KINDS
from score_sde.restoration.masks import read_mask
from score_sde.restoration.tasks import visible
from sde.checkpoint.models import load_model
from sde.guidance.classifier_free import ClassifierFree
from sde.inverse.operators import Blur, CompressedSensing, Grayscale, Mask, SuperResolution
from sde.inverse.posterior import DPS, MMPS, PiGDM, Replacement
from tests.score_sde.runs import call, untrained, with_rendering

# Random weights in few steps restore nothing; the tests of the warnings ask for them by pytest.warns.
pytestmark = pytest.mark.filterwarnings("ignore:the samples (miss|leave)", "ignore:above sigma/alpha")

SHAPE = (3, 8, 8)
UPPER = Mask(torch.arange(8)[:, None].expand(8, 8) < 4, SHAPE)
OPERATORS = {
    "inpaint": (UPPER, ["--mask", "upper"]),
    "superres": (SuperResolution(2), []),
    "deblur": (Blur.gaussian(0.8), ["--blur_std", 0.8]),
    "colorize": (Grayscale(), []),
    "sensing": (CompressedSensing(SHAPE, 20), []),
}
METHODS = {"mmps": MMPS, "pigdm": PiGDM, "dps": partial(DPS, gamma=0.3), "replacement": Replacement}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Continuous images (3, 8, 8) in two classes."""
    x = np.random.default_rng(0).normal(2, 5, (40, *SHAPE)).astype(np.float32)
    return untrained(tmp_path_factory.mktemp("runs") / "photos", x, np.arange(40) % 2)


@pytest.fixture(scope="module")
def levels(tmp_path_factory):
    """Gray images of 16 levels."""
    x = np.random.default_rng(1).integers(0, 16, (40, 1, 8, 8))
    return untrained(tmp_path_factory.mktemp("runs") / "levels", x, None, "--config.data.num_levels=16")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    x = np.random.default_rng(2).normal(size=(40, 2)).astype(np.float32)
    return untrained(tmp_path_factory.mktemp("runs") / "vectors", x)


def restore(capsys, run, out, *flags, steps=3):
    start = ["--mode", "restore", "--workdir", run.folder, "--out", out, "--steps", steps, "--sampler", "ddim",
             "--method", "mmps", "--repaint_steps", 1]  # fmt: skip
    status, result, error = call(capsys, *start, *flags)
    assert status == 0, error
    return dict(np.load(f"{out}.npz")), result


def truth(run, items):
    _, held_out = run.data()
    return held_out.batch(torch.tensor(items))[0]


@pytest.mark.rendered
@pytest.mark.parametrize("task", OPERATORS)
def test_restore_is_the_library(photos, tmp_path, capsys, task):
    operator, flags = OPERATORS[task]
    flags = ["--task", task, "--items", "4,1", "--samples_per_item", 3, "--seed", 5, *flags]
    numbers, result = restore(capsys, photos, tmp_path / "r", *flags)
    x = truth(photos, [4, 1])
    np.testing.assert_array_equal(numbers["x"], x)
    np.testing.assert_allclose(numbers["y"], operator(x), rtol=1e-6, atol=1e-6)
    each = numbers["y"].repeat(3, 0)
    model = MMPS(load_model(photos.model_file), operator, torch.from_numpy(each))
    expected = generate(model, SAMPLERS["ddim"](), 6, SHAPE, steps=3, seed=5).x
    if task == "inpaint":
        expected = operator.restore(expected, torch.from_numpy(each))
        assert (numbers["samples"][:, :, :, :4] == numbers["x"][:, None, :, :4]).all(), "observed entries are exact"
        assert result["observed"] == 0.5
        assert np.array_equal(numbers["mask"], UPPER.mask)
    np.testing.assert_allclose(numbers["samples"].reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)
    error = (operator(expected) - torch.from_numpy(each)).square().mean().sqrt().item()
    assert result["measurement_error"] == pytest.approx(error, rel=1e-3, abs=1e-6)
    data = np.load(photos.folder / "data.npz")["x"]
    held_out = [part.statistics for part in photos.data()][1]
    assert data.min() <= held_out.low
    peak = held_out.high - held_out.low
    hidden = ~numbers["mask"] if task == "inpaint" else np.ones(SHAPE, bool)
    for name, found in (("psnr", numbers["samples"]), ("psnr_mean", numbers["samples"].mean(1, keepdims=True))):
        square = ((found - numbers["x"][:, None])[:, :, hidden] ** 2).mean()
        assert result[name] == pytest.approx(10 * math.log10(peak**2 / square), abs=1e-3)
    assert result["nfe"] == 4
    assert numbers["seeds"].tolist() == [[(5 << 32) + i for i in row] for row in ((0, 1, 2), (3, 4, 5))]
    assert numbers["index"].tolist() == [4, 1]
    assert np.abs(numbers["samples"][:, 0] - numbers["samples"][:, 1]).max() > 0.1, "draws differ"
    with Image.open(result["picture"]) as image:
        assert image.width > image.height


@pytest.mark.parametrize("method", METHODS)
def test_methods_and_batches(photos, tmp_path, capsys, method):
    """--method is the library's, and each sample is the same alone as among others."""
    flags = ["--method", method, "--mask", "random:0.4", "--samples_per_item", 2, "--num_samples", 4, "--seed", 3,
             "--sampler", "ancestral", "--repaint_steps", 3]  # fmt: skip
    (one, _), (many, _) = (restore(capsys, photos, tmp_path / "r", *flags, "--batch_size", size) for size in (1, 8))
    np.testing.assert_allclose(one["samples"], many["samples"], rtol=1e-3, atol=1e-3)
    mask = Mask(torch.from_numpy(many["mask"]), SHAPE)
    assert mask.mask.sum() == 3 * round(0.4 * 64)
    assert len(mask.mask.unique(dim=0)) == 1, "the same in every channel"
    y = torch.from_numpy(many["y"]).repeat_interleave(2, 0)
    sampler = RePaint(SAMPLERS["ancestral"](), 3)
    model = METHODS[method](load_model(photos.model_file), mask, y)
    expected = mask.restore(generate(model, sampler, 8, SHAPE, steps=3, seed=3).x, y)
    np.testing.assert_allclose(many["samples"].reshape(expected.shape), expected, rtol=1e-3, atol=1e-3)


def test_auto_and_resamplings(photos, tmp_path, capsys):
    flags = ["--items", "0", "--samples_per_item", 2, "--method"]
    auto, result = restore(capsys, photos, tmp_path / "r", *flags, "auto", "--repaint_steps", 4)
    assert (result["method"], result["iterations"], result["nfe"]) == ("mmps", 8, 4 * 3 + 1)
    named, _ = restore(capsys, photos, tmp_path / "r", *flags, result["method"], "--repaint_steps", 4)
    assert np.array_equal(auto["samples"], named["samples"])
    start = ["--mode", "restore", "--workdir", photos.folder, "--out", tmp_path / "d", *flags[:-1]]
    once, _ = restore(capsys, photos, tmp_path / "r", *flags, "mmps")
    status, result, error = call(capsys, *start, "--sampler", "ddim", "--steps", 3)
    assert status == 0, error
    assert np.array_equal(np.load(tmp_path / "d.npz")["samples"], once["samples"]), "these are the defaults"
    for method, repeats in (("auto", 1), ("replacement", 4)):
        status, result, error = call(capsys, *start, "--grid", "1,0.5,0.001", "--method", method)
        assert (status, result["nfe"], result["repaint_steps"]) == (0, 2 * repeats + 1, repeats)


def test_the_sampler_is_sa_solver_unless_the_command_says_otherwise(photos, tmp_path, capsys):
    """The run's own is heun."""
    for flags, name, nfe in (
        ([], "sa_solver", 3), (["--sampler", "heun"], "heun", 5), (["--config.sampler.name=ddim"], "ddim", 3),
        (["--sampler", "ancestral", "--config.sampler.variance=beta"], "ancestral", 3),
    ):  # fmt: skip
        status, result, error = call(capsys, "--mode", "restore", "--workdir", photos.folder, "--out", tmp_path / "r",
                                     "--items", 0, "--samples_per_item", 1, "--steps", 2, "--repaint_steps", 1,
                                     *flags)  # fmt: skip
        assert status == 0, error
        assert (result["sampler"], result["nfe"]) == (name, nfe)


def test_labels_and_guidance(photos, tmp_path, capsys):
    flags = ["--items", "0,1", "--samples_per_item", 1, "--mask", "upper"]
    numbers, _ = restore(capsys, photos, tmp_path / "r", *flags, "--labels", "1", "--guidance_scale", 2)
    y, labels = UPPER(truth(photos, [0, 1])), torch.tensor([1, 1])
    model = MMPS(ClassifierFree(load_model(photos.model_file), labels, 2.0), UPPER, y)
    expected = UPPER.restore(generate(model, SAMPLERS["ddim"](), 2, SHAPE, steps=3).x, y)
    np.testing.assert_allclose(numbers["samples"][:, 0], expected, rtol=1e-4, atol=1e-4)
    assert numbers["conditions"].tolist() == [1, 1]
    own, _ = restore(capsys, photos, tmp_path / "r", *flags, "--labels", "data")
    assert np.array_equal(own["conditions"], own["labels"])


def test_noise_is_that_of_the_item_and_of_no_sample(photos, tmp_path, capsys):
    flags = ["--task", "superres", "--sigma_y", 0.5, "--samples_per_item", 1]
    numbers, result = restore(capsys, photos, tmp_path / "r", *flags, steps=1)
    noise = numbers["y"] - SuperResolution(2)(torch.from_numpy(numbers["x"])).numpy()
    count = noise.size
    assert abs(noise.mean()) < 4 * 0.5 / count**0.5
    assert noise.std() == pytest.approx(0.5, rel=4 / (2 * count) ** 0.5)
    assert np.abs(noise[0] - noise[1]).min() > 0
    drawn = SeededNoise([sample_seeds(0, 1)[0]])(torch.zeros(1, *noise.shape[1:]))[0]
    assert np.abs(noise[0] - 0.5 * drawn.numpy()).max() > 0.1, "not that of the first sample"
    residual = SuperResolution(2)(torch.from_numpy(numbers["samples"][:, 0])).numpy() - numbers["y"]
    assert result["measurement_error"] == pytest.approx((residual**2).mean() ** 0.5, rel=1e-4), "in data units"
    first, _ = restore(capsys, photos, tmp_path / "s", *flags, "--num_samples", 1, steps=1)
    np.testing.assert_allclose(first["y"], numbers["y"][:1], rtol=1e-6)
    other, _ = restore(capsys, photos, tmp_path / "s", *flags, "--seed", 1, steps=1)
    assert np.abs(other["y"] - numbers["y"]).min() > 0
    plain, _ = restore(capsys, photos, tmp_path / "s", "--task", "superres", "--samples_per_item", 1, steps=1)
    assert np.abs(plain["samples"] - numbers["samples"]).max() > 1e-3, "sigma_y reaches the posterior"


def test_samples_that_miss_what_was_measured_are_told_of(photos, tmp_path, capsys):
    flags = ["--task", "superres", "--items", "0", "--samples_per_item", 1]
    with pytest.warns(UserWarning, match="the samples miss what was measured by .*: take more --steps"):
        restore(capsys, photos, tmp_path / "r", *flags, "--method", "dps", steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        restore(capsys, photos, tmp_path / "r", *flags, "--method", "mmps", steps=5)
    flags = ["--items", "0", "--samples_per_item", 1, "--method", "dps"]
    with pytest.warns(UserWarning, match=r"\(rms, data units\), before it was put back: take more --steps"):
        restore(capsys, photos, tmp_path / "r", *flags, "--mask", "upper", steps=1)
    with pytest.warns(UserWarning, match="the samples miss"):
        restore(capsys, photos, tmp_path / "r", *flags, "--task", "sensing", "--num_measurements", 1, steps=1)


def test_files_of_ones_own(photos, levels, tmp_path, capsys):
    """The same items and measurements from files: the same samples."""
    flags = ["--mask", "upper", "--samples_per_item", 2]
    numbers, of_split = restore(capsys, photos, tmp_path / "r", *flags, "--items", "4,1")
    np.save(tmp_path / "items.npy", numbers["x"])
    again, result = restore(capsys, photos, tmp_path / "f", *flags, "--input", tmp_path / "items.npy")
    assert np.array_equal(again["samples"], numbers["samples"])
    assert result["psnr"] == of_split["psnr"]
    holes = numbers["x"].copy()
    for hidden in (-99, np.nan, np.inf):
        holes[:, :, 4:] = hidden
        np.savez(tmp_path / "holes.npz", x=holes)
        again, result = restore(capsys, photos, tmp_path / "f", *flags, "--measurements_file", tmp_path / "holes.npz")
        assert np.array_equal(again["samples"], numbers["samples"]), "what is hidden does not matter"
    holes[1, 2, 0, 0] = np.nan
    np.save(tmp_path / "holes.npy", holes)
    bad = ["--workdir", photos.folder, "--mask", "upper", "--measurements_file", tmp_path / "holes.npy"]
    status, _, error = call(capsys, "--mode", "restore", *bad)
    assert status == 2
    assert "1 of 2 items contain NaN or infinity (first: 1)" in error
    assert "psnr" not in result
    assert "x" not in again
    for task in ("superres", "colorize", "deblur", "sensing"):
        numbers, _ = restore(capsys, photos, tmp_path / "r", "--task", task, "--items", "2", "--samples_per_item", 1)
        np.save(tmp_path / "y.npy", numbers["y"])
        flags = ["--task", task, "--samples_per_item", 1, "--measurements_file", tmp_path / "y.npy"]
        again, _ = restore(capsys, photos, tmp_path / "f", *flags)
        assert np.array_equal(again["samples"], numbers["samples"]), task
    # Pictures, of quantized data: white is the highest level.
    x = truth(levels, [3])
    Image.fromarray((x[0, 0] * 17).byte().numpy()).save(tmp_path / "item.png")
    numbers, _ = restore(capsys, levels, tmp_path / "r", "--items", "3", "--samples_per_item", 1)
    again, _ = restore(capsys, levels, tmp_path / "f", "--samples_per_item", 1, "--input", tmp_path / "item.png")
    np.testing.assert_array_equal(again["x"], numbers["x"])
    np.testing.assert_array_equal(again["samples"], numbers["samples"])
    assert np.array_equal(again["samples"], again["samples"].round()), "quantized"
    small = SuperResolution(2)(x * 17)[0, 0].round().byte()
    Image.fromarray(small.numpy()).save(tmp_path / "small.png")
    flags = ["--task", "superres", "--samples_per_item", 1, "--measurements_file", tmp_path / "small.png"]
    again, _ = restore(capsys, levels, tmp_path / "f", *flags)
    np.testing.assert_allclose(again["y"][0, 0], small / 17, rtol=1e-6)


def test_masks(tmp_path):
    index = torch.arange(6)
    for word, expected in (
        ("upper", (index < 3)[:, None]), ("lower", (index >= 3)[:, None]), ("left", index < 3), ("right", index >= 3),
        ("box", ~((index[:, None] % 5 > 0) & (index % 5 > 0))),
    ):  # fmt: skip
        found = read_mask(word, (2, 6, 6), 0).mask
        assert torch.equal(found, expected.expand(2, 6, 6)), word
    assert read_mask("left", (7,), 0).mask.tolist() == [True] * 4 + [False] * 3
    assert read_mask("right", (3, 7), 0).mask[2].tolist() == [False] * 4 + [True] * 3
    several = [read_mask("random:0.3", (4, 10), seed).mask for seed in (0, 0, 1)]
    assert torch.equal(several[0], several[1])
    assert not torch.equal(several[0], several[2])
    own = np.random.default_rng(0).random((2, 6, 6)) < 0.5
    np.save(tmp_path / "m.npy", own)
    np.savez(tmp_path / "m.npz", mask=own, x=np.zeros(3))
    for name in ("m.npy", "m.npz"):
        assert np.array_equal(read_mask(str(tmp_path / name), (2, 6, 6), 0).mask, own)
    for mode in ("L", "RGB", "1"):
        Image.fromarray(own[0]).convert(mode).save(tmp_path / "m.png")
        found = read_mask(str(tmp_path / "m.png"), (2, 6, 6), 0).mask
        assert np.array_equal(found[0], own[0])
        assert np.array_equal(found[1], own[0])


def test_what_a_picture_shows_of_a_measurement(photos, tmp_path, capsys):
    x = truth(photos, [0, 1])
    found = visible(UPPER, UPPER(x), KINDS["image"])
    assert torch.equal(found[:, :, :4], x[:, :, :4])
    assert found[:, :, 4:].isnan().all()
    assert visible(SuperResolution(2), SuperResolution(2)(x), KINDS["image"]).shape == (2, 3, 4, 4)
    assert visible(OPERATORS["sensing"][0], torch.zeros(2, 20), KINDS["image"]) is None
    # Noise is not put into the samples, as what is exact is.
    numbers, _ = restore(capsys, photos, tmp_path / "r", "--items", "0", "--mask", "upper", "--sigma_y", 0.5)
    assert np.abs(UPPER(torch.from_numpy(numbers["samples"][0])).numpy() - numbers["y"]).max() > 1e-3


def test_a_mask_an_item(photos, tmp_path, capsys):
    """Masks with other numbers of observed entries: each item as with its mask alone."""
    masks = np.random.default_rng(4).random((2, *SHAPE)) < np.array([0.3, 0.7]).reshape(2, 1, 1, 1)
    np.save(tmp_path / "m.npy", masks)
    numbers, result = restore(capsys, photos, tmp_path / "r", "--items", "3,5", "--mask", tmp_path / "m.npy")
    np.save(tmp_path / "y.npy", np.where(masks, numbers["x"], np.nan))
    flags = ["--mask", tmp_path / "m.npy", "--measurements_file", tmp_path / "y.npy"]
    assert np.array_equal(restore(capsys, photos, tmp_path / "h", *flags)[0]["samples"], numbers["samples"])
    assert result["observed"] == pytest.approx(masks.mean())
    x = truth(photos, [3, 5])
    for i in range(2):
        assert (numbers["samples"][i, :, masks[i]] == x[i].numpy()[masks[i]][:, None]).all()
    alone = Mask(torch.from_numpy(masks[1]), SHAPE)
    model = MMPS(load_model(photos.model_file), alone, alone(x[1:]))
    expected = generate(model, SAMPLERS["ddim"](), 4, SHAPE, steps=3, first=4).x
    expected = alone.restore(expected, alone(x[1:]))
    np.testing.assert_allclose(numbers["samples"][1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(2,), (5,), (2, 12), (1, 4, 6, 8)], ids=str)
def test_every_shape(tmp_path, capsys, shape):
    x = np.random.default_rng(0).normal(size=(12, *shape)).astype(np.float32)
    run = untrained(tmp_path / "run", x)
    flags = (
        ["--task", "sensing", "--num_measurements", 2],
        ["--mask", "right"],
        ["--mask", "random:0.5", "--sigma_y", 0.1],
    )
    more = [["--task", "superres"], ["--task", "deblur"]] if len(shape) > 1 else []
    for number, each in enumerate((*flags, *more)):
        with nullcontext() if number else with_rendering():
            numbers, result = restore(capsys, run, tmp_path / "r", "--num_samples", 3, "--samples_per_item", 2, *each)
        assert numbers["samples"].shape == (3, 2, *shape)
        with Image.open(result["picture"]) as image:
            image.load()


P, V = "photos", "vectors"
MISTAKES = [
    (P, ["--task", "denoise"], "--task = 'denoise': needs one of inpaint, superres, deblur, colorize, sensing"),
    (P, ["--method", "mmp"], "did you mean mmps"),
    (P, ["--method", "replacement", "--task", "superres"], "and --task=superres has no mask"),
    (P, ["--method", "replacement", "--sigma_y", "0.1"], "takes what was observed as exact, and --sigma_y=0.1"),
    (P, ["--sigma_y", "-0.1"], "--sigma_y=-0.1: needs the standard deviation of the noise in data units, at least 0"),
    (P, ["--sigma_y", "nan"], "--sigma_y=nan"),
    (P, ["--task", "superres", "--factor", "3"], "--factor=3: an event of shape (3, 8, 8) has no blocks of factor 3"),
    (P, ["--task", "superres", "--mask", "upper"], "--mask=upper is for --task=inpaint: --task=superres"),
    (P, ["--factor", "2"], "--factor=2 is for --task=superres: --task=inpaint would ignore it"),
    (P, ["--task", "superres", "--factor", "0"], "factor"),
    (P, ["--task", "deblur", "--blur_std", "0"], "--blur_std=0.0: std = 0.0: needs a positive width"),
    (P, ["--task", "sensing", "--num_measurements", "0"], "measurements"),
    ("levels", ["--task", "colorize"], "items of shape (1, 8, 8) have one channel"),
    (V, ["--task", "deblur"], "is for signals, images and volumes (channels, ...), and here are items of shape (2,)"),
    (V, ["--task", "superres"], "items of shape (2,)"),
    (V, ["--task", "colorize"], "items of shape (2,)"),
    (V, ["--mask", "upper"], "--mask=upper: the items have the axes (2,), and no rows"),
    (P, ["--mask", "uper"], "--mask=uper: there is no such file, and no such word: needs upper, lower"),
    (P, ["--mask", "nowhere.png"], "--mask=nowhere.png: there is no such file"),
    (P, ["--mask", "random:2"], "the share that is observed, above 0 and below 1"),
    (P, ["--mask", "random"], "random:SHARE"),
    (P, ["--mask", "random:1e-9", "--sigma_y", "0.1", "--items", "99"], "99 is out of range, allowed are 0 to 9"),
    (P, ["--mask", "float.npy"], "--mask=float.npy: it holds float64: needs booleans, True where x is observed"),
    (P, ["--mask", "small.npy"], "mask has shape (7, 8), the data (3, 8, 8)"),
    (P, ["--mask", "none.npy"], "mask is False everywhere"),
    (P, ["--mask", "all.npy"], "observes every entry, and without noise: there is nothing to restore"),
    (P, ["--mask", "five.npy"], "holds masks for 5 items, and there are 8"),
    (P, ["--mask", "gray.png"], "it holds 63 shades between black (0) and white (255)"),
    (P, ["--mask", "large.png"], "mask has shape (9, 9), the data (3, 8, 8)"),
    (P, ["--mask", "text.npy"], "it is no image, and no .npy or .npz file with a mask"),
    (P, ["--mask", "text.png"], "is not a readable image"),
    (P, ["--input", "nowhere.npy"], "--input = nowhere.npy does not exist"),
    (P, ["--input", "items.npy"], "--input=items.npy: its items have shape (3, 8, 9), the data's (3, 8, 8)"),
    (P, ["--input", "gray.png"], "here are continuous items of shape (3, 8, 8): give a .npy or .npz file"),
    ("levels", ["--input", "large.png"], "its items have shape (1, 9, 9), the data's (1, 8, 8)"),
    ("levels", ["--input", "high.npy"], "--input=high.npy: needs integers from 0 to 15, like the data"),
    (P, ["--task", "superres", "--measurements_file", "items.npy"],
     "its items have shape (3, 8, 9), what --task=superres --factor=2 measures has (3, 4, 4)"),
    (P, ["--measurements_file", "items.npy"],
     "its items have shape (3, 8, 9), what --task=inpaint --mask=left measures has"),
    (P, ["--items", "1", "--input", "items.npy"], "--items=1 and --input=items.npy: each says which items to take"),
    (P, ["--items", "1", "--measurements_file", "items.npy"], "choose one"),
    (P, ["--items", "one"], "--items=one: needs numbers of items, as in 0,1,2"),
    (P, ["--samples_per_item", "0"], "samples_per_item"),
    (P, ["--sampler", "auto"], "--sampler=auto: a plan is made for a model, not for what is measured"),
    (P, ["--guidance_scale", "2"], "give --labels"),
    (P, ["--labels", "2"], "class 2 is out of range, allowed are 0 to 1"),
    (V, ["--labels", "data"], "the model is unconditional"),
    (P, ["--rtol", "1e-3"], "--rtol is for --mode"),
    (P, ["--config.sde.beta_max=3"], "only config.sampler and config.data can be changed"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "flags", "words"), MISTAKES, ids=[" ".join((m[0], *m[1])) for m in MISTAKES])
def test_mistakes(request, tmp_path, capsys, monkeypatch, name, flags, words):
    monkeypatch.chdir(tmp_path)
    arrays = {"float": np.ones((8, 8)), "small": np.ones((7, 8), bool), "none": np.zeros((8, 8), bool),
              "all": np.ones((8, 8), bool), "five": np.arange(960).reshape(5, *SHAPE) % 2 == 0,
              "items": np.ones((2, 3, 8, 9)), "high": np.full((2, 1, 8, 8), 16)}  # fmt: skip
    for file, array in arrays.items():
        np.save(f"{file}.npy", array)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4 + 3).save("gray.png")
    Image.fromarray(np.full((9, 9), 255, np.uint8)).save("large.png")
    for file in ("text.npy", "text.png"):
        (tmp_path / file).write_text("no array")
    run = request.getfixturevalue(name)
    before = sorted(path.name for path in run.folder.rglob("*"))
    status, result, error = call(capsys, "--mode", "restore", "--workdir", run.folder, *flags)
    assert (status, result) == (2, None)
    assert words in error
    assert len(error.strip().splitlines()) == 1
    assert before == sorted(path.name for path in run.folder.rglob("*")), "nothing was written"
