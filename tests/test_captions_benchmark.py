"""The benchmark of captions: its scores by hand, the judge on what it can tell, and what is kept on disk."""

import io
from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.captioned import drawing, judge, scores
from benchmarks.captioned.sheet import sheet
from benchmarks.captioned.words import nearest_by_encoder, nearest_by_words
from sde.networks.efficientnet_lite import load_efficientnet_lite
from tests.oracles.efficientnet_lite import tensors


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
