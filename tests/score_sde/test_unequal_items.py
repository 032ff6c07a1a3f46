"""Items of unequal size from files to samples: sizes by the law of the training items, nothing of what is padded."""

import json

import numpy as np
import pytest
import torch
from scipy import stats

from samplers.noise.seeded import sample_seeds
from score_sde.kinds import KINDS
from score_sde.restoration.masks import read_mask
from score_sde.restoration.scores import crps
from score_sde.run.inputs import read_items
from score_sde.run.sizes import drawn_sizes
from sde.data import load_dataset
from sde.data.sizes import law_of, pad, trim, trimmed
from sde.inverse.operators import CompressedSensing, OfReal
from tests.score_sde.runs import call

# One worker, so that what the tests share is trained once.
pytestmark = pytest.mark.xdist_group("unequal_items")

LENGTHS, SHARES = (4, 7, 12), (0.6, 0.3, 0.1)
SMALL = ["--config.model.network.channels=8", "--config.model.network.channel_mult=(1,)",
         "--config.training.steps=20", "--config.training.batch_size=32", "--config.training.sample_every=20",
         "--config.training.checkpoint_every=20", "--config.data.test_fraction=0.25"]  # fmt: skip


def series(count=240):
    """Noisy waves (count, 1, 12), and how much of each is real."""
    generator = np.random.default_rng(0)
    sizes = generator.choice(LENGTHS, count, p=SHARES)
    phases, noise = generator.uniform(0, 6, (count, 1, 1)), generator.normal(size=(count, 1, 12))
    return np.sin(0.9 * np.arange(12) + phases) + 0.1 * noise, sizes


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on the same series, which differ in what these are padded with."""
    folder = tmp_path_factory.mktemp("unequal")
    x, sizes = series()
    real = np.arange(12) < sizes[:, None, None]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, fill in (("first", np.nan), ("second", 100.0)):
            np.savez(f"{name}.npz", x=np.where(real, x, fill), sizes=sizes)
            from score_sde.cli import main

            train = ["--mode", "train", "--config", "arrays", "--workdir", name, f"--config.data.root={name}.npz"]
            assert main.main([*train, *SMALL]) == 0
        yield folder


def both(runs, capsys, *arguments):
    """The files of a mode on both runs, which end well and write the same numbers, and the last line of the first."""
    found, last = [], None
    for name in ("first", "second"):
        status, line, error = call(capsys, *arguments, "--workdir", runs / name, "--out", runs / f"{name}-out")
        assert status == 0, error
        last = last or line
        with np.load(runs / f"{name}-out.npz") as file:
            found.append({key: value for key, value in file.items() if key != "settings"})
    for key, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][key], err_msg=key)
    return found[0], last


def padding_of(x, sizes):
    """All entries beyond the sizes, in a row."""
    return np.concatenate([item[..., size:].ravel() for item, size in zip(x, sizes, strict=True)])


def test_training_and_samples(runs, capsys):
    """Not a bit of the weights depends on the padding; sizes have the law of the training items, and each its seed."""
    models = [(runs / name / "model.safetensors").read_bytes() for name in ("first", "second")]
    assert models[0] == models[1]
    found, _ = both(runs, capsys, "--mode", "sample", "--num_samples", 300, "--steps", 2)
    known, counts = np.unique(series()[1], return_counts=True)
    drawn = [(found["sizes"] == size).sum() for size in known]
    assert sum(drawn) == 300
    assert stats.chisquare(drawn, 300 * counts / counts.sum()).pvalue > 1e-3
    assert not padding_of(found["x"], found["sizes"]).any()
    assert all(item[0, :size].all() for item, size in zip(found["x"], found["sizes"], strict=True))
    fewer, _ = both(runs, capsys, "--mode", "sample", "--num_samples", 7, "--steps", 2, "--batch_size", 3)
    np.testing.assert_array_equal(fewer["sizes"], found["sizes"][:7])
    np.testing.assert_allclose(fewer["x"], found["x"][:7], atol=1e-4)
    asked, _ = both(runs, capsys, "--mode", "sample", "--num_samples", 3, "--steps", 2, "--sizes", "5,9")
    assert asked["sizes"].tolist() == [5, 9, 5]
    for text, words in (("5,13", "13 is out of range, allowed are 1 to 12"), ("a", "needs sizes from 1 to 12")):
        status, _, error = call(capsys, "--mode", "sample", "--workdir", runs / "first", "--sizes", text)
        assert status == 2
        assert f"--sizes={text}: {words}" in error


def test_the_law_of_the_draw():
    """Sizes of many seeds have exactly the law that is kept, and those of neighbors have nothing to do with each
    other."""
    law = [[2, 5], [3, 1], [9, 14]]
    drawn = drawn_sizes(law, sample_seeds(3, 20_000)).numpy()
    counts = np.array([(drawn == size).sum() for size, _ in law])
    assert stats.chisquare(counts, 20_000 * np.array([5, 1, 14]) / 20).pvalue > 1e-3
    pairs = np.array([[(drawn[:-1][drawn[1:] == b] == a).sum() for a, _ in law] for b, _ in law])
    assert stats.chi2_contingency(pairs).pvalue > 1e-3
    assert drawn_sizes(law, [7, 5]).tolist() == drawn_sizes(law, [5, 7]).tolist()[::-1]


def test_the_law_that_is_kept():
    sizes = torch.tensor([3, 1, 3, 8, 3])
    assert law_of(sizes) == [[1, 1], [3, 3], [8, 1]]
    many = law_of(torch.arange(1, 20_001), most=1000)
    assert sum(count for _, count in many) == 1000
    assert max(abs(size - 20 * (i + 0.5)) for i, (size, _) in enumerate(many)) <= 1


def test_likelihood(runs, capsys):
    """An item has the density of what is real of it, in as many dimensions."""
    coarse = ["--mode", "likelihood", "--rtol", 0.01, "--atol", 0.01, "--probes", 0]
    np.save(runs / "short.npy", series()[0][:5, :, :4])
    found, last = both(runs, capsys, *coarse, "--num_samples", 6, "--ood_file", runs / "short.npy")
    assert {*found["sizes"].tolist()} <= {*LENGTHS}
    assert np.isfinite(found["nats"]).all()
    assert last["training"]
    assert 0 <= last["auroc"] <= 1
    # Of a file, and of a folder with an item of its own length in each file, a line for each; alone it has the same.
    x, sizes = series()
    folder = runs / "own"
    folder.mkdir()
    picked = [int(np.flatnonzero(sizes == size)[0]) for size in (7, 4)]
    for i, number in enumerate(picked):
        np.save(folder / f"{i}.npy", x[None, number, :, : sizes[number]])
    np.savez(runs / "rows.npz", x=x[picked], sizes=sizes[picked])
    np.savez(runs / "row.npz", x=x[picked[:1]], sizes=sizes[picked[:1]])
    lines = []
    for source in ("own", "rows.npz", "row.npz"):
        arguments = ["--workdir", runs / "first", "--input", runs / source, "--out", runs / "scores.csv"]
        status, _, error = call(capsys, *coarse, *arguments)
        assert status == 0, error
        lines.append([line.split(",") for line in (runs / "scores.csv").read_text().splitlines()])
    assert [line[0] for line in lines[0]] == ["item", "0.npy", "1.npy"]
    assert [line[1:] for line in lines[0]] == [line[1:] for line in lines[1]]
    assert float(lines[2][1][1]) == pytest.approx(float(lines[1][1][1]), rel=0.01)


def test_restored_items(runs, capsys):
    """Each has the half of its own size, and comes back with it; a measurement of all sees what is real."""
    found, last = both(runs, capsys, "--mode", "restore", "--num_samples", 6, "--steps", 3)
    masks, sizes = found["mask"].squeeze(1), found["sizes"]
    for mask, size, x, samples in zip(masks, sizes, found["x"], found["samples"], strict=True):
        assert mask.sum() == (size + 1) // 2
        assert mask[: (size + 1) // 2].all()
        np.testing.assert_array_equal(samples[..., mask], np.broadcast_to(x[..., mask], samples[..., mask].shape))
    assert not padding_of(found["samples"], sizes).any()
    assert last["observed"] == pytest.approx(np.mean((sizes + 1) // 2) / np.mean(sizes))
    hidden = [slice((size + 1) // 2, size) for size in sizes]
    pairs = [(found["samples"][i, :, 0, part], found["x"][i, 0, part]) for i, part in enumerate(hidden)]
    error = [(samples - x).ravel() for samples, x in pairs]
    items = load_dataset("points", root=str(runs / "first.npz"), test_fraction=0.25)[1].statistics
    expected = 10 * np.log10((items.high - items.low) ** 2 / np.square(np.concatenate(error)).mean())
    assert last["psnr"] == pytest.approx(expected, rel=1e-5)
    scores = [crps(torch.from_numpy(samples), torch.from_numpy(x)).numpy() for samples, x in pairs]
    assert last["crps"] == pytest.approx(np.concatenate(scores).mean(), rel=1e-5)
    assert [item["crps"] for item in last["items"]] == pytest.approx([score.mean() for score in scores], rel=1e-5)
    both(runs, capsys, "--mode", "restore", "--num_samples", 3, "--steps", 2, "--task", "sensing",
         "--num_measurements", 3, "--sigma_y", 0.1)  # fmt: skip
    np.savez(runs / "measured.npz", x=np.where(masks[:, None], found["x"], np.nan), sizes=sizes)
    measured, _ = both(runs, capsys, "--mode", "restore", "--measurements_file", runs / "measured.npz", "--steps", 3)
    np.testing.assert_array_equal(measured["samples"], found["samples"])
    np.save(runs / "measured.npy", found["x"])
    status, _, error = call(
        capsys, "--mode", "restore", "--workdir", runs / "first", "--measurements_file", runs / "measured.npy"
    )
    assert status == 2
    assert "that has their sizes beside x" in error


def test_given_items(runs, capsys):
    """Edited, encoded and interpolated at their own sizes; those of a file may all be shorter."""
    np.save(runs / "short.npy", series()[0][:2, :, :5])
    found, _ = both(runs, capsys, "--mode", "edit", "--input", runs / "short.npy", "--steps", 2)
    assert found["sizes"].tolist() == [5, 5]
    assert not found["x"][..., 5:].any()
    found, last = both(runs, capsys, "--mode", "encode", "--num_samples", 5)
    assert not padding_of(found["latent"], found["sizes"]).any()
    assert last["round_trip_error"] < 1e-2
    found, last = both(runs, capsys, "--mode", "interpolate", "--items", "0,1,2,3", "--frames", 3)
    held_out = load_dataset("points", root=str(runs / "first.npz"), test_fraction=0.25)[1]
    assert found["sizes"][:, [0, -1]].ravel().tolist() == held_out.sizes[:4].tolist()
    assert last["end_error"] < 1e-2
    found, _ = both(runs, capsys, "--mode", "interpolate", "--seed_pairs", "3,17", "--frames", 3)
    law = json.loads(
        json.dumps(law_of(load_dataset("points", root=str(runs / "first.npz"), test_fraction=0.25)[0].sizes))
    )
    assert found["sizes"][0, [0, -1]].tolist() == drawn_sizes(law, [3, 17]).tolist()
    np.save(runs / "long.npy", np.zeros((2, 1, 13)))
    status, _, error = call(capsys, "--mode", "edit", "--workdir", runs / "first", "--input", runs / "long.npy")
    assert status == 2
    assert f"--input={runs / 'long.npy'}: an item of shape (1, 13) has no size among items of shape (1, 12)" in error


def test_measured_and_compared(runs, capsys):
    """Evaluation, comparison and check see zeros in the place of what is padded, whatever the files hold."""
    metrics = ["--metrics", "frechet", "--subsamples", 10]
    found, last = both(runs, capsys, "--mode", "evaluate", "--num_samples", 60, "--steps", 2, *metrics)
    assert not padding_of(found["x"], found["sizes"]).any()
    again = call(
        capsys, "--mode", "evaluate", "--workdir", runs / "first", "--samples_file", runs / "first-out.npz", *metrics
    )[1]
    assert again["frechet"] == last["frechet"]
    with np.load(runs / "first-out.npz") as file:
        x, sizes = file["x"], file["sizes"]
    np.savez(runs / "dirty.npz", x=np.where(np.arange(12) < sizes[:, None, None], x, np.nan), sizes=sizes)
    again = call(
        capsys, "--mode", "evaluate", "--workdir", runs / "first", "--samples_file", runs / "dirty.npz", *metrics
    )[1]
    assert again["frechet"] == last["frechet"]
    values = []
    for name in ("first", "second"):
        status, _, error = call(capsys, "--mode", "compare", "--workdir", runs / name, "--samplers", "heun,ancestral",
                                "--nfe", 5, "--num_samples", 40, "--out", runs / f"{name}-compare")  # fmt: skip
        assert status == 0, error
        rows = json.loads((runs / f"{name}-compare.json").read_text())["rows"]
        values.append([(row["value"], row["error"]) for row in rows])
        status, line, error = call(capsys, "--mode", "check", "--workdir", runs / name)
        assert status == 0, error
        values[-1].append(str(line["findings"]))
    assert values[0] == values[1]


def test_files_of_unequal_items(tmp_path, runs):
    """A folder with an item in each file is the .npz of all with their sizes; smaller items of a file are padded."""
    x, sizes = series()
    folder = tmp_path / "series"
    folder.mkdir()
    for i, (item, size) in enumerate(zip(x, sizes, strict=True)):
        np.save(folder / f"{i:03d}.npy", item[:, :size].T)
    for one, other in zip(load_dataset("points", root=str(folder), channels="last"),
                          load_dataset("points", root=str(runs / "first.npz")), strict=True):  # fmt: skip
        assert torch.equal(one.items, other.items)
        assert torch.equal(one.sizes, other.sizes)
        assert one.transform == other.transform
    found, _, own = read_items("--input", str(runs / "second.npz"), (1, 12), None, KINDS["signal"])
    assert not padding_of(found, own).any()
    np.save(folder / "240.npy", np.zeros((5, 2)))
    with pytest.raises(ValueError, match=r"series: items have these axes and channels: \(2, 1\), \(2, 2\)"):
        load_dataset("points", root=str(folder), channels="last")
    (folder / "240.npy").write_bytes((folder / "000.npy").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"240.npy is not a readable"):
        load_dataset("points", root=str(folder), channels="last")
    np.save(tmp_path / "short.npy", x[:3, :, :7])
    found, _, own = read_items("--input", str(tmp_path / "short.npy"), (1, 12), None, KINDS["signal"], unequal=True)
    assert torch.equal(found[..., :7], torch.from_numpy(x[:3, :, :7]).float())
    assert not found[..., 7:].any()
    assert own.tolist() == [7, 7, 7]
    for bad, words in ((np.array([1.0, 2.0]), "have type float64"), (np.array([1, 9]), "run from 1 to 9")):
        np.savez(tmp_path / "bad.npz", x=np.zeros((2, 1, 4)), sizes=bad)
        with pytest.raises(ValueError, match=words):
            load_dataset("points", root=str(tmp_path / "bad.npz"))


def test_padding_and_trimming():
    items = [torch.ones(2, 3), 2 * torch.ones(2, 1), 3 * torch.ones(2, 4)]
    x, sizes = pad(items)
    assert x.shape == (3, 2, 4)
    assert sizes.tolist() == [3, 1, 4]
    assert x.sum() == 6 + 4 + 24
    assert all(torch.equal(a, b) for a, b in zip(trimmed(x, sizes), items, strict=True))
    assert pad([torch.ones(3)], (5,))[0].tolist() == [[1, 1, 1, 0, 0]]
    square, sizes = pad([torch.ones(1, 2, 2), torch.ones(1, 3, 4)])
    assert trim(square[0], int(sizes[0])).shape == (1, 2, 2)
    with pytest.raises(ValueError, match="of every axis behind"):
        pad([torch.ones(1, 2, 3), torch.ones(1, 4, 4)])


def test_operators_of_what_is_real():
    """A word for a mask is meant of the item; a linear operator sees zeros, and its adjoint is that."""
    sizes = torch.tensor([4, 7])
    for word in ("left", "right", "box", "random:0.5"):
        masks = read_mask(word, (2, 9), 3, sizes=sizes).mask
        for mask, size in zip(masks, sizes.tolist(), strict=True):
            assert torch.equal(mask[:, :size], read_mask(word, (2, size), 3).mask)
            assert not mask[:, size:].any()
    inside = torch.arange(9) < sizes[:, None, None]
    operator = OfReal(CompressedSensing((2, 9), 5), inside)
    x, y = (
        torch.randn(2, *shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(((2, 9), (5,)))
    )
    assert torch.equal(operator(torch.where(inside, x, torch.nan)), operator.operator(x * inside))
    torch.testing.assert_close((operator(x) * y).sum(1), (x * operator.adjoint(y)).flatten(1).sum(1))
    torch.testing.assert_close(operator.rows(torch.tensor([1]))(x[1:]), operator(x)[1:])
