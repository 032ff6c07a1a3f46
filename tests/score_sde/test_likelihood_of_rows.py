"""--mode likelihood --input FILE --out scores.csv: a line per row or file, with the values of the library."""

import csv
import math

import numpy as np
import pytest
import torch
from PIL import Image

from samplers import dequantized, log_likelihood
from sde.checkpoint.models import load_model
from tests.score_sde.runs import call, untrained


def scores(capsys, run, source, out, *flags):
    arguments = ["--mode", "likelihood", "--workdir", run.folder, "--input", source, "--out", out, *flags]
    status, result, error = call(capsys, *arguments)
    assert status == 0, error
    with open(out, newline="") as file:
        return list(csv.DictReader(file)), result


def test_a_line_for_each_row_of_a_table(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    run = untrained(tmp_path / "run", x)
    table = "a,b\n" + "".join(f"{a:.9g},{b:.9g}\n" for a, b in x[:3])
    (tmp_path / "rows.csv").write_text(table)
    np.savez(tmp_path / "rows.npz", x=x[:3])
    expected = log_likelihood(load_model(run.model_file), torch.from_numpy(x[:3]), rtol=1e-4, atol=1e-4, probes=None)
    for name in ("rows.csv", "rows.npz"):
        rows, result = scores(capsys, run, tmp_path / name, tmp_path / "scores.csv")
        assert [row["item"] for row in rows] == ["0", "1", "2"]
        np.testing.assert_allclose([float(row["nats"]) for row in rows], expected.nats, rtol=1e-4, atol=1e-4)
        assert {row["stderr"] for row in rows} == {"0"}, "the trace is exact"
        assert list(rows[0]) == ["item", "nats", "stderr"]
        assert (result["num_samples"], result["split"]) == (3, None)
    np.savez(tmp_path / "one.npz", x=x[:1])
    rows, result = scores(capsys, run, tmp_path / "one.npz", tmp_path / "scores.csv")
    assert float(rows[0]["nats"]) == pytest.approx(expected.nats[0].item(), abs=1e-3)
    assert len(rows) == result["num_samples"] == 1


def test_a_line_for_each_picture_of_a_folder(tmp_path, capsys):
    x = np.random.default_rng(1).integers(0, 16, (40, 1, 4, 4))
    run = untrained(tmp_path / "run", x, None, "--config.data.num_levels=16")
    (tmp_path / "pictures" / "more").mkdir(parents=True)
    for i, name in enumerate(("b.png", "a.png", "more/c.png")):
        Image.fromarray((x[i, 0] * 17).astype(np.uint8)).save(tmp_path / "pictures" / name)
    (tmp_path / "pictures" / "notes.txt").write_text("no item")
    loose = ["--rtol", 0.01, "--atol", 0.01]
    rows, _ = scores(capsys, run, tmp_path / "pictures", tmp_path / "scores.csv", "--probes", 0, *loose)
    assert [row["item"] for row in rows] == ["a.png", "b.png", "more/c.png"]
    model, items = load_model(run.model_file), torch.from_numpy(x[[1, 0, 2]]).float()
    expected = log_likelihood(model, dequantized(model.transform, items, 0), rtol=0.01, atol=0.01).nats
    np.testing.assert_allclose([float(row["nats"]) for row in rows], expected, rtol=1e-3, atol=1e-2)
    for row in rows:
        assert float(row["bits_per_dim"]) == pytest.approx(-float(row["nats"]) / (16 * math.log(2)), rel=1e-6)
    (tmp_path / "empty").mkdir()
    arguments = ["--mode", "likelihood", "--workdir", run.folder, "--input", tmp_path / "empty"]
    status, _, error = call(capsys, *arguments)
    assert status == 2
    assert "the folder holds no files of items" in error
