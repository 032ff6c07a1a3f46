"""The benchmark of captions on runs: pictures whose answers are known, and the command."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from benchmarks import captions
from benchmarks.captioned.bench import CEILING, HELD_OUT, TRAINING, Bench
from benchmarks.captioned.items import captioned
from score_sde.kinds import KINDS
from sde.data import Dataset
from sde.data.names import CLASS_NAMES
from sde.data.transform import Transform
from tests.oracles.efficientnet_lite import tensors
from tests.score_sde.runs import untrained

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
