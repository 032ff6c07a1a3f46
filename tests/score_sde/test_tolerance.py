"""--tolerance: its sampler, its calls, and what it is refused beside."""

import json

import numpy as np
import pytest

from tests.score_sde.runs import call


def drawn(capsys, run, out, *flags):
    status, result, _ = call(capsys, "--mode", "sample", "--workdir", run, "--num_samples", 6, "--out", out, *flags)
    assert status == 0
    return np.load(f"{out}.npz"), result


def test_samples_to_a_tolerance(trained, tmp_path, capsys):
    """By adams unless another is named, each with its own calls; the same as by its options."""
    kept, result = drawn(capsys, trained, tmp_path / "a", "--tolerance", 0.03)
    assert result["sampler"] == "adams"
    assert json.loads(str(kept["settings"])) == result["settings"] == {"num_samples": "6", "tolerance": "0.03"}
    assert result["nfe"] == kept["nfe"].mean()
    same, _ = drawn(capsys, trained, tmp_path / "b", "--sampler", "adams", "--config.sampler.tolerance=0.03")
    assert np.array_equal(same["x"], kept["x"])
    finer, more = drawn(capsys, trained, tmp_path / "c", "--tolerance", 0.001)
    assert more["nfe"] > result["nfe"]
    assert np.abs(finer["x"].astype(float) - kept["x"]).mean() > 0
    ode, _ = drawn(capsys, trained, tmp_path / "d", "--tolerance", 0.03, "--sampler", "ode")
    options = ["--config.sampler.rtol=0.03", "--config.sampler.atol=0.03"]
    assert np.array_equal(drawn(capsys, trained, tmp_path / "e", "--sampler", "ode", *options)[0]["x"], ode["x"])


@pytest.mark.parametrize(("flags", "words"), [
    (["--tolerance", "0"], "--tolerance=0: needs a finite number above 0"),
    (["--tolerance", "-0.1"], "--tolerance=-0.1: needs a finite number"),
    (["--tolerance", "inf"], "--tolerance=inf: needs a finite number"),
    (["--tolerance", "nan"], "--tolerance=nan: needs a finite number"),
    (["--tolerance", "0.01", "--steps", "5"], "--tolerance=0.01 and --steps=5: "),
    (["--tolerance", "0.01", "--grid", "karras"], "--tolerance=0.01 and --grid=karras: "),
    (["--tolerance", "0.01", "--sampler", "heun"], "--sampler heun makes as many steps as it is told; take ode, adams, "
     "reverse_sde"),
    (["--tolerance", "0.01", "--sampler", "auto"], "--sampler auto makes as many steps as it is told; take "),
    (["--tolerance", "0.01", "--config.sampler.name=ddim"], "--sampler ddim makes as many steps"),
    (["--tolerance", "0.01", "--sampler", "ode", "--config.sampler.rtol=0.1"], "--config.sampler.rtol: both say"),
])  # fmt: skip
def test_refusals(trained, capsys, flags, words):
    status, _, message = call(capsys, "--mode", "sample", "--workdir", trained, *flags)
    assert status == 2
    assert words in message
