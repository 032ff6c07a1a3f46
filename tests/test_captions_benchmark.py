"""The benchmark of captions: its scores by hand, the judge on what it can tell, and what is kept on disk."""

import io
import json
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from benchmarks import captions
from benchmarks.captioned import drawing, judge, scores
from benchmarks.captioned.bench import CEILING, HELD_OUT, TRAINING, Bench
from benchmarks.captioned.items import captioned
from benchmarks.captioned.sheet import sheet
from benchmarks.captioned.words import nearest_by_encoder, nearest_by_words
from score_sde.kinds import KINDS
from sde.data import Dataset
from sde.data.names import CLASS_NAMES
from sde.data.transform import Transform
from sde.networks.efficientnet_lite import load_efficientnet_lite
from tests.oracles.efficientnet_lite import tensors
from tests.score_sde.runs import untrained


def test_balanced_accuracy_by_hand():
    labels, found = np.array([0] * 8 + [1] * 2 + [5]), np.array([0] * 6 + [1, 7] + [1, 0] + [0])
    value, error = scores.balanced_accuracy(found, labels, np.array([0, 1]))
    assert value == pytest.approx((6 / 8 + 1 / 2) / 2)
    assert error == pytest.approx(np.sqrt(0.75 * 0.25 / 8 + 0.5 * 0.5 / 2) / 2)
    assert scores.balanced_accuracy(np.zeros(11), labels, np.array([0, 1, 5]))[0] == pytest.approx(1 / 3)
    assert scores.balanced_accuracy(found, labels, np.array([1, 3]))[0] == 0.5  # of 3 there is no item
    with pytest.raises(ValueError, match="no item is of a category that counts"):
        scores.balanced_accuracy(found, labels, np.array([3]))


def test_chance_is_the_mean_over_all_orders_of_the_captions():
    labels, found = np.array([0, 0, 0, 1, 2, 2]), np.array([0, 1, 1, 0, 2, 9])
    categories = np.array([0, 1, 2])
    every = [scores.balanced_accuracy(found, np.array(y), categories)[0] for y in permutations(labels)]
    assert scores.by_chance(found, labels, categories) == pytest.approx(np.mean(every))


def test_categories_that_count():
    labels = np.repeat([4, 2, 7], [20, 19, 30])
    assert scores.common(labels).tolist() == [4, 7]
    assert scores.common(labels, 19).tolist() == [2, 4, 7]


def test_captions_are_spread_over_the_categories():
    labels = np.repeat([0, 1, 2, 3], [100, 3, 10, 50])
    chosen = scores.evenly(labels, np.array([0, 1, 2]), 25)
    assert np.bincount(labels[chosen], minlength=4).tolist() == [12, 3, 10, 0]
    assert len({*chosen.tolist()}) == 25
    assert labels[chosen][:9].tolist() == [0, 1, 2] * 3
    assert len(scores.evenly(labels, np.array([1, 2]), 500)) == 13
    assert scores.evenly(labels, np.array([0]), 5, seed=1).tolist() != scores.evenly(labels, np.array([0]), 5).tolist()


def test_nearest_images_and_copies():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 6)) + 1e3, rng.normal(size=(70, 6)) + 1e3
    found = scores.neighbors(x, y)
    every = np.sqrt(((x[:, None] - y[None]) ** 2).mean(2))
    assert (found.index == every.argmin(1)).all()
    assert found.distance == pytest.approx(every.min(1), rel=1e-9)
    assert scores.neighbors(y, y).distance.max() < 1e-6
    held_out = scores.Neighbors(np.zeros(101, int), np.arange(101.0))
    assert scores.copy_threshold(held_out) == 1.0
    assert (scores.neighbors(y[:5] + 1e-3, y).distance < scores.copy_threshold(found)).all()


def test_nearest_captions_share_rare_words():
    others = ["man teacher, light skin tone", "red heart", "flag of france", "woman teacher"]
    asked = ["woman singer, light skin tone", "red apple", "flag of spain", "blue heart"]
    assert nearest_by_words(asked, others).tolist() == [0, 1, 2, 1]


def test_nearest_captions_by_an_encoder():
    """Of its pooled vectors, or where there are none of the means of tokens; an empty caption is near to nothing."""
    rows = {"east": [[1.0, 0.0]], "north": [[0.0, 2.0]], "north east": [[3.0, 0.0], [0.0, 1.0]], "": []}

    def encoder(texts):
        padded = [rows[text] + [[torch.nan] * 2] * (2 - len(rows[text])) for text in texts]
        return {"sequence": torch.tensor(padded)}

    others = ["north", "east", "north east"]
    assert nearest_by_encoder(["north east", "east", "north", ""], others, encoder).tolist() == [2, 1, 0, 0]

    def pooled(texts):
        return {"vector": -torch.tensor([rows[text][0] for text in texts]), **encoder(texts)}

    assert nearest_by_encoder(["north east", "north"], ["north", "east"], pooled).tolist() == [1, 0]


def test_the_judge_weighs_categories_alike():
    """Two overlapping laws in a line: with 20 to 1 items, the border lies in the middle between their means."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(-1, 1, (4000, 1)), rng.normal(1, 1, (200, 1))])
    found = judge.Judge(rows, np.repeat([3, 8], [4000, 200]), 1.0)(np.linspace(-3, 3, 601)[:, None])
    assert {*found.tolist()} == {3, 8}
    assert abs((found == 3).sum() - 300) < 25


def test_features_are_kept_and_belong_to_images_and_weights(tmp_path, monkeypatch):
    for seed in (0, 1):
        save_file(tensors(seed), tmp_path / f"{seed}.safetensors")
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8)).astype(np.uint8)
    monkeypatch.setattr(judge, "CHUNK", 2)
    features = judge.Features(tmp_path / "0.safetensors", tmp_path / "cache")
    some = features(images[[3, 1, 3]])
    assert (some[0] == some[2]).all()
    every = features(images)
    assert every.shape == (5, 12)
    assert (every[[3, 1]] == some[:2]).all()
    assert len([*(tmp_path / "cache").rglob("*.npz")]) == 1 + 2
    again = judge.Features(tmp_path / "0.safetensors", tmp_path / "cache")
    again.network = None
    assert (again(images[::-1]) == every[::-1]).all()
    x = torch.from_numpy(images)
    assert every == pytest.approx(load_efficientnet_lite(tmp_path / "0.safetensors")(x).numpy(), rel=1e-5, abs=1e-6)
    assert (judge.Features(tmp_path / "1.safetensors", tmp_path / "cache")(images) != every).any(1).all()


def test_pixels_are_means_of_larger_images():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64)).astype(np.uint8)
    means = images.reshape(2, 3, 32, 2, 32, 2).mean((3, 5)) / 255
    assert judge.pixels(images) == pytest.approx(means.reshape(2, -1), abs=1e-6)
    assert (judge.pixels(images[:, :, :8, :8]) * 255).round().reshape(2, 3, 8, 8).tolist() == images[
        :, :, :8, :8
    ].tolist()


def test_samples_are_kept_by_captions_seed_flags_and_weights(tmp_path, monkeypatch):
    calls = []

    def sampled(arguments):
        calls.append(arguments)
        flags = dict(zip(arguments[::2], arguments[1::2], strict=True))
        with open(flags["--prompt"]) as file:
            lengths = [len(line.rstrip("\n")) for line in file]
        np.savez(f"{flags['--out']}.npz", x=np.array(lengths))
        return 0

    monkeypatch.setattr(drawing, "main", sampled)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    ask = {"workdir": tmp_path, "captions": ["red heart", "sun"], "seed": 0, "flags": [], "folder": tmp_path / "kept"}
    assert drawing.drawn(**ask).tolist() == [9, 3]
    assert drawing.drawn(**ask).tolist() == [9, 3]
    assert len(calls) == 1
    for change in ({"seed": 1}, {"flags": ["--steps", "3"]}, {"captions": ["sun", "red heart"]}):
        drawing.drawn(**ask | change)
    (tmp_path / "model.safetensors").write_bytes(b"others")
    drawing.drawn(**ask)
    assert len(calls) == 5
    assert calls[2][-2:] == ["--steps", "3"]
    monkeypatch.setattr(drawing, "main", lambda arguments: 2)
    with pytest.raises(RuntimeError, match="--mode sample failed"):
        drawing.drawn(**ask | {"seed": 9})


def test_the_sheet_has_every_picture():
    pictures = [np.full((5, 3, 16, 16), value, np.uint8) for value in (10, 90, 200)]
    captions = [
        "sun",
        "a very long caption of many words that needs more than two lines in its cell, so it is cut " * 2,
    ]
    content = sheet([*captions, "c", "d", "e"], pictures, ("real", "drawn", "nearest"), columns=2)
    image = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    for value in (10, 90, 200):
        # The edges of letters may be of the same gray.
        assert 5 * 64 * 64 <= (image == value).all(2).sum() < 5 * 64 * 64 + 200


NAMES = ["red", "green", "blue"]
COLORS = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]])


def items(labels, seed):
    """A data set of images 8 x 8 in the color of their category, with noise, and captions that say it."""
    noise = np.random.default_rng(seed).integers(-20, 21, (len(labels), 3, 8, 8))
    x = torch.from_numpy((COLORS[labels][:, :, None, None] + noise).astype(np.uint8))
    data = Dataset(x, torch.from_numpy(labels), 3, Transform.of_levels(256), about={CLASS_NAMES: NAMES})
    data.captions = [f"picture{seed}of{i} is {NAMES[label]}" for i, label in enumerate(labels)]
    return data


METHODS = ("encode", "decode", "quantize", "dequantize")


class Kept(nn.Module):
    """A model whose transform is that of the data, or one that loses all but the mean of each color."""

    def __init__(self, lossy):
        super().__init__()
        self.transform = SimpleNamespace(**{name: getattr(Transform.of_levels(256), name) for name in METHODS})
        if lossy:
            self.transform.encode = lambda x: Transform.of_levels(256).encode(x.mean((2, 3), keepdim=True).expand_as(x))


def bench(folder, lossy=False, trained=True, held_out=(30, 20, 19)):
    data = items(np.repeat([0, 1, 2], [60, 50, 40]), 0), items(np.repeat([0, 1, 2], held_out), 1)
    model_file = folder / "model.safetensors"
    if trained:
        model_file.touch()
    run = SimpleNamespace(
        items=data,
        text=None,
        sampled_model=lambda: Kept(lossy),
        model_file=model_file,
        autoencoder_file=folder / "autoencoder.safetensors",
        kind=KINDS["image"],
        device="cpu",
    )
    return Bench(run, lambda images: images.reshape(len(images), 3, -1).mean(2), {HELD_OUT: 30, TRAINING: 12})


def test_samples_are_scored_and_copies_found(tmp_path):
    """Perfect samples are new pictures of the category; the wrong ones show the next category; copies are copies."""
    found = bench(tmp_path)
    assert found.categories.tolist() == [0, 1]
    assert [np.bincount(found.asked(side).labels).tolist() for side in (HELD_OUT, TRAINING)] == [[15, 15], [6, 6]]
    fresh = items(found.asked(HELD_OUT).labels, 2).items.numpy()
    wrong = items(1 - found.asked(TRAINING).labels, 3).items.numpy()
    found.samples({HELD_OUT: fresh, TRAINING: wrong})
    found.baselines()
    assert found.scores["samples"] == {HELD_OUT: (1.0, 0.0), TRAINING: (0.0, 0.0)}
    assert found.scores["samples, captions shuffled"] == {HELD_OUT: (0.5, None), TRAINING: (0.5, None)}
    assert found.scores[CEILING] == found.scores["these items as they are"] == {HELD_OUT: (1.0, 0.0)}
    assert found.scores["the training image of the nearest caption, by words in common"] == {HELD_OUT: (1.0, 0.0)}
    assert found.scores["always the same category"] == {HELD_OUT: (0.5, None)}
    copies = found.copies({HELD_OUT: 255 - fresh, TRAINING: found.asked(TRAINING).images})
    for space in ("pixels", "features"):
        assert copies[space]["threshold"] > 0
        assert (copies[space][HELD_OUT], copies[space][TRAINING], copies[space]["own"]) == (0.0, 1.0, 1.0)


def test_swapped_captions_change_pictures(tmp_path):
    found = bench(tmp_path)
    labels = found.asked(HELD_OUT).labels[:8]
    pictures = np.tile(COLORS.astype(np.uint8)[:, :, None, None], (1, 1, 8, 8))
    base, others = pictures[labels], pictures[np.roll(labels, -1)]
    change = found.swapped(base, others, base)
    assert (change["new"], change["old"], change["seed_rms"]) == (1.0, 0.0, 0.0)
    # The categories are in turn, so that all pictures change.
    assert change["caption_rms"] == pytest.approx(np.sqrt(2 * 170**2 / 3) / 255)
    still = found.swapped(base, base, others)
    assert (still["new"], still["old"], still["caption_rms"]) == (0.0, 1.0, 0.0)


def test_copies_are_sought_among_what_the_autoencoder_returns(tmp_path):
    """Of a decoder that has flat pictures alone, a flat picture is a copy, and no ceiling is said without a model."""
    found = bench(tmp_path, lossy=True)
    for part, original in zip(found.through, (found.train, found.test), strict=True):
        means = np.floor((original.images + 0.5).mean((2, 3), keepdims=True))
        assert (part.images == means).all()
    copies = found.copies(dict.fromkeys((HELD_OUT, TRAINING), found.through[0].images[found.chosen[TRAINING]]))
    assert (copies["pixels"][TRAINING], copies["features"][TRAINING]) == (1.0, 1.0)
    (tmp_path / "none").mkdir()
    without = bench(tmp_path / "none", trained=False)
    without.baselines()
    assert CEILING not in without.scores


def test_few_held_out_items_judge_nobody(tmp_path):
    with pytest.raises(ValueError, match="1 of the categories of 57 held-out items have 20"):
        bench(tmp_path, held_out=(20, 19, 18))


def test_data_without_captions_or_categories_are_refused():
    data = items(np.repeat([0, 1], 3), 0)
    run = SimpleNamespace(kind=KINDS["image"])
    data.labels = None
    with pytest.raises(ValueError, match=r"no categories to judge by: config.data.label_by"):
        captioned(run, data)
    data.captions = None
    with pytest.raises(ValueError, match=r"no captions: 'text' must be among config.data.conditions"):
        captioned(run, data)


def test_a_run_is_judged_from_its_folder(tmp_path, capsys, monkeypatch):
    """The command on an untrained run of two categories: it draws, judges, and tells of copies and swapped captions."""
    data = items(np.arange(240) % 2, 4)
    path, folder = tmp_path / "colors.npz", tmp_path / "run"
    arrays = {"x": data.items.numpy(), "captions": np.array(data.captions), "labels": np.array(NAMES)[data.labels]}
    np.savez(path, **arrays)
    text = ["--config.data.conditions=('text',)", "--config.data.num_levels=256", "--config.data.kind=image"]
    untrained(folder, arrays["x"], None, f"--config.data.root={path}", *text)
    weights, sheet_file = tmp_path / "lite.safetensors", tmp_path / "sheet.png"
    save_file(tensors(), weights)
    call = ["captions.py", "--workdir", folder, "--features", weights, "--cache", tmp_path / "kept", "--device", "cpu"]
    flags = ["--sheet", sheet_file, "--held_out", 6, "--training", 4, "--pairs", 3, "--sampler", "heun", "--steps", 2]
    monkeypatch.setattr("sys.argv", [str(part) for part in [*call, *flags]])
    captions.main()
    out = capsys.readouterr().out
    found = json.loads(out.splitlines()[-1])
    assert (found["categories"], found["flags"]) == (["green", "red"], ["--sampler", "heun", "--steps", "2"])
    assert found["captions"] == {HELD_OUT: 6, TRAINING: 4}
    scores = found["balanced_accuracy"]
    assert found["of_ceiling"] == scores["samples"][HELD_OUT][0] / scores[CEILING][HELD_OUT][0]
    assert scores[CEILING] == scores["these items as they are"]
    assert "the training image of the nearest caption, by the run's text encoder" in scores
    assert {*found["swap"]} == {"caption_rms", "seed_rms", "new", "old"}
    assert found["swap"]["seed_rms"] > 0
    assert Image.open(sheet_file).size[1] > 64
    monkeypatch.setattr("sys.argv", [*map(str, call), "--baselines"])
    captions.main()
    assert "samples" not in json.loads(capsys.readouterr().out.splitlines()[-1])["balanced_accuracy"]
