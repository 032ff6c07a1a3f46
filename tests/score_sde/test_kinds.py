"""Kinds of data: what every one of KINDS must do, and that a new one needs no line elsewhere."""

import json
from html.parser import HTMLParser
from types import MappingProxyType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from score_sde.cli import main
from score_sde.config.config import read_run_config, resolve
from score_sde.kinds import KINDS, kind_of
from score_sde.kinds.base import Kind
from score_sde.plots.film import Reel, animation
from score_sde.plots.film import strip as film
from score_sde.plots.panels import panels
from score_sde.plots.pictures import comparison, picture, strips
from score_sde.plots.strip import strip
from score_sde.restoration.masks import read_mask
from score_sde.run.folder import Run
from score_sde.run.inputs import read_items
from score_sde.run.items import write_arrays
from sde import Transform
from sde.inverse.operators import CompressedSensing
from tests.score_sde.runs import call, untrained

# One worker, so that what the tests share is trained once.
pytestmark = pytest.mark.xdist_group("kinds")

SHAPES = {"image": (3, 6, 4), "volume": (1, 4, 6, 6), "signal": (2, 12), "point": (5,), "array": (1, 2, 3, 4, 4)}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def items_of(kind, count=6, levels=None):
    generator = torch.Generator().manual_seed(0)
    shape = (count, *SHAPES[kind.name])
    return (
        torch.randint(levels, shape, generator=generator).float() if levels else torch.randn(shape, generator=generator)
    )


def test_each_is_found_by_its_shape(kind):
    assert KINDS[kind.name] is kind
    assert kind_of(SHAPES[kind.name]) is kind
    assert all(other.name == kind.name or kind_of(SHAPES[other.name], f"a{suffix}") is kind
               for other in KINDS.values() for suffix in kind.files)  # fmt: skip


def test_files_come_back(kind, tmp_path):
    """Arrays of every kind, what a kind writes, and images as files of their own."""
    x = items_of(kind, levels=256)
    write_arrays(tmp_path / "x.npz", {"x": x})
    found, labels, _ = read_items("--input", str(tmp_path / "x.npz"), SHAPES[kind.name], 256, kind)
    assert torch.equal(found, x)
    assert labels is None
    for path, item in zip(kind.write(x, tmp_path / "item", {}), x, strict=False):
        assert torch.equal(kind.read(path, SHAPES[kind.name], 256, {}, "--input")[0], item)
    if ".png" in kind.files:
        Image.fromarray(x[0].byte().permute(1, 2, 0).numpy()).save(tmp_path / "x.png")
        assert torch.equal(kind.read(tmp_path / "x.png", SHAPES[kind.name], 256, {}, "--input"), x[:1])
        side = 3
        smaller = kind.read(tmp_path / "x.png", (x.shape[1], side, side), 256, {"resolution": side}, "--input")
        assert smaller.shape == (1, x.shape[1], side, side), "as large as the data"


@pytest.mark.rendered
def test_a_picture_of_each(kind, tmp_path):
    """By every plot, or by none where the kind has no layout."""
    x, drawn = items_of(kind), kind.layout is not None
    pairs, hidden = x.unflatten(0, (2, 3)), x.clone()
    hidden[..., -1:] = torch.nan
    columns = {"input": x[:, None], "measured": hidden[:, None], "samples": torch.stack([x, -x], 1)}
    found = {
        "picture": picture(x, tmp_path / "picture.png", kind=kind, levels=None, labels=torch.arange(6) % 2),
        "comparison": comparison(x, -x, tmp_path / "comparison.png", kind=kind, levels=None),
        "strips": strips(pairs, tmp_path / "strips.png", kind=kind, levels=None, background=x),
        "panels": panels(columns, tmp_path / "panels.png", kind=kind, levels=None, spread=x.abs()),
        "strip": strip(pairs, ["one", "two"], tmp_path / "strip.png", kind=kind, levels=None),
    }
    assert found == dict.fromkeys(found, drawn)
    if drawn:
        reels = [Reel("a", pairs, torch.tensor([0.1, 2.0]))]
        film(reels, x, tmp_path / "film.png", 2, kind)
        assert animation(reels, x, tmp_path / "film.gif", kind) == 2
    assert len([*tmp_path.iterdir()]) == (7 if drawn else 0)
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            image.load()


class Elements(HTMLParser):
    """The tags of a page that are open; fails on those that do not nest."""

    def __init__(self, html):
        super().__init__()
        self.open, self.seen = [], 0
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.seen += 1
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_an_element_of_each(kind):
    for levels in (None, 256):
        assert Elements(kind.element(items_of(kind, levels=levels)[0], levels, {})).seen


def test_what_each_is_compared_and_judged_in(kind):
    x, shape = items_of(kind), SHAPES[kind.name]
    features = kind.features(Transform((0.5,), (2.0,)))(x)
    assert features.dtype == torch.float64
    assert torch.equal(features, ((x.double() - 0.5) / 2).flatten(1))
    assert kind.judge(shape, 4, 5)(x).shape == (6, 5)


def test_what_each_hides_and_measures(kind):
    shape = SHAPES[kind.name]
    space = shape[1:] or shape
    for word in kind.masks:
        if word in ("upper", "lower") and len(space) < 2:
            with pytest.raises(ValueError, match="no rows"):
                read_mask(word, shape, 0, kind.masks)
            continue
        mask = read_mask(f"{word}0.5" if word.endswith(":") else word, shape, 0, kind.masks).mask
        assert mask.any()
        assert not mask.all()
    values = {"superres": 2, "deblur": 1.0, "sensing": 3}
    for name, make in kind.tasks.items():
        if name == "colorize" and shape[0] == 1:
            with pytest.raises(ValueError, match="one channel"):
                make(shape, None)
            continue
        assert make(shape, values.get(name))(items_of(kind)).shape[0] == 6


def test_a_run_of_before_there_were_kinds(tmp_path, capsys):
    """Its config.json has none: the shape tells it. A new one has what was found, and one that is named is kept."""
    run = untrained(tmp_path / "run", np.random.default_rng(0).normal(size=(80, 2, 8)))
    path = run.folder / "config.json"
    values = json.loads(path.read_text())
    assert values["data"].pop("kind") == "signal"
    path.write_text(json.dumps(values))
    (run.folder / "data.npz").rename(tmp_path / "elsewhere.npz")
    old = Run(run.folder, resolve(read_run_config(run.folder), []), torch.device("cpu"))
    assert old.kind is KINDS["signal"], "without the data"
    assert old.about == {}
    named = resolve(read_run_config(run.folder), ["--config.data.kind=array"])
    assert Run(run.folder, named, torch.device("cpu")).kind is KINDS["array"]
    status, _, error = call(capsys, "--mode", "likelihood", "--workdir", run.folder, "--config.data.kind=sgnal")
    assert status == 2
    assert (
        "config.data.kind = 'sgnal': needs one of image, volume, signal, point, array (did you mean signal?)" in error
    )


class Tally(Kind):
    """Counts in a row, drawn as bars, kept as text."""

    name, layout, files, page_items = "tally", "curves", (".tally",), 2
    masks = MappingProxyType({"first:": lambda space, value, seed: torch.arange(space[0]) < int(value)})
    tasks = MappingProxyType({"total": lambda shape, value: CompressedSensing(shape, 2)})

    def fits(self, shape):
        return False

    def read(self, file, shape, levels, about, flag):
        return torch.tensor([float(word) for word in file.read_text().split()]).view(1, *shape)

    def write(self, items, stem, about):
        paths = [stem.with_name(f"{stem.name}-{i}.tally") for i in range(len(items))]
        for path, item in zip(paths, items, strict=True):
            path.write_text(" ".join(map(str, item.flatten().tolist())))
        return paths

    def shown(self, x, lead=1):
        return x if x.ndim - lead == 2 else None

    def draw(self, axes, shown, role="items", labels=None, **style):
        for item in shown.nan_to_num().flatten(0, 1).tolist():
            axes.bar(range(len(item)), item, alpha=0.5)

    def element(self, item, levels, about):
        return f"<meter value={item.mean():.3f}></meter>"

    def features(self, transform):
        return lambda x: x.double().view(len(x), 4, -1).sum(2)

    def judge(self, shape, width, features):
        return nn.Sequential(nn.Flatten(), nn.Linear(12, features), nn.Tanh())


@pytest.fixture(scope="module")
def tallies(tmp_path_factory):
    """A trained run of the made-up kind, which is registered as long as the tests of this file run."""
    folder = tmp_path_factory.mktemp("tallies")
    generator = np.random.default_rng(0)
    labels = np.arange(600) % 2
    np.savez(folder / "data.npz", x=generator.normal(size=(600, 1, 12)) + labels[:, None, None], labels=labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KINDS, "tally", Tally())
        options = {
            "data.root": folder / "data.npz", "data.kind": "tally", "model.network.name": "mlp",
            "model.network.width": 16, "model.network.layers": 1, "training.steps": 20, "training.batch_size": 32,
            "training.sample_every": 20,
        }  # fmt: skip
        flags = [f"--config.{name}={value}" for name, value in options.items()]
        assert main.main(["--mode", "train", "--config", "arrays", "--workdir", str(folder / "run"), *flags]) == 0
        yield folder / "run"


def test_a_kind_of_ones_own_is_trained(tallies, capsys):
    page = (tallies / "report.html").read_text()
    assert page.count("<meter") == Tally.page_items
    assert page.count('<img alt="samples at step 20"') == 1
    status, result, error = call(capsys, "--mode", "train", "--workdir", tallies, "--config.training.steps=21",
                                 "--config.data.kind=")  # fmt: skip
    assert status == 0, error
    assert result["steps"] == 21
    assert json.loads((tallies / "config.json").read_text())["data"]["kind"] == "tally", "it is part of the run"


def test_a_kind_of_ones_own_is_sampled_and_read(tallies, tmp_path, capsys):
    status, result, error = call(capsys, "--mode", "sample", "--workdir", tallies, "--num_samples", 3, "--steps", 3,
                                 "--out", tmp_path / "s")  # fmt: skip
    assert status == 0, error
    x = np.load(result["numbers"])["x"]
    again = [KINDS["tally"].read(tmp_path / f"s-{i}.tally", (1, 12), None, {}, "") for i in range(3)]
    np.testing.assert_array_equal(torch.cat(again), x)
    edit = ["--mode", "edit", "--workdir", tallies, "--steps", 2, "--start_time", "0.3", "--out", tmp_path / "e"]
    status, result, error = call(capsys, *edit, "--input", tmp_path / "s-1.tally")
    assert status == 0, error
    np.testing.assert_array_equal(np.load(result["numbers"])["input"], x[1:2])


def test_a_kind_of_ones_own_is_evaluated(tallies, tmp_path, capsys):
    evaluate = ["--mode", "evaluate", "--workdir", tallies, "--num_samples", 60, "--steps", 2, "--subsamples", 4]
    for features, count in (("data", 4), ("classifier", 64)):
        status, result, error = call(capsys, *evaluate, "--features", features, "--out", tmp_path / features,
                                     "--metrics", "energy")  # fmt: skip
        assert status == 0, error
        record = json.loads((tmp_path / f"{features}.json").read_text())
        assert record["extractor"]["features"] == count
        assert 0 <= result["accuracy"] <= 1


def test_a_kind_of_ones_own_is_restored(tallies, tmp_path, capsys):
    restore = ["--mode", "restore", "--workdir", tallies, "--items", "0,1", "--steps", 2, "--samples_per_item", 2]
    status, result, error = call(capsys, *restore, "--mask", "first:5", "--out", tmp_path / "m")
    assert status == 0, error
    numbers = np.load(result["numbers"])
    np.testing.assert_array_equal(numbers["samples"][:, 0, :, :5], numbers["x"][:, :, :5])
    assert (tmp_path / "m.png").exists()
    status, result, error = call(capsys, *restore, "--task", "total", "--sigma_y", 0.1, "--out", tmp_path / "t")
    assert status == 0, error
    assert np.load(result["numbers"])["y"].shape == (2, 2)
    for options, words in (
        (["--mask", "fisrt:5"], "needs first:, upper, lower"), (["--task", "deblur"], "take --task=inpaint or total"),
    ):  # fmt: skip
        status, _, error = call(capsys, *restore, *options)
        assert status == 2
        assert words in error


def test_a_kind_of_ones_own_is_compared(tallies, tmp_path, capsys):
    status, _, error = call(
        capsys, "--mode", "compare", "--workdir", tallies, "--samplers", "ddim", "--nfe", 4, "--num_samples", 60,
        "--out", tmp_path / "c",
    )  # fmt: skip
    assert status == 0, error
    page = (tmp_path / "c.html").read_text()
    assert page.count("<meter") == 3 * Tally.page_items, "of the sampler, the exact flow and held-out items"
    assert page.count("<img") == 3
    assert json.loads((tmp_path / "c.json").read_text())["kind"] == "tally"
