"""Strips: the same samples at several scales of guidance, what the command writes and what is drawn."""

import numpy as np
import pytest
import torch
from PIL import Image

from score_sde.cli import main
from score_sde.kinds import KINDS, kind_of
from score_sde.plots import strip as module
from score_sde.plots.strip import strip
from tests.score_sde.test_cli import SMALL, call

# One worker, so that what the tests share is trained once.
pytestmark = pytest.mark.xdist_group("strip")

NAMES = ["guidance scale 1", "guidance scale 2.5", "guidance scale 4"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "points"
    train = ["--mode", "train", "--config", "points", "--workdir", str(folder), *SMALL]
    assert main.main([*train, "--config.training.more_ema=0.5"]) == 0
    assert main.main(["--mode", "train_classifier", "--workdir", str(folder)]) == 0
    return folder


def draw(capsys, trained, out, *options):
    run = [
        "--mode",
        "sample",
        "--workdir",
        trained,
        "--sampler",
        "ddim",
        "--steps",
        4,
        "--num_samples",
        6,
        "--out",
        out,
    ]
    status, result, error = call(capsys, *run, *options)
    assert status == 0, error
    return result, np.load(result["numbers"])


@pytest.mark.parametrize(("flag", "others"), [
    ("guidance_scale", []), ("classifier_scale", ["--guidance_scale", 0]),
    ("guidance_scale", ["--weak", "ema/0.5.safetensors", "--guidance_interval", "0.1,5", "--classifier_scale", 1]),
])  # fmt: skip
def test_each_scale_is_the_sample_of_that_scale(trained, tmp_path, capsys, flag, others):
    """The same noise, classes and everything as --mode sample with that scale alone; what has nothing to do at scale 1
    is left out there."""
    result, strip = draw(capsys, trained, tmp_path / "s", f"--{flag}", "1,3", "--labels", "1,0,0", *others)
    assert (result["flag"], result["scales"]) == (flag, [1, 3])
    assert strip["x"].shape == (2, 6, 2)
    assert strip["scales"].tolist() == [1, 3]
    assert strip["labels"].tolist() == [1, 0, 0, 1, 0, 0]
    assert len(result["nfe"]) == len(result["seconds"]) == 2
    assert np.abs(strip["x"][0] - strip["x"][1]).max() > 1e-3
    for i, scale in enumerate((1, 3)):
        there = others[2:] if scale == 1 and "--weak" in others else others
        single, alone = draw(capsys, trained, tmp_path / "one", f"--{flag}", scale, "--labels", "1,0,0", *there)
        np.testing.assert_array_equal(strip["x"][i], alone["x"])
        np.testing.assert_array_equal(strip["calls"][i], alone["calls"])
        np.testing.assert_array_equal(strip["seeds"], alone["seeds"])
        assert single["nfe"] == result["nfe"][i]
    with Image.open(tmp_path / "s.png") as image:
        image.load()


def test_files_and_plans(trained, capsys):
    run = ["--mode", "sample", "--workdir", trained, "--sampler", "auto", "--steps", 3, "--num_samples", 4]
    status, result, _ = call(capsys, *run, "--guidance_scale", "1,2")
    assert status == 0
    assert result["picture"] == str(trained / "samples" / "auto-3-num_samples=4-guidance_scale=1,2-seed0.png")
    assert len([*(trained / "plans").glob("3-*.json")]) == 2, "one for each scale"


def test_samples_of_other_labels_have_other_files(trained, capsys):
    run = ["--mode", "sample", "--workdir", trained, "--sampler", "ddim", "--steps", 2, "--num_samples", 2]
    asked = ([], ["--labels", "1"], ["--labels", "0,1"], *(["--labels", ",".join("01" * n)] for n in (150, 151)))
    results = [call(capsys, *run, *labels) for labels in asked]
    assert [status for status, *_ in results] == [0] * 5, "as long as labels are, file systems take the name"
    files = [result["numbers"] for _, result, _ in results]
    assert len({*files}) == 5
    assert files[0] == str(trained / "samples" / "ddim-2-num_samples=2-seed0.npz")
    assert files[2] == str(trained / "samples" / "ddim-2-num_samples=2-labels=0,1-seed0.npz")
    for flags, name in (["ode"], "ode"), (["ode", "--steps", 1], "ode-1"), (["euler", "--steps", 1], "euler-1"):
        _, result, _ = call(capsys, *run[:4], "--num_samples", 2, "--sampler", *flags)
        assert result["numbers"] == str(trained / "samples" / f"{name}-num_samples=2-seed0.npz")


MISTAKES = [
    (["--guidance_scale", "1,2", "--classifier_scale", "0,1"], "one of them can have several scales"),
    (["--guidance_scale", "1,2", "--labels", "none"], "give --labels"),
    (["--guidance_scale", "1,two"], "guidance_scale=1,two: needs a number, or several with commas between them"),
    (["--guidance_scale", "2,2"], "guidance_scale=2,2: has a number twice"),
    (["--guidance_scale", "nan"], "guidance_scale=nan: needs a number"),
    (["--guidance_scale="], "guidance_scale=: needs a number"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "words"), MISTAKES, ids=[" ".join(options) for options, _ in MISTAKES])
def test_mistakes(trained, capsys, options, words):
    status, _, error = call(capsys, "--mode", "sample", "--workdir", trained, *options)
    assert status == 2
    assert words in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("mode", ["likelihood", "encode", "interpolate"])
def test_modes_of_a_single_scale(trained, capsys, mode):
    status, _, error = call(capsys, "--mode", mode, "--workdir", trained, "--guidance_scale", "1,2")
    assert status == 2
    assert "--guidance_scale=1,2: takes a single scale here; --mode sample and guidance_sweep take several" in error


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, before they become files."""
    drawn = []
    monkeypatch.setattr(module, "figure_bytes", lambda figure: drawn.append(figure) or b"png")
    return drawn


def titles(figure):
    return [text for axes in figure.axes if (text := axes.get_title() or axes.get_title(loc="left"))]


@pytest.mark.parametrize(("count", "shape"), [(5, (10, 5 * 10)), (40, (4 * 10, 10 * 10))])
def test_images(tmp_path, figures, count, shape):
    """A row of few images or a block of many, each under its name, its pixels where they belong."""
    x = torch.randint(17, (3, count, 1, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    assert strip(x, NAMES, tmp_path / "s.png", kind=KINDS["image"], levels=17)
    (figure,) = figures
    assert titles(figure) == NAMES
    for axes, images in zip(figure.axes, x, strict=False):
        block = axes.images[0].get_array()
        assert block.shape == (shape[0] + 2, shape[1] + 2)
        last = count - 1
        row, column = (0, last) if count <= 16 else divmod(last, 10)
        pixels = block[2 + 10 * row : 10 + 10 * row, 2 + 10 * column : 10 + 10 * column]
        np.testing.assert_allclose(pixels, images[last, 0] / 16, atol=0.003)


def test_points_share_their_axes(tmp_path, figures):
    x = torch.randn(5, 30, 2, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 6).view(5, 1, 1)
    names, labels = [f"scale {i}" for i in range(5)], torch.arange(30) % 3
    assert strip(x, names, tmp_path / "s.png", kind=KINDS["point"], levels=None, labels=labels)
    (figure,) = figures
    assert titles(figure) == [f"scale {i}" for i in range(5)]
    for axes, points in zip(figure.axes, x, strict=False):
        np.testing.assert_allclose(axes.collections[0].get_offsets(), points)
        assert axes.get_xlim() == figure.axes[0].get_xlim()


def test_signals(tmp_path, figures):
    x = torch.randn(3, 20, 2, 9, generator=torch.Generator().manual_seed(0))
    assert strip(x, NAMES, tmp_path / "s.png", kind=KINDS["signal"], levels=None)
    (figure,) = figures
    assert titles(figure) == NAMES
    cells = np.array(figure.axes).reshape(8, 3)
    for row, column in ((0, 0), (7, 2)):
        found = np.stack([line.get_ydata() for line in cells[row, column].lines])
        np.testing.assert_allclose(found, x[column, row])


@pytest.mark.parametrize(("event", "drawn"), [
    ((5,), True), ((3, 8, 8), True), ((2, 9, 10), True), ((1, 4, 8, 8), True), ((7, 5), True), ((1, 2, 3, 4, 5), False),
])  # fmt: skip
def test_every_shape(tmp_path, event, drawn):
    x = torch.randn(2, 3, *event, generator=torch.Generator().manual_seed(0))
    assert strip(x, NAMES[:2], tmp_path / "s.png", kind=kind_of(event), levels=None) is drawn
    assert (tmp_path / "s.png").exists() is drawn
